//! `POST /v1/responses`: one message and its answer, as OpenAI's newer clients ask for it. Nothing is kept.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use multiway::engine::{FinishReason, Usage};
use multiway::task::{TaskEvent, TaskOutcome, TaskRun};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::body::JsonBody;
use crate::error::ApiError;
use crate::events::{self, Sent};
use crate::message::{Input, Message, Said};
use crate::reply::{Reply, Style, refuse_tools};
use crate::sampling::{Sampling, TextFormat};
use crate::shared::{Place, Shared, now};

/// What a request includes in the answer to be told its tokens.
const LOGPROBS: &str = "message.output_text.logprobs";

/// A request for a response.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ResponsesRequest {
    #[serde(default)]
    model: Option<String>,
    input: Input,
    #[serde(default)]
    instructions: Option<String>,
    #[serde(default)]
    max_output_tokens: Option<usize>,
    /// The form of the answer, which the answer repeats.
    #[serde(default)]
    text: Option<Value>,
    #[serde(default)]
    include: Option<Vec<String>>,
    #[serde(default)]
    top_logprobs: Option<usize>,
    #[serde(default)]
    metadata: Option<Value>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    tool_choice: Option<Value>,
    #[serde(default)]
    previous_response_id: Option<Value>,
    #[serde(default)]
    conversation: Option<Value>,
    #[serde(default)]
    prompt: Option<Value>,
    #[serde(default)]
    background: Option<bool>,
    #[serde(flatten)]
    sampling: Sampling,
}

/// How the text of a response is to be.
#[derive(Debug, Deserialize)]
struct TextConfig {
    #[serde(default)]
    format: Option<TextFormat>,
}

/// Answers a message.
pub(crate) async fn run(
    State(shared): State<Arc<Shared>>,
    place: Place,
    JsonBody(request): JsonBody<ResponsesRequest>,
) -> Result<Response, ApiError> {
    check(&request)?;
    let text = request.text.as_ref().map(TextConfig::deserialize).transpose();
    let text = text.map_err(|error| ApiError::field("text.format", format!("text.format: {error}")))?;
    let mut told = told(&request);
    let sampling = request
        .sampling
        .of_response(request.max_output_tokens, text.and_then(|text| text.format));
    sampling.log_others("/v1/responses");
    let includes = request.include.unwrap_or_default();
    let shown = includes.iter().any(|name| name == LOGPROBS);
    let shown = shown.then(|| request.top_logprobs.unwrap_or_default());
    let mut messages = request.input.messages()?;
    if let Some(instructions) = request.instructions {
        messages.insert(0, Message::new("system", instructions));
    }
    let said = Said::of(Input::FIELD, messages)?;
    let Reply { run, style } = Reply::begin(&shared, request.model, said, &sampling, shown).await?;
    told["id"] = json!(shared.id("resp"));
    told["created_at"] = json!(now());
    told["model"] = json!(style.model);
    let head = Head {
        told,
        item: shared.id("msg"),
        style,
    };
    if sampling.streams() {
        return Ok(streamed(run, head, place));
    }
    let outcome = run.wait().await?;
    Ok(Json(head.ended(&outcome)).into_response())
}

/// Refuses what needs a memory, time after the answer, or tools.
fn check(request: &ResponsesRequest) -> Result<(), ApiError> {
    let kept = [
        ("previous_response_id", &request.previous_response_id),
        ("conversation", &request.conversation),
        ("prompt", &request.prompt),
    ];
    if let Some((field, _)) = kept.iter().find(|(_, value)| value.is_some()) {
        let message = format!("{field}: this server keeps nothing between requests; send all of the input");
        return Err(ApiError::field(*field, message));
    }
    if request.background == Some(true) {
        let message =
            "background: this server keeps nothing between requests; wait for the answer, or stream it";
        return Err(ApiError::field("background", message));
    }
    refuse_tools(request.tools.as_deref(), request.tool_choice.as_ref())
}

/// Writes what every response says of its request.
fn told(request: &ResponsesRequest) -> Value {
    let sampling = &request.sampling;
    let text = request.text.clone();
    json!({
        "id": null,
        "object": "response",
        "created_at": null,
        "status": "in_progress",
        "model": null,
        "output": [],
        "error": null,
        "incomplete_details": null,
        "usage": null,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata.clone().unwrap_or_else(|| json!({})),
        "temperature": sampling.temperature.map(rounded),
        "top_p": sampling.top_p.map(rounded),
        "top_logprobs": request.top_logprobs.unwrap_or_default(),
        "text": text.unwrap_or_else(|| json!({ "format": { "type": "text" } })),
        "tools": [],
        "tool_choice": "none",
        "parallel_tool_calls": false,
        "previous_response_id": null,
        "background": false,
        "store": false,
        "truncation": "disabled",
    })
}

/// Writes a number with the digits that it was given with.
fn rounded(number: f32) -> Value {
    serde_json::from_str(&number.to_string()).unwrap_or_default()
}

/// What every event of an answer says, and how it is written.
struct Head {
    /// The response before there is an answer.
    told: Value,
    /// The name of the message.
    item: String,
    style: Style,
}

