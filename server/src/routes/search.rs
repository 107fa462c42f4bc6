//! `/v1/search`: pictures of an index, found by text, by picture, or by both.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use multiway::index::{IndexEntry, SearchOptions, combine};
use multiway::task::{TaskInputs, TaskOutcome};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use utoipa::ToSchema;

use crate::body::{JsonBody, PathOf};
use crate::error::ApiError;
use crate::pictures;
use crate::reply::run_all;
use crate::routes::chat::usage;
use crate::routes::embeddings::RETRIEVE;
use crate::search::{PictureFile, ServedIndex};
use crate::shared::{Place, ServedModel, Shared};

/// Bytes of a file that are sent at a time.
const PIECE: usize = 64 << 10;
/// The most pictures that a request finds.
const MOST_FOUND: usize = 1000;

/// Lists the indexes.
pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let indexes = shared.indexes.iter().map(|(name, served)| {
        json!({
            "id": name,
            "object": "index",
            "model": served.model,
            "pictures": served.index.len(),
            "approximate": served.index.lists() > 0,
        })
    });
    Json(json!({ "object": "list", "data": indexes.collect::<Vec<_>>() }))
}

/// A request for pictures.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchRequest {
    /// The first index where it is not said.
    #[serde(default)]
    index: Option<String>,
    #[serde(default)]
    query: Option<String>,
    #[serde(default)]
    image: Option<String>,
    /// The share of the text where there is a picture, too.
    #[serde(default = "half")]
    weight: f32,
    #[serde(default = "page")]
    limit: usize,
    /// Lists that approximate search reads; exact search without.
    #[serde(default)]
    probes: Option<usize>,
}

const fn half() -> f32 {
    0.5
}

const fn page() -> usize {
    24
}

/// Finds pictures.
pub(crate) async fn run(
    State(shared): State<Arc<Shared>>,
    _place: Place,
    JsonBody(request): JsonBody<SearchRequest>,
) -> Result<Json<Value>, ApiError> {
    let (name, served) = find(&shared, request.index.as_deref())?;
    if !(1..=MOST_FOUND).contains(&request.limit) {
        let message = format!("limit: expected 1 to {MOST_FOUND}, found {}", request.limit);
        return Err(ApiError::field("limit", message));
    }
    if !(0.0..=1.0).contains(&request.weight) {
        let message = format!("weight: expected a number from 0 to 1, found {}", request.weight);
        return Err(ApiError::field("weight", message));
    }
    let (model, _) = shared.model(Some(&served.model))?;
    let outcomes = embed(&shared, model, request.query, request.image).await?;
    let (vector, used) = match outcomes.as_slice() {
        [only] => (vector(only)?.to_vec(), usage([only])),
        [image, text] => {
            let pair = [
                (vector(image)?, 1.0 - request.weight),
                (vector(text)?, request.weight),
            ];
            let both = combine(&pair).map_err(|error| ApiError::field("query", error.to_string()))?;
            (both, usage([image, text]))
        }
        _ => {
            return Err(ApiError::field(
                "query",
                "query: expected a text, an image, or both",
            ));
        }
    };
    let mut options = SearchOptions::new(request.limit);
    if let Some(probes) = request.probes {
        if served.index.lists() == 0 {
            let message = "probes: the index has no lists; leave it out for exact search";
            return Err(ApiError::field("probes", message));
        }
        options = options.approximate(probes);
    }
    let index = Arc::clone(&served.index);
    let search = move || -> Result<Vec<(usize, f32, IndexEntry)>, multiway::index::IndexError> {
        let found = index.search(&[vector], options)?;
        let found = found.iter().flatten();
        found
            .map(|found| Ok((found.position, found.score, index.entry(found.position)?)))
            .collect()
    };
    let internal = |error: String| ApiError::internal(error);
    let found = tokio::task::spawn_blocking(search).await;
    let found = found.map_err(|error| internal(error.to_string()))?;
    let found = found.map_err(|error| internal(error.to_string()))?;
    let data = found.into_iter().map(|(position, score, entry)| {
        json!({
            "key": entry.key,
            "text": entry.text,
            "score": score,
            "position": position,
            "picture": served.has_files().then(|| format!("v1/search/{name}/{position}")),
        })
    });
    Ok(Json(json!({
        "object": "list",
        "index": name,
        "model": served.model,
        "data": data.collect::<Vec<_>>(),
        "usage": used,
    })))
}

/// Sends the file of a picture, a piece at a time; it has a place until all is sent.
pub(crate) async fn picture(
    State(shared): State<Arc<Shared>>,
    place: Place,
    PathOf((name, position)): PathOf<(String, usize)>,
) -> Result<Response, ApiError> {
    find(&shared, Some(&name))?;
    let open = move || find(&shared, Some(&name))?.1.picture(position);
    let opened = tokio::task::spawn_blocking(open).await;
    let PictureFile { file, kind, bytes } =
        opened.map_err(|error| ApiError::internal(error.to_string()))??;
    let file = tokio::fs::File::from_std(file);
    let pieces = stream::try_unfold((file, place), async |(mut file, place)| {
        let mut piece = vec![0; PIECE];
        let read = file.read(&mut piece).await?;
        piece.truncate(read);
        Ok::<_, std::io::Error>((read > 0).then_some((piece, (file, place))))
    });
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=3600"),
    );
    Ok((headers, Body::from_stream(pieces)).into_response())
}

fn find<'a>(shared: &'a Shared, name: Option<&str>) -> Result<(&'a str, &'a ServedIndex), ApiError> {
    let found = match name {
        Some(name) => shared.indexes.get_key_value(name),
        None => shared.indexes.first(),
    };
    found
        .map(|(name, served)| (name.as_str(), served))
        .ok_or_else(|| {
            let known: Vec<&str> = shared.indexes.keys().map(String::as_str).collect();
            let known = match known.as_slice() {
                [] => "the server was started without --index".to_owned(),
                known => format!("expected {}", known.join(", ")),
            };
            let name = name.unwrap_or_default();
            ApiError::not_found(format!("there is no index '{name}': {known}"))
        })
}

/// Makes the vectors of a picture, then of a text, as far as they are given.
async fn embed(
    shared: &Shared,
    model: &ServedModel,
    text: Option<String>,
    image: Option<String>,
) -> Result<Vec<TaskOutcome>, ApiError> {
    let task = model.task(RETRIEVE)?;
    let mut inputs = Vec::new();
    if let Some(url) = image {
        let given = pictures::read(&url, "image")?;
        let processor = task.image_processor(model.engine.config());
        inputs.push(TaskInputs::new().with_image(pictures::open(processor, given, &shared.fetcher).await?));
    }
    if let Some(text) = text.filter(|text| !text.trim().is_empty()) {
        inputs.push(TaskInputs::new().with("text", text));
    }
    let terms = shared.terms(None, None);
    let inputs = inputs.into_iter().map(|inputs| inputs.with_terms(terms));
    run_all(&model.engine, &task, inputs).await
}

fn vector(outcome: &TaskOutcome) -> Result<&[f32], ApiError> {
    let found = outcome.answer.embedding();
    found.ok_or_else(|| ApiError::internal(format!("the task '{RETRIEVE}' makes no vectors")))
}
