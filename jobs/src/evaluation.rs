//! Evaluation: answers to every record, compared with the right ones.

use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use multiway_data::{DataSource, Record};
use multiway_prompts::{InputValue, Inputs, Metric};
use serde::Serialize;
use serde_json::Value;

use crate::error::{JobError, file_error};
use crate::job::{Job, JobProgress};
use crate::journal::{Journal, read_rows, write_atomically};
use crate::report::{WorstCases, render};
use crate::row::Row;
use crate::scores::{MetricReport, Sample, compares_texts, report, score};
use crate::summary::EvaluationSummary;

/// The file of the rows, in the folder of an evaluation.
const RESULTS: &str = "results.jsonl";
/// The file of the figures.
const SUMMARY: &str = "summary.json";
/// The file for people.
const REPORT: &str = "report.html";

/// Says how a task is evaluated.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EvaluationOptions {
    /// The field that holds the right answer; without it, the one that the task's target names, or the target
    /// itself, rendered, where it makes the answer of something else.
    pub reference: Option<String>,
    /// The metrics; those of the task file if there are none.
    pub metrics: Vec<Metric>,
}

/// Says what an evaluation has written.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EvaluationReport {
    /// The figures.
    #[serde(flatten)]
    pub summary: EvaluationSummary,
    /// The folder with `results.jsonl`, `summary.json` and `report.html`.
    pub folder: PathBuf,
}

impl Job<'_> {
    /// Answers every record, compares the answers with the right ones, and writes rows, figures and a report
    /// to the folder `out`.
    ///
    /// An evaluation that was killed goes on where it was when it is run again, and writes the same bytes.
    ///
    /// # Errors
    ///
    /// As [`batch`](Self::batch), and when there are no right answers or no metrics.
    pub async fn evaluate(
        &self,
        source: &DataSource,
        model: &str,
        options: &EvaluationOptions,
        out: &Path,
        on_progress: impl FnMut(JobProgress),
    ) -> Result<EvaluationReport, JobError> {
        let metrics = self.metrics(options)?;
        let reference = self.reference(options)?;
        fs::create_dir_all(out).map_err(file_error("create", out))?;
        let results = out.join(RESULTS);
        let kind = format!("evaluate {}", reference.name());
        let journal = Journal::open(&results, self.identity(source, model, &kind)?)?;
        let complete = |record: &Record, row| match &reference {
            Reference::Field(field) => with_references(record, row, field),
            Reference::Target => self.with_target(record, row),
        };
        let finished = self.answer_all(source, journal, complete, on_progress).await?;
        let figures = figures(&finished.path, &metrics)?;
        if figures.samples == 0 && finished.failed == 0 {
            return Err(JobError::NoRecords);
        }
        let summary = EvaluationSummary {
            task: self.task.name().to_owned(),
            model: model.to_owned(),
            data: source.names(),
            records: finished.rows,
            failed: finished.failed,
            corrupt: finished.corrupt,
            metrics: figures.all,
            mean_of_groups: means(&figures.groups),
            groups: figures.groups,
        };
        let json = serde_json::to_vec_pretty(&summary).map_err(std::io::Error::from);
        let path = out.join(SUMMARY);
        write_atomically(&path, &json.map_err(file_error("write", &path))?)?;
        let worst = self.cases(source, figures.worst)?;
        write_atomically(&out.join(REPORT), render(self.task, &summary, &worst)?.as_bytes())?;
        let folder = out.to_owned();
        Ok(EvaluationReport { summary, folder })
    }

    fn metrics(&self, options: &EvaluationOptions) -> Result<Vec<Metric>, JobError> {
        let own = &self.task.file().metrics;
        let metrics = if options.metrics.is_empty() {
            own
        } else {
            &options.metrics
        };
        if metrics.is_empty() {
            return Err(JobError::NoMetric {
                task: self.task.name().to_owned(),
                known: Metric::ALL
                    .iter()
                    .map(|metric| metric.name().to_owned())
                    .collect(),
            });
        }
        if let Some(metric) = metrics.iter().find(|metric| !compares_texts(**metric)) {
            return Err(JobError::Metric {
                metric: metric.name().to_owned(),
            });
        }
        Ok(metrics.clone())
    }

    /// Says where the right answers are.
    fn reference(&self, options: &EvaluationOptions) -> Result<Reference, JobError> {
        if let Some(field) = &options.reference {
            return Ok(Reference::Field(field.clone()));
        }
        let file = self.task.file();
        let fields = file.target_fields();
        let is_one_field = matches!(fields, [field] if writes_field(file.target(), field));
        let has_pictures = file.inputs.values().any(|spec| spec.kind.is_picture());
        if !is_one_field && !has_pictures {
            return Ok(Reference::Target);
        }
        match fields {
            [field] => Ok(Reference::Field(field.clone())),
            fields => Err(JobError::WhichReference {
                task: self.task.name().to_owned(),
                fields: fields.to_vec(),
            }),
        }
    }
}