impl Head {
    /// Writes the response with an answer.
    fn ended(&self, outcome: &TaskOutcome) -> Value {
        let mut response = self.told.clone();
        response["status"] = json!(status(outcome));
        response["output"] = json!([self.message(outcome)]);
        response["usage"] = usage(&outcome.usage);
        if is_cut(outcome) {
            response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        response
    }

    /// Writes the message that is the answer.
    fn message(&self, outcome: &TaskOutcome) -> Value {
        self.item(status(outcome), vec![self.part(outcome)])
    }

    fn item(&self, status: &str, content: Vec<Value>) -> Value {
        json!({
            "id": self.item,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        })
    }

    fn part(&self, outcome: &TaskOutcome) -> Value {
        let tokens = self.style.tokens(&outcome.tokens).unwrap_or_default();
        part(&self.style.content(&outcome.answer), tokens)
    }
}

fn part(text: &str, tokens: Vec<Value>) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": tokens })
}

fn is_cut(outcome: &TaskOutcome) -> bool {
    outcome.finish_reason == Some(FinishReason::Length)
}

fn status(outcome: &TaskOutcome) -> &'static str {
    match is_cut(outcome) {
        true => "incomplete",
        false => "completed",
    }
}

/// Counts tokens as this route does; patches of pictures are tokens of the input.
pub(crate) fn usage(usage: &Usage) -> Value {
    let (input, output) = (usage.prompt_tokens + usage.image_patches, usage.new_tokens);
    json!({
        "input_tokens": input,
        "input_tokens_details": { "cached_tokens": 0, "cache_write_tokens": 0 },
        "output_tokens": output,
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": input + output,
    })
}

fn streamed(run: TaskRun, head: Head, place: Place) -> Response {
    let mut telling = Telling {
        head,
        number: 0,
        has_text: false,
    };
    let first = telling.begins();
    let events = run.flat_map(move |event| {
        let sent = match event {
            // A typed answer is told at its end.
            Ok(TaskEvent::Text(_)) if telling.head.style.as_json => Vec::new(),
            Ok(TaskEvent::Text(text)) => vec![telling.piece(&text)],
            Ok(TaskEvent::Finished(outcome)) => telling.ends(&outcome),
            Ok(_) => Vec::new(),
            Err(error) => vec![telling.fails(&error.into())],
        };
        stream::iter(sent)
    });
    events::respond(stream::iter(first).chain(events), place)
}

/// A stream that is being told.
struct Telling {
    head: Head,
    /// The number of the next event.
    number: usize,
    has_text: bool,
}

impl Telling {
    fn event(&mut self, kind: &'static str, mut data: Value) -> Sent {
        data["type"] = json!(kind);
        data["sequence_number"] = json!(self.number);
        self.number += 1;
        Sent::Named(kind, data)
    }

    /// Makes an event about the one message of the output.
    fn about_item(&mut self, kind: &'static str, item: Value) -> Sent {
        self.event(kind, json!({ "output_index": 0, "item": item }))
    }

    /// Makes an event about the one text of the message.
    fn about_text(&mut self, kind: &'static str, mut data: Value) -> Sent {
        data["item_id"] = json!(self.head.item);
        data["output_index"] = json!(0);
        data["content_index"] = json!(0);
        self.event(kind, data)
    }

    fn begins(&mut self) -> Vec<Sent> {
        let response = json!({ "response": self.head.told });
        let item = self.head.item("in_progress", Vec::new());
        vec![
            self.event("response.created", response.clone()),
            self.event("response.in_progress", response),
            self.about_item("response.output_item.added", item),
            self.about_text(
                "response.content_part.added",
                json!({ "part": part("", Vec::new()) }),
            ),
        ]
    }

    fn piece(&mut self, text: &str) -> Sent {
        self.has_text = true;
        self.about_text(
            "response.output_text.delta",
            json!({ "delta": text, "logprobs": [] }),
        )
    }

    fn ends(&mut self, outcome: &TaskOutcome) -> Vec<Sent> {
        let (part, item) = (self.head.part(outcome), self.head.message(outcome));
        let text = part["text"].as_str().unwrap_or_default().to_owned();
        let mut sent = Vec::new();
        if !self.has_text && !text.is_empty() {
            sent.push(self.piece(&text));
        }
        let done = json!({ "text": text, "logprobs": part["logprobs"] });
        sent.push(self.about_text("response.output_text.done", done));
        sent.push(self.about_text("response.content_part.done", json!({ "part": part })));
        sent.push(self.about_item("response.output_item.done", item));
        let kind = match is_cut(outcome) {
            true => "response.incomplete",
            false => "response.completed",
        };
        let response = json!({ "response": self.head.ended(outcome) });
        sent.push(self.event(kind, response));
        sent
    }

    fn fails(&mut self, error: &ApiError) -> Sent {
        let mut response = self.head.told.clone();
        response["status"] = json!("failed");
        response["error"] = error.to_failure();
        self.event("response.failed", json!({ "response": response }))
    }
}
