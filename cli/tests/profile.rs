//! `multiway run --profile`: every part of the time is told, and they add up.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use serde_json::Value;

use common::TestFolder;

const PARTS: [&str; 11] = [
    "open", "pictures", "render", "load", "prepare", "queue", "encode", "decode", "select", "read_out",
    "other",
];

fn place() -> TestFolder {
    let place = TestFolder::new();
    place.picture("cat.png");
    place
}

fn profile(place: &TestFolder, args: &[&str]) -> Value {
    let json = place
        .run(&[&["run"], args, &["--profile", "--json"]].concat())
        .json();
    json["profile"].clone()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_parts_add_up_to_the_total_whatever_the_task_answers() {
    let place = place();
    let image = ["--image", "cat.png"];
    for (task, more, writes, decodes) in [
        ("caption", &[][..], true, true),
        ("caption", &["--samples", "3", "--temperature", "1"], true, true),
        ("caption", &["--beams", "2"], true, true),
        ("classify", &["--set", "choices=cat,dog"], false, true),
        ("retrieve", &[], false, false),
        ("patches", &["--set", "hide=1:1"], false, false),
    ] {
        let profile = profile(&place, &[&[task], &image[..], more].concat());
        let parts = &profile["parts_ms"];
        assert_eq!(keys(parts), PARTS);
        let ms: Vec<f64> = PARTS.iter().map(|part| parts[part].as_f64().unwrap()).collect();
        assert!(ms.iter().all(|ms| *ms >= 0.0), "{profile}");
        let total = profile["total_ms"].as_f64().unwrap();
        // Each part is rounded to microseconds.
        assert!((ms.iter().sum::<f64>() - total).abs() < 0.02, "{profile}");
        for part in ["open", "pictures", "render", "load", "prepare", "encode"] {
            assert!(parts[part].as_f64() > Some(0.0), "{task}: {part} of {profile}");
        }
        for part in ["decode", "select"] {
            assert_eq!(
                parts[part].as_f64() > Some(0.0),
                decodes,
                "{task}: {part} of {profile}"
            );
        }
        assert_eq!(profile["ms_per_step"].is_number(), decodes, "{task}: {profile}");
        for figure in ["first_token_ms", "ms_per_token"] {
            assert_eq!(
                profile[figure].is_number(),
                writes,
                "{task}: {figure} of {profile}"
            );
        }
    }
}

#[test]
fn without_json_the_table_is_on_standard_error_and_the_answer_is_as_without_it() {
    let place = place();
    let caption = ["run", "caption", "--image", "cat.png"];
    let plain = place.run(&caption);
    let ended = place.run(&[&caption[..], &["--profile"]].concat());
    assert_eq!((ended.code, &ended.stdout), (Some(0), &plain.stdout));
    let first = |line: &str| line.split("  ").next().unwrap_or_default().replace(' ', "_");
    let names: Vec<String> = ended.stderr.lines().take(PARTS.len()).map(first).collect();
    assert_eq!(names, PARTS, "{}", ended.stderr);
    assert!(ended.stderr.contains("\ntotal "), "{}", ended.stderr);
}

#[test]
fn a_profile_comes_only_where_it_is_asked_for() {
    let json = place()
        .run(&["run", "caption", "--image", "cat.png", "--json"])
        .json();
    assert_eq!(json.get("profile"), None);
}
