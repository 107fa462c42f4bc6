//! `multiway train evaluate` on a few pictures and one question.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use std::fs;

use insta::assert_snapshot;
use serde_json::json;

use common::TestFolder;

/// The side of a prepared picture.
const SIDE: usize = 96;

/// Writes prepared data: a red square with a question about it, and three drawings with their names.
fn prepare(place: &TestFolder) {
    let lines = |records: &[serde_json::Value]| {
        records
            .iter()
            .map(|record| format!("{record}\n"))
            .collect::<String>()
    };
    let picture = json!({"source": "easy-vqa", "concept": null, "label": null, "split": "test"});
    place.write("data/prepared/pictures.jsonl", lines(&[picture]));
    place.write("data/prepared/pictures.bin", [255, 0, 0, 255].repeat(SIDE * SIDE));
    let question =
        json!({"picture": 0, "question": "what color is the shape?", "answer": "red", "split": "test"});
    place.write("data/prepared/questions.jsonl", lines(&[question]));
    place.write("data/prepared/concepts.jsonl", "");
    place.write("data/prepared/texts.jsonl", "");
    place.write("data/prepared/sketches.jsonl", "");
    place.write("data/prepared/statements.jsonl", "");
    let drawings = [
        ("cat.png", "cat face"),
        ("bicycle.png", "bicycle"),
        ("guitar.png", "guitar"),
    ];
    for (file, _) in drawings {
        place.write(&format!("data/test/openmoji/{file}"), common::picture(file));
    }
    let drawings =
        drawings.map(|(file, name)| json!({"file": file, "concept": file, "name": name, "split": "train"}));
    place.write("data/test/openmoji/index.jsonl", lines(&drawings));
}

#[test]
fn a_model_is_scored_with_weights_and_caches_of_every_type() {
    let place = TestFolder::new();
    prepare(&place);
    let plain = [
        "train",
        "evaluate",
        "--split",
        "test",
        "--pictures",
        "3",
        "--only",
        "drawings",
        "--only",
        "easy-vqa",
        "--json",
    ];
    let types: [&[&str]; 4] = [
        &[],
        &["--dtype", "bf16"],
        &["--dtype", "int8"],
        &["--cache-dtype", "int8"],
    ];
    for dtype in types {
        let ended = place.run(&[&plain, dtype].concat());
        assert_eq!(ended.code, Some(0), "{}", ended.told());
        let report = ended.json();
        let right = |test: &str| {
            let tests = report["tests"].as_array().unwrap();
            let score = tests.iter().find(|score| score["test"] == test).unwrap();
            (score["right"].clone(), score["total"].clone())
        };
        assert_eq!(right("drawings-first"), (json!(3), json!(3)), "{dtype:?}");
        assert_eq!(right("drawings-nearest"), (json!(2), json!(3)), "{dtype:?}");
        assert_eq!(right("easy-vqa"), (json!(1), json!(1)), "{dtype:?}");
    }
}

#[test]
fn a_model_that_writes_without_a_decoder_is_not_scored_with_narrow_caches() {
    let place = TestFolder::new();
    prepare(&place);
    let fixture = |file: &str| fs::read(format!("../tests/fixtures/parity/beit3_vqa/{file}")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        place.write(&format!("model/{file}"), fixture(file));
    }
    let tokenizer = include_bytes!("../../runtime/tests/fixtures/numbering/beit3.spm");
    place.write("model/beit3.spm", tokenizer);
    let ended = place.run(&[
        "--checkpoint",
        "model",
        "train",
        "evaluate",
        "--cache-dtype",
        "int8",
    ]);
    assert_snapshot!(ended.told(), @"
    exit code 1
    --- stderr
    error: keys and values in int8 need a text decoder on the CPU with f32 for the rest, found a model that writes no text
    ");
}

#[test]
fn a_weight_type_that_is_none_is_refused_with_those_that_are() {
    let ended = TestFolder::new().run(&["train", "evaluate", "--dtype", "int4"]);
    assert_snapshot!(ended.told(), @"
    exit code 2
    --- stderr
    error: invalid value 'int4' for '--dtype <TYPE>'
      [possible values: f32, bf16, int8]

      tip: a similar value exists: 'int8'

    For more information, try '--help'.
    ");
}

#[test]
fn the_help_says_what_the_weight_types_are_for() {
    let ended = TestFolder::new().run(&["train", "evaluate", "--help"]);
    let help = ended.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, option) = help.split_once("--dtype <TYPE> ").unwrap();
    let (option, _) = option.split_once(" --cache-dtype").unwrap();
    assert_snapshot!(option, @"Element type of the linear layers' weights on the CPU, to measure the accuracy of bf16 and int8 [default: f32, or the type of a packed checkpoint] [possible values: f32, bf16, int8]");
}
