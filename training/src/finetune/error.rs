//! What can end fine-tuning.

use std::path::PathBuf;

use multiway_jobs::{JobError, UnusableRecord};

/// What can end fine-tuning.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FinetuneError {
    /// The state of the best weights is not there, or is another.
    #[error("{} does not hold the weights of validation loss {loss:.4}: begin the run anew", folder.display())]
    BestLost {
        /// Where it was expected.
        folder: PathBuf,
        /// The lowest loss.
        loss: f64,
    },
    /// The answers of the task are no text that a model could be trained to write.
    #[error(
        "the task '{task}' answers with {kind}: fine-tuning takes text, choice, predicate, level, labels, number, table and json"
    )]
    Kind {
        /// The task.
        task: String,
        /// The kind of its output.
        kind: &'static str,
    },
    /// The model writes no text, or not in a way that can be differentiated.
    #[error("'{model}' cannot be trained on the task '{task}': {reason}")]
    Model {
        /// The checkpoint.
        model: String,
        /// The task.
        task: String,
        /// Why.
        reason: &'static str,
    },
    /// Linear layers are stored as the CPU reads them.
    #[error("'{model}' is packed, and packed weights cannot be trained: fine-tune the original")]
    Packed {
        /// The checkpoint.
        model: String,
    },
    /// The data has no record that can be trained on.
    #[error("no record of the data can be used{}", first.as_ref().map(|first| format!("; the first of {unusable} that cannot: {first}")).unwrap_or_default())]
    NoExamples {
        /// How many records cannot be used.
        unusable: usize,
        /// The first of them.
        first: Option<UnusableRecord>,
    },
    /// Too many records cannot be used.
    #[error(
        "{unusable} records cannot be used, and at most {most} may be; the first: {first}; the last: {last}"
    )]
    TooManyUnusable {
        /// How many were found.
        unusable: usize,
        /// How many may be.
        most: usize,
        /// The first.
        first: UnusableRecord,
        /// The last.
        last: UnusableRecord,
    },
    /// The pictures do not fit into memory.
    #[error("the pictures of the data take more than {most} bytes in memory: take fewer records")]
    TooLarge {
        /// How many bytes they may take.
        most: usize,
    },
    /// All records validate.
    #[error(
        "no record is left to train on: all {validation} validate; take more data, or a smaller share of it"
    )]
    NothingToTrainOn {
        /// How many validate.
        validation: usize,
    },
    /// A run is resumed with other settings.
    #[error(
        "the run in '{}' was begun with other settings: {}; finish it as it was begun, or name another folder",
        folder.display(),
        different.join(", ")
    )]
    Settings {
        /// The run's folder.
        folder: PathBuf,
        /// What differs, and how.
        different: Vec<String>,
    },
    /// The loss is no number.
    #[error("the loss at step {step} is {loss}: lower the learning rate")]
    NotFinite {
        /// The step.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// A thread could not be started or broke down.
    #[error("a training thread failed: {reason}")]
    Worker {
        /// Why.
        reason: String,
    },
    /// A folder could not be made.
    #[error("cannot {action} '{}'", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The data cannot be read.
    #[error(transparent)]
    Job(#[from] JobError),
    /// A weight cannot be read.
    #[error(transparent)]
    Load(#[from] multiway_model::LoadError),
    /// A step failed.
    #[error(transparent)]
    Forward(#[from] multiway_model::ForwardError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// The optimiser refused a step.
    #[error(transparent)]
    Optimizer(#[from] crate::optimizer::OptimizerError),
    /// A state cannot be saved or loaded.
    #[error(transparent)]
    State(#[from] crate::state::StateError),
    /// The loss cannot be logged.
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
}

impl FinetuneError {
    /// Returns whether the caller's input is at fault: other data or settings would work.
    #[must_use]
    pub fn is_input(&self) -> bool {
        match self {
            Self::Job(error) => error.is_input(),
            Self::Kind { .. }
            | Self::Model { .. }
            | Self::Packed { .. }
            | Self::NoExamples { .. }
            | Self::TooManyUnusable { .. }
            | Self::TooLarge { .. }
            | Self::NothingToTrainOn { .. }
            | Self::Settings { .. }
            | Self::NotFinite { .. } => true,
            _ => false,
        }
    }
}
