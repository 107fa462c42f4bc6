//! Typed questions, asked as clients of both routes ask them.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;

use axum::http::StatusCode;
use multiway::TaskInputs;
use multiway::prompt::InputValue;
use multiway_server::ServerOptions;
use serde_json::{Value, json};

use common::{expected, picture, post, server, server_of};

const DECISIONS: &str = "/v1/decisions";
const SYSTEM_ONE: &str = "/v1/systemone";
const QUESTION: &str = "what color is the circle?";

fn decision(model: &str, questions: &Value) -> Value {
    let content = json!([{ "type": "input_image", "image_url": picture() }]);
    json!({ "model": model, "input": [{ "role": "user", "content": content }], "questions": questions })
}

fn color(choices: &[&str]) -> Value {
    let choices: Vec<Value> = choices.iter().map(|value| json!({ "value": value })).collect();
    json!({ "type": "choice", "name": "color", "instructions": QUESTION, "choices": choices })
}

fn probabilities(answer: &Value) -> Vec<f64> {
    let listed = answer["probabilities"].as_array().unwrap();
    let probability = |one: &Value| one["probability"].as_f64().unwrap();
    listed.iter().map(probability).collect()
}

fn are_close(some: &[f64], others: &[f64]) -> bool {
    some.len() == others.len() && some.iter().zip(others).all(|(a, b)| (a - b).abs() < 1e-9)
}

/// What the engine says of answers to the question, without a server, in their order.
fn ranked(answers: &[&str]) -> (Vec<f64>, f64) {
    let list = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let inputs = TaskInputs::new()
        .with("question", QUESTION)
        .with("answers", InputValue::List(list));
    let outcome = expected("closed-vqa", inputs);
    let choices = outcome.answer.choices();
    let of = |answer: &&str| {
        choices
            .iter()
            .find(|choice| choice.text == *answer)
            .unwrap()
            .probability
    };
    (answers.iter().map(of).collect(), outcome.candidate_mass.unwrap())
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_questions_with_their_probabilities() {
    let router = server(ServerOptions::default());
    let questions = json!([
        color(&["blue", "red", "green"]),
        { "type": "predicate", "instructions": [{ "type": "input_text", "text": "is the shape a circle?" }] },
        {
            "type": "score",
            "name": "size",
            "instructions": "how large is the circle?",
            "levels": [{ "label": "small" }, { "label": "medium", "description": "half of it" }, { "label": "large" }],
        },
        {
            "type": "choice",
            "instructions": "is it red?",
            "choices": [{ "value": true }, { "value": false }, { "value": "maybe" }],
        },
    ]);
    let (status, answer) = post(&router, DECISIONS, &decision("small", &questions)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let answers = answer["answers"].as_array().unwrap();
    let kinds: Vec<&Value> = answers.iter().map(|answer| &answer["type"]).collect();
    assert_eq!(kinds, ["choice", "predicate", "score", "choice"]);
    let names: Vec<&Value> = answers.iter().map(|answer| &answer["name"]).collect();
    assert_eq!(
        names,
        [&json!("color"), &Value::Null, &json!("size"), &Value::Null]
    );

    assert_eq!(
        (&answers[0]["choice"], &answer["model"]),
        (&json!("red"), &json!("small"))
    );
    assert_eq!(answers[0]["probabilities"][1]["value"], "red");
    for choice in [&answers[0], &answers[2], &answers[3]] {
        let (found, confidence) = (probabilities(choice), choice["confidence"].as_f64().unwrap());
        assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{choice}");
        assert!((0.0..=1.0).contains(&confidence), "{choice}");
    }
    assert!((0.0..=1.0).contains(&answers[1]["probability"].as_f64().unwrap()));
    let levels = &answers[2]["probabilities"];
    assert_eq!(
        (&levels[2]["value"], &levels[2]["label"]),
        (&json!(2), &json!("large"))
    );
    let found = probabilities(&answers[2]);
    let mean = found[1] + 2.0 * found[2];
    assert!((answers[2]["score"].as_f64().unwrap() - mean).abs() < 1e-9);
    assert!(answers[3]["choice"].is_boolean() || answers[3]["choice"] == "maybe");
    assert_eq!(answers[3]["probabilities"][0]["value"], true);

    assert_eq!(answer["calibrated"], false);
    assert_eq!(answer["diagnostics"].as_array().unwrap().len(), 4);
    let usage = &answer["usage"];
    let total = usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], total);
    assert_eq!(usage["input_tokens_details"]["cached_tokens"], 0);
}

