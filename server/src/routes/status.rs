//! What runs, and how it is.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::body::PathOf;
use crate::error::ApiError;
use crate::openapi::document;
use crate::shared::{ServedModel, Shared};

/// Answers 200 while requests are taken.
pub(crate) async fn health(State(shared): State<Arc<Shared>>) -> Response {
    if shared.is_draining() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "status": "draining" })),
        )
            .into_response();
    }
    Json(json!({ "status": "ok" })).into_response()
}

pub(crate) async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}

/// Describes the routes.
pub(crate) async fn openapi(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, ApiError> {
    document(&shared).map(Json)
}

pub(crate) async fn models(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let models = shared.models.values().map(|model| describe(model, &shared));
    Json(json!({ "object": "list", "data": models.collect::<Vec<_>>() }))
}

pub(crate) async fn model(
    State(shared): State<Arc<Shared>>,
    PathOf(name): PathOf<String>,
) -> Result<Json<Value>, ApiError> {
    let (model, _) = shared.model(Some(&name))?;
    Ok(Json(describe(model, &shared)))
}

fn describe(model: &ServedModel, shared: &Shared) -> Value {
    let config = model.engine.config();
    json!({
        "id": model.name,
        "object": "model",
        "created": shared.started,
        "owned_by": "multiway",
        "model_type": config.model_type(),
        "max_model_len": config.max_text_length,
        "max_images": config.max_images(),
    })
}

/// Writes what Prometheus reads: what the engines measure, and under vLLM's names what dashboards ask for.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = shared
        .metrics
        .as_ref()
        .map(|metrics| metrics.render())
        .unwrap_or_default();
    gauge(
        &mut text,
        &shared,
        ["vllm:num_requests_running", "Requests that are being answered."],
        |model| model.engine.stats().running,
    );
    gauge(
        &mut text,
        &shared,
        [
            "vllm:num_requests_waiting",
            "Requests that wait for a place in the engine.",
        ],
        |model| model.engine.stats().waiting,
    );
    let _ = writeln!(
        text,
        "# HELP multiway_server_requests Requests that are answered or wait, of all models.\n# TYPE multiway_server_requests gauge\nmultiway_server_requests {}",
        shared.taken()
    );
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// Writes a number of each model.
fn gauge(text: &mut String, shared: &Shared, [name, help]: [&str; 2], value: impl Fn(&ServedModel) -> usize) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
    for model in shared.models.values() {
        let label = model.name.replace(['\\', '"', '\n'], "_");
        let _ = writeln!(text, "{name}{{model_name=\"{label}\"}} {}", value(model));
    }
}
