//! Every route, asked as clients ask.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use multiway::TaskInputs;
use multiway_server::ServerOptions;
use serde_json::{Value, json};

use common::{chat, events, expected, get, picture, post, post_of, send, server};

#[tokio::test]
async fn the_server_says_what_it_is() {
    let router = server(ServerOptions::default());
    assert_eq!(
        get(&router, "/health").await,
        (StatusCode::OK, json!({ "status": "ok" }))
    );
    assert_eq!(
        get(&router, "/version").await.1["version"],
        env!("CARGO_PKG_VERSION")
    );
    let (_, models) = get(&router, "/v1/models").await;
    assert_eq!(
        (&models["object"], &models["data"][0]["id"]),
        (&json!("list"), &json!("small"))
    );
    assert_eq!(get(&router, "/v1/models/small").await.1["max_images"], 4);
    let (status, error) = get(&router, "/v1/models/owner/large").await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (StatusCode::NOT_FOUND, &json!("model_not_found"))
    );
    let (_, metrics) = get(&router, "/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(
        metrics.contains("vllm:num_requests_running{model_name=\"small\"} "),
        "{metrics}"
    );
    assert!(metrics.contains("multiway_server_requests 0"), "{metrics}");
}

#[tokio::test]
async fn a_chat_about_a_picture_is_the_task_that_the_model_names() {
    let router = server(ServerOptions::default());
    let content = json!([{ "type": "image_url", "image_url": { "url": picture() } }]);
    let (status, answer) = post(&router, "/v1/chat/completions", &chat("small:caption", &content)).await;
    let outcome = expected("caption", TaskInputs::new());
    assert_eq!(status, StatusCode::OK, "{answer}");
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], outcome.answer.text().unwrap());
    assert_eq!(
        (&choice["finish_reason"], &answer["object"]),
        (&json!("stop"), &json!("chat.completion"))
    );
    let prompt = outcome.usage.prompt_tokens + outcome.usage.image_patches;
    assert_eq!(
        answer["usage"],
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": outcome.usage.new_tokens,
            "total_tokens": prompt + outcome.usage.new_tokens,
        })
    );

    let question = json!([
        { "type": "text", "text": "what color is the circle?" },
        { "type": "image_url", "image_url": picture() },
    ]);
    let (_, answer) = post(&router, "/v1/chat/completions", &chat("small:vqa", &question)).await;
    let outcome = expected(
        "vqa",
        TaskInputs::new().with("question", "what color is the circle?"),
    );
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        outcome.answer.text().unwrap()
    );
}

#[tokio::test]
async fn a_stream_says_what_the_whole_answer_says() {
    let router = server(ServerOptions::default());
    let content = json!([{ "type": "image_url", "image_url": { "url": picture() } }]);
    let mut request = chat("small:caption", &content);
    let (_, whole) = post(&router, "/v1/chat/completions", &request).await;
    // A budget that is meant for larger models changes nothing.
    request["max_tokens"] = json!(16_384);
    assert_eq!(
        post(&router, "/v1/chat/completions", &request).await.1["choices"],
        whole["choices"]
    );
    request["stream"] = json!(true);
    request["stream_options"] = json!({ "include_usage": true });
    let events = events(&router, "/v1/chat/completions", &request).await;
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let pieces = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    let text: String = pieces.collect();
    assert_eq!(text, whole["choices"][0]["message"]["content"].as_str().unwrap());
    let ended = &events[events.len() - 2];
    assert_eq!(ended["choices"][0]["finish_reason"], "stop");
    let last = &events[events.len() - 1];
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
}

