//! Curation: texts that fit their pictures are kept, others are written anew or dropped.
//!
//! How well a text fits is how much more probable the picture makes it, in nats: its log-likelihood under the
//! task's prompt, less that under the same prompt with a blank picture. A text that is probable of any
//! picture gains nothing by this one; a text of another picture loses.
//!
//! Source: the filter and the captioner of Li et al. 2022, BLIP (arXiv 2201.12086), section 3.3, with one
//! model for both and likelihoods in place of a matching head.

use std::path::{Path, PathBuf};

use multiway_data::{Corrupt, DataSource, Field, Record};
use multiway_model::ProcessedImage;
use multiway_prompts::OutputSpec;
use multiway_tasks::{TaskError, TaskInputs};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::JobError;
use crate::job::{ChosenFrom, Job, JobProgress, chain_of};
use crate::journal::{Journal, read_rows};
use crate::right_answers::texts_of;
use crate::row::Row;
use crate::table::is_table;

/// Says which texts are kept.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CurationOptions {
    /// The field with the text of each record; that of the task's target, if it is not said.
    pub text: Option<String>,
    /// The least fit of a text that is kept, in nats.
    pub least_fit: f32,
    /// Whether a text that does not fit is replaced by what the task writes, where that does.
    pub rewrite: bool,
}

impl Default for CurationOptions {
    fn default() -> Self {
        Self {
            text: None,
            least_fit: 0.0,
            rewrite: true,
        }
    }
}

/// What becomes of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It fits.
    Kept,
    /// It does not fit, and what the task wrote does.
    Rewritten,
    /// Neither fits.
    Dropped,
}

/// Says what a curation has written.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CurationReport {
    /// The file of the results, a line of JSON for each record.
    pub path: PathBuf,
    /// The records, failed ones included.
    pub records: usize,
    /// The records whose text was kept.
    pub kept: usize,
    /// The records whose text was written anew.
    pub rewritten: usize,
    /// The records that have no text that fits.
    pub dropped: usize,
    /// The records that could not be judged.
    pub failed: usize,
    /// The rows of the data that could not be read.
    pub corrupt: Vec<Corrupt>,
}

