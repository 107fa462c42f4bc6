//! A batch: answers to every record, in a file.

use std::path::{Path, PathBuf};

use multiway_data::{Corrupt, DataSource, Record};
use serde::Serialize;

use crate::error::JobError;
use crate::job::{ChosenFrom, Job, JobProgress};
use crate::journal::Journal;

/// Says what a batch has written.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BatchReport {
    /// The file of the results, a line of JSON or a row of Parquet for each record.
    pub path: PathBuf,
    /// The records, failed ones included.
    pub records: usize,
    /// The records that have an error in place of an answer.
    pub failed: usize,
    /// The rows of the data that could not be read.
    pub corrupt: Vec<Corrupt>,
}

impl Job<'_> {
    /// Answers every record, and writes a [`Row`](crate::Row) for each to `out`, in the order of the data: a
    /// line of JSON, or where the name of `out` ends in `.parquet` a row of Parquet, with JSON in the columns
    /// `answer` and `references`.
    ///
    /// A batch that was killed goes on where it was when it is run again, and writes the same bytes.
    ///
    /// # Errors
    ///
    /// When `out` exists, when unfinished results in its place belong to another job, when the data cannot be
    /// read, when too many records fail, and when the engine stops.
    pub async fn batch(
        &self,
        source: &DataSource,
        model: &str,
        out: &Path,
        on_progress: impl FnMut(JobProgress),
    ) -> Result<BatchReport, JobError> {
        let journal = Journal::open(out, self.identity(source, model, "batch")?)?;
        let answer = async |record: &Record, choices: Option<&ChosenFrom>| self.answer(record, choices).await;
        let finished = self.answer_all(source, journal, answer, on_progress).await?;
        Ok(BatchReport {
            path: finished.path,
            records: finished.rows,
            failed: finished.failed,
            corrupt: finished.corrupt,
        })
    }
}
