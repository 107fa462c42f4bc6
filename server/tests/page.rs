//! The web page, what it asks for, and who may read it.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use multiway::TaskInputs;
use multiway::index::{ElementType, IndexBuilder, IndexEntry, IndexSpec, VectorIndex};
use multiway::task::WatchedLibrary;
use multiway_server::{FetchOptions, Server, ServerError, ServerOptions};
use serde_json::json;

use self::common::{PICTURE, events, expected, get, parts, picture, post, send, server, text_of};

/// Sends a request for a file with some headers; returns the status and the text.
async fn file(router: &Router, path: &str, headers: &[(header::HeaderName, &str)]) -> (StatusCode, String) {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let response = send(router, request.body(Body::empty()).unwrap()).await;
    (response.status(), text_of(response).await)
}

#[tokio::test]
async fn the_page_is_whole_and_asks_nobody_else() {
    let router = server(ServerOptions::default());
    let response = send(&router, Request::get("/").body(Body::empty()).unwrap()).await;
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap();
    assert!(policy.starts_with("default-src 'self'"), "{policy}");
    let mut pages = vec![text_of(response).await];
    assert!(
        pages[0].contains("<title>") && !pages[0].contains("://"),
        "{}",
        pages[0]
    );
    // Every file that a file of the page names is there.
    let mut seen = Vec::new();
    while let Some(text) = pages.pop() {
        for quote in ['"', '\''] {
            for name in text.split(quote).filter(|part| !part.contains(['\n', ' '])) {
                let name = name
                    .trim_start_matches("./")
                    .trim_start_matches("page/")
                    .to_owned();
                let is_file = Path::new(&name)
                    .extension()
                    .is_some_and(|end| end == "js" || end == "css");
                if !is_file || seen.contains(&name) {
                    continue;
                }
                let (status, text) = file(&router, &format!("/page/{name}"), &[]).await;
                assert_eq!(status, StatusCode::OK, "{name}");
                seen.push(name);
                pages.push(text);
            }
        }
    }
    assert!(seen.len() > 1, "{seen:?}");
    assert_eq!(file(&router, "/page/none.js", &[]).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_proxy_may_put_a_path_before_the_page() {
    let options = ServerOptions {
        root_path: "/multiway".to_owned(),
        ..ServerOptions::default()
    };
    let router = server(options);
    let (status, page) = file(&router, "/multiway", &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("<head><base href=\"/multiway/\">"), "{page}");
    let response = send(&router, Request::get("/multiway/").body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()[header::LOCATION], "/multiway");
    assert_eq!(
        file(&router, "/multiway/page/page.js", &[]).await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn the_page_takes_a_key_as_a_password_and_nothing_else_does() {
    let options = ServerOptions {
        keys: vec!["s3cret".to_owned()],
        ..ServerOptions::default()
    };
    let router = server(options);
    let response = send(&router, Request::get("/").body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let asked = response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
    assert!(asked.starts_with("Basic"), "{asked}");
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    for (password, status) in [
        ("me:s3cret", StatusCode::OK),
        (":s3cret", StatusCode::OK),
        ("s3cret:", StatusCode::UNAUTHORIZED),
        ("me:s3cre", StatusCode::UNAUTHORIZED),
        ("me", StatusCode::UNAUTHORIZED),
    ] {
        let value = basic(password);
        let headers = [(header::AUTHORIZATION, value.as_str())];
        assert_eq!(file(&router, "/", &headers).await.0, status, "{password}");
        assert_eq!(
            file(&router, "/page/page.js", &headers).await.0,
            status,
            "{password}"
        );
        let (other, _) = file(&router, "/v1/models", &headers).await;
        assert_eq!(other, StatusCode::UNAUTHORIZED, "{password}");
    }
    let bearer = [(header::AUTHORIZATION, "Bearer s3cret")];
    assert_eq!(file(&router, "/", &bearer).await.0, StatusCode::OK);
    assert_eq!(
        file(&router, "/v1/search/a/0", &[]).await.0,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_page_of_another_site_may_ask_only_if_it_is_listed() {
    let options = ServerOptions {
        cors_origins: vec!["https://listed.test".to_owned()],
        ..ServerOptions::default()
    };
    let router = server(options);
    let site = header::HeaderName::from_static("sec-fetch-site");
    for (origin, from, status) in [
        ("https://other.test", "cross-site", StatusCode::FORBIDDEN),
        ("https://other.test", "same-site", StatusCode::FORBIDDEN),
        ("https://listed.test", "cross-site", StatusCode::OK),
        ("https://other.test", "same-origin", StatusCode::OK),
    ] {
        let headers = [(header::ORIGIN, origin), (site.clone(), from)];
        assert_eq!(
            file(&router, "/v1/models", &headers).await.0,
            status,
            "{origin} {from}"
        );
        assert_eq!(file(&router, "/", &headers).await.0, StatusCode::OK);
        assert_eq!(file(&router, "/health", &headers).await.0, StatusCode::OK);
    }
    let asked = Request::builder()
        .method("OPTIONS")
        .uri("/v1/models")
        .header(header::ORIGIN, "https://listed.test")
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "GET")
        .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization");
    let response = send(&router, asked.body(Body::empty()).unwrap()).await;
    assert_eq!(
        response.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS],
        "authorization"
    );
}

#[tokio::test]
async fn an_explanation_tells_where_each_word_of_the_answer_looked() {
    let router = server(ServerOptions::default());
    let body = json!({ "inputs": { "image": picture() }, "explain": true });
    let (status, outcome) = post(&router, "/v1/tasks/caption", &body).await;
    assert_eq!(status, StatusCode::OK, "{outcome}");
    let explanation = &outcome["explanation"];
    let (grid, words) = (&explanation["grid"], explanation["answer"].as_array().unwrap());
    assert_eq!(explanation["inputs"], json!([0]));
    assert_eq!(explanation["visible"], json!([[0.0, 0.0, 1.0, 1.0]]));
    let side = grid.as_u64().unwrap();
    assert!(!words.is_empty());
    for word in words {
        let patches = word["patches"][0].as_array().unwrap();
        assert_eq!(patches.len() as u64, side * side);
    }
    let streamed = json!({ "inputs": { "image": picture() }, "explain": true, "stream": true });
    let events = events(&router, "/v1/tasks/caption", &streamed).await;
    assert_eq!(&events.last().unwrap()["outcome"]["explanation"], explanation);
    let (status, error) = post(
        &router,
        "/v1/tasks/infill",
        &json!({ "inputs": { "text": "The ___ sat." }, "explain": true }),
    )
    .await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (StatusCode::BAD_REQUEST, &json!("explain"))
    );
}

/// An index of two pictures, one of which lies in the folder.
fn index(folder: &Path) -> VectorIndex {
    let path = folder.join("pictures.index");
    let root = folder.join("pictures");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::copy(PICTURE, root.join("circle.png")).unwrap();
    let vector = expected("retrieve", TaskInputs::new());
    let vector = vector.answer.embedding().unwrap();
    let spec = IndexSpec::new("model", vector.len(), ElementType::F16).with_root(root.to_str().unwrap());
    let mut builder = IndexBuilder::open(&path, spec).unwrap();
    let metadata = std::fs::metadata(root.join("circle.png")).unwrap();
    let entry = |key: &str| IndexEntry::of_file(key, &metadata);
    let away: Vec<f32> = vector.iter().map(|number| -number).collect();
    builder.push(&entry("circle.png"), vector).unwrap();
    builder.push(&entry("gone.png"), &away).unwrap();
    builder.finish().unwrap();
    VectorIndex::open(&path).unwrap()
}

fn with_index(options: ServerOptions, index: VectorIndex) -> Router {
    let (engine, library) = parts();
    let library = WatchedLibrary::open(library.clone(), Vec::<&str>::new()).unwrap();
    let server = Server::new(options)
        .with_model("small", engine.clone(), library)
        .unwrap();
    server
        .with_index("shapes", "small", index)
        .unwrap()
        .into_router()
        .unwrap()
}

#[tokio::test]
async fn pictures_of_an_index_are_found_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let router = with_index(ServerOptions::default(), index(folder.path()));
    let (_, indexes) = get(&router, "/v1/search").await;
    assert_eq!(
        (&indexes["data"][0]["id"], &indexes["data"][0]["pictures"]),
        (&json!("shapes"), &json!(2))
    );
    let (status, found) = post(&router, "/v1/search", &json!({ "image": picture() })).await;
    assert_eq!(status, StatusCode::OK, "{found}");
    assert_eq!(found["data"][0]["key"], "circle.png");
    assert!((found["data"][0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-2);
    assert_eq!(found["data"][1]["key"], "gone.png");
    let address = format!("/{}", found["data"][0]["picture"].as_str().unwrap());
    let response = send(&router, Request::get(&address).body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "image/png");
    let (status, _) = get(&router, "/v1/search/shapes/1").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let both = json!({ "image": picture(), "query": "a circle", "weight": 0.0, "limit": 1 });
    let (_, weighed) = post(&router, "/v1/search", &both).await;
    assert_eq!(weighed["data"].as_array().unwrap().len(), 1);
    assert_eq!(weighed["data"][0]["key"], "circle.png");
}

#[tokio::test]
async fn what_cannot_be_searched_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let router = with_index(ServerOptions::default(), index(folder.path()));
    for (body, param) in [
        (json!({}), "query"),
        (json!({ "query": " " }), "query"),
        (json!({ "query": "a", "limit": 0 }), "limit"),
        (json!({ "query": "a", "limit": 1001 }), "limit"),
        (json!({ "query": "a", "weight": 2.0 }), "weight"),
        (json!({ "query": "a", "probes": 4 }), "probes"),
        (json!({ "image": "data:image/png;base64,AAAA" }), "image"),
    ] {
        let (status, error) = post(&router, "/v1/search", &body).await;
        assert_eq!(
            (status, &error["error"]["param"]),
            (StatusCode::BAD_REQUEST, &json!(param)),
            "{body}"
        );
    }
    let (status, error) = post(&router, "/v1/search", &json!({ "index": "others", "query": "a" })).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("expected shapes"),
        "{error}"
    );
    let none = server(ServerOptions::default());
    assert_eq!(get(&none, "/v1/search").await.1["data"], json!([]));
    assert_eq!(
        post(&none, "/v1/search", &json!({ "query": "a" })).await.0,
        StatusCode::NOT_FOUND
    );

    let (engine, library) = parts();
    let library = WatchedLibrary::open(library.clone(), Vec::<&str>::new()).unwrap();
    let server = Server::new(ServerOptions::default());
    let server = server.with_model("small", engine.clone(), library).unwrap();
    let error = server
        .with_index("shapes", "large", index(folder.path()))
        .unwrap_err();
    assert!(matches!(error, ServerError::NoModelOfIndex { .. }), "{error}");
}

#[tokio::test]
async fn pictures_by_url_come_from_listed_hosts_alone() {
    let bytes = std::fs::read(PICTURE).unwrap();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let host = format!("localhost:{}", listener.local_addr().unwrap().port());
    let url = format!("http://{host}/circle.png");
    let pictures = Router::new().route("/circle.png", axum::routing::get(async || bytes));
    tokio::spawn(async move { axum::serve(listener, pictures).await });

    let body = json!({ "inputs": { "image": url } });
    let closed = server(ServerOptions::default());
    let (status, error) = post(&closed, "/v1/tasks/caption", &body).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (StatusCode::BAD_REQUEST, &json!("inputs.image"))
    );
    let options = |private| ServerOptions {
        fetch: FetchOptions {
            hosts: vec![host.clone()],
            private,
        },
        ..ServerOptions::default()
    };
    let (status, error) = post(&server(options(false)), "/v1/tasks/caption", &body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("has no address"),
        "{error}"
    );
    let open = server(options(true));
    let (status, outcome) = post(&open, "/v1/tasks/caption", &body).await;
    assert_eq!(status, StatusCode::OK, "{outcome}");
    assert_eq!(
        outcome["text"],
        expected("caption", TaskInputs::new()).answer.text().unwrap()
    );
    let content = json!([{ "type": "image_url", "image_url": { "url": url } }]);
    let (status, answer) = post(
        &open,
        "/v1/chat/completions",
        &common::chat("small:caption", &content),
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["choices"][0]["message"]["content"], outcome["text"]);
}