#[tokio::test]
async fn samples_logprobs_and_forms_are_as_they_were_asked_for() {
    let router = server(ServerOptions::default());
    let content = json!([{ "type": "image_url", "image_url": { "url": picture() } }]);
    let mut request = chat("small:caption", &content);
    request["n"] = json!(3);
    request["temperature"] = json!(1.0);
    request["seed"] = json!(7);
    let (_, answer) = post(&router, "/v1/chat/completions", &request).await;
    let indices: Vec<_> = answer["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["index"].clone())
        .collect();
    assert_eq!(indices, [0, 1, 2]);
    assert_eq!(
        post(&router, "/v1/chat/completions", &request).await.1["choices"],
        answer["choices"]
    );

    let mut request = chat("small:caption", &content);
    request["logprobs"] = json!(true);
    request["top_logprobs"] = json!(2);
    let (_, answer) = post(&router, "/v1/chat/completions", &request).await;
    let first = &answer["choices"][0]["logprobs"]["content"][0];
    assert_eq!(first["top_logprobs"].as_array().unwrap().len(), 2, "{answer}");
    assert_eq!(
        first["logprob"], first["top_logprobs"][0]["logprob"],
        "greedy: the likeliest is written"
    );

    let mut request = chat("small:caption", &content);
    request["structured_outputs"] = json!({ "choice": ["moon", "sun"] });
    let (_, answer) = post(&router, "/v1/chat/completions", &request).await;
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(["moon", "sun"].contains(&text), "{text}");
    request["response_format"] = json!({ "type": "json_object" });
    let (status, error) = post(&router, "/v1/chat/completions", &request).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
}

#[tokio::test]
async fn a_completion_reads_the_prompt_as_the_encoder_s_text() {
    let router = server(ServerOptions::default());
    let request = json!({ "model": "small", "prompt": ["a cat", "a dog"], "max_tokens": 4 });
    let (status, answer) = post(&router, "/v1/completions", &request).await;
    assert_eq!(
        (status, &answer["object"]),
        (StatusCode::OK, &json!("text_completion")),
        "{answer}"
    );
    assert_eq!(answer["choices"].as_array().unwrap().len(), 2);
    let mut alone = json!({ "model": "small", "prompt": "a dog", "max_tokens": 4 });
    let (_, one) = post(&router, "/v1/completions", &alone).await;
    assert_eq!(one["choices"][0]["text"], answer["choices"][1]["text"]);
    alone["stream"] = json!(true);
    let streamed = events(&router, "/v1/completions", &alone).await;
    let text: String = streamed
        .iter()
        .filter_map(|event| event["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(text, one["choices"][0]["text"].as_str().unwrap());
    alone["echo"] = json!(true);
    let (status, error) = post(&router, "/v1/completions", &alone).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (StatusCode::BAD_REQUEST, &json!("echo"))
    );
}

#[tokio::test]
async fn vectors_are_those_of_the_engine_in_both_encodings() {
    let router = server(ServerOptions::default());
    let request = json!({ "model": "small", "input": ["a cat", "a dog"] });
    let (_, answer) = post(&router, "/v1/embeddings", &request).await;
    let numbers = |value: &Value| -> Vec<f32> { serde_json::from_value(value.clone()).unwrap() };
    let second = numbers(&answer["data"][1]["embedding"]);
    let length: f32 = second.iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-4, "{length}");
    let encoded = json!({ "input": "a dog", "encoding_format": "base64", "dimensions": 8 });
    let (_, short) = post(&router, "/v1/embeddings", &encoded).await;
    let bytes = STANDARD
        .decode(short["data"][0]["embedding"].as_str().unwrap())
        .unwrap();
    let first: Vec<f32> = bytes
        .chunks(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(first.len(), 8);
    let scale = first[0] / second[0];
    assert!(
        first
            .iter()
            .zip(&second)
            .all(|(a, b)| (a - b * scale).abs() < 1e-5)
    );

    let shown = json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": picture() } }] }] });
    let (_, answer) = post(&router, "/v1/embeddings", &shown).await;
    let found = numbers(&answer["data"][0]["embedding"]);
    assert_eq!(
        found,
        expected("retrieve", TaskInputs::new())
            .answer
            .embedding()
            .unwrap()
    );
}

#[tokio::test]
async fn every_task_file_is_a_route() {
    let router = server(ServerOptions::default());
    let (_, tasks) = get(&router, "/v1/tasks").await;
    let names: Vec<&str> = tasks["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|task| task["name"].as_str())
        .collect();
    assert!(
        names.contains(&"caption") && names.contains(&"classify"),
        "{names:?}"
    );
    let (_, task) = get(&router, "/v1/tasks/classify?model=small").await;
    assert_eq!(task["inputs"]["image"]["type"], "image", "{task}");
    assert_eq!(get(&router, "/v1/tasks/clasify").await.0, StatusCode::NOT_FOUND);

    let inputs = json!({ "image": picture(), "choices": ["red circle", "blue square"] });
    let request = json!({ "inputs": inputs });
    let (status, outcome) = post(&router, "/v1/tasks/classify", &request).await;
    assert_eq!(status, StatusCode::OK, "{outcome}");
    let choices = outcome["choices"].as_array().unwrap();
    let total: f64 = choices
        .iter()
        .filter_map(|choice| choice["probability"].as_f64())
        .sum();
    assert!(choices.len() == 2 && (total - 1.0).abs() < 1e-6, "{outcome}");

    let request = json!({ "inputs": { "image": picture() }, "stream": true });
    let events = events(&router, "/v1/tasks/caption", &request).await;
    let last = events.last().unwrap();
    let text: String = events.iter().filter_map(|event| event["text"].as_str()).collect();
    assert_eq!(
        (&last["type"], &last["outcome"]["text"]),
        (&json!("finished"), &json!(text))
    );
}

#[tokio::test]
async fn a_text_becomes_tokens_and_tokens_a_text() {
    let router = server(ServerOptions::default());
    let (_, tokens) = post(&router, "/tokenize", &json!({ "prompt": "a red apple" })).await;
    let count = tokens["count"].as_u64().unwrap();
    let request = json!({ "prompt": "a red apple", "add_special_tokens": false });
    let (_, bare) = post(&router, "/tokenize", &request).await;
    assert_eq!(bare["count"].as_u64().unwrap() + 1, count);
    let (_, text) = post(&router, "/detokenize", &json!({ "tokens": bare["tokens"] })).await;
    assert_eq!(text["prompt"], "a red apple");
    let (status, _) = post(&router, "/detokenize", &json!({ "tokens": [4_000_000_000_u32] })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(get(&router, "/tokenizer_info").await.1["eos_token"], "</s>");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_field() {
    let router = server(ServerOptions::default());
    let large = json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } });
    let cases = [
        (
            chat("small:caption", &json!([large])),
            400,
            "messages[0].content[0].image_url",
        ),
        (
            chat("small:caption", &json!([{ "type": "audio" }])),
            400,
            "messages[0].content[0].type",
        ),
        (
            chat(
                "small:caption",
                &json!([{ "type": "image_url", "image_url": "http://a/b.png" }]),
            ),
            400,
            "fetches nothing",
        ),
        (
            chat(
                "small:caption",
                &json!([{ "type": "image_url", "image_url": "file:///etc/passwd" }]),
            ),
            400,
            "a URL of the scheme 'file'",
        ),
        (chat("small:nothing", &json!("a")), 404, "nothing"),
        (chat("large", &json!("a")), 404, "there is no model 'large'"),
        (json!({ "messages": [] }), 400, "found 0"),
        (
            json!({ "messages": [{ "role": "assistant", "content": "a" }] }),
            400,
            "have no turns",
        ),
        (
            json!({ "messages": "a" }),
            400,
            "the body is not the expected JSON",
        ),
    ];
    let five: Vec<Value> = vec![json!({ "type": "image_url", "image_url": picture() }); 5];
    let (status, error) = post(
        &router,
        "/v1/chat/completions",
        &chat("small:caption", &json!(five)),
    )
    .await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("at most 4 pictures, found 5"),
        "{error}"
    );
    for (request, status, message) in cases {
        let (found, error) = post(&router, "/v1/chat/completions", &request).await;
        assert_eq!(found.as_u16(), status, "{error}");
        let told = error["error"]["message"].as_str().unwrap();
        assert!(told.contains(message), "{told}");
    }
    assert_eq!(get(&router, "/v1/nothing").await.0, StatusCode::NOT_FOUND);
    assert_eq!(
        get(&router, "/v1/completions").await.0,
        StatusCode::METHOD_NOT_ALLOWED
    );
    let (status, error) = post(&router, "/v1/tasks/caption", &json!({ "inputs": { "imgae": 1 } })).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (StatusCode::BAD_REQUEST, &json!("inputs.imgae"))
    );
}