impl Job<'_> {
    /// Judges the text of every record by its pictures, and writes a row for each to `out`, in the order of
    /// the data: `text` is the text to go on with, and `answer` holds the verdict, the fit of the given and
    /// of the written text, and the record's own values under `record`.
    ///
    /// A curation that was killed goes on where it was when it is run again, and writes the same bytes.
    ///
    /// # Errors
    ///
    /// As [`batch`](Self::batch), and when the task writes no text or takes no pictures, or there is no field
    /// with texts.
    pub async fn curate(
        &self,
        source: &DataSource,
        model: &str,
        options: &CurationOptions,
        out: &Path,
        on_progress: impl FnMut(JobProgress),
    ) -> Result<CurationReport, JobError> {
        let field = self.text_field(options)?;
        if is_table(out) {
            return Err(JobError::NotLines { path: out.to_owned() });
        }
        let kind = format!("curate {field} {} {}", options.least_fit, options.rewrite);
        let journal = Journal::open(out, self.identity(source, model, &kind)?)?;
        let judge = async |record: &Record, _: Option<&ChosenFrom>| self.judge(record, &field, options).await;
        let finished = self.answer_all(source, journal, judge, on_progress).await?;
        let mut report = CurationReport {
            records: finished.rows,
            kept: 0,
            rewritten: 0,
            dropped: 0,
            failed: finished.failed,
            corrupt: finished.corrupt,
            path: finished.path,
        };
        for row in read_rows(&report.path)? {
            match verdict_of(&row?) {
                Some(Verdict::Kept) => report.kept += 1,
                Some(Verdict::Rewritten) => report.rewritten += 1,
                Some(Verdict::Dropped) => report.dropped += 1,
                None => {}
            }
        }
        Ok(report)
    }

    /// Names the field with the texts, and checks that the task can judge them.
    fn text_field(&self, options: &CurationOptions) -> Result<String, JobError> {
        let file = self.task.file();
        let has_pictures = file.inputs.values().any(|spec| spec.kind.is_picture());
        if !has_pictures || !matches!(file.output, OutputSpec::Text { fill: None }) {
            return Err(JobError::NotCurated {
                task: self.task.name().to_owned(),
            });
        }
        match (&options.text, file.target_fields()) {
            (Some(field), _) => Ok(field.clone()),
            (None, [field]) => Ok(field.clone()),
            (None, _) => Err(JobError::WhichText {
                task: self.task.name().to_owned(),
            }),
        }
    }

    async fn judge(&self, record: &Record, field: &str, options: &CurationOptions) -> Result<Row, JobError> {
        let (id, group) = (record.id().to_owned(), self.group_of(record));
        let given = texts_of(text_value(record, field)?, &self.task.file().output);
        let Some(given) = given.into_iter().next().filter(|text| !text.trim().is_empty()) else {
            return Ok(Row::failed(id, group, format!("'{field}' has no text")));
        };
        let inputs = match self.binding.inputs(record, &self.processor, None) {
            Ok(inputs) => inputs,
            Err(error) => return Ok(Row::failed(id, group, error)),
        };
        match self.judged(&inputs, &given, options).await {
            Ok(judged) => Ok(judged.row(id, group, &given, values_of(record))),
            Err(TaskError::Request(multiway_runtime::RequestError::ShutDown)) => {
                Err(TaskError::Request(multiway_runtime::RequestError::ShutDown).into())
            }
            Err(error) => Ok(Row::failed(id, group, chain_of(&error))),
        }
    }

    async fn judged(
        &self,
        inputs: &TaskInputs,
        given: &str,
        options: &CurationOptions,
    ) -> Result<Judged, TaskError> {
        let fit = self.fit(inputs, given).await?;
        if fit >= options.least_fit {
            return Ok(Judged {
                verdict: Verdict::Kept,
                fit,
                written: None,
            });
        }
        if !options.rewrite {
            return Ok(Judged {
                verdict: Verdict::Dropped,
                fit,
                written: None,
            });
        }
        let outcome = self.task.run(self.engine, inputs)?.wait().await?;
        let written = outcome.answer.text().unwrap_or_default().trim().to_owned();
        let fits = if written.is_empty() {
            f32::NEG_INFINITY
        } else {
            self.fit(inputs, &written).await?
        };
        let verdict = if fits >= options.least_fit {
            Verdict::Rewritten
        } else {
            Verdict::Dropped
        };
        Ok(Judged {
            verdict,
            fit,
            written: Some((written, fits)),
        })
    }

    /// Tells how much more probable the pictures make a text than blank ones, in nats.
    async fn fit(&self, inputs: &TaskInputs, text: &str) -> Result<f32, TaskError> {
        let mut blank = inputs.clone();
        for image in &mut blank.images {
            *image = ProcessedImage::from_pixels(vec![0.0; image.pixels().len()]);
        }
        let seen = self.likelihood(inputs, text).await?;
        Ok(seen - self.likelihood(&blank, text).await?)
    }

    async fn likelihood(&self, inputs: &TaskInputs, text: &str) -> Result<f32, TaskError> {
        let prepared = self.task.prepare(self.engine.tokenizer(), inputs)?;
        prepared.log_likelihood(self.engine, text).await
    }
}

/// Returns the value of the field with the texts.
fn text_value<'r>(record: &'r Record, field: &str) -> Result<&'r Value, JobError> {
    record.value(field).ok_or_else(|| JobError::NoText {
        field: field.to_owned(),
        fields: record.fields().map(|(name, _)| name.to_owned()).collect(),
    })
}

/// A text that was judged.
struct Judged {
    verdict: Verdict,
    fit: f32,
    /// What the task wrote in its place, and how well that fits.
    written: Option<(String, f32)>,
}

impl Judged {
    fn row(self, id: String, group: Option<String>, given: &str, record: Map<String, Value>) -> Row {
        let mut row = Row::failed(id, group, String::new());
        row.error = None;
        row.text = match (self.verdict, &self.written) {
            (Verdict::Kept, _) => Some(given.to_owned()),
            (Verdict::Rewritten, Some((written, _))) => Some(written.clone()),
            _ => None,
        };
        row.answer.insert("verdict".to_owned(), json!(self.verdict));
        row.answer.insert("fit".to_owned(), json!(self.fit));
        if let Some((written, fit)) = self.written {
            row.answer.insert("written".to_owned(), json!(written));
            row.answer.insert("written_fit".to_owned(), json!(fit));
        }
        row.answer.insert("record".to_owned(), Value::Object(record));
        row
    }
}

/// Reads the verdict of a row; none where it failed.
fn verdict_of(row: &Row) -> Option<Verdict> {
    serde_json::from_value(row.answer.get("verdict")?.clone()).ok()
}

/// Lists the values of a record that are no pictures.
fn values_of(record: &Record) -> Map<String, Value> {
    let values = record.fields().filter_map(|(name, field)| match field {
        Field::Value(value) => Some((name.to_owned(), value.clone())),
        _ => None,
    });
    values.collect()
}
