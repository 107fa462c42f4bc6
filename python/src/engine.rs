//! The class `Engine`.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use multiway::checkpoint::{CacheType, WeightType};
use multiway::engine::Request;
use multiway::prompt::InputKind;
use multiway::task::{ClosedAnswer, ClosedQuestion, TaskInputs};
use multiway::{Engine, Task, TaskLibrary};
use pyo3::exceptions::PyException;
use pyo3::ffi::c_str;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyMapping, PySequence, PyString};
use pyo3_async_runtimes::tokio::future_into_py;
use pythonize::pythonize;

use crate::answer::{PyAnswer, PyDecision, PyScore};
use crate::call::{Call, Options, terms};
use crate::failure::Failure;
use crate::pictures::Given;
use crate::registry::{self, BuildOptions, Loaded};
use crate::stream::PyStream;
use crate::vectors::Vectors;
use crate::wait::{Work, blocking};

/// The most rows of a batch that the engine is given at a time: what is in memory of a batch is bounded.
const ROWS_IN_FLIGHT: usize = 128;

/// A checkpoint that is loaded, and what runs it.
#[pyclass(name = "Engine", module = "multiway", frozen)]
pub(crate) struct PyEngine {
    loaded: Arc<Loaded>,
    library: Arc<TaskLibrary>,
    /// The task of prompts to score.
    plain: Arc<Task>,
    /// The task that words closed questions.
    decision: Arc<Task>,
}

impl PyEngine {
    fn open_with(
        path: Option<PathBuf>,
        options: BuildOptions,
        task_files: &[PathBuf],
    ) -> Result<Self, Failure> {
        let loaded = registry::open(path.as_deref(), options)?;
        let config = loaded.engine()?.config();
        let wrong = |error| Failure::input(&error);
        let mut library = TaskLibrary::for_model(config)?;
        let plain = Task::plain_prompt().map_err(wrong)?;
        let decision = Task::decision(config).map_err(wrong)?;
        library.insert(plain.clone())?;
        for path in task_files {
            if path.is_dir() {
                library.load_dir(path)?;
            } else {
                library.load_file(path)?;
            }
        }
        Ok(Self {
            library: Arc::new(library),
            plain: Arc::new(plain),
            decision: Arc::new(decision),
            loaded,
        })
    }

    /// Returns the engine, which is cheap to clone.
    fn engine(&self) -> Result<Engine, Failure> {
        self.loaded.engine().cloned()
    }

    fn call(
        &self,
        task: &str,
        inputs: Option<&Bound<'_, PyMapping>>,
        fields: Option<&Bound<'_, PyDict>>,
        options: &Options,
    ) -> PyResult<Call> {
        let fields = fields.map(|fields| fields.as_mapping());
        Call::read(&self.library, task, inputs, fields, options)
    }

    /// Runs a task on all rows, of which some are under way at a time. What `error` makes of an exception
    /// stands for its row.
    fn answers<T>(
        &self,
        py: Python<'_>,
        rows: impl Iterator<Item = PyResult<Call>>,
        mut answer: impl FnMut(PyAnswer) -> PyResult<T>,
        mut error: impl FnMut(PyErr) -> PyResult<T>,
    ) -> PyResult<Vec<T>> {
        let engine = self.engine()?;
        let mut rows = rows.fuse();
        let mut under_way: VecDeque<PyResult<Work<PyAnswer>>> = VecDeque::new();
        let mut answers = Vec::new();
        loop {
            while under_way.len() < ROWS_IN_FLIGHT
                && let Some(call) = rows.next()
            {
                under_way.push_back(call.map(|call| Work::start(run(engine.clone(), call))));
            }
            let Some(work) = under_way.pop_front() else {
                return Ok(answers);
            };
            let result = work.and_then(|work| work.wait(py));
            answers.push(match result {
                Ok(result) => answer(result)?,
                Err(raised) => error(raised)?,
            });
        }
    }
}

/// Runs a task on its inputs.
async fn run(engine: Engine, call: Call) -> Result<PyAnswer, Failure> {
    let name = call.task().to_owned();
    let run = blocking(move || call.start(&engine)).await?;
    Ok(PyAnswer::new(name, run.wait().await?))
}