#[tokio::test]
async fn a_question_is_answered_as_the_engine_ranks_its_answers() {
    let router = server(ServerOptions::default());
    let answers = ["red", "dark blue", "green"];
    let (right, mass) = ranked(&answers);
    // Among other questions, and by a task that words it the same way.
    let questions = json!([color(&["a", "b"]), color(&answers), color(&["c", "d", "e", "f"])]);
    for model in ["small", "small:closed-vqa"] {
        let (_, answer) = post(&router, DECISIONS, &decision(model, &questions)).await;
        assert!(
            are_close(&probabilities(&answer["answers"][1]), &right),
            "{answer}"
        );
        let found = answer["diagnostics"][1]["label_mass"].as_f64().unwrap();
        assert!((found - mass).abs() < 1e-9 && found <= 1.0, "{found} {mass}");
    }
    let (status, answer) = post(
        &router,
        DECISIONS,
        &decision(
            "small:match",
            &json!([{ "type": "predicate", "instructions": "a circle" }]),
        ),
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert!(answer["answers"][0]["probability"].is_f64(), "{answer}");
    // The task's own words are the question.
    let (status, answer) = post(
        &router,
        DECISIONS,
        &decision("small:classify", &json!([color(&answers)])),
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test]
async fn both_routes_give_the_same_answers() {
    let router = server(ServerOptions::default());
    let questions = json!({
        "size": {
            "type": "score",
            "instructions": "how large is the circle?",
            "criteria": ["small", "medium", "large"],
        },
        "color": {
            "type": "choice",
            "instructions": QUESTION,
            "criteria": { "red": null, "dark blue": null, "green": null },
        },
        "round": { "type": "noul", "instructions": "is it round?", "criteria": { "true": "it has no corner" } },
    });
    let request = json!({
        "model": "small", "state": null, "images": [picture()], "questions": questions, "keep_alive": 5,
    });
    let (status, answer) = post(&router, SYSTEM_ONE, &request).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let ids: Vec<&String> = answer["answers"].as_object().unwrap().keys().collect();
    assert_eq!(ids, ["size", "color", "round"]);
    let (right, mass) = ranked(&["red", "dark blue", "green"]);
    let found = answer["answers"]["color"]["probabilities"].as_object().unwrap();
    let found: Vec<f64> = found.values().map(|value| value.as_f64().unwrap()).collect();
    assert!(are_close(&found, &right), "{answer}");
    assert_eq!(answer["answers"]["color"]["choice"], "red");
    let found = answer["diagnostics"]["color"]["label_mass"].as_f64().unwrap();
    assert!((found - mass).abs() < 1e-9, "{found} {mass}");
    let size = &answer["answers"]["size"];
    assert_eq!(
        size["legend"],
        json!({ "0": "small", "1": "medium", "2": "large" })
    );
    let share = |level: &str| size["probabilities"][level].as_f64().unwrap();
    let mean = share("1") + 2.0 * share("2");
    assert!((size["score"].as_f64().unwrap() - mean).abs() < 1e-9, "{size}");
    let round = &answer["answers"]["round"];
    assert_eq!(
        (&round["type"], &round["noul"]),
        (&json!("noul"), &round["probabilities"]["yes"])
    );
    assert_eq!(
        (&answer["object"], &answer["calibrated"]),
        (&json!("structured_decision"), &json!(false))
    );

    let levels = json!([{ "label": "small" }, { "label": "medium" }, { "label": "large" }]);
    let question = json!({ "type": "score", "instructions": "how large is the circle?", "levels": levels });
    let (_, other) = post(&router, DECISIONS, &decision("small", &json!([question]))).await;
    assert_eq!(other["answers"][0]["score"], size["score"]);
    assert_eq!(other["answers"][0]["confidence"], size["confidence"]);
}

#[tokio::test]
async fn a_task_file_words_questions_and_calibrates_answers() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = "image: {type: image}, question: {type: text}";
    let body = "{{ image }}question: {{ question }} answer: <extra_id_0>";
    let write = |name: &str, inputs: &str, output: &str, body: &str| {
        let text = format!(
            "---\ndescription: Answers.\ninputs: {{{inputs}}}\noutput: {output}\ndecode: {{prefix: \"<extra_id_0>\"}}\n---\n{body}"
        );
        fs::write(folder.path().join(format!("{name}.task")), text).unwrap();
    };
    let listed = format!("{inputs}, answers: {{type: list}}");
    let warm = "{kind: choice, choices_from: answers, calibration: {temperature: 2.0}}";
    write("warm", &listed, warm, body);
    let scored = format!("{inputs}, text: {{type: text}}");
    write("scored", &scored, "{kind: score, target_from: text}", body);
    let shown = format!("{body}{{{{ text }}}}");
    write("shown", &scored, "{kind: score, target_from: text}", &shown);
    let router = server_of(ServerOptions::default(), &[folder.path()]);

    let answers = ["red", "dark blue", "green"];
    let (right, mass) = ranked(&answers);
    let questions = json!([color(&answers)]);
    let (_, answer) = post(&router, DECISIONS, &decision("small:warm", &questions)).await;
    assert_eq!(answer["calibrated"], true, "{answer}");
    let roots: Vec<f64> = right.iter().map(|value| value.sqrt()).collect();
    let sum: f64 = roots.iter().sum();
    let found = probabilities(&answer["answers"][0]);
    let is_warm = found
        .iter()
        .zip(&roots)
        .all(|(found, root)| (found - root / sum).abs() < 1e-4);
    assert!(is_warm, "{found:?} {right:?}");

    let (_, answer) = post(&router, DECISIONS, &decision("small:scored", &questions)).await;
    assert_eq!(answer["calibrated"], false, "{answer}");
    assert!(
        are_close(&probabilities(&answer["answers"][0]), &right),
        "{answer}"
    );
    let found = answer["diagnostics"][0]["label_mass"].as_f64().unwrap();
    assert!((found - mass).abs() < 1e-9, "{found} {mass}");
    let (status, error) = post(&router, DECISIONS, &decision("small:shown", &questions)).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (StatusCode::BAD_REQUEST, &json!("model"))
    );
}

