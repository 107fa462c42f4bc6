//! Responses, asked as OpenAI's newer clients ask for them.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use axum::http::StatusCode;
use multiway::TaskInputs;
use multiway_server::ServerOptions;
use serde_json::{Value, json};

use common::{expected, named_events, picture, post, server};

const RESPONSES: &str = "/v1/responses";

fn shown(model: &str) -> Value {
    let content = json!([{ "type": "input_image", "image_url": picture(), "detail": "auto" }]);
    json!({ "model": model, "input": [{ "role": "user", "content": content }] })
}

fn text_of(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"].as_str().unwrap()
}

#[tokio::test]
async fn a_response_is_one_message_and_nothing_is_kept() {
    let router = server(ServerOptions::default());
    let mut request = shown("small:caption");
    request["temperature"] = json!(0.7);
    request["seed"] = json!(3);
    request["metadata"] = json!({ "a": "b" });
    request["store"] = json!(true);
    let (status, answer) = post(&router, RESPONSES, &request).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let told = [
        "object",
        "status",
        "store",
        "model",
        "error",
        "tools",
        "metadata",
        "temperature",
    ];
    let found: Vec<&Value> = told.iter().map(|field| &answer[field]).collect();
    let right = [
        json!("response"),
        json!("completed"),
        json!(false),
        json!("small:caption"),
        Value::Null,
        json!([]),
        json!({ "a": "b" }),
        json!(0.7),
    ];
    assert_eq!(found, right.iter().collect::<Vec<_>>());
    let message = &answer["output"][0];
    assert_eq!(
        (&message["type"], &message["role"], &message["status"]),
        (&json!("message"), &json!("assistant"), &json!("completed"))
    );

    let (_, answer) = post(&router, RESPONSES, &shown("small:caption")).await;
    let outcome = expected("caption", TaskInputs::new());
    assert_eq!(text_of(&answer), outcome.answer.text().unwrap());
    let prompt = outcome.usage.prompt_tokens + outcome.usage.image_patches;
    let usage = &answer["usage"];
    assert_eq!(
        (
            &usage["input_tokens"],
            &usage["output_tokens"],
            &usage["total_tokens"]
        ),
        (
            &json!(prompt),
            &json!(outcome.usage.new_tokens),
            &json!(prompt + outcome.usage.new_tokens)
        )
    );
    assert_eq!(usage["output_tokens_details"]["reasoning_tokens"], 0);
}

#[tokio::test]
async fn a_response_says_what_a_chat_says() {
    let router = server(ServerOptions::default());
    let request = json!({ "model": "small", "instructions": "a", "input": "b", "max_output_tokens": 3 });
    let (_, answer) = post(&router, RESPONSES, &request).await;
    let messages = json!([{ "role": "system", "content": "a" }, { "role": "user", "content": "b" }]);
    let request = json!({ "model": "small", "messages": messages, "max_tokens": 3 });
    let (_, chat) = post(&router, "/v1/chat/completions", &request).await;
    let choice = &chat["choices"][0];
    assert_eq!(text_of(&answer), choice["message"]["content"], "{answer}");
    assert_eq!(answer["usage"]["input_tokens"], chat["usage"]["prompt_tokens"]);
    let is_cut = choice["finish_reason"] == "length";
    assert_eq!(answer["status"] == "incomplete", is_cut, "{answer}");
    assert_eq!(answer["incomplete_details"].is_object(), is_cut, "{answer}");
}

#[tokio::test]
async fn a_stream_has_all_events_in_order_and_ends_in_the_whole_response() {
    let router = server(ServerOptions::default());
    let mut request = shown("small:caption");
    let (_, whole) = post(&router, RESPONSES, &request).await;
    request["stream"] = json!(true);
    let events = named_events(&router, RESPONSES, &request).await;
    for (index, (name, data)) in events.iter().enumerate() {
        assert_eq!(
            (&data["type"], &data["sequence_number"]),
            (&json!(name), &json!(index))
        );
    }
    let mut names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    let right = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(names, right);
    let pieces = events.iter().filter_map(|(_, data)| data["delta"].as_str());
    assert_eq!(pieces.collect::<String>(), text_of(&whole));
    let (first, last) = (&events[0].1["response"], &events[events.len() - 1].1["response"]);
    assert_eq!(
        (&first["status"], &first["output"], &first["id"]),
        (&json!("in_progress"), &json!([]), &last["id"])
    );
    assert_eq!(
        (&last["output"][0]["content"], &last["usage"], &last["status"]),
        (
            &whole["output"][0]["content"],
            &whole["usage"],
            &json!("completed")
        )
    );
    let item = &last["output"][0]["id"];
    assert!(item.is_string());
    let named = events.iter().filter(|(_, data)| !data["item_id"].is_null());
    assert!(named.into_iter().all(|(_, data)| data["item_id"] == *item));
}

