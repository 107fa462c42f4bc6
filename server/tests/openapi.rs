//! The description of the routes.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use multiway_server::ServerOptions;
use serde_json::{Value, json};

use self::common::{get, parts, send, server};

/// Lists the schemas that a value refers to.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_described_route_is_there_and_every_schema_that_is_named() {
    let router = server(ServerOptions::default());
    let (status, document) = get(&router, "/openapi.json").await;
    assert_eq!(status, StatusCode::OK);
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let path = path
                .replace("{name}", "small")
                .replace("{index}/{position}", "none/0");
            let request = Request::builder()
                .method(method.to_uppercase().as_str())
                .uri(&path);
            let response = send(&router, request.body(Body::empty()).unwrap()).await;
            let missing = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_FOUND];
            let is_search = path.starts_with("/v1/search/");
            assert!(
                is_search || !missing.contains(&response.status()),
                "{method} {path}: {}",
                response.status()
            );
        }
    }
}

#[tokio::test]
async fn the_inputs_of_a_task_are_those_of_its_file() {
    let router = server(ServerOptions::default());
    let (_, document) = get(&router, "/openapi.json").await;
    for task in parts().1.iter() {
        let path = format!("/v1/tasks/{}", task.name());
        let schema =
            &document["paths"][&path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        let inputs = &schema["allOf"][1]["properties"]["inputs"];
        for (name, spec) in &task.file().inputs {
            assert!(inputs["properties"][name].is_object(), "{path} {name}");
            let required = inputs["required"].as_array().unwrap().contains(&json!(name));
            assert_eq!(required, spec.is_required(), "{path} {name}");
        }
    }
    let caption =
        &document["paths"]["/v1/tasks/caption"]["post"]["requestBody"]["content"]["application/json"];
    let language = &caption["schema"]["allOf"][1]["properties"]["inputs"]["properties"]["language"];
    assert_eq!(
        (&language["enum"][0], &language["default"]),
        (&json!("English"), &json!("English"))
    );
}
