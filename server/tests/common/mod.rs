//! A server of the default checkpoint, asked without a socket.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::path::Path;
use std::sync::OnceLock;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt as _;
use multiway::task::WatchedLibrary;
use multiway::{Checkpoint, Engine, ImageProcessor, TaskInputs, TaskLibrary};
use multiway_server::{Server, ServerOptions};
use serde_json::{Value, json};
use tower::ServiceExt as _;

pub(crate) const PICTURE: &str = "../examples/pictures/red-circle.png";

/// The engine and the tasks of the default checkpoint, for all tests.
pub(crate) fn parts() -> &'static (Engine, TaskLibrary) {
    static PARTS: OnceLock<(Engine, TaskLibrary)> = OnceLock::new();
    PARTS.get_or_init(|| {
        let checkpoint = Checkpoint::open("../checkpoints/default").unwrap();
        let engine = Engine::builder(&checkpoint).build().unwrap();
        (engine, TaskLibrary::for_model(checkpoint.config()).unwrap())
    })
}

pub(crate) fn server(options: ServerOptions) -> Router {
    server_of(options, &[])
}

/// A server that reads the task files of some folders, too.
pub(crate) fn server_of(options: ServerOptions, folders: &[&Path]) -> Router {
    let (engine, library) = parts();
    let library = WatchedLibrary::open(library.clone(), folders).unwrap();
    let server = Server::new(options)
        .with_model("small", engine.clone(), library)
        .unwrap();
    server.into_router().unwrap()
}

pub(crate) fn picture() -> String {
    let bytes = std::fs::read(PICTURE).unwrap();
    format!("data:image/png;base64,{}", STANDARD.encode(bytes))
}

/// What the engine says, without a server.
pub(crate) fn expected(task: &str, inputs: TaskInputs) -> multiway::task::TaskOutcome {
    let (engine, library) = parts();
    let image = ImageProcessor::new(engine.config()).open(PICTURE).unwrap();
    let task = library.get(task).unwrap();
    task.run(engine, &inputs.with_image(image))
        .unwrap()
        .wait_blocking()
        .unwrap()
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Response<Body> {
    router.clone().oneshot(request).await.unwrap()
}

pub(crate) async fn get(router: &Router, path: &str) -> (StatusCode, Value) {
    let response = send(router, Request::get(path).body(Body::empty()).unwrap()).await;
    (response.status(), json_of(response).await)
}

pub(crate) fn post_of(path: &str, body: &Value) -> Request<Body> {
    Request::post(path).body(Body::from(body.to_string())).unwrap()
}

pub(crate) async fn post(router: &Router, path: &str, body: &Value) -> (StatusCode, Value) {
    let response = send(router, post_of(path, body)).await;
    (response.status(), json_of(response).await)
}

pub(crate) async fn text_of(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) async fn json_of(response: Response<Body>) -> Value {
    let text = text_of(response).await;
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

/// The events of a stream with names, each with its name.
pub(crate) async fn named_events(router: &Router, path: &str, body: &Value) -> Vec<(String, Value)> {
    let response = send(router, post_of(path, body)).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let text = text_of(response).await;
    let read = |event: &str| {
        let (name, data) = event.strip_prefix("event: ")?.split_once("\ndata: ")?;
        Some((name.to_owned(), serde_json::from_str(data).unwrap()))
    };
    let events = text.split("\n\n").filter(|event| !event.is_empty());
    events
        .map(|event| read(event).unwrap_or_else(|| unreachable!("{event}")))
        .collect()
}

/// The events of a stream; the last is `[DONE]`, and left out.
pub(crate) async fn events(router: &Router, path: &str, body: &Value) -> Vec<Value> {
    let response = send(router, post_of(path, body)).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let text = text_of(response).await;
    let data: Vec<&str> = text
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .collect();
    assert_eq!(data.last(), Some(&"[DONE]"), "{text}");
    data[..data.len() - 1]
        .iter()
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

pub(crate) fn chat(model: &str, content: &Value) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": content }] })
}
