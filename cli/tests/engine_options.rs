//! How much an engine may use and how long its requests may take, as the command line says it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod common;

use insta::assert_snapshot;

use common::{Ended, TestFolder};

const CAPTION: [&str; 4] = ["run", "caption", "--image", "cat.png"];

fn place() -> TestFolder {
    let place = TestFolder::new();
    place.picture("cat.png");
    place
}

fn caption(place: &TestFolder, options: &[&str]) -> Ended {
    place.run(&[&CAPTION, options].concat())
}

#[test]
fn an_answer_does_not_depend_on_the_engines_options() {
    let place = place();
    let plain = caption(&place, &[]);
    assert_eq!(plain.code, Some(0), "{}", plain.told());
    let options = [
        "--memory-budget",
        "64MiB",
        "--reuse-budget",
        "0",
        "--replicas",
        "2",
        "--threads",
        "1",
        "--priority",
        "-3",
        "--timeout",
        "10m",
    ];
    let with = caption(&place, &options);
    assert_eq!((with.code, with.stdout), (Some(0), plain.stdout));
}

#[test]
fn a_model_with_narrow_weights_captions_pictures() {
    let place = place();
    let plain = caption(&place, &[]);
    for dtype in ["f32", "bf16", "int8"] {
        let ended = caption(&place, &["--dtype", dtype]);
        assert_eq!(ended.code, Some(0), "{}", ended.told());
        // The embedded weights are stored in bf16, so that keeping them so changes nothing.
        assert!(
            dtype == "int8" || ended.stdout == plain.stdout,
            "{}",
            ended.told()
        );
        assert!(ended.stdout.chars().any(char::is_alphabetic), "{}", ended.told());
    }
}

#[test]
fn a_model_with_narrow_caches_captions_pictures() {
    let place = place();
    let plain = caption(&place, &[]);
    for cache in ["f32", "bf16", "int8"] {
        let ended = caption(&place, &["--cache-dtype", cache, "--dtype", "bf16"]);
        assert_eq!(ended.code, Some(0), "{}", ended.told());
        assert!(cache != "f32" || ended.stdout == plain.stdout, "{}", ended.told());
        assert!(ended.stdout.chars().any(char::is_alphabetic), "{}", ended.told());
    }
}

#[test]
fn options_that_cannot_be_say_what_was_expected_and_found() {
    let place = place();
    let told = |options: &[&str]| {
        let ended = caption(&place, options);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
        ended.stderr
    };
    let refusals = [
        told(&["--memory-budget", "much"]),
        told(&["--reuse-budget", "-1"]),
        told(&["--replicas", "0"]),
        told(&["--dtype", "int4"]),
        told(&["--cache-dtype", "f16"]),
        told(&["--priority", "high"]),
        told(&["--timeout", "30"]),
        told(&["--timeout", "0s"]),
    ];
    assert_snapshot!("engine_options", refusals.concat());
}

#[test]
fn a_memory_budget_that_is_too_little_is_told_with_one_that_is_enough() {
    let place = place();
    for replicas in ["1", "3"] {
        let run = |bytes: &str| caption(&place, &["--replicas", replicas, "--memory-budget", bytes]);
        let refused = run("1KiB");
        assert_eq!(refused.code, Some(2), "{}", refused.told());
        let told = refused
            .stderr
            .strip_prefix("error: --memory-budget: expected at least ");
        let enough = told.and_then(|told| told.split_once(' ')).unwrap().0;
        assert_eq!(run(enough).code, Some(0), "{enough} bytes");
    }
}

#[test]
fn a_request_that_takes_too_long_is_no_fault_of_the_input_whatever_verb_sends_it() {
    let place = place();
    place.write("pictures/cat.png", common::picture("cat.png"));
    let example = "---\ndescription: Greets.\nexamples:\n- output: hi\n---\nhello";
    place.write("tasks/greet.task", example);
    let verbs: [&[&str]; 4] = [
        &CAPTION,
        &["embed", "--text", "a cat"],
        &["search", "index", "pictures", "--out", "my.index"],
        &["--task-dir", "tasks", "tasks", "check", "greet"],
    ];
    for verb in verbs {
        let ended = place.run(&[verb, &["--timeout", "1ns"]].concat());
        let (code, last) = (ended.code, ended.stderr.lines().last().unwrap_or_default());
        let expected = "error: the answer was not complete after 1ns, the request's timeout";
        assert_eq!((code, last), (Some(1), expected), "{verb:?}: {}", ended.told());
    }
}

#[test]
fn the_help_teaches_the_engines_options() {
    let wide = [("COLUMNS", "110")];
    let verbs: [&[&str]; 5] = [
        &["run"],
        &["embed"],
        &["search", "index"],
        &["search", "query"],
        &["tasks", "check"],
    ];
    let told = verbs.map(|verb| {
        let help = TestFolder::new()
            .run_in(&[verb, &["--help"]].concat(), &wide)
            .stdout;
        let section = help.split_once("Engine options:\n").unwrap().1;
        let section = section.split_once(" options:\n").unwrap().0;
        // What is left of the next heading goes too.
        section.rsplit_once("\n\n").unwrap().0.to_owned()
    });
    assert_snapshot!("help", told[0]);
    assert!(
        told.iter().all(|other| *other == told[0]),
        "all verbs say the same"
    );
}
