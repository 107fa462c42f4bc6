//! The web page: a few files that are part of the program, and need nothing of the network.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

use crate::body::PathOf;
use crate::error::ApiError;
use crate::shared::Shared;

const INDEX: &str = include_str!("../../page/index.html");

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Names a file, its type, and what it holds.
macro_rules! file {
    ($name:literal, $kind:ident) => {
        ($name, $kind, include_str!(concat!("../../page/", $name)))
    };
}

/// The other files.
const FILES: [(&str, &str, &str); 14] = [
    file!("api.js", SCRIPT),
    file!("code.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("explanation.js", SCRIPT),
    file!("fields.js", SCRIPT),
    file!("form.js", SCRIPT),
    file!("overlay.js", SCRIPT),
    file!("page.css", CSS),
    file!("page.js", SCRIPT),
    file!("pictures.js", SCRIPT),
    file!("result.js", SCRIPT),
    file!("run.js", SCRIPT),
    file!("search.js", SCRIPT),
    file!("theme.js", SCRIPT),
];

/// The page runs its own files alone, asks this server alone, and stands in no frame of another page.
const POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; base-uri 'self'; form-action 'none'; frame-ancestors 'none'";

/// Sends the page.
pub(crate) async fn index(State(shared): State<Arc<Shared>>) -> Response {
    let root = shared.options.root_path.trim_end_matches('/');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    // Its addresses are relative, and the path of the page may lack its last slash.
    let html = match root.bytes().all(is_plain) && !root.is_empty() {
        true => INDEX.replacen("<head>", &format!("<head><base href=\"{root}/\">"), 1),
        false => INDEX.to_owned(),
    };
    (headers(), Html(html)).into_response()
}

/// Sends one of its files.
pub(crate) async fn file(PathOf(name): PathOf<String>) -> Result<Response, ApiError> {
    let found = FILES.iter().find(|(known, ..)| *known == name);
    let (_, kind, text) =
        found.ok_or_else(|| ApiError::not_found(format!("the page has no file '{name}'")))?;
    Ok((headers(), [(header::CONTENT_TYPE, *kind)], *text).into_response())
}

/// What all files of the page say.
fn headers() -> [(HeaderName, HeaderValue); 4] {
    [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // A newer program has newer files under the same names.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ]
}
