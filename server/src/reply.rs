//! The reply to a message: a task that runs, and how its answer is told.

use std::sync::Arc;

use futures_util::future::try_join_all;
use multiway::prompt::OutputSpec;
use multiway::task::{ScoredToken, TaskInputs, TaskOutcome, TaskRun, WrittenToken};
use multiway::{Answer, Engine, Task};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::message::{Said, bind};
use crate::sampling::Sampling;
use crate::shared::Shared;

/// A task that answers a message.
pub(crate) struct Reply {
    pub(crate) run: TaskRun,
    pub(crate) style: Style,
}

/// How answers are told.
pub(crate) struct Style {
    /// The model, as the request names it.
    pub(crate) model: String,
    /// Whether a typed answer is told as JSON rather than as the model wrote it.
    pub(crate) as_json: bool,
    /// How many alternatives of each token are told; none where tokens are not.
    shown: Option<usize>,
}

impl Reply {
    /// Finds the model and the task that a request names, and binds what was said to its inputs. `shown`
    /// alternatives of each token are told.
    pub(crate) async fn begin(
        shared: &Shared,
        name: Option<String>,
        said: Said,
        sampling: &Sampling,
        shown: Option<usize>,
    ) -> Result<Self, ApiError> {
        let (model, task) = shared.model(name.as_deref())?;
        let task = task.unwrap_or_else(|| Arc::clone(&model.plain));
        if task.file().output.is_encoded() {
            let message = format!(
                "model: the task '{}' writes no text; run it as /v1/tasks/{0}",
                task.name()
            );
            return Err(ApiError::field("model", message));
        }
        let config = model.engine.config();
        let mut inputs = bind(&task, config, said, &shared.fetcher).await?;
        // A task whose answer is read has its own form; the form that was asked for is what was read.
        let is_text = matches!(task.file().output, OutputSpec::Text { .. });
        if is_text {
            inputs.constraint = sampling.constraint()?;
        }
        let inputs = inputs
            .with_sampling(sampling.options(&task, config, shown)?)
            .with_terms(shared.terms(sampling.priority, None));
        Ok(Self {
            run: task.run(&model.engine, &inputs)?,
            style: Style {
                model: name.unwrap_or_else(|| model.name.clone()),
                as_json: sampling.wants_json() && !is_text,
                shown,
            },
        })
    }
}

impl Style {
    /// Returns the text of an answer.
    pub(crate) fn content(&self, answer: &Answer) -> String {
        if self.as_json {
            return Value::Object(answer.typed()).to_string();
        }
        answer.text().unwrap_or_default().to_owned()
    }

    /// Lists the tokens of an answer with their alternatives, where they are told.
    pub(crate) fn tokens(&self, tokens: &[WrittenToken]) -> Option<Vec<Value>> {
        let shown = self.shown?;
        let told = |token: &WrittenToken| {
            let mut told = scored(&token.token);
            told["top_logprobs"] = token.alternatives.iter().take(shown).map(scored).collect();
            told
        };
        Some(tokens.iter().map(told).collect())
    }
}

fn scored(token: &ScoredToken) -> Value {
    json!({
        "token": token.piece,
        "logprob": token.log_probability,
        "bytes": token.piece.as_bytes(),
    })
}

/// Runs a task on several inputs at a time, in the engine's batch; the outcomes are in their order.
pub(crate) async fn run_all(
    engine: &Engine,
    task: &Task,
    inputs: impl Iterator<Item = TaskInputs>,
) -> Result<Vec<TaskOutcome>, ApiError> {
    let runs = inputs.map(|inputs| task.run(engine, &inputs));
    let runs = runs.collect::<Result<Vec<_>, _>>()?;
    Ok(try_join_all(runs.into_iter().map(TaskRun::wait)).await?)
}

/// Refuses tools, unless the request says that none is to be called.
pub(crate) fn refuse_tools(tools: Option<&[Value]>, choice: Option<&Value>) -> Result<(), ApiError> {
    if tools.is_none_or(<[Value]>::is_empty) || choice == Some(&json!("none")) {
        return Ok(());
    }
    let message = "tools: these models call no tools; leave them out";
    Err(ApiError::field("tools", message))
}
