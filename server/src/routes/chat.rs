//! `POST /v1/chat/completions`: a message with pictures, as OpenAI's clients send it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use multiway::engine::FinishReason;
use multiway::task::{TaskEvent, TaskOutcome, TaskRun, WrittenToken};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::body::JsonBody;
use crate::error::ApiError;
use crate::events::{self, Sent};
use crate::message::{Message, Said};
use crate::reply::{Reply, Style, refuse_tools};
use crate::sampling::Sampling;
use crate::shared::{Place, Shared, now};

/// A request for an answer to messages.
#[derive(Debug, Deserialize, ToSchema)]
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
    refuse_tools(request.tools.as_deref(), request.tool_choice.as_ref())?;
    let sampling = request.sampling;
    sampling.log_others("/v1/chat/completions");
    let wants_tokens = request.logprobs.unwrap_or(false);
    let shown = wants_tokens.then(|| request.top_logprobs.unwrap_or_default());
    let said = Said::of("messages", request.messages)?;
    let Reply { run, style } = Reply::begin(&shared, request.model, said, &sampling, shown).await?;
    let head = Head {
        id: shared.id("chatcmpl"),
        created: now(),
        style,
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
    style: Style,
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
            "model": self.style.model,
            "choices": choices.collect::<Vec<_>>(),
            "usage": usage([outcome]),
        })
    }

    /// Lists the answers: one, or all that were drawn.
    fn answers(&self, outcome: &TaskOutcome) -> Vec<Told> {
        if outcome.samples.is_empty() {
            return vec![Told {
                content: self.style.content(&outcome.answer),
                logprobs: self.logprobs(&outcome.tokens),
                finish_reason: finish_reason(outcome.finish_reason),
            }];
        }
        let told = |sample: &multiway::task::TaskSample| Told {
            content: self.style.content(&sample.answer),
            logprobs: self.logprobs(&sample.tokens),
            finish_reason: finish_reason(Some(sample.finish_reason)),
        };
        outcome.samples.iter().map(told).collect()
    }

    fn logprobs(&self, tokens: &[WrittenToken]) -> Value {
        let told = self.style.tokens(tokens);
        told.map_or(
            Value::Null,
            |content| json!({ "content": content, "refusal": null }),
        )
    }

    fn chunk(&self, index: usize, delta: &Value, told: Option<&Told>) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.style.model,
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
            Ok(TaskEvent::Text(_)) if head.style.as_json => Vec::new(),
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
            "model": head.style.model,
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
