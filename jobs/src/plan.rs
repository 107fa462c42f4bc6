//! What an evaluation compares: which metrics, and what the right answers of a record are.

use multiway_data::Record;
use multiway_prompts::{BoxUnit, Compared, Metric, OutputSpec};
use serde_json::Value;

use crate::boxes::read_boxes;
use crate::error::JobError;
use crate::job::Job;
use crate::pairs::PairInputs;
use crate::row::Row;

/// Says how a task is evaluated.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EvaluationOptions {
    /// The field that holds the right answer; without it, the one that the task's target names. Of a task
    /// that makes vectors, the field with the texts of a picture; without it, the field of the input.
    pub reference: Option<String>,
    /// The metrics; those of the task file if there are none.
    pub metrics: Vec<Metric>,
    /// The unit of right boxes that do not name theirs.
    pub box_unit: BoxUnit,
    /// Fields of the records that the report shows with each case, such as a licence or an author.
    pub shown: Vec<String>,
}

/// The metrics of an evaluation, and where right answers are.
#[derive(Debug)]
pub(crate) struct Plan<'t> {
    pub(crate) metrics: Vec<Metric>,
    pub(crate) output: &'t OutputSpec,
    /// The inputs for pictures and texts, of a task that makes vectors.
    pub(crate) pairs: Option<PairInputs>,
    /// The field with the right answers.
    reference: String,
    /// The unit of boxes, if boxes are compared.
    boxes: Option<BoxUnit>,
}

impl Job<'_> {
    /// Checks that the metrics fit the task, and finds what they compare answers with.
    pub(crate) fn plan(&self, options: &EvaluationOptions) -> Result<Plan<'_>, JobError> {
        let metrics = self.metrics(options)?;
        let output = &self.task.file().output;
        let compares = |what| metrics.iter().any(|metric| metric.compares() == what);
        if compares(Compared::Boxes) && compares(Compared::Texts) {
            return Err(JobError::MixedMetrics);
        }
        let boxes = compares(Compared::Boxes).then_some(options.box_unit);
        let pairs = match output {
            OutputSpec::Embedding => Some(self.pair_inputs(options.reference.as_deref())?),
            _ => None,
        };
        let reference = match &pairs {
            Some(pairs) => pairs.texts.clone(),
            None => self.reference(options.reference.as_deref())?,
        };
        Ok(Plan {
            metrics,
            output,
            pairs,
            reference,
            boxes,
        })
    }

    fn metrics(&self, options: &EvaluationOptions) -> Result<Vec<Metric>, JobError> {
        let file = self.task.file();
        let metrics = if options.metrics.is_empty() {
            &file.metrics
        } else {
            &options.metrics
        };
        if metrics.is_empty() {
            let known = Metric::ALL.iter().filter(|metric| metric.fits(&file.output));
            return Err(JobError::NoMetric {
                task: self.task.name().to_owned(),
                known: known.map(|metric| metric.name().to_owned()).collect(),
            });
        }
        match metrics.iter().find(|metric| !metric.fits(&file.output)) {
            Some(metric) => Err(self.misfit(*metric)),
            None => Ok(metrics.clone()),
        }
    }

    /// Says which kinds of answer a metric fits that does not fit the task's.
    pub(crate) fn misfit(&self, metric: Metric) -> JobError {
        JobError::Metric {
            metric: metric.name().to_owned(),
            task: self.task.name().to_owned(),
            kind: self.task.file().output.kind(),
            fits: metric.compares().kinds(),
        }
    }

    /// Names the field with the right answers.
    pub(crate) fn reference(&self, named: Option<&str>) -> Result<String, JobError> {
        if let Some(field) = named {
            return Ok(field.to_owned());
        }
        match self.task.file().target_fields() {
            [field] => Ok(field.clone()),
            fields => Err(JobError::WhichReference {
                task: self.task.name().to_owned(),
                fields: fields.to_vec(),
            }),
        }
    }
}

impl Plan<'_> {
    /// Says what of the plan changes the rows.
    pub(crate) fn kind(&self) -> String {
        let boxes = self
            .boxes
            .map_or(String::new(), |unit| format!(" boxes {unit:?}"));
        format!("evaluate {}{boxes}", self.reference)
    }

    /// Adds the right answers to the row of a record.
    pub(crate) fn with_references(&self, record: &Record, mut row: Row) -> Result<Row, JobError> {
        let value = right_value(record, &self.reference)?;
        let problem = match self.boxes {
            Some(unit) => match read_boxes(value, unit) {
                Ok(boxes) => {
                    row.boxes = Some(boxes);
                    None
                }
                Err(problem) => Some(problem),
            },
            None => {
                row.references = texts_of(value, self.output);
                let may_be_none = matches!(self.output, OutputSpec::Labels(_)) && value.is_array();
                (row.references.is_empty() && !may_be_none)
                    .then(|| "expected a text or a number or a list of them".to_owned())
            }
        };
        match problem.filter(|_| row.error.is_none()) {
            Some(problem) => {
                let reason = format!("the field '{}' holds no right answer: {problem}", self.reference);
                Ok(Row::failed(row.id, row.group, reason))
            }
            None => Ok(row),
        }
    }
}

/// Returns the value of the field with the right answers.
pub(crate) fn right_value<'r>(record: &'r Record, field: &str) -> Result<&'r Value, JobError> {
    record.value(field).ok_or_else(|| JobError::NoReference {
        field: field.to_owned(),
        fields: record.fields().map(|(name, _)| name.to_owned()).collect(),
    })
}

/// Lists the texts and numbers of a value, each of which is right. Booleans are the words of a task that
/// says yes or no.
pub(crate) fn texts_of(value: &Value, output: &OutputSpec) -> Vec<String> {
    match (value, output) {
        (Value::String(text), _) => vec![text.clone()],
        (Value::Bool(is_yes), OutputSpec::Predicate(spec)) => {
            vec![if *is_yes {
                spec.yes.clone()
            } else {
                spec.no.clone()
            }]
        }
        (Value::Number(_) | Value::Bool(_), _) => vec![value.to_string()],
        (Value::Array(items), _) => items.iter().flat_map(|item| texts_of(item, output)).collect(),
        (Value::Null | Value::Object(_), _) => Vec::new(),
    }
}
