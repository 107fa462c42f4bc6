//! `POST /v1/chat/completions`: a message with pictures, as OpenAI's clients send it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use multiway::engine::FinishReason;
use multiway::task::{ScoredToken, TaskEvent, TaskOutcome, TaskRun, WrittenToken};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::JsonBody;
use crate::error::ApiError;
use crate::events::{self, Sent};
use crate::message::{Message, Said, bind};
use crate::sampling::Sampling;
use crate::shared::{Place, Shared, now};

/// A request for an answer to messages.
#[derive(Debug, Deserialize)]
pub(crate) struct ChatRequest {
    #[serde(default)]
    model: Option<String>,
    messages: Vec<Message>,
    #[serde(default)]
    logprobs: Option<bool>,
    #[serde(default)]
    top_logprobs: Option<usize>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    tool_choice: Option<Value>,
    #[serde(flatten)]
    sampling: Sampling,
}

/// Answers messages.
pub(crate) async fn run(
    State(shared): State<Arc<Shared>>,
    place: Place,
    JsonBody(request): JsonBody<ChatRequest>,
) -> Result<Response, ApiError> {
    let uses_tools = request.tools.is_some_and(|tools| !tools.is_empty());
    if uses_tools && request.tool_choice != Some(json!("none")) {
        return Err(ApiError::field(
            "tools",
            "tools: these models call no tools; leave them out",
        ));
    }
    let sampling = request.sampling;
    sampling.log_others("/v1/chat/completions");
    let (model, task) = shared.model(request.model.as_deref())?;
    let task = task.unwrap_or_else(|| Arc::clone(&model.plain));
    if task.file().output.is_encoded() {
        let message = format!(
            "model: the task '{}' writes no text; run it as /v1/tasks/{0}",
            task.name()
        );
        return Err(ApiError::field("model", message));
    }
    let wants_tokens = request.logprobs.unwrap_or(false);
    let alternatives = wants_tokens.then(|| request.top_logprobs.unwrap_or_default());
    let said = Said::of(request.messages)?;
    let mut inputs = bind(&task, model.engine.config(), said).await?;
    // A task whose answer is read has its own form; the form that was asked for is what was read.
    let is_text = matches!(task.file().output, multiway::prompt::OutputSpec::Text { .. });
    if is_text {
        inputs.constraint = sampling.constraint()?;
    }
    let inputs = inputs
        .with_sampling(sampling.options(&task, model.engine.config(), alternatives)?)
        .with_terms(shared.terms(sampling.priority, None));
    let run = task.run(&model.engine, &inputs)?;
    let head = Head {
        id: shared.id("chatcmpl"),
        created: now(),
        model: request.model.unwrap_or_else(|| model.name.clone()),
        as_json: sampling.wants_json() && !is_text,
        shown: alternatives,
    };
    if sampling.streams() {
        return Ok(streamed(run, head, sampling.include_usage(), place));
    }
    let outcome = run.wait().await?;
    Ok(Json(head.whole(&outcome)).into_response())
}

/// What every object of an answer says, and how it is written.
struct Head {
    id: String,
    created: u64,
    model: String,
    /// Whether a typed answer is told as JSON rather than as the model wrote it.
    as_json: bool,
    /// How many alternatives of each token are told; none where tokens are not.
    shown: Option<usize>,
}