#[tokio::test]
async fn what_is_cut_is_incomplete_and_what_fails_in_a_stream_says_so() {
    let router = server(ServerOptions::default());
    let mut request = shown("small:caption");
    request["max_output_tokens"] = json!(1);
    let (_, answer) = post(&router, RESPONSES, &request).await;
    assert_eq!(
        (&answer["status"], &answer["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    request["stream"] = json!(true);
    let events = named_events(&router, RESPONSES, &request).await;
    let (name, last) = &events[events.len() - 1];
    assert_eq!(
        (name.as_str(), &last["response"]["output"][0]["status"]),
        ("response.incomplete", &json!("incomplete"))
    );

    let long = json!({ "model": "small", "input": "a cat ".repeat(500), "stream": true });
    let events = named_events(&router, RESPONSES, &long).await;
    let (name, last) = &events[events.len() - 1];
    let response = &last["response"];
    assert_eq!(
        (name.as_str(), &response["status"], &response["error"]["code"]),
        ("response.failed", &json!("failed"), &json!("invalid_prompt"))
    );
}

#[tokio::test]
async fn forms_and_logprobs_are_as_they_were_asked_for() {
    let router = server(ServerOptions::default());
    let schema = json!({
        "type": "object",
        "properties": { "shape": { "enum": ["circle", "square"] } },
        "required": ["shape"],
        "additionalProperties": false,
    });
    let format = json!({ "type": "json_schema", "name": "seen", "schema": schema, "strict": true });
    let mut request = shown("small:caption");
    request["text"] = json!({ "format": format });
    let (_, answer) = post(&router, RESPONSES, &request).await;
    let read: Value = serde_json::from_str(text_of(&answer)).unwrap();
    assert!(
        ["circle", "square"].contains(&read["shape"].as_str().unwrap()),
        "{answer}"
    );
    assert_eq!(answer["text"]["format"], format);

    let mut request = shown("small:caption");
    request["include"] = json!(["message.output_text.logprobs"]);
    request["top_logprobs"] = json!(2);
    let (_, answer) = post(&router, RESPONSES, &request).await;
    let first = &answer["output"][0]["content"][0]["logprobs"][0];
    assert_eq!(first["top_logprobs"].as_array().unwrap().len(), 2, "{answer}");

    let mut request = shown("small:caption");
    request["tools"] = json!([{ "type": "function", "name": "f", "parameters": {} }]);
    request["tool_choice"] = json!("none");
    assert_eq!(post(&router, RESPONSES, &request).await.0, StatusCode::OK);
}

#[tokio::test]
async fn what_needs_a_memory_is_refused_with_its_field() {
    let router = server(ServerOptions::default());
    let cases = [
        ("previous_response_id", json!("resp_1"), "previous_response_id"),
        ("conversation", json!({ "id": "conv_1" }), "conversation"),
        ("prompt", json!({ "id": "pmpt_1" }), "prompt"),
        ("background", json!(true), "background"),
        ("tools", json!([{ "type": "web_search" }]), "tools"),
        ("text", json!({ "format": { "type": "lark" } }), "text.format"),
        ("top_p", json!(2.0), ""),
        (
            "input",
            json!([{ "role": "user", "content": "a" }, { "role": "assistant", "content": "b" }]),
            "input[1].role",
        ),
        (
            "input",
            json!([{ "type": "function_call_output", "call_id": "1", "output": "b" }]),
            "input[0].type",
        ),
        (
            "input",
            json!([{ "role": "user", "content": [{ "type": "input_file", "file_id": "f" }] }]),
            "input[0].content[0].type",
        ),
        (
            "input",
            json!([{ "role": "user", "content": [{ "type": "input_image", "file_id": "f" }] }]),
            "input[0].content[0]",
        ),
        ("input", json!([]), "input"),
    ];
    for (field, value, param) in cases {
        let mut request = json!({ "model": "small", "input": "a cat" });
        request[field] = value;
        let (status, error) = post(&router, RESPONSES, &request).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{field}: {error}");
        assert_eq!(
            error["error"]["param"].as_str().unwrap_or_default(),
            param,
            "{error}"
        );
    }
    let unset = json!({
        "model": "small", "input": "a cat", "max_output_tokens": 2,
        "previous_response_id": null, "conversation": null, "background": false, "tools": [],
    });
    assert_eq!(post(&router, RESPONSES, &unset).await.0, StatusCode::OK);
}
