//! The routes.

mod chat;
mod completions;
mod decisions;
mod embeddings;
mod page;
mod responses;
mod search;
mod status;
mod systemone;
mod tasks;
mod tokens;

/// The bodies of requests, for their description.
pub(crate) mod bodies {
    pub(crate) use super::chat::ChatRequest;
    pub(crate) use super::completions::CompletionRequest;
    pub(crate) use super::decisions::DecisionsRequest;
    pub(crate) use super::embeddings::EmbeddingRequest;
    pub(crate) use super::responses::ResponsesRequest;
    pub(crate) use super::search::SearchRequest;
    pub(crate) use super::systemone::SystemOneRequest;
    pub(crate) use super::tasks::TaskRequest;
    pub(crate) use super::tokens::{DetokenizeRequest, TokenizeRequest};
}

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Redirect};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

use crate::access;
use crate::error::ApiError;
use crate::shared::Shared;

/// Makes the service of all routes.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let routes = Router::new()
        .route("/", get(page::index))
        .route("/page/{file}", get(page::file))
        .route(access::HEALTH, get(status::health))
        .route("/version", get(status::version))
        .route("/openapi.json", get(status::openapi))
        .route("/metrics", get(status::metrics))
        .route("/v1/models", get(status::models))
        .route("/v1/models/{*name}", get(status::model))
        .route("/v1/tasks", get(tasks::list))
        .route("/v1/tasks/{name}", get(tasks::show).post(tasks::run))
        .route("/v1/chat/completions", post(chat::run))
        .route("/v1/completions", post(completions::run))
        .route("/v1/responses", post(responses::run))
        .route("/v1/decisions", post(decisions::run))
        .route("/v1/systemone", post(systemone::run))
        .route("/v1/embeddings", post(embeddings::run))
        .route("/v1/search", get(search::list).post(search::run))
        .route("/v1/search/{index}/{position}", get(search::picture))
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
        prefix => {
            let page = prefix.to_owned();
            let to_page = get(async move || Redirect::permanent(&page));
            Router::new()
                .nest(prefix, routes)
                .route(&format!("{prefix}/"), to_page)
        }
    }
}

fn cors(origins: &[String]) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request());
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