impl Job<'_> {
    /// Adds the rendered target to the row of a record, as the right answer.
    fn with_target(&self, record: &Record, mut row: Row) -> Result<Row, JobError> {
        let file = self.task.file();
        let mut fields = Inputs::new();
        for field in file.target_fields() {
            let Some(value) = record.value(field) else {
                return Err(JobError::NoReference {
                    field: field.clone(),
                    fields: record.fields().map(|(name, _)| name.to_owned()).collect(),
                });
            };
            fields.insert(field.clone(), field_value(value));
        }
        let target = self.binding.values(record).and_then(|values| {
            let target = file.render_target(&values, &fields, &[]);
            target.map_err(|error| error.to_string())
        });
        match target.map(|target| target.text()) {
            Ok(text) if !text.is_empty() => row.references = vec![text],
            _ if row.error.is_some() => {}
            Ok(_) => return Ok(Row::failed(row.id, row.group, "the target is empty".to_owned())),
            Err(error) => return Ok(Row::failed(row.id, row.group, format!("target: {error}"))),
        }
        Ok(row)
    }
}

/// Where the right answers are.
enum Reference {
    /// In a field, as text, as a number, or as a list of them.
    Field(String),
    /// In the task's target, which is made of several fields, or of one that is no answer itself.
    Target,
}

impl Reference {
    fn name(&self) -> &str {
        match self {
            Self::Field(field) => field,
            Self::Target => "{{ target }}",
        }
    }
}

/// Tells whether a target writes one field as it is, between special tokens or other text.
fn writes_field(target: &str, field: &str) -> bool {
    let mut tags = target.split("{{").skip(1);
    let inner = tags.next().and_then(|tag| Some(tag.split_once("}}")?.0.trim()));
    let inner = inner.map(|inner| inner.strip_suffix("| trim").unwrap_or(inner).trim());
    inner == Some(field) && tags.next().is_none() && !target.contains("{%")
}

/// Reads a field that the target is made of.
fn field_value(value: &Value) -> InputValue {
    match (value, value.as_i64(), value.as_f64()) {
        (Value::String(text), ..) => InputValue::Text(text.clone()),
        (Value::Bool(value), ..) => InputValue::Boolean(*value),
        (_, Some(whole), _) => InputValue::Integer(whole),
        (_, None, Some(number)) => InputValue::Number(number),
        _ => InputValue::Json(value.clone()),
    }
}

/// Adds the right answers to the row of a record.
fn with_references(record: &Record, mut row: Row, field: &str) -> Result<Row, JobError> {
    let Some(value) = record.value(field) else {
        return Err(JobError::NoReference {
            field: field.to_owned(),
            fields: record.fields().map(|(name, _)| name.to_owned()).collect(),
        });
    };
    row.references = texts_of(value);
    if row.references.is_empty() && row.error.is_none() {
        let reason =
            format!("the field '{field}' holds no right answer, a text or a number or a list of them");
        return Ok(Row::failed(row.id, row.group, reason));
    }
    Ok(row)
}

/// Lists the texts and numbers of a value, each of which is right.
fn texts_of(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Number(_) | Value::Bool(_) => vec![value.to_string()],
        Value::Array(items) => items.iter().flat_map(texts_of).collect(),
        Value::Null | Value::Object(_) => Vec::new(),
    }
}

/// The figures of finished results.
struct Figures {
    all: Vec<MetricReport>,
    groups: IndexMap<String, Vec<MetricReport>>,
    samples: usize,
    worst: WorstCases,
}

/// Computes the figures from the rows, in their order, so that they do not depend on interruptions.
fn figures(results: &Path, metrics: &[Metric]) -> Result<Figures, JobError> {
    let mut all = Vec::new();
    let mut groups: IndexMap<String, Vec<Sample>> = IndexMap::new();
    let mut worst = WorstCases::default();
    for row in read_rows(results)? {
        let row = row?;
        let Some(text) = row.text.clone().filter(|_| row.error.is_none()) else {
            worst.add_failed(&row);
            continue;
        };
        let sample = Sample {
            text,
            references: row.references.clone(),
        };
        if let Some(group) = &row.group {
            groups.entry(group.clone()).or_default().push(sample.clone());
        }
        if let Some(metric) = metrics.first() {
            worst.add(row, score(*metric, &sample));
        }
        all.push(sample);
    }
    groups.sort_keys();
    let reports = |samples: &[Sample]| metrics.iter().map(|metric| report(*metric, samples)).collect();
    Ok(Figures {
        all: reports(&all),
        groups: groups
            .iter()
            .map(|(name, samples)| (name.clone(), reports(samples)))
            .collect(),
        samples: all.len(),
        worst,
    })
}

/// Averages each metric over the groups, each group counted once.
fn means(groups: &IndexMap<String, Vec<MetricReport>>) -> IndexMap<String, f64> {
    let mut means: IndexMap<String, f64> = IndexMap::new();
    for report in groups.values().flatten() {
        *means.entry(report.metric.name().to_owned()).or_default() += report.value / groups.len() as f64;
    }
    means
}