/// Reads the name of an element type.
fn named<T: Copy>(
    option: &str,
    name: Option<&str>,
    all: &[T],
    name_of: impl Fn(T) -> &'static str,
) -> Result<Option<T>, Failure> {
    let Some(name) = name else { return Ok(None) };
    let found = all.iter().copied().find(|one| name_of(*one) == name);
    found.map(Some).ok_or_else(|| {
        let known: Vec<&str> = all.iter().map(|one| name_of(*one)).collect();
        Failure::Input(format!(
            "{option}: expected one of {}, found '{name}'",
            known.join(", ")
        ))
    })
}

#[pymethods]
impl PyEngine {
    #[staticmethod]
    #[pyo3(signature = (path=None, *, dtype=None, cache_dtype=None, threads=None, memory_budget=None, reuse_budget=None, task_files=None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn open(
        py: Python<'_>,
        path: Option<PathBuf>,
        dtype: Option<&str>,
        cache_dtype: Option<&str>,
        threads: Option<usize>,
        memory_budget: Option<usize>,
        reuse_budget: Option<usize>,
        task_files: Option<Vec<PathBuf>>,
    ) -> PyResult<Self> {
        let options = BuildOptions {
            dtype: named("dtype", dtype, &WeightType::ALL, WeightType::name)?,
            cache_dtype: named("cache_dtype", cache_dtype, &CacheType::ALL, CacheType::name)?,
            threads,
            memory_budget,
            reuse_budget,
        };
        let task_files = task_files.unwrap_or_default();
        let opened = py.detach(|| Self::open_with(path, options, &task_files))?;
        for warning in opened.loaded.engine()?.warnings() {
            let category = py.get_type::<pyo3::exceptions::PyUserWarning>();
            let message = std::ffi::CString::new(warning.replace('\0', " "));
            PyErr::warn(py, &category, message.as_deref().unwrap_or(c_str!("warning")), 1)?;
        }
        Ok(opened)
    }

    #[getter]
    fn name(&self) -> &str {
        &self.loaded.name
    }

    #[getter]
    fn max_text_length(&self) -> PyResult<usize> {
        Ok(self.loaded.engine()?.config().max_text_length)
    }

    #[getter]
    fn max_target_length(&self) -> PyResult<usize> {
        Ok(self.loaded.engine()?.config().max_target_length)
    }

    #[getter]
    fn tasks(&self) -> Vec<String> {
        self.library.iter().map(|task| task.name().to_owned()).collect()
    }

    #[pyo3(signature = (name, /))]
    fn task<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let task = self.library.get(name).map_err(Failure::from)?;
        // Through JSON: its fields that are left out stay out.
        let file = serde_json::to_value(task.file()).map_err(|error| Failure::Engine(error.to_string()))?;
        Ok(pythonize(py, &file)?)
    }

    #[pyo3(signature = (task, inputs=None, /, *, sampling=None, constraint=None, timeout=None, priority=0, **fields))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn run(
        &self,
        py: Python<'_>,
        task: &str,
        inputs: Option<&Bound<'_, PyMapping>>,
        sampling: Option<&Bound<'_, PyAny>>,
        constraint: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
        priority: i32,
        fields: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PyAnswer> {
        let engine = self.engine()?;
        let options = Options::read(sampling, constraint, timeout, priority)?;
        let call = self.call(task, inputs, fields, &options)?;
        Work::start(run(engine, call)).wait(py)
    }

    #[pyo3(signature = (task, inputs=None, /, *, sampling=None, constraint=None, timeout=None, priority=0, **fields))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn run_async<'py>(
        &self,
        py: Python<'py>,
        task: &str,
        inputs: Option<&Bound<'py, PyMapping>>,
        sampling: Option<&Bound<'py, PyAny>>,
        constraint: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
        priority: i32,
        fields: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let engine = self.engine()?;
        let options = Options::read(sampling, constraint, timeout, priority)?;
        let call = self.call(task, inputs, fields, &options)?;
        future_into_py(py, async move { Ok(run(engine, call).await?) })
    }

    #[pyo3(signature = (task, inputs=None, /, *, sampling=None, constraint=None, timeout=None, priority=0, **fields))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn stream(
        &self,
        task: &str,
        inputs: Option<&Bound<'_, PyMapping>>,
        sampling: Option<&Bound<'_, PyAny>>,
        constraint: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
        priority: i32,
        fields: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PyStream> {
        let engine = self.engine()?;
        let options = Options::read(sampling, constraint, timeout, priority)?;
        let call = self.call(task, inputs, fields, &options)?;
        Ok(PyStream::start(task.to_owned(), self.loaded.process, move || {
            call.start(&engine)
        }))
    }

    #[pyo3(signature = (task, rows, /, *, sampling=None, constraint=None, timeout=None, priority=0, return_errors=false))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn batch<'py>(
        &self,
        py: Python<'py>,
        task: &str,
        rows: &Bound<'py, PyAny>,
        sampling: Option<&Bound<'_, PyAny>>,
        constraint: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
        priority: i32,
        return_errors: bool,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let options = Options::read(sampling, constraint, timeout, priority)?;
        // An unknown task is no fault of a row.
        self.library.get(task).map_err(Failure::from)?;
        let calls = rows.try_iter()?.map(|row| {
            let row = row?;
            let row = row.cast::<PyMapping>().map_err(|_| {
                let found = row.get_type().to_string();
                Failure::Input(format!(
                    "rows: expected mappings of a task's inputs, found {found}"
                ))
            })?;
            self.call(task, Some(row), None, &options)
        });
        let answer = |answer: PyAnswer| Ok(Bound::new(py, answer)?.into_any());
        self.answers(py, calls, answer, |error| {
            match return_errors && error.is_instance_of::<PyException>(py) {
                true => Ok(error.into_value(py).into_bound(py).into_any()),
                false => Err(error),
            }
        })
    }

    #[pyo3(signature = (prompt, targets, /, *, images=None, prefix=None, timeout=None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn score(
        &self,
        py: Python<'_>,
        prompt: String,
        targets: Vec<String>,
        images: Option<&Bound<'_, PyAny>>,
        prefix: Option<Vec<String>>,
        timeout: Option<f64>,
    ) -> PyResult<Vec<PyScore>> {
        let engine = self.engine()?;
        let terms = terms(timeout, 0)?;
        let plain = Arc::clone(&self.plain);
        let pictures = pictures(images)?;
        let work = async move {
            let (processor, tokenizer) = (plain.image_processor(engine.config()), engine.tokenizer().clone());
            let prepared = blocking(move || {
                let mut inputs = TaskInputs::new().with("text", prompt);
                for picture in pictures {
                    inputs = inputs.with_image(picture.decode("images", &processor)?);
                }
                Ok(plain.prepare(&tokenizer, &inputs)?)
            });
            let prepared = prepared.await?;
            let mut request = Request::new(prepared.prompt().clone(), prepared.images().to_vec());
            request.timeout = terms.timeout;
            request.sampling.prefix = prefix.unwrap_or_default();
            let scored = engine.score(request, targets).await?;
            Ok(scored.value.into_iter().map(PyScore::from).collect())
        };
        Work::start(work).wait(py)
    }

    #[pyo3(signature = (texts=None, /, *, images=None, task="retrieve"))]
    fn embed<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        images: Option<&Bound<'py, PyAny>>,
        task: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let file = self.library.get(task).map_err(Failure::from)?.file();
        let input = |is_right: fn(InputKind) -> bool, what: &str| {
            let mut inputs = file.inputs.iter();
            let found = inputs
                .find(|(_, spec)| is_right(spec.kind))
                .map(|(name, _)| name.clone());
            found.ok_or_else(|| Failure::Input(format!("the task '{task}' has no input for {what}")))
        };
        let (name, values, is_one) = match (texts, images) {
            (Some(texts), None) => {
                let is_one = texts.is_instance_of::<PyString>();
                (input(|kind| kind == InputKind::Text, "a text")?, texts, is_one)
            }
            (None, Some(images)) => {
                let is_one =
                    !images.is_instance_of::<PyList>() && images.cast::<pyo3::types::PyTuple>().is_err();
                (input(InputKind::is_picture, "a picture")?, images, is_one)
            }
            _ => {
                let message = "expected texts or images, one of them, found both or none";
                return Err(Failure::Input(message.to_owned()).into());
            }
        };
        let options = Options::default();
        let values: Box<dyn Iterator<Item = PyResult<Bound<'py, PyAny>>>> = match is_one {
            true => Box::new(std::iter::once(Ok(values.clone()))),
            false => Box::new(values.try_iter()?),
        };
        let calls = values.map(|value| {
            let fields = PyDict::new(py);
            fields.set_item(&name, value?)?;
            self.call(task, None, Some(&fields), &options)
        });
        let mut vectors = Vectors::default();
        let push = |answer: PyAnswer| {
            let Some(vector) = answer.vector() else {
                let message = format!("expected a task that makes vectors, found '{task}'");
                return Err(Failure::Input(message).into());
            };
            vectors.push(vector);
            Ok(())
        };
        self.answers(py, calls, push, Err)?;
        match is_one {
            true => vectors.array(py),
            false => vectors.rows(py),
        }
    }

    #[pyo3(signature = (question, answers=None, /, *, text=None, images=None, task=None, timeout=None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn decide(
        &self,
        py: Python<'_>,
        question: String,
        answers: Option<&Bound<'_, PyAny>>,
        text: Option<String>,
        images: Option<&Bound<'_, PyAny>>,
        task: Option<&str>,
        timeout: Option<f64>,
    ) -> PyResult<PyDecision> {
        let engine = self.engine()?;
        let question = closed_question(question, answers)?;
        let task = match task {
            Some(name) => Arc::new(self.library.get(name).map_err(Failure::from)?.clone()),
            None => Arc::clone(&self.decision),
        };
        let (pictures, terms) = (pictures(images)?, terms(timeout, 0)?);
        let work = async move {
            let processor = task.image_processor(engine.config());
            let decode = move || {
                let pictures = pictures.into_iter();
                pictures
                    .map(|picture| picture.decode("images", &processor))
                    .collect()
            };
            let images = blocking(decode).await?;
            let state = text.unwrap_or_default();
            let decision = question.decide(&engine, &task, &state, images, terms).await?;
            Ok(PyDecision::new(&question, decision))
        };
        Work::start(work).wait(py)
    }

    #[pyo3(signature = (text, /))]
    fn tokenize(&self, py: Python<'_>, text: &str) -> PyResult<Vec<u32>> {
        let engine = self.engine()?;
        Ok(py.detach(|| engine.tokenizer().encode_text(text).map_err(Failure::from))?)
    }

    #[pyo3(signature = (tokens, /))]
    fn detokenize(&self, py: Python<'_>, tokens: Vec<u32>) -> PyResult<String> {
        let engine = self.engine()?;
        Ok(py.detach(|| engine.tokenizer().decode(&tokens)))
    }

    fn __repr__(&self) -> String {
        format!("<multiway.Engine '{}'>", self.loaded.name)
    }

    fn __reduce__(&self) -> PyResult<()> {
        let message = "an engine cannot be pickled: open the checkpoint in the other process";
        Err(Failure::Engine(message.to_owned()).into())
    }
}

