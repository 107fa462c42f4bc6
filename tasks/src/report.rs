//! An outcome for programs: what `multiway run --json` prints and the server answers.

use multiway_runtime::{FinishReason, Usage};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::answer::{Choice, PatchAnswer, TaskOutcome, TaskSample, WrittenToken};

/// Serializes an outcome as one object; what an answer of its kind does not have is left out.
///
/// # Examples
///
/// ```
/// use multiway_runtime::Engine;
/// use multiway_tasks::{OutcomeReport, TaskInputs, TaskLibrary};
/// # let checkpoint = multiway_model::Checkpoint::open("../checkpoints/default")?;
///
/// let engine = Engine::builder(&checkpoint).build()?;
/// let library = TaskLibrary::for_model(checkpoint.config())?;
/// let inputs = TaskInputs::new().with("text", "The ___ sat.");
/// let outcome = library.get("infill")?.run(&engine, &inputs)?.wait_blocking()?;
/// let report = serde_json::to_value(OutcomeReport::new("infill", &outcome))?;
/// assert_eq!(report["task"], "infill");
/// assert!(report["usage"]["new_tokens"].is_u64());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Serialize)]
pub struct OutcomeReport<'a> {
    task: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(flatten)]
    typed: Map<String, Value>,
    finish_reason: Option<FinishReason>,
    usage: Usage,
    #[serde(skip_serializing_if = "<[Choice]>::is_empty")]
    choices: &'a [Choice],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples: Vec<SampleReport<'a>>,
    #[serde(skip_serializing_if = "<[WrittenToken]>::is_empty")]
    tokens: &'a [WrittenToken],
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "<[PatchAnswer]>::is_empty")]
    patches: &'a [PatchAnswer],
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a Value>,
}

impl<'a> OutcomeReport<'a> {
    /// Reports the outcome of a task.
    #[must_use]
    pub fn new(task: &'a str, outcome: &'a TaskOutcome) -> Self {
        Self {
            task,
            text: outcome.answer.text(),
            typed: outcome.answer.typed(),
            finish_reason: outcome.finish_reason,
            usage: outcome.usage,
            choices: outcome.answer.choices(),
            samples: outcome.samples.iter().map(SampleReport::new).collect(),
            tokens: &outcome.tokens,
            embedding: outcome.answer.embedding(),
            patches: outcome.answer.patches(),
            value: outcome.answer.json(),
        }
    }
}

/// One of several answers that were drawn.
#[derive(Debug, Serialize)]
struct SampleReport<'a> {
    text: Option<&'a str>,
    #[serde(flatten)]
    typed: Map<String, Value>,
    finish_reason: FinishReason,
    mean_log_probability: f64,
    #[serde(skip_serializing_if = "<[WrittenToken]>::is_empty")]
    tokens: &'a [WrittenToken],
}

impl<'a> SampleReport<'a> {
    fn new(sample: &'a TaskSample) -> Self {
        Self {
            text: sample.answer.text(),
            typed: sample.answer.typed(),
            finish_reason: sample.finish_reason,
            mean_log_probability: sample.mean_log_probability,
            tokens: &sample.tokens,
        }
    }
}
