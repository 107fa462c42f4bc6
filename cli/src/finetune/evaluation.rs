//! The metrics of the validation records, before and after.

use std::path::Path;

use multiway::data::DataSource;
use multiway::jobs::{EvaluationOptions, Job, JobOptions};
use multiway::{Engine, Task};
use serde_json::Value;

use super::args::FinetuneArgs;
use super::records::{Opened, Records};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::jobs::with_bar;

/// The validation records, and how answers to them are compared.
pub(super) struct Validation<'a> {
    task: &'a Task,
    source: &'a DataSource,
    options: JobOptions,
    compared: EvaluationOptions,
    is_empty: bool,
}

/// The metrics of an evaluation, as its summary writes them.
#[derive(Debug)]
pub(super) struct Figures(Vec<Value>);

impl<'a> Validation<'a> {
    pub(super) fn new(args: &FinetuneArgs, opened: &'a Opened, records: &'a Records) -> Self {
        let mut options = opened.options.clone();
        options.only = Some(records.validation_ids());
        options.limit = None;
        let mut compared = EvaluationOptions::default();
        compared.reference.clone_from(&args.reference);
        compared.metrics.clone_from(&args.metrics);
        Self {
            task: &opened.task,
            source: &records.source,
            options,
            compared,
            is_empty: records.validation.is_empty(),
        }
    }

    /// Evaluates the task on the validation records; none where there are none. An evaluation that is in the
    /// folder already is `kept`, or made anew.
    pub(super) fn figures(
        &self,
        context: &Context,
        engine: &Engine,
        model: &str,
        folder: &Path,
        kept: bool,
    ) -> Outcome<Option<Figures>> {
        if self.is_empty {
            return Ok(None);
        }
        if let Some(figures) = Figures::read(folder).filter(|_| kept) {
            return Ok(Some(figures));
        }
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(|error| {
                let error = anyhow::Error::new(error);
                Failure::Runtime(error.context(format!("cannot remove '{}'", folder.display())))
            })?;
        }
        let job = Job::new(engine, self.task, self.options.clone());
        let report = with_bar(context, async |bar| {
            job.evaluate(self.source, model, &self.compared, folder, |progress| {
                bar.show(progress)
            })
            .await
        })?;
        let metrics = serde_json::to_value(&report.summary.metrics).map_err(Failure::runtime)?;
        Ok(Figures::of(metrics))
    }
}

impl Figures {
    fn of(metrics: Value) -> Option<Self> {
        match metrics {
            Value::Array(metrics) => Some(Self(metrics)),
            _ => None,
        }
    }

    /// Reads the figures of an evaluation that is finished.
    fn read(folder: &Path) -> Option<Self> {
        let text = std::fs::read(folder.join("summary.json")).ok()?;
        let mut summary: Value = serde_json::from_slice(&text).ok()?;
        Self::of(summary.get_mut("metrics")?.take())
    }

    pub(super) fn json(&self) -> Value {
        Value::Array(self.0.clone())
    }

    /// Lists the metrics by name, with their value and interval as text.
    pub(super) fn lines(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().filter_map(|metric| {
            let direction = metric.get("direction").and_then(Value::as_str);
            let name = metric.get("metric")?.as_str()?;
            let name = direction.map_or(name.to_owned(), |direction| format!("{name} {direction}"));
            let value = metric.get("value")?.as_f64().unwrap_or(f64::NAN);
            let bound = |name: &str| metric.get("interval")?.get(name)?.as_f64();
            let interval = match (bound("low"), bound("high")) {
                (Some(low), Some(high)) => format!(" ({low:.2} to {high:.2})"),
                _ => String::new(),
            };
            Some((name, format!("{value:.2}{interval}")))
        })
    }
}
