//! Who may ask: keys, names of requests, and a server that is shutting down.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
    let path = request.uri().path();
    let (is_health, is_page) = (path == HEALTH, path == "/" || path.starts_with("/page/"));
    let mut response = if !is_health && !has_key(&shared.options.keys, &request, is_page) {
        let mut refusal = ApiError::no_key().into_response();
        if is_page {
            // A browser asks for a password then, which is how a person brings a key.
            let scheme = HeaderValue::from_static("Basic realm=\"multiway\"");
            refusal.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        refusal
    } else if !is_health && !is_page && is_foreign(request.headers(), &shared.options.cors_origins) {
        ApiError::foreign().into_response()
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

/// Tells whether a browser sends a request for a page of another site, which is not listed. Browsers hide the
/// answer from such a page, and send the request all the same.
fn is_foreign(headers: &HeaderMap, listed: &[String]) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_other = matches!(site, Some(b"cross-site" | b"same-site"));
    let origin = headers
        .get(header::ORIGIN)
        .and_then(|origin| origin.to_str().ok());
    is_other
        && !listed
            .iter()
            .any(|one| one == "*" || Some(one.as_str()) == origin)
}

fn is_plain(id: &HeaderValue) -> bool {
    let visible = id.as_bytes().iter().all(|byte| (33..127).contains(byte));
    visible && !id.is_empty() && id.len() <= LONGEST_ID
}

/// Tells whether a request brings one of the keys. All keys are compared, and each in constant time, so that
/// the time tells nothing of them but their lengths. `as_password` takes a key as the password of any user,
/// too. Browsers send a password by themselves, so it is taken for the page's files alone, which run nothing.
fn has_key(keys: &[String], request: &Request, as_password: bool) -> bool {
    if keys.is_empty() {
        return true;
    }
    let bearer = request.headers().get(header::AUTHORIZATION);
    let bearer = bearer.and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    let password = request
        .headers()
        .get(header::AUTHORIZATION)
        .filter(|_| as_password);
    let password = password.and_then(|value| {
        let (scheme, encoded) = value.as_bytes().split_at_checked("Basic ".len())?;
        let is_basic = scheme.eq_ignore_ascii_case(b"basic ");
        let decoded = STANDARD.decode(encoded).ok().filter(|_| is_basic)?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        Some(decoded.get(colon + 1..)?.to_vec())
    });
    let own = request.headers().get("x-api-key").map(HeaderValue::as_bytes);
    let Some(found) = password.as_deref().or(bearer).or(own) else {
        return false;
    };
    let matches = keys.iter().map(|key| key.as_bytes().ct_eq(found));
    matches.fold(Choice::from(0), |any, one| any | one).into()
}
