//! `POST /tokenize` and `/detokenize`, `GET /tokenizer_info`: as vLLM has them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::body::{JsonBody, QueryOf};
use crate::error::ApiError;
use crate::routes::tasks::OfModel;
use crate::shared::Shared;

/// A text that is to be tokenized.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct TokenizeRequest {
    #[serde(default)]
    model: Option<String>,
    prompt: String,
    #[serde(default = "yes")]
    add_special_tokens: bool,
}

fn yes() -> bool {
    true
}

pub(crate) async fn tokenize(
    State(shared): State<Arc<Shared>>,
    JsonBody(request): JsonBody<TokenizeRequest>,
) -> Result<Json<Value>, ApiError> {
    let (model, _) = shared.model(request.model.as_deref())?;
    let config = model.engine.config();
    let ids = model.engine.tokenizer().encode_text(&request.prompt);
    let mut ids = ids.map_err(|error| ApiError::field("prompt", error.to_string()))?;
    if request.add_special_tokens {
        ids.push(config.eos_token_id);
    }
    Ok(Json(json!({
        "count": ids.len(),
        "max_model_len": config.max_text_length,
        "tokens": ids,
    })))
}

/// Token ids that are to be a text.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct DetokenizeRequest {
    #[serde(default)]
    model: Option<String>,
    tokens: Vec<u32>,
}

pub(crate) async fn detokenize(
    State(shared): State<Arc<Shared>>,
    JsonBody(request): JsonBody<DetokenizeRequest>,
) -> Result<Json<Value>, ApiError> {
    let (model, _) = shared.model(request.model.as_deref())?;
    let tokenizer = model.engine.tokenizer();
    let size = tokenizer.vocab_size();
    if let Some(id) = request.tokens.iter().find(|id| **id as usize >= size) {
        let message = format!("tokens: expected ids below {size}, found {id}");
        return Err(ApiError::field("tokens", message));
    }
    Ok(Json(json!({ "prompt": tokenizer.decode(&request.tokens) })))
}

pub(crate) async fn info(
    State(shared): State<Arc<Shared>>,
    QueryOf(of): QueryOf<OfModel>,
) -> Result<Json<Value>, ApiError> {
    let (model, _) = shared.model(of.model.as_deref())?;
    let (config, tokenizer) = (model.engine.config(), model.engine.tokenizer());
    Ok(Json(json!({
        "vocab_size": tokenizer.vocab_size(),
        "eos_token": tokenizer.piece(config.eos_token_id),
        "pad_token": tokenizer.piece(config.pad_token_id),
        "bos_token": null,
        "chat_template": null,
    })))
}