/// Reads the pictures of a prompt.
fn pictures(images: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Given>> {
    images.map_or(Ok(Vec::new()), |images| Given::read_all("images", images))
}

/// Reads a question and its answers: texts, or texts with their meanings; yes and no by default.
fn closed_question(text: String, answers: Option<&Bound<'_, PyAny>>) -> PyResult<ClosedQuestion> {
    let Some(answers) = answers else {
        return Ok(ClosedQuestion::predicate(text).map_err(Failure::from)?);
    };
    let answers: Vec<ClosedAnswer> = if let Ok(meanings) = answers.cast::<PyMapping>() {
        let items = meanings.items()?.extract::<Vec<(String, Option<String>)>>()?;
        items
            .into_iter()
            .map(|(answer, meaning)| ClosedAnswer::new(answer, meaning))
            .collect()
    } else if answers.is_instance_of::<PyString>() {
        let message = "answers: expected a sequence of texts, found one text";
        return Err(Failure::Input(message.to_owned()).into());
    } else {
        let answers = answers.cast::<PySequence>()?.extract::<Vec<String>>()?;
        answers
            .into_iter()
            .map(|answer| ClosedAnswer::new(answer, None))
            .collect()
    };
    let is_predicate = answers
        .iter()
        .map(|answer| answer.text.as_str())
        .eq(["yes", "no"]);
    let question = match is_predicate {
        true => ClosedQuestion::new(text, multiway::task::AnswerScale::Predicate, answers),
        false => ClosedQuestion::choice(text, answers),
    };
    Ok(question.map_err(Failure::from)?)
}
