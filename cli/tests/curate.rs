//! `multiway curate`: captions that were swapped on purpose are found.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use std::fs;

use serde_json::{Value, json};

use common::{TestFolder, picture};

/// Pictures, what they show, and something else.
const PAIRS: [(&str, &str, &str); 4] = [
    ("cat.png", "cat face", "red apple"),
    ("guitar.png", "guitar", "turtle"),
    ("red-apple.png", "red apple", "guitar"),
    ("turtle.png", "turtle", "bicycle"),
];

/// Writes each picture with its own caption, then each with another.
fn pairs(place: &TestFolder) {
    let mut rows = String::new();
    for (name, right, _) in PAIRS {
        place.write(&format!("data/{name}"), picture(name));
        rows += &format!("{}\n", json!({"image": name, "caption": right, "page": 7}));
    }
    for (name, _, wrong) in PAIRS {
        rows += &format!("{}\n", json!({"image": name, "caption": wrong, "page": 8}));
    }
    place.write("data/pairs.jsonl", rows);
}

fn rows(place: &TestFolder, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(place.path(name)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn curate(place: &TestFolder, out: &str, more: &[&str]) -> Value {
    let told = [
        "curate",
        "caption",
        "--data",
        "data/pairs.jsonl",
        "--text",
        "caption",
        "--json",
    ];
    let ended = place.run(&[&told[..], &["--out", out], more].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    ended.json()
}

#[test]
fn captions_of_other_pictures_are_found() {
    let place = TestFolder::new();
    pairs(&place);
    let report = curate(&place, "data/curated.jsonl", &["--no-rewrite"]);
    assert_eq!(report["records"], json!(8));
    let rows = rows(&place, "data/curated.jsonl");
    let fit = |row: &Value| row["answer"]["fit"].as_f64().unwrap();
    for (own, other) in rows[..4].iter().zip(&rows[4..]) {
        assert!(fit(own) > fit(other), "{own} {other}");
    }
    for row in &rows {
        let kept = row["answer"]["verdict"] == json!("kept");
        assert_eq!(kept, fit(row) >= 0.0);
        assert_eq!(kept, row.get("text").is_some());
        assert!(row["answer"].get("written").is_none());
    }
    assert!(
        fit(&rows[0]) > 0.0 && fit(&rows[4]) < 0.0,
        "{} {}",
        rows[0],
        rows[4]
    );
    // What a record held goes on with it.
    assert_eq!(
        rows[5]["answer"]["record"],
        json!({"image": "guitar.png", "caption": "turtle", "page": 8})
    );
}

#[test]
fn what_does_not_fit_is_written_anew_where_that_fits() {
    let place = TestFolder::new();
    pairs(&place);
    let report = curate(&place, "data/curated.jsonl", &[]);
    let rows = rows(&place, "data/curated.jsonl");
    let count = |verdict: &str| {
        rows.iter()
            .filter(|row| row["answer"]["verdict"] == verdict)
            .count()
    };
    for verdict in ["kept", "rewritten", "dropped"] {
        assert_eq!(report[verdict], json!(count(verdict)), "{report}");
    }
    assert!(count("rewritten") > 0, "{rows:?}");
    for row in rows.iter().filter(|row| row["answer"]["verdict"] == "rewritten") {
        assert_eq!(row["text"], row["answer"]["written"]);
        assert!(row["answer"]["written_fit"].as_f64().unwrap() >= 0.0);
        assert!(row["answer"]["fit"].as_f64().unwrap() < 0.0);
    }
    // What is curated can be read again as data.
    let again = place.run(&[
        "batch",
        "caption",
        "--data",
        "data/curated.jsonl",
        "--map",
        "image=answer.record.image",
        "--where",
        "answer.verdict!=dropped",
        "--out",
        "again.jsonl",
        "--json",
    ]);
    assert_eq!(
        again.json()["records"],
        json!(8 - count("dropped")),
        "{}",
        again.told()
    );
}

#[test]
fn what_cannot_be_curated_is_refused() {
    let place = TestFolder::new();
    pairs(&place);
    let refused = |task: &str, more: &[&str]| {
        let told = ["curate", task, "--data", "data/pairs.jsonl"];
        let ended = place.run(&[&told[..], more].concat());
        assert_eq!(ended.code, Some(2), "{}", ended.told());
        ended.told()
    };
    let message = refused("infill", &["--map", "text=caption", "--out", "a.jsonl"]);
    assert!(message.contains("writes no text about pictures"), "{message}");
    let message = refused("caption", &["--out", "a.jsonl"]);
    assert!(message.contains("--text"), "{message}");
    let message = refused("caption", &["--text", "caption", "--out", "a.parquet"]);
    assert!(message.contains("JSONL"), "{message}");
}
