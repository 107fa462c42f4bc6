//! What can go wrong with a task.

use std::io;
use std::path::PathBuf;

use multiway_prompts::PromptError;
use multiway_runtime::RequestError;
use thiserror::Error;

/// Says why a task could not be found, loaded or run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TaskError {
    /// There is no task of that name.
    #[error("unknown task '{name}'{} (tasks: {})", did_you_mean(suggestion.as_deref()), known.join(", "))]
    UnknownTask {
        /// The name that was given.
        name: String,
        /// What was probably meant.
        suggestion: Option<String>,
        /// The tasks that exist.
        known: Vec<String>,
    },
    /// A folder of task files cannot be read.
    #[error("cannot read the task folder '{path}'")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A task file cannot be read.
    #[error("cannot read the task file '{path}'")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Two files that the caller added define the same task.
    #[error(
        "the task '{name}' is defined twice, in '{first}' and in '{second}': rename or remove one of the two"
    )]
    Duplicate {
        /// The task.
        name: String,
        /// The file that was loaded first.
        first: String,
        /// The file that was loaded after it.
        second: String,
    },
    /// A task file, or the inputs for it, are wrong.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// More pictures are given than the task takes.
    #[error("the task '{task}' takes {takes}, found {found}: leave out the others")]
    SparePictures {
        /// The task.
        task: String,
        /// What it takes: `no picture`, `1 picture`, `up to 4 pictures`.
        takes: String,
        /// How many are given.
        found: usize,
    },
    /// An input names a picture that is not there.
    #[error(
        "the task '{task}': the input '{input}' names picture {index}, and there are {count}, counted from 0"
    )]
    NoSuchPicture {
        /// The task.
        task: String,
        /// The input.
        input: String,
        /// The picture that it names.
        index: usize,
        /// How many pictures there are.
        count: usize,
    },
    /// The prompt has neither text nor a picture.
    #[error("the task '{task}' got nothing to work on: give {wanted}")]
    NothingGiven {
        /// The task.
        task: String,
        /// What it works on.
        wanted: String,
    },
    /// A task that turns one thing into a vector was given several.
    #[error("the task '{task}' makes a vector of one thing, found several: give one of {wanted}")]
    TooMuchGiven {
        /// The task.
        task: String,
        /// What it works on.
        wanted: String,
    },
    /// A patch is to be hidden that the model's pictures do not have.
    #[error(
        "the task '{task}': cannot hide {found:?}: the model sees a picture as {grid} rows and {grid} columns of patches, counted from 0"
    )]
    NoSuchPatch {
        /// The task.
        task: String,
        /// The patches that were named.
        found: String,
        /// How many rows and columns a picture has.
        grid: usize,
    },
    /// The model's likelihoods are not numbers, so that nothing can be chosen.
    #[error("the task '{task}': the model's likelihood of {choice:?} is {value}; the checkpoint is broken")]
    NotANumber {
        /// The task.
        task: String,
        /// The answer whose likelihood is no number.
        choice: String,
        /// What was found.
        value: f32,
    },
    /// A picture of a worked example cannot be used.
    #[error("{origin}: example {number}: cannot use the picture '{path}'")]
    ExamplePicture {
        /// The task file.
        origin: String,
        /// The place of the example in the task file, counted from 1.
        number: usize,
        /// The picture.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The caller wants an answer of a form that the task's kind of answer cannot have.
    #[error(
        "the task '{task}' answers with {kind}: a regular expression, choices or a JSON schema go with tasks that write text"
    )]
    FormNotTaken {
        /// The task.
        task: String,
        /// The kind of its answer.
        kind: &'static str,
    },
    /// The caller wants several answers, or the likeliest tokens, of a task that writes no tokens.
    #[error(
        "the task '{task}' answers with {kind}: samples and the likeliest tokens go with tasks that write text"
    )]
    NothingDrawn {
        /// The task.
        task: String,
        /// The kind of its answer.
        kind: &'static str,
    },
    /// What was written as JSON is none.
    #[error("the task '{task}': the answer is no JSON: {found:?}")]
    NoJson {
        /// The task.
        task: String,
        /// What was written.
        found: String,
        /// Why it is none.
        #[source]
        source: serde_json::Error,
    },
    /// The engine refused the request, or failed on it.
    #[error(transparent)]
    Request(#[from] RequestError),
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion
        .map(|name| format!(": did you mean '{name}'?"))
        .unwrap_or_default()
}

impl TaskError {
    /// Tells whether the caller's input is at fault: another name, file or input would work.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Request(error) => error.is_caller_fault(),
            Self::NotANumber { .. } | Self::NoJson { .. } => false,
            _ => true,
        }
    }
}
