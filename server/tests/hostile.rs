//! Bodies that no client sends by mistake: each is answered, and none with a failure of the server.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use multiway_server::ServerOptions;
use proptest::prelude::*;
use serde_json::{Value, json};

use self::common::{picture, send, server, text_of};

/// Routes with a body that each takes.
fn bodies() -> [(&'static str, Value); 9] {
    let message = json!([{ "role": "user", "content": [
        { "type": "text", "text": "what color is the circle?" },
        { "type": "image_url", "image_url": { "url": picture() } },
    ] }]);
    let input = json!([{ "role": "user", "content": [
        { "type": "input_text", "text": "what is it?" },
        { "type": "input_image", "image_url": picture() },
    ] }]);
    let questions = json!([
        { "type": "predicate", "instructions": "is it red?" },
        { "type": "choice", "instructions": "which?", "choices": [{ "value": "red" }, { "value": true }] },
        { "type": "score", "instructions": "how red?", "levels": [{ "label": "little" }, { "label": "much" }] },
    ]);
    let asked = json!({ "a": { "type": "choice", "instructions": "which?", "criteria": { "red": "it is", "blue": "" } } });
    [
        (
            "/v1/tasks/vqa",
            json!({
                "model": "small", "inputs": { "image": picture(), "question": "what color?" },
                "sampling": { "max_new_tokens": 4, "temperature": 0.5, "seed": 1 }, "priority": 1, "timeout": 9.0, "explain": true,
            }),
        ),
        (
            "/v1/chat/completions",
            json!({
                "model": "small:vqa", "messages": message, "max_tokens": 4, "n": 2, "seed": 1, "temperature": 1.0,
                "logprobs": true, "top_logprobs": 2, "stop": ["a"], "response_format": { "type": "text" },
            }),
        ),
        (
            "/v1/completions",
            json!({ "model": "small", "prompt": ["a cat", "a dog"], "max_tokens": 4, "logprobs": 1 }),
        ),
        (
            "/v1/responses",
            json!({
                "model": "small", "input": input, "instructions": "be short", "max_output_tokens": 4,
                "text": { "format": { "type": "json_object" } },
            }),
        ),
        (
            "/v1/embeddings",
            json!({ "model": "small", "input": ["a cat", "a dog"], "dimensions": 8 }),
        ),
        (
            "/v1/decisions",
            json!({ "model": "small", "input": input, "questions": questions }),
        ),
        (
            "/v1/systemone",
            json!({ "model": "small", "state": "it rains", "questions": asked, "images": [picture()] }),
        ),
        (
            "/v1/search",
            json!({ "index": "a", "query": "a cat", "limit": 4, "weight": 0.5 }),
        ),
        (
            "/tokenize",
            json!({ "model": "small", "prompt": "a cat", "add_special_tokens": true }),
        ),
    ]
}

/// Counts the values of a body, itself and those inside.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(values) => values.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Puts another value at a place of a body; places are counted as [`count`] does.
fn put(value: &mut Value, place: &mut usize, other: &Value) {
    if *place == 0 {
        *value = other.clone();
    }
    *place = place.wrapping_sub(1);
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| put(value, place, other)),
        Value::Object(fields) => fields.values_mut().for_each(|value| put(value, place, other)),
        _ => {}
    }
}

fn hostile() -> impl Strategy<Value = Value> {
    let deep = (0..60).fold(json!(1), |inner, _| json!([inner]));
    let long = "a ".repeat(20_000);
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(1e300)),
        Just(json!(-0.0)),
        ".{0,40}".prop_map(Value::from),
        Just(json!("data:image/png;base64,iVBORw0KGgo=")),
        Just(json!("http://127.0.0.1/")),
        Just(json!(
            "{{ image }}{% for a in range(1000000000) %}a{% endfor %}<extra_id_0></s>"
        )),
        Just(json!(long)),
        Just(json!([])),
        Just(json!({})),
        Just(json!({ "type": "object", "properties": { "a": { "$ref": "#" } }, "required": ["a"] })),
        Just(json!(vec![0; 3000])),
        Just(json!({ "": { "": [[]] } })),
        Just(deep),
    ]
}

fn answered(router: &Router, path: &str, body: Vec<u8>) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let response = send(router, Request::post(path).body(Body::from(body)).unwrap()).await;
        (response.status().as_u16(), text_of(response).await)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_value_in_another_ones_place_is_taken_or_refused(
        route in 0_usize..9,
        place in any::<prop::sample::Index>(),
        other in hostile(),
    ) {
        let router = server(ServerOptions::default());
        let (path, mut body) = bodies()[route].clone();
        put(&mut body, &mut place.index(count(&bodies()[route].1)), &other);
        let (status, answer) = answered(&router, path, body.to_string().into_bytes());
        // A timeout may be a very short one.
        prop_assert!(status < 500 || status == 504, "{path} {body}: {status} {answer}");
        if status >= 400 {
            let error: Value = serde_json::from_str(&answer).unwrap();
            prop_assert!(error["error"]["message"].is_string(), "{path} {body}: {answer}");
        }
    }

    #[test]
    fn a_broken_body_is_refused(
        route in 0_usize..9,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        is_cut in any::<bool>(),
    ) {
        let router = server(ServerOptions::default());
        let (path, body) = bodies()[route].clone();
        let mut bytes = body.to_string().into_bytes();
        let at = at.index(bytes.len());
        if is_cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        let (status, answer) = answered(&router, path, bytes);
        prop_assert!(status < 500 && (!is_cut || status >= 400), "{path}: {status} {answer}");
    }
}
