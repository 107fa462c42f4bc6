//! `multiway batch` and `multiway eval`: every record, whatever happens in between.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use std::fs;

use serde_json::{Value, json};

use common::{TestFolder, picture};

fn read(place: &TestFolder, name: &str) -> String {
    fs::read_to_string(place.path(name)).unwrap()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Writes pictures and a file that names them.
fn pairs(place: &TestFolder) {
    let mut rows = String::new();
    for (name, right) in [("cat.png", "cat"), ("guitar.png", "guitar"), ("dog.png", "cat")] {
        place.write(&format!("data/{name}"), picture(name));
        rows += &format!(
            "{}\n",
            json!({"image": name, "right": right, "kind": {"of": right}})
        );
    }
    place.write("data/pairs.jsonl", rows);
}

#[test]
fn a_batch_answers_every_record_in_order() {
    let place = TestFolder::new();
    pairs(&place);
    let ended = place.run(&[
        "batch",
        "caption",
        "--data",
        "data/pairs.jsonl",
        "--out",
        "out.jsonl",
        "--json",
    ]);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let report = ended.json();
    assert_eq!((&report["records"], &report["failed"]), (&json!(3), &json!(0)));
    let rows = lines(&read(&place, "out.jsonl"));
    let ids: Vec<&str> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["pairs.jsonl#1", "pairs.jsonl#2", "pairs.jsonl#3"]);
    for (row, name) in rows.iter().zip(["cat.png", "guitar.png", "dog.png"]) {
        let path = format!("data/{name}");
        let alone = place.run(&["run", "caption", "--image", &path, "--json"]).json();
        assert_eq!(row["text"], alone["text"], "{name}");
    }
    let again = place.run(&[
        "batch",
        "caption",
        "--data",
        "data/pairs.jsonl",
        "--out",
        "out.jsonl",
    ]);
    assert_eq!(again.code, Some(2));
    assert!(
        again.stderr.contains("'out.jsonl' exists already"),
        "{}",
        again.stderr
    );
}

#[test]
fn a_job_that_stopped_goes_on_and_writes_the_same_bytes() {
    let place = TestFolder::new();
    place.write("data/cat.png", picture("cat.png"));
    let names = |missing: usize| move |row: usize| if row == missing { "late.png" } else { "cat.png" };
    let rows: Vec<String> = (0..150)
        .map(names(100))
        .map(|name| json!({"image": name}).to_string())
        .collect();
    place.write("data/pictures.jsonl", rows.join("\n"));
    let job = |out: &str| {
        place.run(&[
            "batch",
            "caption",
            "--data",
            "data/pictures.jsonl",
            "--out",
            out,
            "--max-failed",
            "0",
            "--quiet",
        ])
    };
    let stopped = job("out.jsonl");
    assert_eq!(stopped.code, Some(2), "{}", stopped.told());
    assert!(
        stopped.stderr.contains("pictures.jsonl#101"),
        "{}",
        stopped.stderr
    );
    // As if the machine had stopped while a row was written.
    let state: Value = serde_json::from_str(&read(&place, "out.jsonl.state")).unwrap();
    assert_eq!(state["rows"], 101);
    let mut partial = read(&place, "out.jsonl.partial");
    partial += "{\"id\": \"half a r";
    place.write("out.jsonl.partial", partial);
    place.write("data/late.png", picture("dog.png"));
    let other = place.run(&[
        "batch",
        "caption",
        "--data",
        "data/pictures.jsonl",
        "--out",
        "out.jsonl",
        "--limit",
        "9",
    ]);
    assert!(
        other.stderr.contains("was begun with another set of options"),
        "{}",
        other.stderr
    );
    let ended = place.run(&[
        "batch",
        "caption",
        "--data",
        "data/pictures.jsonl",
        "--out",
        "out.jsonl",
        "--quiet",
    ]);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let rows = lines(&read(&place, "out.jsonl"));
    assert_eq!(rows.len(), 150);
    assert!(
        rows[100]["error"]
            .as_str()
            .unwrap()
            .contains("picture 'late.png'")
    );
    // The row that failed stays as it was; all others are what one run gives.
    let whole = place.run(&[
        "batch",
        "caption",
        "--data",
        "data/pictures.jsonl",
        "--out",
        "whole.jsonl",
        "--quiet",
    ]);
    assert_eq!(whole.code, Some(0), "{}", whole.told());
    let (resumed, whole) = (read(&place, "out.jsonl"), read(&place, "whole.jsonl"));
    for (at, (row, line)) in resumed.lines().zip(whole.lines()).enumerate() {
        assert_eq!(row == line, at != 100, "row {at}");
    }
    assert!(fs::metadata(place.path("out.jsonl.state")).is_err());
}