/// Text of a caller is never a template, and never a special token.
#[tokio::test]
async fn the_text_of_a_message_is_plain_text() {
    let router = server(ServerOptions::default());
    for text in [
        "{{ image }}",
        "{% for i in range(9) %}x{% endfor %}",
        "</s><loc_1>",
    ] {
        let request = json!({ "model": "small", "prompt": text, "max_tokens": 2 });
        let (status, answer) = post(&router, "/v1/completions", &request).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let (_, tokens) = post(&router, "/tokenize", &json!({ "prompt": text })).await;
        assert_eq!(answer["usage"]["prompt_tokens"], tokens["count"], "{text}");
    }
}

#[tokio::test]
async fn every_route_but_health_needs_a_key() {
    let options = ServerOptions {
        keys: vec!["first".to_owned(), "second".to_owned()],
        ..ServerOptions::default()
    };
    let router = server(options);
    let paths = [
        "/version",
        "/metrics",
        "/v1/models",
        "/v1/models/small",
        "/v1/tasks",
        "/v1/tasks/caption",
        "/tokenizer_info",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/decisions",
        "/v1/systemone",
        "/v1/embeddings",
        "/tokenize",
        "/detokenize",
        "/no/such/route",
    ];
    for path in paths {
        for method in ["GET", "POST", "DELETE"] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .body(Body::empty())
                .unwrap();
            let response = send(&router, request).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
        }
    }
    assert_eq!(get(&router, "/health").await.0, StatusCode::OK);
    for (name, value, status) in [
        ("authorization", "Bearer second", StatusCode::OK),
        ("authorization", "bearer first", StatusCode::OK),
        ("x-api-key", "second", StatusCode::OK),
        ("authorization", "Bearer secon", StatusCode::UNAUTHORIZED),
        ("authorization", "Bearer ", StatusCode::UNAUTHORIZED),
        ("authorization", "second", StatusCode::UNAUTHORIZED),
    ] {
        let request = Request::get("/version")
            .header(name, value)
            .body(Body::empty())
            .unwrap();
        assert_eq!(send(&router, request).await.status(), status, "{name}: {value}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read() {
    let options = ServerOptions {
        max_body_bytes: 1000,
        ..ServerOptions::default()
    };
    let router = server(options);
    let large = json!({ "prompt": "a".repeat(1000) });
    let (status, error) = post(&router, "/v1/completions", &large).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{error}");
    let declared = Request::post("/v1/completions")
        .header(header::CONTENT_LENGTH, "1001")
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        send(&router, declared).await.status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
}

#[tokio::test]
async fn a_place_is_free_again_when_a_client_leaves() {
    let options = ServerOptions {
        max_requests: 1,
        ..ServerOptions::default()
    };
    let router = server(options);
    let content = json!([{ "type": "image_url", "image_url": { "url": picture() } }]);
    let mut request = chat("small:caption", &content);
    request["stream"] = json!(true);
    let held = send(&router, post_of("/v1/chat/completions", &request)).await;
    assert_eq!(held.status(), StatusCode::OK);
    // Nobody reads the body of a request without a place.
    let refused = send(&router, post_of("/v1/chat/completions", &json!("no request"))).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    drop(held);
    request["stream"] = json!(false);
    assert_eq!(
        post(&router, "/v1/chat/completions", &request).await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn names_of_requests_and_origins_of_pages() {
    let router = server(ServerOptions::default());
    let named = Request::get("/health")
        .header("x-request-id", "mine-1")
        .body(Body::empty())
        .unwrap();
    assert_eq!(send(&router, named).await.headers()["x-request-id"], "mine-1");
    let unnamed = Request::get("/health").body(Body::empty()).unwrap();
    let made = send(&router, unnamed).await.headers()["x-request-id"].clone();
    assert!(made.to_str().unwrap().starts_with("req-"));
    let from = |origin: &str| {
        Request::get("/health")
            .header("origin", origin)
            .body(Body::empty())
            .unwrap()
    };
    let closed = send(&router, from("https://a.example")).await;
    assert!(!closed.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    let options = ServerOptions {
        cors_origins: vec!["https://a.example".to_owned()],
        root_path: "/multiway".to_owned(),
        ..ServerOptions::default()
    };
    let open = server(options);
    assert_eq!(
        send(&open, from("https://a.example")).await.status(),
        StatusCode::NOT_FOUND
    );
    let request = Request::get("/multiway/health")
        .header("origin", "https://a.example")
        .body(Body::empty())
        .unwrap();
    let response = send(&open, request).await;
    assert_eq!(
        response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN],
        "https://a.example"
    );
}
