//! `POST /v1/embeddings`: vectors of texts and of pictures, in one space.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use multiway::task::TaskInputs;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::body::JsonBody;
use crate::error::ApiError;
use crate::message::{Message, Said, bind};
use crate::pictures;
use crate::reply::run_all;
use crate::routes::chat::usage;
use crate::shared::{Place, Shared};
use crate::texts::Texts;

/// The task that makes vectors, unless `model` names another.
pub(super) const RETRIEVE: &str = "retrieve";
/// The most inputs of a request.
const MOST_INPUTS: usize = 2048;

/// A request for vectors: of texts, or of one message with pictures.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EmbeddingRequest {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    input: Option<Texts>,
    #[serde(default)]
    messages: Option<Vec<Message>>,
    #[serde(default)]
    encoding_format: Format,
    #[serde(default)]
    dimensions: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Float,
    Base64,
}

/// Makes vectors.
pub(crate) async fn run(
    State(shared): State<Arc<Shared>>,
    _place: Place,
    JsonBody(request): JsonBody<EmbeddingRequest>,
) -> Result<Json<Value>, ApiError> {
    let (model, task) = shared.model(request.model.as_deref())?;
    let task = match task {
        Some(task) => task,
        None => model.task(RETRIEVE)?,
    };
    let config = model.engine.config();
    let texts = match (request.input, &request.messages) {
        (Some(input), None) => input.texts(model.engine.tokenizer()),
        (None, Some(_)) => Vec::new(),
        _ => {
            return Err(ApiError::field(
                "input",
                "input: expected either input or messages",
            ));
        }
    };
    let mut inputs: Vec<TaskInputs> = Vec::with_capacity(texts.len());
    for text in texts {
        let mut said = Said::nothing("input");
        said.add_text(&text);
        inputs.push(bind(&task, config, said, &shared.fetcher).await?);
    }
    if let Some(messages) = request.messages {
        let said = Said::of("messages", messages)?;
        inputs.push(bind(&task, config, said, &shared.fetcher).await?);
    }
    if inputs.is_empty() || inputs.len() > MOST_INPUTS {
        let message = format!("input: expected 1 to {MOST_INPUTS} texts, found {}", inputs.len());
        return Err(ApiError::field("input", message));
    }
    let terms = shared.terms(None, None);
    let inputs = inputs.into_iter().map(|inputs| inputs.with_terms(terms));
    let outcomes = run_all(&model.engine, &task, inputs).await?;
    let mut data = Vec::with_capacity(outcomes.len());
    for (index, outcome) in outcomes.iter().enumerate() {
        let vector = outcome.answer.embedding().ok_or_else(|| {
            ApiError::field(
                "model",
                format!("model: the task '{}' makes no vectors", task.name()),
            )
        })?;
        let vector = shortened(vector, request.dimensions)?;
        let embedding = match request.encoding_format {
            Format::Float => json!(vector),
            Format::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                json!(pictures::encode(&bytes))
            }
        };
        data.push(json!({ "object": "embedding", "index": index, "embedding": embedding }));
    }
    Ok(Json(json!({
        "object": "list",
        "data": data,
        "model": request.model.unwrap_or_else(|| model.name.clone()),
        "usage": usage(&outcomes),
    })))
}

/// Keeps the first numbers of a vector, scaled to unit length again.
fn shortened(vector: &[f32], dimensions: Option<usize>) -> Result<Vec<f32>, ApiError> {
    let Some(dimensions) = dimensions else {
        return Ok(vector.to_vec());
    };
    let kept = vector
        .get(..dimensions)
        .filter(|kept| !kept.is_empty())
        .ok_or_else(|| {
            let message = format!("dimensions: expected 1 to {}, found {dimensions}", vector.len());
            ApiError::field("dimensions", message)
        })?;
    let length = kept.iter().map(|number| number * number).sum::<f32>().sqrt();
    Ok(kept
        .iter()
        .map(|number| number / length.max(f32::MIN_POSITIVE))
        .collect())
}