impl Head {
    fn whole(&self, outcome: &TaskOutcome) -> Value {
        let choices = self.answers(outcome).into_iter().enumerate();
        let choices = choices.map(|(index, answer)| {
            json!({
                "index": index,
                "message": { "role": "assistant", "content": answer.content, "refusal": null },
                "logprobs": answer.logprobs,
                "finish_reason": answer.finish_reason,
            })
        });
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": choices.collect::<Vec<_>>(),
            "usage": usage([outcome]),
        })
    }

    /// Lists the answers: one, or all that were drawn.
    fn answers(&self, outcome: &TaskOutcome) -> Vec<Told> {
        if outcome.samples.is_empty() {
            return vec![Told {
                content: self.content(&outcome.answer),
                logprobs: self.logprobs(&outcome.tokens),
                finish_reason: finish_reason(outcome.finish_reason),
            }];
        }
        let told = |sample: &multiway::task::TaskSample| Told {
            content: self.content(&sample.answer),
            logprobs: self.logprobs(&sample.tokens),
            finish_reason: finish_reason(Some(sample.finish_reason)),
        };
        outcome.samples.iter().map(told).collect()
    }

    fn content(&self, answer: &multiway::Answer) -> String {
        if self.as_json {
            return Value::Object(answer.typed()).to_string();
        }
        answer.text().unwrap_or_default().to_owned()
    }

    fn logprobs(&self, tokens: &[WrittenToken]) -> Value {
        let Some(shown) = self.shown else {
            return Value::Null;
        };
        let content: Vec<Value> = tokens
            .iter()
            .map(|token| {
                let mut told = scored(&token.token);
                let others = token.alternatives.iter().take(shown).map(scored);
                told["top_logprobs"] = others.collect();
                told
            })
            .collect();
        json!({ "content": content, "refusal": null })
    }

    fn chunk(&self, index: usize, delta: &Value, told: Option<&Told>) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "index": index,
                "delta": delta,
                "logprobs": told.map(|told| &told.logprobs),
                "finish_reason": told.map(|told| told.finish_reason),
            }],
        })
    }
}

/// One answer.
struct Told {
    content: String,
    logprobs: Value,
    finish_reason: &'static str,
}

fn streamed(run: TaskRun, head: Head, include_usage: bool, place: Place) -> Response {
    let first = head.chunk(0, &json!({ "role": "assistant", "content": "" }), None);
    let mut has_text = false;
    let events = run.flat_map(move |event| {
        let sent: Vec<Sent> = match event {
            // A typed answer is told at its end.
            Ok(TaskEvent::Text(_)) if head.as_json => Vec::new(),
            Ok(TaskEvent::Text(text)) => {
                has_text = true;
                vec![Sent::Data(head.chunk(0, &json!({ "content": text }), None))]
            }
            Ok(TaskEvent::Finished(outcome)) => ends(&head, &outcome, has_text, include_usage),
            Ok(_) => Vec::new(),
            Err(error) => vec![Sent::Data(ApiError::from(error).to_json())],
        };
        stream::iter(sent)
    });
    let events = stream::iter([Sent::Data(first)]).chain(events);
    events::respond(events.chain(stream::iter([Sent::Done])), place)
}

/// Lists the last events: what was not told yet, why each answer ended, and the usage.
fn ends(head: &Head, outcome: &TaskOutcome, has_text: bool, include_usage: bool) -> Vec<Sent> {
    let mut sent = Vec::new();
    for (index, told) in head.answers(outcome).iter().enumerate() {
        if index > 0 || !has_text {
            let delta = json!({ "role": "assistant", "content": told.content });
            sent.push(Sent::Data(head.chunk(index, &delta, None)));
        }
        sent.push(Sent::Data(head.chunk(index, &json!({}), Some(told))));
    }
    if include_usage {
        sent.push(Sent::Data(json!({
            "id": head.id,
            "object": "chat.completion.chunk",
            "created": head.created,
            "model": head.model,
            "choices": [],
            "usage": usage([outcome]),
        })));
    }
    sent
}

/// Names why an answer ended, as OpenAI does.
pub(crate) fn finish_reason(reason: Option<FinishReason>) -> &'static str {
    match reason {
        Some(FinishReason::Length) => "length",
        _ => "stop",
    }
}

/// Counts the tokens of outcomes as OpenAI does; patches of pictures are tokens of the prompt.
pub(crate) fn usage<'a>(outcomes: impl IntoIterator<Item = &'a TaskOutcome>) -> Value {
    let (mut prompt, mut written) = (0, 0);
    for TaskOutcome { usage, .. } in outcomes {
        prompt += usage.prompt_tokens + usage.image_patches;
        written += usage.new_tokens;
    }
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
    })
}

fn scored(token: &ScoredToken) -> Value {
    json!({
        "token": token.piece,
        "logprob": token.log_probability,
        "bytes": token.piece.as_bytes(),
    })
}