#[tokio::test]
async fn what_is_wrong_in_a_question_is_said_with_its_field() {
    let router = server(ServerOptions::default());
    let choice = |count: usize| {
        let choices: Vec<String> = (0..count).map(|index| index.to_string()).collect();
        color(&choices.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let levels = |count: usize| {
        let levels: Vec<Value> = (0..count)
            .map(|index| json!({ "label": index.to_string() }))
            .collect();
        json!({ "type": "score", "instructions": "a", "levels": levels })
    };
    let many = |count: usize| Value::Array(vec![choice(2); count]);
    let mixed = json!([{ "value": "true" }, { "value": true }]);
    let cases = [
        ("small", many(0), "questions"),
        ("small", many(401), "questions"),
        ("small", json!([choice(2), choice(1)]), "questions[1].choices"),
        ("small", json!([choice(256)]), "questions[0].choices"),
        ("small", json!([levels(1)]), "questions[0].levels"),
        ("small", json!([levels(11)]), "questions[0].levels"),
        ("small", json!([color(&["a", "a"])]), "questions[0].choices"),
        ("small", json!([color(&["a", " "])]), "questions[0].choices"),
        (
            "small",
            json!([{ "type": "choice", "instructions": "a", "choices": mixed }]),
            "questions[0].choices",
        ),
        (
            "small",
            json!([{ "type": "guess", "instructions": "a" }]),
            "questions[0]",
        ),
        ("small", json!([{ "type": "predicate" }]), "questions[0]"),
        (
            "small",
            json!([{ "type": "predicate", "instructions": [{ "type": "input_image", "image_url": "http://a/b.png" }] }]),
            "questions[0].instructions[0].image_url",
        ),
        (
            "small",
            json!([choice(2), { "type": "predicate", "instructions": "a cat ".repeat(500) }]),
            "questions[1]",
        ),
        ("small:caption", json!([choice(2)]), "model"),
        ("small:entail", json!([choice(2)]), "questions[0]"),
    ];
    for (model, questions, param) in cases {
        let (status, error) = post(&router, DECISIONS, &decision(model, &questions)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{param}: {error}");
        assert_eq!(error["error"]["param"], param, "{error}");
    }
    let cases = [
        (
            json!({ "type": "choice", "criteria": { "a": null } }),
            "questions.q.criteria",
        ),
        (
            json!({ "type": "choice", "criteria": ["a", "b"] }),
            "questions.q.criteria",
        ),
        (
            json!({ "type": "score", "criteria": ["a"] }),
            "questions.q.criteria",
        ),
        (
            json!({ "type": "noul", "criteria": { "maybe": "a" } }),
            "questions.q.criteria",
        ),
        (json!({ "type": "noul", "weight": 1 }), "questions.q"),
        (json!({ "type": "predicate" }), "questions.q"),
    ];
    for (question, param) in cases {
        let request = json!({ "state": "a cat", "questions": { "q": question } });
        let (status, error) = post(&router, SYSTEM_ONE, &request).await;
        assert_eq!(
            (status, &error["error"]["param"]),
            (StatusCode::BAD_REQUEST, &json!(param)),
            "{error}"
        );
    }
    let five = json!({ "state": "", "images": vec![picture(); 5], "questions": { "q": { "type": "noul" } } });
    let (status, error) = post(&router, SYSTEM_ONE, &five).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (StatusCode::BAD_REQUEST, &json!("images"))
    );
}

#[tokio::test]
async fn what_questions_are_about_may_be_said_by_several_and_in_json() {
    let router = server(ServerOptions::default());
    let question =
        json!({ "type": "predicate", "instructions": [{ "type": "input_json", "data": { "a": [1] } }] });
    let spoken = json!([
        { "role": "user", "content": [{ "type": "input_text", "text": "{\"a\":[1]}" }] },
        { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "a cat" }] },
        { "role": "user", "content": [{ "type": "input_json", "data": { "b": 2 } }] },
    ]);
    let mut request = json!({ "input": spoken, "questions": [question] });
    let (status, spoken) = post(&router, DECISIONS, &request).await;
    assert_eq!(status, StatusCode::OK, "{spoken}");
    request["input"] = json!("{\"a\":[1]}\na cat\n{\"b\":2}");
    assert_eq!(post(&router, DECISIONS, &request).await.1, spoken);
    let request = json!({
        "instructions": "{\"a\":[1]}\na cat",
        "state": { "b": 2 },
        "questions": { "q": { "type": "noul", "instructions": { "a": [1] } } },
    });
    let (_, answer) = post(&router, SYSTEM_ONE, &request).await;
    assert_eq!(
        answer["answers"]["q"]["noul"], spoken["answers"][0]["probability"],
        "{answer}"
    );
}
