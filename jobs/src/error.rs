//! Errors of jobs.

use std::io;
use std::path::{Path, PathBuf};

use multiway_data::DataError;
use multiway_tasks::TaskError;
use thiserror::Error;

/// Reports why a job could not start, or stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JobError {
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The task cannot be run.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A file of the job cannot be read or written.
    #[error("cannot {action} '{path}'")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The results are there already.
    #[error("'{path}' exists already: remove it, or write the results elsewhere")]
    Exists {
        /// The file of the results.
        path: PathBuf,
    },
    /// The unfinished results belong to another job.
    #[error("'{path}' was begun with another {what}: finish it as it was begun, or remove it to begin anew")]
    OtherJob {
        /// The file of the state.
        path: PathBuf,
        /// What is different: the task, the model, the data or the options.
        what: &'static str,
    },
    /// The state of the unfinished results is damaged.
    #[error("'{path}' is not the state of a job ({reason}): remove it to begin anew")]
    State {
        /// The file of the state.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An input of the task has no field in the data.
    #[error(
        "the data has no field for the input '{input}' of the task '{task}': map one with `{input}=FIELD` (fields: {})",
        fields.join(", ")
    )]
    NoField {
        /// The task.
        task: String,
        /// The input.
        input: String,
        /// The fields of the first record.
        fields: Vec<String>,
    },
    /// The task does not say how well a text fits pictures.
    #[error("the task '{task}' writes no text about pictures: texts are curated by a task such as 'caption'")]
    NotCurated {
        /// The task.
        task: String,
    },
    /// The results of a curation are asked for as a table.
    #[error("expected a JSONL file to write to, found '{path}'")]
    NotLines {
        /// The file.
        path: PathBuf,
    },
    /// There is no field with the texts.
    #[error(
        "the data has no field '{field}' with the texts: name it with `--text FIELD` (fields: {})",
        fields.join(", ")
    )]
    NoText {
        /// The field that was looked for.
        field: String,
        /// The fields of the record.
        fields: Vec<String>,
    },
    /// It is not said which field has the texts.
    #[error("the task '{task}' does not say which field has the texts: name it with `--text FIELD`")]
    WhichText {
        /// The task.
        task: String,
    },
    /// There is nothing to compare answers with.
    #[error(
        "the data has no field '{field}' with the right answers: name it with `--reference FIELD` (fields: {})",
        fields.join(", ")
    )]
    NoReference {
        /// The field that was looked for.
        field: String,
        /// The fields of the first record.
        fields: Vec<String>,
    },
    /// The right answer is made of several fields.
    #[error("the target of the task '{task}' has the fields {}: name one with `--reference FIELD`", fields.join(", "))]
    WhichReference {
        /// The task.
        task: String,
        /// The fields of its target.
        fields: Vec<String>,
    },
    /// A metric compares what the task does not answer.
    #[error(
        "the metric '{metric}' does not fit the task '{task}', whose output is of kind {kind}: it fits {}{}",
        fits.join(", "),
        if fits.contains(kind) { ", whose answers are all ranked (not `method: trie`)" } else { "" }
    )]
    Metric {
        /// The metric.
        metric: String,
        /// The task.
        task: String,
        /// The kind of its output.
        kind: &'static str,
        /// The kinds that the metric fits.
        fits: &'static [&'static str],
    },
    /// Metrics of boxes and of texts want different right answers.
    #[error(
        "metrics of boxes and of texts have no right answers in common: evaluate with one sort of them at a time"
    )]
    MixedMetrics,
    /// A task that makes vectors does not make them of pictures and of texts alone.
    #[error(
        "the task '{task}' does not make vectors of pictures and of texts: that takes one input of type images, and one of type text with a default"
    )]
    NoPairs {
        /// The task.
        task: String,
    },
    /// There are too few records to fit a temperature and to test it.
    #[error(
        "{records} records have a right answer among those to choose from, {fitted} of them to fit and {tested} to test: expected some of both, take more data"
    )]
    TooFewRecords {
        /// The records that can be used.
        records: usize,
        /// Those to fit.
        fitted: usize,
        /// Those to test.
        tested: usize,
    },
    /// Too many records failed.
    #[error("{failed} records failed, and at most {most} may; the last: {last}")]
    TooManyFailed {
        /// How many failed.
        failed: usize,
        /// How many may.
        most: usize,
        /// The last one, and what is wrong with it.
        last: String,
    },
    /// The task has no metric that fits, and none was asked for.
    #[error("the task '{task}' declares no metrics: name some with `--metric` (metrics: {})", known.join(", "))]
    NoMetric {
        /// The task.
        task: String,
        /// The metrics that there are.
        known: Vec<String>,
    },
    /// The answers to choose from are no list that the caller gives.
    #[error("the task '{task}' takes no list of answers to choose from: its output has no `choices_from`")]
    NoChoices {
        /// The task.
        task: String,
    },
    /// No record is left to evaluate.
    #[error("no record of the data is taken: are the names and values of `--where` right?")]
    NoRecords,
    /// The distinct values of a field are more than a list may hold.
    #[error("the field '{field}' has more than {most} different values{}", group.as_ref().map(|group| format!(" in the group '{group}'")).unwrap_or_default())]
    TooManyChoices {
        /// The field.
        field: String,
        /// The group of records, if there are groups.
        group: Option<String>,
        /// How many there may be.
        most: usize,
    },
    /// A report cannot be rendered.
    #[error("cannot render the report")]
    Report(#[source] minijinja::Error),
}

impl JobError {
    /// Returns whether the caller's input is at fault: another file or option would work.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = multiway_jobs::JobError::Exists { path: "out.jsonl".into() };
    /// assert!(error.is_input());
    /// ```
    pub fn is_input(&self) -> bool {
        match self {
            Self::Task(error) => error.is_input(),
            Self::File { .. } | Self::Report(_) => false,
            _ => true,
        }
    }
}

/// Makes the error of a file from the system's.
pub(crate) fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JobError {
    let path = path.to_owned();
    move |source| JobError::File { action, path, source }
}
