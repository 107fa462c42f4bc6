//! What can end a training run.

use std::path::PathBuf;

use crate::recipe::Kind;

/// What can end a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The prepared data has no training pictures, questions or texts.
    #[error("nothing to train on in {}: run `multiway train prepare` first", folder.display())]
    NothingToTrainOn {
        /// The folder.
        folder: PathBuf,
    },
    /// The visual codes belong to other pictures.
    #[error(
        "the visual codes are of {found} pictures, the data has {expected}: run `multiway train codes` again"
    )]
    Codes {
        /// How many pictures have codes.
        found: usize,
        /// How many pictures there are.
        expected: usize,
    },
    /// A run is resumed with other settings.
    #[error("{} was made with other settings; expected {expected}, found {found}", folder.display())]
    Settings {
        /// The run's folder.
        folder: PathBuf,
        /// The settings of this call.
        expected: String,
        /// The settings in the folder.
        found: String,
    },
    /// A stage asks for what the teacher says, and there is nothing of it.
    #[error(
        "stage '{stage}' asks for visual codes or features, and the prepared data has none: run `multiway train codes`, or set `loss` of the stage to codes = 0, features = 0, whole = 0"
    )]
    NoTeacher {
        /// The stage.
        stage: String,
    },
    /// A stage mixes in a kind of examples that the prepared data has none of.
    #[error(
        "stage '{stage}' mixes in {}, and the prepared data has none: prepare it again with --data, or take it out of `mix`",
        kind.name()
    )]
    NoExamples {
        /// The stage.
        stage: String,
        /// The kind.
        kind: Kind,
    },
    /// Training is to begin with the weights of a model of another shape.
    #[error("{} is a model of another shape than the recipe's", folder.display())]
    OtherModel {
        /// Its folder.
        folder: PathBuf,
    },
    /// The run's folder has no state yet.
    #[error("{} holds no training state: train first", folder.display())]
    NoState {
        /// The run's folder.
        folder: PathBuf,
    },
    /// A stage reads words, and there are no fonts to write them in.
    #[error("stage '{stage}' reads words, and {} has no fonts: prepare the data again", folder.display())]
    NoLetters {
        /// Which stage.
        stage: String,
        /// The folder of prepared data.
        folder: PathBuf,
    },
    /// A worker thread could not be started or broke down.
    #[error("a training thread failed: {reason}")]
    Worker {
        /// Why.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A step failed.
    #[error(transparent)]
    Forward(#[from] multiway_model::ForwardError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] multiway_model::ConfigError),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// The visual codes cannot be used.
    #[error(transparent)]
    Teacher(#[from] crate::teacher::TeacherError),
    /// A picture cannot be augmented.
    #[error(transparent)]
    Augment(#[from] crate::augment::AugmentError),
    /// A task file cannot be used.
    #[error(transparent)]
    Task(#[from] multiway_tasks::TaskError),
    /// A prompt cannot be rendered.
    #[error(transparent)]
    Prompt(#[from] multiway_prompts::PromptError),
    /// A text cannot be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] multiway_runtime::TokenizerError),
    /// The optimiser refused a step.
    #[error(transparent)]
    Optimizer(#[from] crate::optimizer::OptimizerError),
    /// A state cannot be saved or loaded.
    #[error(transparent)]
    State(#[from] crate::state::StateError),
    /// The loss cannot be logged.
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Load(#[from] multiway_model::LoadError),
    /// A checkpoint cannot be written.
    #[error(transparent)]
    Save(#[from] multiway_model::checkpoint::SaveError),
}
