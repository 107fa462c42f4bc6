//! A job: one task on all records of a data set, through the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use futures_util::stream::{self, StreamExt};
use multiway_data::{Corrupt, Cursor, DataSource, Record, Records};
use multiway_model::ImageProcessor;
use multiway_prompts::{Choices, OutputSpec};
use multiway_runtime::{Engine, RequestError};
use multiway_tasks::{Task, TaskError, TaskInputs, TaskOutcome};
use serde::Serialize;
use serde_json::json;

use crate::binding::{Binding, ChoicesByGroup};
use crate::digest::digest;
use crate::error::JobError;
use crate::journal::{Finished, JobIdentity, Journal};
use crate::row::Row;

/// How many records are in the engine at a time, unless the caller says otherwise.
///
/// The engine forms batches of what is there; more than it batches only waits.
const IN_FLIGHT: usize = 64;

/// Runs a task on every record of a data set.
///
/// A record's answer is the same bits in any batch and at any time, so what a job writes depends neither on
/// how often it was interrupted nor on how many records are in flight.
pub struct Job<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) task: &'a Task,
    pub(crate) binding: Binding<'a>,
    pub(crate) processor: ImageProcessor,
    options: JobOptions,
}

/// Says which records a job takes, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JobOptions {
    /// Which fields are which inputs, for those whose names differ.
    pub map: BTreeMap<String, String>,
    /// The inputs that are the same for every record, with sampling parameters and request terms.
    pub fixed: TaskInputs,
    /// Only records that pass all of these are taken.
    pub filters: Vec<Filter>,
    /// The field that puts records in groups.
    pub group_by: Option<String>,
    /// The field whose distinct values, in a record's group, are the answers to choose from.
    pub choices_of: Option<String>,
    /// How many records are in the engine at a time.
    pub in_flight: usize,
    /// How many records may fail before the job stops.
    pub max_failed: usize,
    /// How many records are taken, from the first.
    pub limit: Option<usize>,
    /// Only records that are named so are taken.
    pub only: Option<BTreeSet<String>>,
}

/// Takes records by the value of a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Filter {
    /// The path of the field.
    pub field: String,
    /// The value, as text.
    pub value: String,
    /// Whether records with this value are taken, rather than those without it.
    pub is_equal: bool,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            map: BTreeMap::new(),
            fixed: TaskInputs::default(),
            filters: Vec::new(),
            group_by: None,
            choices_of: None,
            in_flight: IN_FLIGHT,
            max_failed: usize::MAX,
            limit: None,
            only: None,
        }
    }
}

/// Says how far a job has come.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct JobProgress {
    /// Rows written, those of earlier runs included.
    pub rows: usize,
    /// Rows written by this run.
    pub rows_now: usize,
    /// Records that failed.
    pub failed: usize,
    /// The share of the data that was read, from 0 to 1.
    pub fraction: f64,
}

/// A record that was read, with where reading goes on after it, and the rows before it that could not be
/// read.
pub(crate) struct ReadRecord {
    pub(crate) record: Record,
    cursor: Cursor,
    pub(crate) corrupt: Vec<Corrupt>,
    fraction: f64,
}

/// Reads the records that the job takes.
pub(crate) struct Reader<'j> {
    job: &'j Job<'j>,
    records: Records,
    /// How many of the corrupt rows went with a record.
    told: usize,
    /// The first record shows whether the inputs have their fields.
    is_first: bool,
}

impl<'j> Reader<'j> {
    pub(crate) fn new(job: &'j Job<'j>, records: Records, is_first: bool) -> Self {
        Self {
            job,
            records,
            told: 0,
            is_first,
        }
    }

