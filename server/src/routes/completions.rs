//! `POST /v1/completions`: the prompt is the encoder's text, the answer is what the decoder writes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use multiway::Task;
use multiway::task::{TaskEvent, TaskInputs, TaskOutcome, WrittenToken};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::body::JsonBody;
use crate::error::ApiError;
use crate::events::{self, Sent};
use crate::reply::run_all;
use crate::routes::chat::{finish_reason, usage};
use crate::sampling::Sampling;
use crate::shared::{Place, Shared, now};
use crate::texts::Texts;

/// The most prompts of a request.
const MOST_PROMPTS: usize = 256;

/// A request for texts that follow prompts.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CompletionRequest {
    #[serde(default)]
    model: Option<String>,
    prompt: Texts,
    #[serde(default)]
    logprobs: Option<usize>,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    suffix: Option<String>,
    #[serde(flatten)]
    sampling: Sampling,
}

/// Answers prompts.
pub(crate) async fn run(
    State(shared): State<Arc<Shared>>,
    place: Place,
    JsonBody(request): JsonBody<CompletionRequest>,
) -> Result<Response, ApiError> {
    if request.echo.unwrap_or(false) {
        let message = "echo: an encoder-decoder reads the prompt and writes the answer, so no answer begins with the prompt; to score an answer, run a task with `output: {kind: score}`";
        return Err(ApiError::field("echo", message));
    }
    if request.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::field(
            "suffix",
            "suffix: not taken; the task 'infill' fills gaps",
        ));
    }
    let sampling = request.sampling;
    sampling.log_others("/v1/completions");
    let (model, task) = shared.model(request.model.as_deref())?;
    if let Some(task) = task {
        let message = format!(
            "model: expected a model without a task; run '{}' as a chat or as /v1/tasks/{0}",
            task.name()
        );
        return Err(ApiError::field("model", message));
    }
    let prompts = request.prompt.texts(model.engine.tokenizer());
    if prompts.is_empty() || prompts.len() > MOST_PROMPTS {
        let message = format!(
            "prompt: expected 1 to {MOST_PROMPTS} prompts, found {}",
            prompts.len()
        );
        return Err(ApiError::field("prompt", message));
    }
    let options = sampling.options(&model.plain, model.engine.config(), request.logprobs)?;
    let (constraint, terms) = (sampling.constraint()?, shared.terms(sampling.priority, None));
    let inputs = |text: String| {
        let mut inputs = TaskInputs::new()
            .with("text", text)
            .with_sampling(options.clone())
            .with_terms(terms);
        inputs.constraint.clone_from(&constraint);
        inputs
    };
    let head = Head {
        id: shared.id("cmpl"),
        created: now(),
        model: request.model.unwrap_or_else(|| model.name.clone()),
        shown: request.logprobs,
    };
    let plain: &Task = &model.plain;
    if !sampling.streams() {
        let outcomes = run_all(&model.engine, plain, prompts.into_iter().map(inputs)).await?;
        return Ok(Json(head.whole(&outcomes)).into_response());
    }
    let mut prompts = prompts.into_iter();
    let (Some(text), None) = (prompts.next(), prompts.next()) else {
        return Err(ApiError::field(
            "prompt",
            "prompt: one at a time is streamed, found several",
        ));
    };
    let run = plain.run(&model.engine, &inputs(text))?;
    let include_usage = sampling.include_usage();
    let sent = run.flat_map(move |event| {
        let sent: Vec<Sent> = match event {
            Ok(TaskEvent::Text(text)) => vec![Sent::Data(head.chunk(&text, None))],
            Ok(TaskEvent::Finished(outcome)) => {
                let reason = finish_reason(outcome.finish_reason);
                let mut sent = vec![Sent::Data(head.chunk("", Some(reason)))];
                if include_usage {
                    let mut last = head.object(Vec::new());
                    last["usage"] = usage([&outcome]);
                    sent.push(Sent::Data(last));
                }
                sent
            }
            Ok(_) => Vec::new(),
            Err(error) => vec![Sent::Data(ApiError::from(error).to_json())],
        };
        stream::iter(sent)
    });
    Ok(events::respond(sent.chain(stream::iter([Sent::Done])), place))
}

struct Head {
    id: String,
    created: u64,
    model: String,
    /// How many alternatives of each token are told; none where tokens are not.
    shown: Option<usize>,
}

impl Head {
    fn object(&self, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    fn chunk(&self, text: &str, finish_reason: Option<&str>) -> Value {
        let choice = json!({ "index": 0, "text": text, "logprobs": null, "finish_reason": finish_reason });
        self.object(vec![choice])
    }

    fn whole(&self, outcomes: &[TaskOutcome]) -> Value {
        let mut choices = Vec::new();
        for outcome in outcomes {
            let mut add = |answer: &multiway::Answer, tokens: &[WrittenToken], reason| {
                choices.push(json!({
                    "index": choices.len(),
                    "text": answer.text(),
                    "logprobs": self.logprobs(tokens),
                    "finish_reason": finish_reason(reason),
                }));
            };
            if outcome.samples.is_empty() {
                add(&outcome.answer, &outcome.tokens, outcome.finish_reason);
            }
            for sample in &outcome.samples {
                add(&sample.answer, &sample.tokens, Some(sample.finish_reason));
            }
        }
        let mut whole = self.object(choices);
        whole["usage"] = usage(outcomes);
        whole
    }

    fn logprobs(&self, tokens: &[WrittenToken]) -> Value {
        let Some(shown) = self.shown else {
            return Value::Null;
        };
        let mut offset = 0;
        let offsets = tokens.iter().map(|token| {
            let start = offset;
            offset += token.token.piece.chars().count();
            start
        });
        let offsets: Vec<usize> = offsets.collect();
        let top = tokens.iter().map(|token| {
            let likeliest = token.alternatives.iter().take(shown);
            let pair = |one: &multiway::task::ScoredToken| (one.piece.clone(), json!(one.log_probability));
            Value::Object(likeliest.map(pair).collect())
        });
        json!({
            "tokens": tokens.iter().map(|token| &token.token.piece).collect::<Vec<_>>(),
            "token_logprobs": tokens.iter().map(|token| token.token.log_probability).collect::<Vec<_>>(),
            "top_logprobs": top.collect::<Vec<_>>(),
            "text_offset": offsets,
        })
    }
}
