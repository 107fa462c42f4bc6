//! Who may ask: keys, names of requests, and a server that is shutting down.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::{Choice, ConstantTimeEq};

use crate::error::ApiError;
use crate::shared::Shared;

/// The route that needs no key.
pub(crate) const HEALTH: &str = "/health";

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest name of a request that is given back.
const LONGEST_ID: usize = 128;

/// Lets requests with a key pass; names every request, or gives the name back that it brings.
pub(crate) async fn check(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| is_plain(id))
        .cloned();
    let id = id.or_else(|| HeaderValue::from_str(&shared.id("req")).ok());
    let is_health = request.uri().path() == HEALTH;
    let mut response = if !is_health && !has_key(&shared.options.keys, &request) {
        ApiError::no_key().into_response()
    } else if !is_health && shared.is_draining() {
        ApiError::draining().into_response()
    } else {
        next.run(request).await
    };
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID.clone(), id);
    }
    response
}

fn is_plain(id: &HeaderValue) -> bool {
    let visible = id.as_bytes().iter().all(|byte| (33..127).contains(byte));
    visible && !id.is_empty() && id.len() <= LONGEST_ID
}

/// Tells whether a request brings one of the keys. All keys are compared, and each in constant time, so that
/// the time tells nothing of them but their lengths.
fn has_key(keys: &[String], request: &Request) -> bool {
    if keys.is_empty() {
        return true;
    }
    let bearer = request.headers().get(header::AUTHORIZATION);
    let bearer = bearer.and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    let own = request.headers().get("x-api-key").map(HeaderValue::as_bytes);
    let Some(found) = bearer.or(own) else {
        return false;
    };
    let matches = keys.iter().map(|key| key.as_bytes().ct_eq(found));
    matches.fold(Choice::from(0), |any, one| any | one).into()
}
