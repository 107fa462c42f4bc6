//! `multiway eval` on labels, boxes and vectors, and `multiway tasks calibrate`.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use std::fs;

use serde_json::{Value, json};

use common::{TestFolder, picture};

const NAMES: [(&str, &str); 6] = [
    ("cat.png", "cat"),
    ("dog.png", "dog"),
    ("guitar.png", "guitar"),
    ("bicycle.png", "bicycle"),
    ("rocket.png", "rocket"),
    ("turtle.png", "turtle"),
];

fn read(place: &TestFolder, name: &str) -> String {
    fs::read_to_string(place.path(name)).unwrap()
}

fn rows(place: &TestFolder, name: &str) -> Vec<Value> {
    let text = read(place, name);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn lines(records: impl IntoIterator<Item = Value>) -> String {
    records.into_iter().map(|record| format!("{record}\n")).collect()
}

/// Writes the pictures.
fn pictures(place: &TestFolder) {
    for (file, _) in NAMES {
        place.write(&format!("data/{file}"), picture(file));
    }
}

#[test]
fn pictures_are_found_by_their_texts_and_texts_by_their_pictures() {
    let place = TestFolder::new();
    pictures(&place);
    let pairs = NAMES.map(|(file, name)| json!({"image": file, "texts": [name, format!("a {name}")]}));
    // The same picture once more, with one of its texts and a new one.
    let again = json!({"image": "cat.png", "texts": ["cat", "a small cat"]});
    let broken = json!({"image": "none.png", "texts": ["nothing"]});
    place.write(
        "data/pairs.jsonl",
        lines(pairs.into_iter().chain([again, broken])),
    );
    let args = |out: &'static str, in_flight: &'static str| {
        [
            "eval",
            "retrieve",
            "--data",
            "data/pairs.jsonl",
            "--reference",
            "texts",
            "--metric",
            "recall_at_1",
            "--metric",
            "recall_at_10",
            "--metric",
            "mean_rank",
            "--in-flight",
            in_flight,
            "--out",
            out,
            "--json",
        ]
    };
    let ended = place.run(&args("one", "1"));
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let report = ended.json();
    assert_eq!((&report["records"], &report["failed"]), (&json!(8), &json!(1)));
    let metrics = report["metrics"].as_array().unwrap();
    let of = |name: &str, direction: &str| {
        let found = metrics
            .iter()
            .find(|report| report["metric"] == name && report["direction"] == direction);
        found.unwrap().clone()
    };
    assert_eq!(metrics.len(), 6);
    // 13 different texts, 6 different pictures; all of those within the first ten.
    assert_eq!(of("recall_at_10", "text_to_image")["samples"], 13);
    assert_eq!(of("recall_at_10", "text_to_image")["value"], 1.0);
    assert_eq!(of("recall_at_1", "image_to_text")["samples"], 6);
    for direction in ["text_to_image", "image_to_text"] {
        // A guess finds one of 6 pictures, and one of the 2 or 3 texts of a picture among 13: its mean ranks
        // are 3.5 and 4.5.
        let low = of("recall_at_1", direction)["interval"]["low"].as_f64().unwrap();
        assert!(low > 0.25, "{report}");
        let mean = of("mean_rank", direction)["value"].as_f64().unwrap();
        assert!((1.0..2.5).contains(&mean), "{report}");
    }
    let rows = rows(&place, "one/results.jsonl");
    assert_eq!(rows[0]["answer"]["picture"], rows[6]["answer"]["picture"]);
    assert!(rows[7]["error"].as_str().unwrap().contains("none.png"));
    let page = read(&place, "one/report.html");
    assert!(page.contains("recall_at_1 text_to_image") && page.contains("of 6"));
    let ended = place.run(&args("many", "64"));
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    for file in ["results.jsonl", "summary.json"] {
        assert_eq!(
            read(&place, &format!("one/{file}")),
            read(&place, &format!("many/{file}"))
        );
    }
}

#[test]
fn labels_and_boxes_are_compared_as_what_they_are() {
    let place = TestFolder::new();
    pictures(&place);
    let records = [
        json!({"image": "cat.png", "keywords": ["cat", "animal"], "boxes": [{"label": "cat", "pixels": [0, 0, 9, 9]}]}),
        json!({"image": "dog.png", "keywords": "dog, animal", "boxes": []}),
        json!({"image": "guitar.png", "keywords": [], "boxes": [{"name": "guitar", "box": [5, 0, 1, 9]}]}),
    ];
    place.write("data/typed.jsonl", lines(records));
    let eval = |task: &'static str, out: &'static str, more: &[&'static str]| {
        let args = ["eval", task, "--data", "data/typed.jsonl", "--out", out, "--json"];
        place.run(&[&args, more].concat())
    };
    let ended = eval(
        "keywords",
        "labels",
        &["--metric", "label_f1", "--metric", "label_f1_mean"],
    );
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let report = ended.json();
    assert_eq!(report["failed"], 0, "{report}");
    assert_eq!(report["metrics"][0]["samples"], 3);
    assert_eq!(
        rows(&place, "labels/results.jsonl")[1]["references"],
        json!(["dog, animal"])
    );

    let ended = eval("detect", "boxes", &["--set", "objects=cat,guitar"]);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let report = ended.json();
    assert_eq!(report["metrics"][0]["metric"], "average_precision");
    assert_eq!(
        (&report["failed"], &report["metrics"][1]["samples"]),
        (&json!(1), &json!(2))
    );
    let rows = rows(&place, "boxes/results.jsonl");
    assert_eq!(
        rows[0]["boxes"],
        json!([{"label": "cat", "pixels": [0.0, 0.0, 9.0, 9.0]}])
    );
    assert_eq!(rows[1]["boxes"], json!([]));
    let error = rows[2]["error"].as_str().unwrap();
    assert!(
        error.contains("expected the edges left, top, right, bottom"),
        "{error}"
    );

    for (task, more, message) in [
        (
            "caption",
            &["--metric", "brier"][..],
            "the metric 'brier' does not fit the task 'caption', whose output is of kind text: it fits choice, predicate, level",
        ),
        (
            "detect",
            &[
                "--set",
                "objects=cat",
                "--metric",
                "box_accuracy",
                "--metric",
                "exact_match",
            ],
            "metrics of boxes and of texts have no right answers in common",
        ),
        (
            "patches",
            &["--metric", "accuracy", "--set", "hide=0:0"],
            "does not fit the task 'patches'",
        ),
    ] {
        let ended = eval(task, "refused", more);
        assert_eq!(ended.code, Some(2), "{}", ended.told());
        assert!(ended.told().contains(message), "{message}: {}", ended.told());
    }
}

/// Writes pictures with their names, of which a quarter is wrong.
fn names(place: &TestFolder) {
    pictures(place);
    let records = (0..24).map(|at| {
        let (file, name) = NAMES[at % 6];
        let (_, other) = NAMES[(at + 1) % 6];
        json!({"image": file, "name": if at / 6 == 2 { other } else { name }})
    });
    place.write("data/names.jsonl", lines(records));
}

const CHOICES: &str = "choices=cat,dog,guitar,bicycle,rocket,turtle";

#[test]
fn a_temperature_is_fitted_written_and_used() {
    let place = TestFolder::new();
    names(&place);
    let args = [
        "tasks",
        "calibrate",
        "classify",
        "--data",
        "data/names.jsonl",
        "--reference",
        "name",
        "--set",
        CHOICES,
        "--out",
        "mine/classify.task",
        "--json",
    ];
    let ended = place.run(&args);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let report = ended.json();
    assert_eq!(
        (&report["records"], &report["failed"], &report["previous"]),
        (&json!(24), &json!(0), &json!(1.0))
    );
    let halves = ["fitted_on", "tested_on"].map(|half| report[half].as_u64().unwrap());
    assert!(
        halves[0] + halves[1] == 24 && halves.iter().all(|half| *half > 3),
        "{halves:?}"
    );
    let temperature = report["temperature"].as_f64().unwrap();
    assert!(temperature > 1.2, "{report}");
    let of = |when: &str, what: &str| report[when][what].as_f64().unwrap();
    assert!(of("after", "negative_log_likelihood") < of("before", "negative_log_likelihood"));
    assert!(of("after", "brier") < of("before", "brier"), "{report}");
    assert!((of("after", "accuracy") - of("before", "accuracy")).abs() < 1e-9);
    let file = read(&place, "mine/classify.task");
    assert!(file.starts_with("---\nextends: classify\noutput: {"), "{file}");

    // The ratio of two probabilities is the root of what it was.
    let ratio = |more: &[&str]| {
        let run = [
            "run",
            "classify",
            "--image",
            "data/cat.png",
            "--set",
            CHOICES,
            "--json",
        ];
        let answer = place.run(&[more, &run].concat()).json();
        let probability = |at: usize| answer["choices"][at]["probability"].as_f64().unwrap();
        probability(0).ln() - probability(1).ln()
    };
    let (plain, calibrated) = (ratio(&[]), ratio(&["--task-dir", "mine"]));
    assert!(
        (plain / calibrated - temperature).abs() < 1e-2 * temperature,
        "{plain} {calibrated}"
    );

    let again = place.run(&args);
    assert!(
        again.told().contains("'mine/classify.task' is there already"),
        "{}",
        again.told()
    );
}

#[test]
fn a_task_file_is_calibrated_in_place_and_keeps_its_other_bytes() {
    let place = TestFolder::new();
    names(&place);
    let file = "---\r\n# Mine.\r\ndescription: Names it.\r\ninputs: {image: {type: image}}\r\noutput:\r\n  kind: choice\r\n  choices: [cat, dog, guitar, bicycle, rocket, turtle]\r\ndecode: {prefix: \"<extra_id_0>\"}\r\n---\r\n{{ image }}caption English: <extra_id_0>\r\n";
    place.write("mine/name.task", file);
    let calibrate = || {
        let args = [
            "tasks",
            "calibrate",
            "mine/name.task",
            "--data",
            "data/names.jsonl",
            "--reference",
            "name",
        ];
        place.run(&[&args[..], &["--json"]].concat())
    };
    let ended = calibrate();
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let temperature = ended.json()["temperature"].clone();
    let line = format!("output:\r\n  calibration: {{temperature: {temperature}}}\r\n");
    assert_eq!(read(&place, "mine/name.task"), file.replace("output:\r\n", &line));
    // What is calibrated stays as it is.
    let ended = calibrate();
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let report = ended.json();
    assert_eq!(report["previous"], temperature);
    let [before, after] = ["previous", "temperature"].map(|name| report[name].as_f64().unwrap());
    assert!((after / before - 1.0).abs() < 2e-3, "{report}");

    let args = [
        "tasks",
        "calibrate",
        "caption",
        "--data",
        "data/names.jsonl",
        "--reference",
        "name",
    ];
    let ended = place.run(&args);
    assert_eq!(ended.code, Some(2), "{}", ended.told());
    let message =
        "does not fit the task 'caption', whose output is of kind text: it fits choice, predicate, level";
    assert!(ended.stderr.contains(message), "{}", ended.stderr);
}
