//! `multiway train run` with a tiny recipe on a handful of pictures.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use common::TestFolder;

/// The side of a prepared picture.
const SIDE: usize = 96;
const NAMES: [&str; 8] = ["ant", "bee", "cow", "emu", "hen", "owl", "pig", "rat"];
/// Bytes of a picture's features: 36 cells of 64 numbers, and 256 of the whole.
const FEATURES: usize = 36 * 64 + 256;

const RECIPE: &str = r#"
seed = 3

[model]
hidden_size = 32
intermediate_size = 32
encoder_layers = 1
encoder_heads = 2
decoder_layers = 1
decoder_heads = 2
embedding_size = 16
patch_size = 24

[[stage]]
name = "pretrain"
steps = 14
batch = 8
save_every = 1
validate_every = 5
mix = { text = 1, picture = 1, caption = 1, spans = 1, question = 1 }
loss = { shown = 0.5, codes = 0.2 }

[[stage]]
name = "tasks"
steps = 14
batch = 8
save_every = 1
validate_every = 0
optimizer = "adamw"
freeze = ["language_embed*"]
mix = { caption = 1, retrieval = 1, question = 1, digit = 1, statement = 1, scene = 1 }
scenes = { count = 1, position = 1, colour = 1, compare = 1, pair = 1, entail = 1 }
loss = { features = 0.0, whole = 0.0 }
"#;

/// Writes prepared data of two hands' drawings, a shape with questions, digits and statements.
fn prepare(place: &TestFolder) {
    let mut pictures = Vec::new();
    let mut pixels = Vec::new();
    let mut paint = |record: Value, red: usize, green: usize| {
        let square = (0..SIDE * SIDE).flat_map(|at| {
            let inside = (at / SIDE).abs_diff(48) < 30 && (at % SIDE).abs_diff(48) < 20 + red % 17;
            let byte = |value: usize| u8::try_from(value % 256).unwrap();
            [
                byte(red),
                byte(green + at % SIDE),
                90,
                if inside { 255 } else { 0 },
            ]
        });
        pixels.extend(square);
        pictures.push(record);
        pictures.len() - 1
    };
    for (number, name) in NAMES.iter().enumerate() {
        for (source, shade) in [("noto", 10), ("twemoji", 120)] {
            let record = json!({"source": source, "concept": name, "label": null, "split": "train"});
            paint(record, number * 30, shade + number);
        }
    }
    let plain = |source: &str, label: Value| json!({"source": source, "concept": null, "label": label, "split": "train"});
    let shape = paint(plain("easy-vqa", Value::Null), 200, 3);
    paint(plain("mnist", json!("7")), 0, 50);
    let stated = paint(plain("nlvr", Value::Null), 77, 88);
    let lines = |records: &[Value]| {
        records
            .iter()
            .map(|record| format!("{record}\n"))
            .collect::<String>()
    };
    place.write("data/prepared/pictures.jsonl", lines(&pictures));
    place.write("data/prepared/pictures.bin", &pixels);
    let concepts = NAMES.map(|name| {
        json!({"concept": name, "split": "train", "names": {"en": name, "de": format!("{name} (de)")}, "keywords": {}})
    });
    place.write("data/prepared/concepts.jsonl", lines(&concepts));
    let questions = [("is it red?", "yes"), ("what color is it?", "red")]
        .map(|(question, answer)| json!({"picture": shape, "question": question, "answer": answer, "split": "train"}));
    place.write("data/prepared/questions.jsonl", lines(&questions));
    place.write(
        "data/prepared/texts.jsonl",
        lines(
            &NAMES.map(
                |name| json!({"lang": "en", "text": format!("{name}: an animal of the farm or the wood")}),
            ),
        ),
    );
    place.write("data/prepared/sketches.jsonl", "");
    let statement = json!({"pictures": [stated], "sentence": "there is a box", "lang": "en", "label": true});
    place.write("data/prepared/statements.jsonl", lines(&[statement]));
    let codes: Vec<u8> = (0..pictures.len() * 36)
        .flat_map(|at| [u8::try_from(at % 250).unwrap(), 1])
        .collect();
    place.write("data/prepared/codes.bin", codes);
    let features: Vec<u8> = (0..pictures.len() * FEATURES)
        .map(|at| u8::try_from(at % 23 + 1).unwrap())
        .collect();
    place.write("data/prepared/features.bin", features);
    let tokenizer = fs::read("../checkpoints/default/tokenizer.model").unwrap();
    place.write("data/tokenizer/tokenizer.model", tokenizer);
    place.write("recipe.toml", RECIPE);
}

/// Lists the saved states of a run, all stages, oldest first in each.
fn states(place: &TestFolder, runs: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for stage in ["pretrain", "tasks"] {
        let folder = place.path(&format!("{runs}/{stage}"));
        let files = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|file| file.unwrap().path());
        let mut files: Vec<PathBuf> = files
            .filter(|path| path.extension().is_some_and(|end| end == "safetensors"))
            .collect();
        files.sort();
        found.extend(files);
    }
    found
}

/// Reads a state: the header, whose keys come in any order, and the bytes of the tensors.
fn content(state: &Path) -> (Value, Vec<u8>) {
    let bytes = fs::read(state).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap());
    let (header, tensors) = bytes[8..].split_at(usize::try_from(length).unwrap());
    (serde_json::from_slice(header).unwrap(), tensors.to_vec())
}