    pub(crate) fn next(&mut self, chosen: Option<&str>) -> Option<Result<ReadRecord, JobError>> {
        loop {
            let record = match self.records.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(error.into())),
            };
            if !self.job.takes(&record) {
                continue;
            }
            if std::mem::take(&mut self.is_first)
                && let Err(error) = self.job.binding.check(&record, chosen)
            {
                return Some(Err(error));
            }
            return Some(Ok(ReadRecord {
                record,
                cursor: self.records.cursor(),
                corrupt: self.rest(),
                fraction: self.records.fraction(),
            }));
        }
    }

    /// Returns the corrupt rows that went with no record yet.
    pub(crate) fn rest(&mut self) -> Vec<Corrupt> {
        let rest = self.records.corrupt().get(self.told..).unwrap_or_default();
        self.told += rest.len();
        rest.to_vec()
    }
}

impl<'a> Job<'a> {
    /// Creates a job.
    pub fn new(engine: &'a Engine, task: &'a Task, options: JobOptions) -> Self {
        Self {
            engine,
            task,
            binding: Binding::new(task, options.map.clone(), options.fixed.clone()),
            processor: task.image_processor(engine.config()),
            options,
        }
    }

    /// Digests all that changes what the job writes, for a model with the fingerprint `model`.
    pub(crate) fn identity(
        &self,
        source: &DataSource,
        model: &str,
        kind: &str,
    ) -> Result<JobIdentity, JobError> {
        let options = &self.options;
        let images: Vec<String> = options
            .fixed
            .images
            .iter()
            .map(|image| format!("{image:?}"))
            .collect();
        let task = json!([
            self.task.file(),
            self.task.file().template(),
            self.task.file().target(),
            options.fixed.values,
            images
        ]);
        let chosen = json!([
            kind,
            options.map,
            options.fixed.sampling,
            format!("{:?}", options.fixed.constraint),
            options.filters,
            options.group_by,
            options.choices_of,
            options.limit,
            options.only
        ]);
        Ok(JobIdentity {
            task: digest(task.to_string().as_bytes()),
            model: model.to_owned(),
            data: source.fingerprint(),
            options: digest(chosen.to_string().as_bytes()),
        })
    }

    /// Makes the row of every record that has none yet, in the order of the data, by `answer`.
    pub(crate) async fn answer_all(
        &self,
        source: &DataSource,
        mut journal: Journal,
        answer: impl AsyncFn(&Record, Option<&ChosenFrom>) -> Result<Row, JobError>,
        mut on_progress: impl FnMut(JobProgress),
    ) -> Result<Finished, JobError> {
        let choices = self.choices(source)?;
        let begun = journal.rows();
        let left = self.limit().saturating_sub(begun);
        let mut reader = Reader::new(self, source.records(journal.cursor())?, begun == 0);
        let chosen = choices.as_ref().map(|from| from.input.as_str());
        let answered = {
            let reads = std::iter::from_fn(|| reader.next(chosen)).take(left);
            let mut rows = stream::iter(reads)
                .map(|read: Result<ReadRecord, JobError>| async {
                    let read = read?;
                    let row = answer(&read.record, choices.as_ref()).await?;
                    Ok::<_, JobError>((row, read))
                })
                .buffered(self.options.in_flight.max(1));
            loop {
                match rows.next().await {
                    None => break Ok(()),
                    Some(Err(error)) => break Err(error),
                    Some(Ok((row, read))) => {
                        journal.push(&row, read.cursor, &read.corrupt)?;
                        on_progress(JobProgress {
                            rows: journal.rows(),
                            rows_now: journal.rows() - begun,
                            failed: journal.failed(),
                            fraction: read.fraction,
                        });
                        if journal.failed() > self.options.max_failed {
                            break Err(JobError::TooManyFailed {
                                failed: journal.failed(),
                                most: self.options.max_failed,
                                last: format!("{}: {}", row.id, row.error.unwrap_or_default()),
                            });
                        }
                    }
                }
            }
        };
        if let Err(error) = answered {
            journal.stop()?;
            return Err(error);
        }
        journal.finish(&reader.rest())
    }