#[test]
fn an_evaluation_compares_by_group_and_shows_the_worst() {
    let place = TestFolder::new();
    pairs(&place);
    let args = [
        "eval",
        "classify",
        "--data",
        "data/pairs.jsonl",
        "--reference",
        "right",
        "--choices-of",
        "right",
        "--group-by",
        "kind.of",
        "--out",
        "report",
        "--json",
    ];
    let ended = place.run(&args);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let report = ended.json();
    assert_eq!(report["metrics"][0]["metric"], "accuracy");
    assert_eq!(report["metrics"][0]["samples"], 3);
    // Each group has one name to choose from, which is then right.
    assert_eq!(report["metrics"][0]["value"], 1.0);
    assert_eq!(report["groups"]["cat"][0]["samples"], 2);
    assert_eq!(report["mean_of_groups"]["accuracy"], 1.0);
    let page = read(&place, "report/report.html");
    assert!(page.contains("data:image&#x2f;png;base64,") && page.contains("pairs.jsonl#3"));

    let ended = place.run(&[
        "eval",
        "classify",
        "--data",
        "data/pairs.jsonl",
        "--reference",
        "right",
        "--set",
        "choices=cat,guitar,dog",
        "--metric",
        "accuracy",
        "--metric",
        "rouge_l",
        "--out",
        "other",
    ]);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    insta::assert_snapshot!(ended.stdout, @r"
    accuracy 0.667 (0.208 to 0.939), 3 samples
    rouge_l 0.667 (0.000 to 1.000), 3 samples
    other/report.html
    ");
    let rows = lines(&read(&place, "other/results.jsonl"));
    assert_eq!(rows[2]["references"], json!(["cat"]));
    let summary: Value = serde_json::from_str(&read(&place, "other/summary.json")).unwrap();
    let right = rows
        .iter()
        .filter(|row| row["text"] == row["references"][0])
        .count();
    assert!((summary["metrics"][0]["value"].as_f64().unwrap() - right as f64 / 3.0).abs() < 1e-12);
}

#[test]
fn what_does_not_fit_is_said_before_anything_runs() {
    let place = TestFolder::new();
    pairs(&place);
    place.write("data/empty.jsonl", "{\"a\": 1}\n");
    for (args, message) in [
        (
            &["batch", "caption", "--data", "data/no.jsonl", "--out", "o"][..],
            "cannot read 'data/no.jsonl'",
        ),
        (
            &["batch", "vqa", "--data", "data/pairs.jsonl", "--out", "o"],
            "no field for the input 'question' of the task 'vqa'",
        ),
        (
            &[
                "batch",
                "vqa",
                "--data",
                "data/pairs.jsonl",
                "--map",
                "text=right",
                "--out",
                "o",
            ],
            "has no input 'text' (inputs: image, question)",
        ),
        (
            &["batch", "caption", "--data", "data/empty.jsonl", "--out", "o"],
            "no field for the input 'image' of the task 'caption': map one with `image=FIELD` (fields: a)",
        ),
        (
            &["eval", "caption", "--data", "data/pairs.jsonl", "--out", "o"],
            "no field 'target' with the right answers: name it with `--reference FIELD` (fields: image, right, kind)",
        ),
        (
            &[
                "eval",
                "caption",
                "--data",
                "data/pairs.jsonl",
                "--reference",
                "right",
                "--where",
                "right=bird",
                "--out",
                "o2",
            ],
            "no record of the data is taken",
        ),
        (
            &[
                "eval",
                "caption",
                "--data",
                "data/pairs.jsonl",
                "--reference",
                "right",
                "--metric",
                "recall_at_1",
                "--out",
                "o3",
            ],
            "the metric 'recall_at_1' does not fit the task 'caption', whose output is of kind text: it fits embedding",
        ),
        (
            &[
                "eval",
                "caption",
                "--data",
                "data/pairs.jsonl",
                "--choices-of",
                "right",
                "--reference",
                "right",
                "--out",
                "o4",
            ],
            "takes no list of answers to choose from",
        ),
    ] {
        let ended = place.run(args);
        assert_eq!(ended.code, Some(2), "{}", ended.told());
        assert!(ended.stderr.contains(message), "{}", ended.stderr);
    }
}
