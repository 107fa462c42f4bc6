//! Answers.

use multiway::Answer;
use multiway::engine::{Score, Usage};
use multiway::task::{ClosedQuestion, Decision, OutcomeReport, TaskOutcome};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pythonize::pythonize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::vectors::Vectors;

/// A candidate answer and its probability among all candidates.
#[pyclass(name = "Choice", module = "multiway", frozen)]
#[derive(Clone)]
pub(crate) struct PyChoice {
    #[pyo3(get)]
    text: String,
    #[pyo3(get)]
    probability: f64,
}

#[pymethods]
impl PyChoice {
    fn __repr__(&self) -> String {
        format!(
            "Choice(text={:?}, probability={:.4})",
            self.text, self.probability
        )
    }
}

/// What a request took.
#[pyclass(name = "Usage", module = "multiway", frozen)]
#[derive(Clone)]
pub(crate) struct PyUsage {
    #[pyo3(get)]
    prompt_tokens: usize,
    #[pyo3(get)]
    image_patches: usize,
    #[pyo3(get)]
    new_tokens: usize,
}

#[pymethods]
impl PyUsage {
    fn __repr__(&self) -> String {
        let Self {
            prompt_tokens,
            image_patches,
            new_tokens,
        } = self;
        format!(
            "Usage(prompt_tokens={prompt_tokens}, image_patches={image_patches}, new_tokens={new_tokens})"
        )
    }
}

impl From<Usage> for PyUsage {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            image_patches: usage.image_patches,
            new_tokens: usage.new_tokens,
        }
    }
}

/// The answer of a task.
#[pyclass(name = "Answer", module = "multiway", frozen)]
pub(crate) struct PyAnswer {
    task: String,
    outcome: TaskOutcome,
}

impl PyAnswer {
    pub(crate) fn new(task: String, outcome: TaskOutcome) -> Self {
        Self { task, outcome }
    }

    /// Returns the vector, if this is one.
    pub(crate) fn vector(&self) -> Option<&[f32]> {
        self.outcome.answer.embedding()
    }

    /// Returns what was read from the text, by the kind of the answer.
    fn plain_value(&self) -> Value {
        let answer = &self.outcome.answer;
        let mut typed = answer.typed();
        let mut named = |name: &str| typed.remove(name).unwrap_or_default();
        match answer {
            Answer::Json { value, .. } => value.clone(),
            Answer::Predicate { value, .. } => json!(value),
            Answer::Level { expected, .. } => json!(expected),
            Answer::Number { number, .. } => json!(number.value),
            Answer::Labels { labels, .. } => json!(labels.labels),
            Answer::Score { log_probability, .. } => json!(log_probability),
            Answer::Grounded { .. } => named("grounded"),
            Answer::Table { .. } => named("table"),
            Answer::Located { .. } => typed
                .into_iter()
                .next()
                .map(|(_, objects)| objects)
                .unwrap_or_default(),
            Answer::Patches(patches) => json!(patches),
            Answer::Embedding(_) => Value::Null,
            other => json!(other.text()),
        }
    }
}

#[pymethods]
impl PyAnswer {
    #[getter]
    fn task(&self) -> &str {
        &self.task
    }

    #[getter]
    fn text(&self) -> Option<&str> {
        self.outcome.answer.text()
    }

    #[getter]
    fn choices(&self) -> Vec<PyChoice> {
        let choices = self.outcome.answer.choices().iter();
        choices
            .map(|choice| PyChoice {
                text: choice.text.clone(),
                probability: choice.probability,
            })
            .collect()
    }

    #[getter]
    fn embedding<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let vector = self.vector();
        vector.map(|vector| Vectors::one(vector).array(py)).transpose()
    }

    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(pythonize(py, &self.plain_value())?)
    }

    #[getter]
    fn tokens(&self) -> Vec<u32> {
        self.outcome.answer_tokens.clone()
    }

    #[getter]
    fn finish_reason<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(pythonize(py, &self.outcome.finish_reason)?)
    }

    #[getter]
    fn usage(&self) -> PyUsage {
        self.outcome.usage.into()
    }

    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // Through JSON: its fields that are left out stay out.
        let report = serde_json::to_value(OutcomeReport::new(&self.task, &self.outcome));
        let report = report.map_err(|error| Failure::Engine(error.to_string()))?;
        Ok(pythonize(py, &report)?)
    }

    fn __repr__(&self) -> String {
        match self.outcome.answer.text() {
            Some(text) => format!("Answer(task={:?}, text={text:?})", self.task),
            None => format!("Answer(task={:?})", self.task),
        }
    }

    fn __str__(&self) -> String {
        let text = self.outcome.answer.text();
        text.map_or_else(|| self.__repr__(), str::to_owned)
    }
}

/// The log-likelihood of a text.
#[pyclass(name = "Score", module = "multiway", frozen)]
#[derive(Clone)]
pub(crate) struct PyScore {
    score: Score,
}

impl From<Score> for PyScore {
    fn from(score: Score) -> Self {
        Self { score }
    }
}

#[pymethods]
impl PyScore {
    #[getter]
    fn log_probability(&self) -> f32 {
        self.score.log_probability
    }

    #[getter]
    fn tokens(&self) -> Vec<u32> {
        self.score.tokens.clone()
    }

    #[getter]
    fn log_probabilities(&self) -> Vec<f32> {
        self.score.log_probabilities.clone()
    }

    fn __repr__(&self) -> String {
        let (log_probability, tokens) = (self.score.log_probability, self.score.tokens.len());
        format!("Score(log_probability={log_probability:.4}, tokens=<{tokens}>)")
    }
}

/// The answer to a question with closed answers.
#[pyclass(name = "Decision", module = "multiway", frozen)]
pub(crate) struct PyDecision {
    answers: Vec<String>,
    decision: Decision,
}

impl PyDecision {
    pub(crate) fn new(question: &ClosedQuestion, decision: Decision) -> Self {
        let answers = question.answers().iter();
        Self {
            answers: answers.map(|answer| answer.text.clone()).collect(),
            decision,
        }
    }
}

#[pymethods]
impl PyDecision {
    #[getter]
    fn answer(&self) -> &str {
        let best = self.answers.get(self.decision.best());
        best.map(String::as_str).unwrap_or_default()
    }

    #[getter]
    fn probabilities<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let probabilities = PyDict::new(py);
        for (answer, probability) in self.answers.iter().zip(&self.decision.probabilities) {
            probabilities.set_item(answer, probability)?;
        }
        Ok(probabilities)
    }

    #[getter]
    fn confidence(&self) -> f64 {
        self.decision.confidence()
    }

    #[getter]
    fn expected(&self) -> f64 {
        self.decision.expected()
    }

    #[getter]
    fn label_mass(&self) -> f64 {
        self.decision.label_mass
    }

    #[getter]
    fn is_calibrated(&self) -> bool {
        self.decision.is_calibrated
    }

    fn __repr__(&self) -> String {
        let answer = self.answer();
        let probability = self.decision.probabilities.get(self.decision.best());
        let probability = probability.copied().unwrap_or_default();
        format!("Decision(answer={answer:?}, probability={probability:.4})")
    }
}