/// Runs until there is a state that was not there before, and kills it a moment later.
fn killed(place: &TestFolder, moment: u64) {
    let last = || states(place, "killed").pop();
    let before = last();
    let mut child = Command::new(env!("CARGO_BIN_EXE_multiway"))
        .args(["train", "run", "recipe.toml", "--runs", "killed", "--quiet"])
        .current_dir(place.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while last() == before {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before it could be killed"
        );
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(moment));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_that_is_killed_five_times_ends_with_the_same_bits() {
    let place = TestFolder::new();
    prepare(&place);
    for moment in [0, 3, 7, 12, 1] {
        killed(&place, moment);
    }
    for runs in ["killed", "whole"] {
        let ended = place.run(&["train", "run", "recipe.toml", "--runs", runs, "--quiet"]);
        assert_eq!(ended.code, Some(0), "{}", ended.told());
        assert!(
            ended.stdout.contains("tasks: 14 of 14 steps done"),
            "{}",
            ended.stdout
        );
    }
    let (killed, whole) = (states(&place, "killed"), states(&place, "whole"));
    assert_eq!(killed.len(), whole.len());
    for (killed, whole) in killed.iter().zip(&whole) {
        assert_eq!(killed.file_name(), whole.file_name());
        assert!(content(killed) == content(whole), "{} differs", killed.display());
    }
    for stage in ["pretrain", "tasks"] {
        let losses =
            |runs: &str| fs::read_to_string(place.path(&format!("{runs}/{stage}/losses.csv"))).unwrap();
        assert_eq!(losses("killed"), losses("whole"));
    }
    let header = "step,text,codes,features,shown,whole,retrieval,validation,gradient_norm,learning_rate\n";
    let losses = fs::read_to_string(place.path("whole/pretrain/losses.csv")).unwrap();
    assert!(losses.starts_with(header), "{losses}");
}

#[test]
fn a_run_can_be_tried_exported_and_begun_with() {
    let place = TestFolder::new();
    prepare(&place);
    let tried = place.run(&["train", "run", "recipe.toml", "--dry-run"]);
    assert_eq!(tried.code, Some(0), "{}", tried.told());
    assert_eq!(tried.stdout.lines().count(), 2, "{}", tried.stdout);
    assert!(
        tried.stdout.starts_with("pretrain: ") && tried.stdout.contains("examples/s"),
        "{}",
        tried.stdout
    );
    assert!(!place.path("runs").exists(), "a try writes nothing");

    let first = [
        "train",
        "run",
        "recipe.toml",
        "--only",
        "pretrain",
        "--runs",
        "a",
        "--quiet",
    ];
    assert_eq!(place.run(&first).code, Some(0));
    let export = [
        "train",
        "export",
        "--recipe",
        "recipe.toml",
        "--run",
        "a/pretrain",
        "--out",
        "model",
    ];
    let exported = place.run(&export);
    assert_eq!(exported.code, Some(0), "{}", exported.told());
    place.picture("cat.png");
    let caption = ["--checkpoint", "model", "run", "caption", "--image", "cat.png"];
    assert_eq!(place.run(&caption).code, Some(0));
    let second = [
        "train",
        "run",
        "recipe.toml",
        "--only",
        "tasks",
        "--runs",
        "b",
        "--start",
        "model",
        "--quiet",
    ];
    let ended = place.run(&second);
    assert_eq!(ended.code, Some(0), "{}", ended.told());

    let tests = [
        "--only",
        "scenes-count",
        "--only",
        "scenes-pair",
        "--only",
        "scenes-entail",
    ];
    let evaluate = [
        &[
            "--checkpoint",
            "model",
            "train",
            "evaluate",
            "--pictures",
            "3",
            "--json",
        ],
        &tests[..],
    ]
    .concat();
    let scored = place.run(&evaluate);
    assert_eq!(scored.code, Some(0), "{}", scored.told());
    let scored = scored.json();
    let scored = scored["tests"].as_array().unwrap();
    assert_eq!(scored.len(), 3, "{scored:?}");
    assert!(scored.iter().all(
        |score| score["total"] == 3 && score["low"].as_f64().unwrap() <= score["rate"].as_f64().unwrap()
    ));

    for (args, expected) in [
        (
            &["--only", "nothing"][..],
            "the recipe has no stage 'nothing', only: pretrain, tasks",
        ),
        (&["--start", "a/nowhere"], "a/nowhere holds no training state"),
    ] {
        let args = [&["train", "run", "recipe.toml", "--runs", "c", "--quiet"], args].concat();
        let ended = place.run(&args);
        assert_ne!(ended.code, Some(0));
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
    place.write("data/prepared/statements.jsonl", "");
    let ended = place.run(&["train", "run", "recipe.toml", "--runs", "d"]);
    let told = "stage 'tasks' mixes in statement, and the prepared data has none";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    assert!(!place.path("d").exists(), "it is told before the first stage");
    fs::remove_file(place.path("data/prepared/features.bin")).unwrap();
    let ended = place.run(&["train", "run", "recipe.toml", "--runs", "d"]);
    assert!(ended.stderr.contains("features.bin"), "{}", ended.stderr);
}
