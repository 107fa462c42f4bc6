//! Errors of tasks.

use std::io;
use std::path::PathBuf;

use multiway_prompts::PromptError;
use multiway_runtime::RequestError;
use thiserror::Error;

/// Reports why a task could not be found, loaded or run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TaskError {
    /// There is no task of that name.
    #[error("unknown task '{name}'{} (tasks: {})", did_you_mean(suggestion.as_deref()), known.join(", "))]
    UnknownTask {
        /// The name that was given.
        name: String,
        /// The nearest known name, if one is near enough.
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
    /// A task file has settings for a model family that there is not.
    #[error(
        "{origin}: preprocessing.{name}: there is no model family '{name}'{} (families: {})",
        did_you_mean(suggestion.as_deref()),
        known.join(", ")
    )]
    UnknownFamily {
        /// The task file.
        origin: String,
        /// The name that it has.
        name: String,
        /// The nearest known name, if one is near enough.
        suggestion: Option<String>,
        /// The families that there are.
        known: Vec<String>,
    },
    /// Something is wrong with a few-shot example.
    #[error("shot {number}: {source}")]
    Shot {
        /// The number of the shot, counted from 1.
        number: usize,
        /// What is wrong.
        source: Box<Self>,
    },
    /// The task file has few-shot examples with pictures, which nobody has opened.
    #[error(
        "the few-shot examples of the task '{task}' have pictures: open them with `Task::open_shots`, or give no shots"
    )]
    ShotsNotOpen {
        /// The task.
        task: String,
    },
    /// Few-shot examples are given for a task whose answer is not written after the prompt.
    #[error("the task '{task}' answers with {kind}, which takes no few-shot examples")]
    NoShots {
        /// The task.
        task: String,
        /// What it answers with.
        kind: &'static str,
    },
    /// The pictures of the few-shot examples and of the request are more than the model takes.
    #[error(
        "the task '{task}': {shots} shots and the request have {pictures} pictures together, and the model takes at most \
         {limit}: give at most {fit} of the shots (--shots {fit})"
    )]
    TooManyShotPictures {
        /// The task.
        task: String,
        /// The number of shots.
        shots: usize,
        /// The number of pictures of them and of the request.
        pictures: usize,
        /// The most pictures that the model takes.
        limit: usize,
        /// The number of shots whose pictures the model takes beside those of the request.
        fit: usize,
    },
    /// A task file, or the inputs for it, are wrong.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// More pictures are given than the task has inputs for.
    #[error("the task '{task}' takes {takes}, found {found}: leave out the others")]
    SparePictures {
        /// The task.
        task: String,
        /// The number of pictures that it takes, in words: `no picture`, `1 picture`, `4 pictures`.
        takes: String,
        /// The number of pictures given.
        found: usize,
    },
    /// An input refers to a picture index that does not exist.
    #[error(
        "the task '{task}': the input '{input}' names picture {index}, and there are {count}, counted from 0"
    )]
    NoSuchPicture {
        /// The task.
        task: String,
        /// The input.
        input: String,
        /// The index that it refers to.
        index: usize,
        /// The number of pictures.
        count: usize,
    },
    /// The prompt has neither text nor a picture.
    #[error("the task '{task}' got nothing to work on: give {wanted}")]
    NothingGiven {
        /// The task.
        task: String,
        /// The names of its inputs.
        wanted: String,
    },
    /// A task that embeds one input was given several.
    #[error("the task '{task}' makes a vector of one thing, found several: give one of {wanted}")]
    TooMuchGiven {
        /// The task.
        task: String,
        /// The names of its inputs.
        wanted: String,
    },
    /// A patch to hide lies outside of the model's grid of patches.
    #[error(
        "the task '{task}': cannot hide {found:?}: the model sees a picture as {grid} rows and {grid} columns of patches, counted from 0"
    )]
    NoSuchPatch {
        /// The task.
        task: String,
        /// The requested patches.
        found: String,
        /// The number of rows, and of columns, of the grid.
        grid: usize,
    },
    /// A likelihood is NaN, so that candidates cannot be ranked.
    #[error("the task '{task}': the model's likelihood of {choice:?} is {value}; the checkpoint is broken")]
    NotANumber {
        /// The task.
        task: String,
        /// The candidate.
        choice: String,
        /// Its likelihood.
        value: f32,
    },
    /// A picture of a worked or few-shot example cannot be used.
    #[error("{origin}: {example}: cannot use the picture '{path}'")]
    ExamplePicture {
        /// The task file.
        origin: String,
        /// Which example it is: `example 1`, `shot 2`, counted from 1.
        example: String,
        /// The picture.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A constraint is given for a task whose output cannot be constrained.
    #[error(
        "the task '{task}' answers with {kind}: a regular expression, choices or a JSON schema go with tasks that write text"
    )]
    FormNotTaken {
        /// The task.
        task: String,
        /// The kind of its answer.
        kind: &'static str,
    },
    /// Samples or top-k alternatives are requested from a task that does not generate text.
    #[error(
        "the task '{task}' answers with {kind}: samples and the likeliest tokens go with tasks that write text"
    )]
    NothingDrawn {
        /// The task.
        task: String,
        /// The kind of its answer.
        kind: &'static str,
    },
    /// The generated text is not valid JSON.
    #[error("the task '{task}': the answer is no JSON: {found:?}")]
    NoJson {
        /// The task.
        task: String,
        /// The generated text.
        found: String,
        /// The error of the parser.
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
    /// Returns whether the caller's input is at fault: another name, file or input would work.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = multiway_tasks::TaskLibrary::new().get("caption").unwrap_err();
    /// assert!(error.is_input());
    /// ```
    pub fn is_input(&self) -> bool {
        match self {
            Self::Request(error) => error.is_caller_fault(),
            Self::NotANumber { .. } | Self::NoJson { .. } => false,
            _ => true,
        }
    }
}
