//! What requests bring: bodies of JSON of bounded size, whatever the content type says; parts of paths, and
//! queries. What cannot be read is told as every error is.

use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::shared::Shared;

/// How long a body may take to arrive.
const BODY_SECONDS: u64 = 60;

/// A body that was read as JSON.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let limit = shared.options.max_body_bytes;
        let declared = request.headers().get(axum::http::header::CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|length| length > limit) {
            return Err(ApiError::too_large(limit));
        }
        let body = to_bytes(request.into_body(), limit);
        let body = tokio::time::timeout(Duration::from_secs(BODY_SECONDS), body).await;
        let body = body.map_err(|_| ApiError::slow_body(BODY_SECONDS))?;
        let bytes = body.map_err(|error| {
            // The one other cause is a client that leaves, whom no answer reaches.
            tracing::debug!("the body cannot be read: {error}");
            ApiError::too_large(limit)
        })?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Self(value)),
            Err(error) => Err(ApiError::bad(format!(
                "the body is not the expected JSON: {error}"
            ))),
        }
    }
}

/// Parts of the path.
pub(crate) struct PathOf<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Shared>> for PathOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let found = Path::from_request_parts(parts, shared).await;
        let found = found.map_err(|rejection: PathRejection| ApiError::bad(rejection.body_text()));
        found.map(|Path(value)| Self(value))
    }
}

/// A query.
pub(crate) struct QueryOf<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Shared>> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let found = Query::from_request_parts(parts, shared).await;
        let found = found.map_err(|rejection: QueryRejection| ApiError::bad(rejection.body_text()));
        found.map(|Query(value)| Self(value))
    }
}
