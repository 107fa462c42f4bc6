//! A packed checkpoint from the command line: made by `convert`, and used by every verb as its original is.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use insta::assert_snapshot;
use serde_json::{Value, json};

use common::{Ended, TestFolder};

/// The embedded model as a folder.
const ORIGINAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../checkpoints/default");

/// Makes a place with a picture and the default checkpoint packed; gives what `convert` reports.
fn packed(options: &[&str]) -> (TestFolder, Value) {
    let place = TestFolder::new();
    place.picture("cat.png");
    let report = place.run(&[&["convert", ORIGINAL, "packed", "--json"], options].concat());
    assert_eq!(report.code, Some(0), "{}", report.told());
    (place, report.json())
}

fn on(place: &TestFolder, checkpoint: &str, arguments: &str) -> Ended {
    let arguments = arguments.split_whitespace();
    let arguments: Vec<&str> = ["--checkpoint", checkpoint]
        .into_iter()
        .chain(arguments)
        .collect();
    place.run(&arguments)
}

#[test]
fn a_packed_checkpoint_answers_as_its_original_with_the_same_weights() {
    let (place, report) = packed(&["--dtype", "int8"]);
    assert_eq!(report["packed"], "int8");
    assert_eq!(report["files"], json!(["tokenizer.json", "tokenizer.model"]));
    let (error, largest) = (
        report["max_error"].as_f64().unwrap(),
        report["largest"].as_f64().unwrap(),
    );
    assert!(error > 0.0 && error < 0.2 * largest, "{report}");
    let provenance = std::fs::read(place.path("packed/provenance.json")).unwrap();
    let provenance: Value = serde_json::from_slice(&provenance).unwrap();
    assert_eq!(
        (&provenance["dtype"], &provenance["packed"]),
        (&json!("int8"), &json!(true))
    );
    let caption = "run caption --image cat.png";
    let expected = on(&place, ORIGINAL, &format!("{caption} --dtype int8"));
    assert_eq!(expected.code, Some(0), "{}", expected.told());
    for options in ["", "--dtype int8"] {
        let found = on(&place, "packed", &format!("{caption} {options}"));
        assert_eq!(found.stdout, expected.stdout, "{}", found.told());
    }
    let vector = on(&place, "packed", "embed --text apple").json();
    let expected = on(&place, ORIGINAL, "embed --text apple --dtype int8").json();
    assert_eq!(vector["embedding"], expected["embedding"]);
    assert!(vector["embedding"].is_array(), "{vector}");
}

#[test]
fn every_number_type_can_be_packed() {
    for (options, weights) in [
        (&["--packed"][..], "f32"),
        (&["--packed", "--dtype", "bf16"], "bf16"),
    ] {
        let (place, report) = packed(options);
        assert_eq!(report["packed"], weights);
        // The weights are stored in bf16: what moves in bf16 is that activations are rounded, too.
        let (error, largest) = (report["max_error"].as_f64(), report["largest"].as_f64());
        match weights {
            "f32" => assert_eq!(error, Some(0.0), "{report}"),
            _ => assert!(
                error > Some(0.0) && error < largest.map(|largest| largest / 50.0),
                "{report}"
            ),
        }
        let found = on(&place, "packed", "run caption --image cat.png");
        let expected = on(
            &place,
            ORIGINAL,
            &format!("run caption --image cat.png --dtype {weights}"),
        );
        assert_eq!(found.stdout, expected.stdout, "{}", found.told());
    }
}

#[test]
fn a_packed_checkpoint_is_shown_measured_and_searched_with() {
    let (place, _) = packed(&["--dtype", "int8"]);
    let (found, original) = (
        place.run(&["inspect", "packed", "--json"]).json(),
        place.run(&["inspect", ORIGINAL, "--json"]).json(),
    );
    assert_eq!(
        (&found["packed"], &original["packed"]),
        (&json!("int8"), &Value::Null)
    );
    let total = &original["parameters"]["total"];
    assert_eq!(&found["parameters"]["total"], total);
    let summary = place.run(&["inspect", "packed"]).stdout;
    assert!(summary.contains("linear layers packed as int8\n"), "{summary}");
    assert!(summary.ends_with("weights packed in int8\n"), "{summary}");
    for verb in ["load", "decode --new-tokens 2", "encode", "kernels"] {
        let lines = on(
            &place,
            "packed",
            &format!("bench {verb} --source-length 4 --json"),
        );
        assert_eq!(lines.code, Some(0), "{}", lines.told());
        for line in lines.stdout.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["dtype"], "int8", "{line}");
        }
    }
    place.write("pictures/cat.png", common::picture("cat.png"));
    let index = on(&place, "packed", "search index pictures --out index --quiet");
    assert_eq!(index.code, Some(0), "{}", index.told());
    let query = "search query index --text cat --json";
    assert!(on(&place, "packed", query).stdout.contains("cat.png"));
    // Vectors of one weight type are not compared with those of another.
    assert_eq!(on(&place, ORIGINAL, query).code, Some(2));
}

#[test]
fn what_a_packed_checkpoint_is_not_for_is_told() {
    let (place, _) = packed(&["--dtype", "int8"]);
    let told = |ended: Ended| {
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
        ended.stderr
    };
    let refusals = [
        told(on(&place, "packed", "run caption --image cat.png --dtype bf16")),
        told(on(&place, "packed", "bench load --dtype f32")),
        told(place.run(&["convert", "packed", "again", "--dtype", "int8"])),
        told(place.run(&["convert", "packed", "back"])),
        told(place.run(&["convert", ORIGINAL, "half", "--dtype", "f16", "--packed"])),
        told(place.run(&["convert", ORIGINAL, "packed", "--dtype", "int8"])),
    ];
    assert_snapshot!("packed_refusals", refusals.concat());
    assert!(!place.path("again").exists() && !place.path("back").exists());
}
