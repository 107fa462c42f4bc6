//! What an evaluation compares: which metrics, and what the right answers of a record are.

use multiway_data::Record;
use multiway_prompts::{BoxUnit, Compared, Metric, OutputSpec};
use serde_json::Value;

use crate::boxes::read_boxes;
use crate::error::JobError;
use crate::job::Job;
use crate::pairs::PairInputs;
use crate::right_answers::{RightAnswers, right_value};
use crate::row::Row;

/// Says how a task is evaluated.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EvaluationOptions {
    /// The field that holds the right answer; without it, the one that the task's target names, or the target
    /// itself, rendered, where it makes the answer of something else. Of a task that makes vectors, the field
    /// with the texts of a picture; without it, the field of the input.
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
    /// Where the right answers are.
    answers: RightAnswers,
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
        let answers = match &pairs {
            Some(pairs) => RightAnswers::Field(pairs.texts.clone()),
            None => self.right_answers(options.reference.as_deref())?,
        };
        Ok(Plan {
            metrics,
            output,
            pairs,
            answers,
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
}

impl Plan<'_> {
    /// Says what of the plan changes the rows.
    pub(crate) fn kind(&self) -> String {
        let boxes = self
            .boxes
            .map_or(String::new(), |unit| format!(" boxes {unit:?}"));
        format!("evaluate {}{boxes}", self.answers.name())
    }
}

impl Job<'_> {
    /// Adds the right answers to the row of a record.
    pub(crate) fn with_references(
        &self,
        plan: &Plan<'_>,
        record: &Record,
        mut row: Row,
    ) -> Result<Row, JobError> {
        let problem = match (plan.boxes, &plan.answers) {
            (Some(unit), RightAnswers::Field(field)) => match read_boxes(right_value(record, field)?, unit) {
                Ok(boxes) => {
                    row.boxes = Some(boxes);
                    None
                }
                Err(problem) => Some(problem),
            },
            (_, answers) => match self.texts_of_right(record, answers)? {
                Ok(texts) => {
                    row.references = texts;
                    let is_right = !row.references.is_empty() || may_be_none(plan, record);
                    (!is_right).then(|| "expected a text or a number or a list of them".to_owned())
                }
                Err(problem) => Some(problem),
            },
        };
        match problem.filter(|_| row.error.is_none()) {
            Some(problem) => {
                let reason = match &plan.answers {
                    RightAnswers::Field(field) => {
                        format!("the field '{field}' holds no right answer: {problem}")
                    }
                    RightAnswers::Target => problem,
                };
                Ok(Row::failed(row.id, row.group, reason))
            }
            None => Ok(row),
        }
    }
}

/// Tells whether a record may have no right answer: a list of labels may be empty.
fn may_be_none(plan: &Plan<'_>, record: &Record) -> bool {
    let value = match &plan.answers {
        RightAnswers::Field(field) => record.value(field),
        RightAnswers::Target => None,
    };
    matches!(plan.output, OutputSpec::Labels(_)) && value.is_some_and(Value::is_array)
}
