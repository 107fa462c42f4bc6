//! The routes.

mod chat;
mod completions;
mod embeddings;
mod status;
mod tasks;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::access;
use crate::error::ApiError;
use crate::shared::Shared;

/// Makes the service of all routes.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let routes = Router::new()
        .route(access::HEALTH, get(status::health))
        .route("/version", get(status::version))
        .route("/metrics", get(status::metrics))
        .route("/v1/models", get(status::models))
        .route("/v1/models/{*name}", get(status::model))
        .route("/v1/tasks", get(tasks::list))
        .route("/v1/tasks/{name}", get(tasks::show).post(tasks::run))
        .route("/v1/chat/completions", post(chat::run))
        .route("/v1/completions", post(completions::run))
        .route("/v1/embeddings", post(embeddings::run))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::info))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(Arc::clone(&shared), access::check))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            ApiError::internal("the request failed").into_response()
        }))
        .layer(cors(&shared.options.cors_origins))
        .with_state(Arc::clone(&shared));
    match shared.options.root_path.trim_end_matches('/') {
        "" => routes,
        prefix => Router::new().nest(prefix, routes),
    }
}

fn cors(origins: &[String]) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(Any);
    if origins.iter().any(|origin| origin == "*") {
        return layer.allow_origin(Any);
    }
    let origins = origins
        .iter()
        .filter_map(|origin| HeaderValue::from_str(origin).ok());
    layer.allow_origin(AllowOrigin::list(origins))
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is no route '{}'", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::no_method(format!("the route '{}' does not take {method}", uri.path()))
}
