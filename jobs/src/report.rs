//! The report of an evaluation: one HTML file that needs nothing else, with pictures of the worst cases.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use multiway_data::DataSource;
use multiway_tasks::Task;
use serde::Serialize;

use crate::binding::text_of;
use crate::error::JobError;
use crate::job::Job;
use crate::row::Row;
use crate::sample::candidates;
use crate::summary::EvaluationSummary;

/// How many of the worst cases are shown.
const SHOWN: usize = 24;

/// The largest picture that the report carries; of larger ones it gives the name.
const MAX_PICTURE_BYTES: usize = 512 * 1024;

const TEMPLATE: &str = include_str!("report.html.jinja");

/// The cases with the lowest scores, and those that failed.
///
/// Among equal scores, the case whose right answer was the least probable is the worst, and then the first in
/// the data.
#[derive(Debug, Default)]
pub(crate) struct WorstCases {
    /// Sorted by score, and by the probability of the right answer.
    cases: Vec<(f64, f64, Row)>,
    failed: Vec<Row>,
}

impl WorstCases {
    /// Keeps a case if it is among the worst.
    pub(crate) fn add(&mut self, row: Row, score: f64) {
        let probability = probability_of_right(&row);
        let place = self
            .cases
            .partition_point(|(other, of_right, _)| (*other, *of_right) <= (score, probability));
        if place < SHOWN {
            self.cases.insert(place, (score, probability, row));
            self.cases.truncate(SHOWN);
        }
    }

    /// Keeps a case without an answer, if there are few.
    pub(crate) fn add_failed(&mut self, row: &Row) {
        if self.failed.len() < SHOWN {
            self.failed.push(row.clone());
        }
    }
}

/// Returns the probability that the answer gives to the most probable right one among its choices; 0 if it
/// has no choices.
fn probability_of_right(row: &Row) -> f64 {
    let of_right = candidates(row).and_then(|(probabilities, right)| probabilities.get(right?).copied());
    of_right.unwrap_or(0.0)
}

/// A case, as the report shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Case {
    id: String,
    score: Option<f64>,
    group: Option<String>,
    answer: String,
    reference: String,
    error: Option<String>,
    inputs: IndexMap<String, String>,
    /// Pictures as `data:` addresses.
    pictures: Vec<String>,
    /// The names of pictures that are too large.
    left_out: Vec<String>,
}

impl Job<'_> {
    /// Reads the data again for the pictures and the inputs of the cases that are shown.
    ///
    /// `shown` are fields of the records that are shown beside the inputs.
    pub(crate) fn cases(
        &self,
        source: &DataSource,
        worst: WorstCases,
        shown: &[String],
    ) -> Result<Vec<Case>, JobError> {
        let failed = worst.failed.into_iter().map(|row| (None, row));
        let rows = worst.cases.into_iter().map(|(score, _, row)| (Some(score), row));
        let mut cases: Vec<Case> = failed.chain(rows).map(|(score, row)| case(score, row)).collect();
        let mut missing = cases.len();
        for record in source.records(None)? {
            if missing == 0 {
                break;
            }
            let record = record?;
            if !self.takes(&record) {
                continue;
            }
            for case in cases.iter_mut().filter(|case| case.id == record.id()) {
                missing -= 1;
                case.inputs = self.binding.shown(&record);
                case.inputs.extend(shown.iter().map(|field| {
                    let value = record.value(field).map_or_else(|| "(none)".to_owned(), text_of);
                    (field.clone(), value)
                }));
                for picture in self.binding.all_pictures(&record) {
                    match picture.read().ok().and_then(|bytes| data_address(&bytes)) {
                        Some(address) => case.pictures.push(address),
                        None => case.left_out.push(picture.name().to_owned()),
                    }
                }
            }
        }
        Ok(cases)
    }
}

fn case(score: Option<f64>, row: Row) -> Case {
    Case {
        reference: reference(&row),
        id: row.id,
        score,
        group: row.group,
        answer: row.text.unwrap_or_default(),
        error: row.error,
        inputs: IndexMap::new(),
        pictures: Vec::new(),
        left_out: Vec::new(),
    }
}

/// Writes the right answers.
fn reference(row: &Row) -> String {
    match &row.boxes {
        Some(boxes) => serde_json::to_string(boxes).unwrap_or_default(),
        None => row.references.join(" / "),
    }
}

/// Writes a picture as a `data:` address, if it is of a kind that browsers show, and not too large.
fn data_address(bytes: &[u8]) -> Option<String> {
    if bytes.len() > MAX_PICTURE_BYTES {
        return None;
    }
    let kind = match bytes {
        [0x89, b'P', b'N', b'G', ..] => "png",
        [0xFF, 0xD8, 0xFF, ..] => "jpeg",
        [b'G', b'I', b'F', b'8', ..] => "gif",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "webp",
        [b'B', b'M', ..] => "bmp",
        _ => return None,
    };
    Some(format!("data:image/{kind};base64,{}", STANDARD.encode(bytes)))
}

/// Renders the report. All that comes from the data is escaped.
pub(crate) fn render(task: &Task, summary: &EvaluationSummary, cases: &[Case]) -> Result<String, JobError> {
    let mut env = Environment::new();
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.add_filter("figure", |value: f64| format!("{value:.3}"));
    env.add_filter("percent", |value: f64| {
        format!("{:.1}", value.clamp(0.0, 1.0) * 100.0)
    });
    let values = minijinja::context! {
        task => task.name(),
        description => task.description(),
        summary => Serde(summary),
        cases => Serde(cases),
    };
    env.render_str(TEMPLATE, values).map_err(JobError::Report)
}
