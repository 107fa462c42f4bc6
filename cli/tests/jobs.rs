//! `multiway batch` and `multiway eval`: every record, whatever happens in between.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use multiway::data::{DataOptions, DataSource, Record};
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

/// Runs a job until it has saved more rows than `rows`, kills it, and returns how many it has saved.
fn killed_after(place: &TestFolder, args: &[&str], rows: u64) -> u64 {
    let mut child = Command::new(env!("CARGO_BIN_EXE_multiway"))
        .args(args)
        .current_dir(place.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let saved = loop {
        let state = fs::read(place.path("report/results.jsonl.state")).unwrap_or_default();
        let state: Value = serde_json::from_slice(&state).unwrap_or_default();
        match state["rows"].as_u64() {
            Some(saved) if saved > rows => break saved,
            _ => assert!(
                child.try_wait().unwrap().is_none(),
                "it ended before it could be killed"
            ),
        }
        thread::sleep(Duration::from_millis(2));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    saved
}

#[test]
fn an_evaluation_that_is_killed_three_times_writes_the_same_bytes() {
    let place = TestFolder::new();
    pairs(&place);
    let rows: String = (0..600)
        .map(|row| ["cat.png", "guitar.png", "dog.png"][row % 3])
        .map(|name| format!("{}\n", json!({"image": name, "right": "cat"})))
        .collect();
    place.write("data/many.jsonl", rows);
    let args = |out| {
        let data = "data/many.jsonl";
        [
            "eval",
            "caption",
            "--data",
            data,
            "--reference",
            "right",
            "--metric",
            "accuracy",
            "--out",
            out,
        ]
    };
    let mut saved = 0;
    for _ in 0..3 {
        let more = killed_after(&place, &args("report"), saved);
        assert!(more < 600, "{more} rows");
        saved = more;
    }
    for out in ["report", "whole"] {
        let ended = place.run(&args(out));
        assert_eq!(ended.code, Some(0), "{}", ended.told());
    }
    for file in ["results.jsonl", "summary.json", "report.html"] {
        let of = |out: &str| read(&place, &format!("{out}/{file}"));
        assert!(of("report") == of("whole"), "{file} differs");
    }
    assert_eq!(lines(&read(&place, "report/results.jsonl")).len(), 600);
}

#[test]
fn results_in_parquet_are_the_same_rows_and_after_a_stop_the_same_bytes() {
    let place = TestFolder::new();
    place.write("data/cat.png", picture("cat.png"));
    let rows: Vec<String> = (0..70)
        .map(|row| if row == 66 { "no.png" } else { "cat.png" })
        .map(|name| json!({"image": name, "kind": name}).to_string())
        .collect();
    place.write("data/pictures.jsonl", rows.join("\n"));
    let job = |out: &str, more: &[&str]| {
        let args = [
            "batch",
            "caption",
            "--data",
            "data/pictures.jsonl",
            "--quiet",
            "--group-by",
            "kind",
        ];
        place.run(&[&args[..], &["--out", out][..], more].concat())
    };
    let stopped = job("out.parquet", &["--max-failed", "0"]);
    assert_eq!(stopped.code, Some(2), "{}", stopped.told());
    let mut partial = read(&place, "out.parquet.partial");
    assert_eq!(lines(&partial).len(), 67);
    partial += "{\"id\": \"half a r";
    place.write("out.parquet.partial", partial);
    // Another file of the same name and size.
    let text = read(&place, "data/pictures.jsonl");
    place.write(
        "data/pictures.jsonl",
        text.replacen("\"cat.png\"}", "\"dog.png\"}", 1),
    );
    let other = job("out.parquet", &[]);
    assert!(
        other.stderr.contains("was begun with another data set"),
        "{}",
        other.stderr
    );
    place.write("data/pictures.jsonl", text);
    for out in ["out.parquet", "whole.parquet", "whole.jsonl"] {
        let ended = job(out, &[]);
        assert_eq!(ended.code, Some(0), "{}", ended.told());
    }
    let bytes = |name: &str| fs::read(place.path(name)).unwrap();
    assert_eq!(bytes("out.parquet"), bytes("whole.parquet"));
    for left in ["out.parquet.partial", "out.parquet.state", "out.parquet.tmp"] {
        assert!(fs::metadata(place.path(left)).is_err(), "{left}");
    }
    let source = DataSource::open(&[place.path("out.parquet")], DataOptions::default()).unwrap();
    let records: Vec<Record> = source.records(None).unwrap().map(Result::unwrap).collect();
    let rows = lines(&read(&place, "whole.jsonl"));
    assert_eq!((records.len(), rows.len()), (70, 70));
    for (record, row) in records.iter().zip(&rows) {
        for column in ["id", "group", "text", "error"] {
            assert_eq!(record.text(column).as_deref(), row[column].as_str(), "{column}");
        }
        assert_eq!(record.value("references"), Some(&Value::Null));
    }
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
        "--show",
        "kind",
        "--show",
        "licence",
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
    assert!(page.contains("kind: {&quot;of&quot;:&quot;cat&quot;}") && page.contains("licence: (none)"));

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
    // The worst case comes first: the wrong answer.
    let page = read(&place, "other/report.html");
    assert!(page.find("pairs.jsonl#3").unwrap() < page.find("pairs.jsonl#1").unwrap());
    let summary: Value = serde_json::from_str(&read(&place, "other/summary.json")).unwrap();
    let right = rows
        .iter()
        .filter(|row| row["text"] == row["references"][0])
        .count();
    assert!((summary["metrics"][0]["value"].as_f64().unwrap() - right as f64 / 3.0).abs() < 1e-12);
}

#[test]
fn filters_take_or_leave_out_a_value_and_empty_texts_are_no_answers() {
    let place = TestFolder::new();
    pairs(&place);
    let mut rows = read(&place, "data/pairs.jsonl");
    rows += &format!(
        "{}\n",
        json!({"image": "dog.png", "right": "", "kind": {"of": "none"}})
    );
    place.write("data/pairs.jsonl", rows);
    let choose = |filters: &[&str], out| {
        let args = [
            "eval",
            "classify",
            "--data",
            "data/pairs.jsonl",
            "--reference",
            "right",
        ];
        let more = ["--choices-of", "right", "--json", "--out", out];
        let ended = place.run(&[&args[..], &more, filters].concat());
        assert_eq!(ended.code, Some(0), "{}", ended.told());
        lines(&read(&place, &format!("{out}/results.jsonl")))
    };
    let all = choose(&[], "all");
    assert_eq!(all.len(), 4);
    assert!(all.iter().all(|row| row["error"].is_null()));
    let left = choose(&["--where", "kind.of!=none", "--where", "right!=guitar"], "left");
    let ids: Vec<&str> = left.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["pairs.jsonl#1", "pairs.jsonl#3"]);
    assert_eq!(choose(&["--where", "right=guitar"], "taken").len(), 1);
    let ended = place.run(&["batch", "caption", "--data", "d", "--out", "o", "--where", "!=x"]);
    assert!(
        ended.stderr.contains("expected a field before '!='"),
        "{}",
        ended.stderr
    );
}

#[test]
fn what_does_not_fit_is_said_before_anything_runs() {
    let place = TestFolder::new();
    pairs(&place);
    place.write("data/empty.jsonl", "{\"a\": 1}\n");
    for (args, message) in [
        (
            "batch caption --data data/no.jsonl --out o",
            "cannot read 'data/no.jsonl'",
        ),
        (
            "batch caption --data data/pairs.jsonl --shard 3/3 --out o",
            "there is no shard 3 of 3",
        ),
        (
            "batch caption --data data/pairs.jsonl --shard 3 --out o",
            "expected a shard and how many there are, such as 0/4, found '3'",
        ),
        (
            "batch vqa --data data/pairs.jsonl --out o",
            "no field for the input 'question' of the task 'vqa'",
        ),
        (
            "batch vqa --data data/pairs.jsonl --map text=right --out o",
            "has no input 'text' (inputs: image, question)",
        ),
        (
            "batch caption --data data/empty.jsonl --out o",
            "no field for the input 'image' of the task 'caption': map one with `image=FIELD` (fields: a)",
        ),
        (
            "eval caption --data data/pairs.jsonl --out o",
            "no field 'target' with the right answers: name it with `--reference FIELD` (fields: image, right, kind)",
        ),
        (
            "eval caption --data data/pairs.jsonl --reference right --where right=bird --out o2",
            "no record of the data is taken",
        ),
        (
            "eval caption --data data/pairs.jsonl --reference right --metric recall_at_1 --out o3",
            "the metric 'recall_at_1' does not fit the task 'caption', whose output is of kind text: it fits embedding",
        ),
        (
            "eval caption --data data/pairs.jsonl --choices-of right --reference right --out o4",
            "takes no list of answers to choose from",
        ),
    ] {
        let ended = place.run(&args.split(' ').collect::<Vec<_>>());
        assert_eq!(ended.code, Some(2), "{}", ended.told());
        assert!(ended.stderr.contains(message), "{}", ended.stderr);
    }
}