    /// Returns how many records are taken at most.
    pub(crate) fn limit(&self) -> usize {
        self.options.limit.unwrap_or(usize::MAX)
    }

    /// Tells whether a record is taken.
    pub(crate) fn takes(&self, record: &Record) -> bool {
        let only = self.options.only.as_ref();
        only.is_none_or(|only| only.contains(record.id())) && self.passes(record)
    }

    /// Tells whether a record passes the filters.
    fn passes(&self, record: &Record) -> bool {
        let mut filters = self.options.filters.iter();
        filters.all(|filter| {
            let found = record.text(&filter.field);
            (found.as_deref() == Some(filter.value.as_str())) == filter.is_equal
        })
    }

    /// Names the group of a record.
    pub(crate) fn group_of(&self, record: &Record) -> Option<String> {
        let path = self.options.group_by.as_deref()?;
        record.text(path)
    }

    /// Runs the task on a record.
    pub(crate) async fn answer(
        &self,
        record: &Record,
        choices: Option<&ChosenFrom>,
    ) -> Result<Row, JobError> {
        let id = record.id().to_owned();
        let group = self.group_of(record);
        let candidates =
            choices.and_then(|from| Some((from.input.as_str(), from.by_group.get(&group)?.as_slice())));
        let inputs = match self.binding.inputs(record, &self.processor, candidates) {
            Ok(inputs) => inputs,
            Err(error) => return Ok(Row::failed(id, group, error)),
        };
        Ok(match self.outcome(&inputs).await? {
            Ok(outcome) => Row::answered(id, group, &outcome),
            Err(reason) => Row::failed(id, group, reason),
        })
    }

    /// Runs the task. What is wrong with the inputs is the inner error.
    pub(crate) async fn outcome(&self, inputs: &TaskInputs) -> Result<Result<TaskOutcome, String>, JobError> {
        let outcome = match self.task.run(self.engine, inputs) {
            Ok(run) => run.wait().await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(outcome) => Ok(Ok(outcome)),
            Err(error @ TaskError::Request(RequestError::ShutDown)) => Err(error.into()),
            Err(error) => Ok(Err(chain_of(&error))),
        }
    }

    /// Reads the data once to list the answers to choose from.
    pub(crate) fn choices(&self, source: &DataSource) -> Result<Option<ChosenFrom>, JobError> {
        let Some(field) = &self.options.choices_of else {
            return Ok(None);
        };
        let input = match &self.task.file().output {
            OutputSpec::Choice(choice) => match &choice.choices {
                Choices::FromInput(input) => Some(input),
                _ => None,
            },
            _ => None,
        };
        let Some(input) = input else {
            let task = self.task.name().to_owned();
            return Err(JobError::NoChoices { task });
        };
        let mut by_group = ChoicesByGroup::new();
        // Each shard chooses among the same answers.
        for record in source.all_shards().records(None)? {
            let record = record?;
            if !self.passes(&record) {
                continue;
            }
            let Some(value) = record.text(field).filter(|value| !value.is_empty()) else {
                continue;
            };
            let group = self.group_of(&record);
            let values = by_group.entry(group.clone()).or_default();
            if let Err(place) = values.binary_search(&value) {
                values.insert(place, value);
            }
            if values.len() > MAX_CHOICES {
                return Err(JobError::TooManyChoices {
                    field: field.clone(),
                    group,
                    most: MAX_CHOICES,
                });
            }
        }
        Ok(Some(ChosenFrom {
            input: input.clone(),
            by_group,
        }))
    }
}

/// The most answers that there may be to choose from.
const MAX_CHOICES: usize = 1000;

/// The answers to choose from, and the input that they are.
pub(crate) struct ChosenFrom {
    pub(crate) input: String,
    pub(crate) by_group: ChoicesByGroup,
}

/// Writes an error with its causes.
pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        // Some messages end in that of their cause.
        if !text.ends_with(&reason) {
            let _ = write!(text, ": {reason}");
        }
        cause = error.source();
    }
    text
}
