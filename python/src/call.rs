//! A task with its inputs, read from Python objects.

use std::sync::Arc;
use std::time::Duration;

use multiway::engine::{Constraint, SamplingOptions};
use multiway::prompt::{InputKind, InputValue};
use multiway::task::{RequestTerms, TaskInputs, TaskRun};
use multiway::{Engine, Task, TaskLibrary};
use pyo3::prelude::*;
use pyo3::types::PyMapping;
use pythonize::depythonize;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::pictures::Given;

/// How a request is answered: what `sampling`, `constraint`, `timeout` and `priority` say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    sampling: SamplingOptions,
    constraint: Option<Constraint>,
    terms: RequestTerms,
}

impl Options {
    /// Reads options.
    pub(crate) fn read(
        sampling: Option<&Bound<'_, PyAny>>,
        constraint: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
        priority: i32,
    ) -> PyResult<Self> {
        let sampling = sampling.map(|value| read::<SamplingOptions>("sampling", value));
        let constraint = constraint.map(|value| read::<Form>("constraint", value));
        Ok(Self {
            sampling: sampling.transpose()?.unwrap_or_default(),
            constraint: constraint.transpose()?.map(Into::into),
            terms: terms(timeout, priority)?,
        })
    }
}

/// Reads the terms of a request.
pub(crate) fn terms(timeout: Option<f64>, priority: i32) -> PyResult<RequestTerms> {
    let duration = timeout.map(Duration::try_from_secs_f64).transpose();
    let timeout = duration.map_err(|error| Failure::Input(format!("timeout: {error}")))?;
    Ok(RequestTerms { priority, timeout })
}

/// The form that an answer must have.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    Regex(String),
    Choices(Vec<String>),
    JsonSchema(serde_json::Value),
    Grammar(String),
}

impl From<Form> for Constraint {
    fn from(form: Form) -> Self {
        match form {
            Form::Regex(pattern) => Self::Regex(pattern),
            Form::Choices(choices) => Self::Choices(choices),
            Form::JsonSchema(schema) => Self::JsonSchema(schema),
            Form::Grammar(grammar) => Self::Lark(grammar),
        }
    }
}

/// Reads a value that is plain data.
fn read<T: DeserializeOwned>(name: &str, value: &Bound<'_, PyAny>) -> PyResult<T> {
    depythonize(value).map_err(|error| Failure::Input(format!("{name}: {error}")).into())
}

/// A task with its inputs. It holds no Python objects, so that it may go to another thread.
pub(crate) struct Call {
    library: Arc<TaskLibrary>,
    task: String,
    inputs: TaskInputs,
    pictures: Vec<(String, Given)>,
}

impl Call {
    /// Reads the inputs of a task, which are given by name or as a mapping.
    pub(crate) fn read(
        library: &Arc<TaskLibrary>,
        name: &str,
        inputs: Option<&Bound<'_, PyMapping>>,
        fields: Option<&Bound<'_, PyMapping>>,
        options: &Options,
    ) -> PyResult<Self> {
        let task = library.get(name).map_err(Failure::from)?;
        let mut call = Self {
            library: Arc::clone(library),
            task: name.to_owned(),
            inputs: TaskInputs {
                sampling: options.sampling.clone(),
                constraint: options.constraint.clone(),
                ..TaskInputs::new().with_terms(options.terms)
            },
            pictures: Vec::new(),
        };
        for given in [inputs, fields].into_iter().flatten() {
            for item in given.items()? {
                let (name, value): (String, Bound<'_, PyAny>) = item.extract()?;
                if call.inputs.values.contains_key(&name) {
                    let message = format!("input '{name}': given twice, in the mapping and by name");
                    return Err(Failure::Input(message).into());
                }
                call.add(task, name, &value)?;
            }
        }
        Ok(call)
    }

    fn add(&mut self, task: &Task, name: String, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let value = match task.file().inputs.get(&name) {
            // An input that there is not; checking the inputs says so, and lists those that there are.
            None => InputValue::Text(String::new()),
            Some(spec) if spec.kind.is_picture() => {
                let first = self.pictures.len();
                let pictures = match spec.kind {
                    InputKind::Image => vec![Given::read(&name, value)?],
                    _ => Given::read_all(&name, value)?,
                };
                self.pictures
                    .extend(pictures.into_iter().map(|picture| (name.clone(), picture)));
                match spec.kind {
                    InputKind::Image => InputValue::Image(first),
                    _ => InputValue::Images((first..self.pictures.len()).collect()),
                }
            }
            Some(spec) => {
                let json: serde_json::Value = read(&format!("input '{name}'"), value)?;
                let parsed = spec.parse_json(&json);
                parsed.map_err(|error| Failure::Input(format!("input '{name}': {error}")))?
            }
        };
        self.inputs.values.insert(name, value);
        Ok(())
    }

    /// Returns the name of the task.
    pub(crate) fn task(&self) -> &str {
        &self.task
    }

    /// Decodes the pictures and starts the task; it keeps the thread busy, and needs no Python.
    pub(crate) fn start(self, engine: &Engine) -> Result<TaskRun, Failure> {
        let task = self.library.get(&self.task)?;
        let mut inputs = self.inputs;
        let processor = task.image_processor(engine.config());
        for (name, picture) in self.pictures {
            inputs.images.push(picture.decode(&name, &processor)?);
        }
        Ok(task.run(engine, &inputs)?)
    }
}
