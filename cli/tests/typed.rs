//! Typed answers on the command line.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use common::{Ended, TestFolder};

/// Runs a task file with an output on the picture of a cat.
fn run(output: &str, args: &[&str]) -> (TestFolder, Ended) {
    let place = TestFolder::new();
    let file = format!(
        "---\ndescription: A case.\ninputs: {{image: {{type: image}}}}\noutput: {output}\ndecode: {{max_new_tokens: 6}}\n---\n{{{{ image }}}}what is it?"
    );
    place.write("tasks/mine.task", file);
    place.picture("cat.png");
    let ended = place.run(&[&["--task-dir", "tasks", "run", "mine"], args].concat());
    (place, ended)
}

#[test]
fn a_typed_answer_is_one_line_of_json_with_its_raw_text() {
    for (output, key) in [
        ("{kind: predicate}", "predicate"),
        ("{kind: level, levels: [small, large]}", "level"),
        ("{kind: number}", "number"),
        ("{kind: labels}", "labels"),
        ("{kind: boxes}", "boxes"),
        ("{kind: points, dialect: unified_io}", "points"),
        ("{kind: polygons, dialect: florence2}", "polygons"),
        ("{kind: grounded}", "grounded"),
        ("{kind: table}", "table"),
    ] {
        let (_place, ended) = run(output, &["--image", "cat.png", "--json"]);
        assert_eq!(ended.code, Some(0), "{output}: {}", ended.told());
        let json = ended.json();
        assert!(!json[key].is_null() && json["text"].is_string(), "{json}");
    }
}

#[test]
fn a_number_that_is_none_is_told_and_its_text_is_printed() {
    let (_place, ended) = run(
        "{kind: number, min: 0, max: 0, unit: kg}",
        &["--image", "cat.png"],
    );
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    assert!(ended.stderr.contains("no number: expected"), "{}", ended.told());
    assert_eq!(ended.stdout.lines().count(), 1);
}

#[test]
fn places_are_drawn_on_the_picture_at_its_own_size() {
    let (place, ended) = run("{kind: boxes}", &["--image", "cat.png", "--draw", "out.png"]);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let size = |name: &str| std::fs::read(place.path(name)).unwrap()[16..24].to_vec();
    assert_eq!(size("out.png"), size("cat.png"));
}

#[test]
fn what_cannot_be_drawn_is_refused_before_the_model_runs() {
    let draw = ["--draw", "out.png", "--image"];
    for (output, image, told) in [
        (
            "{kind: text}",
            "cat.png",
            "answers with text: expected boxes, points, polygons or grounded text",
        ),
        ("{kind: boxes}", "nowhere.png", "nowhere.png"),
    ] {
        let (place, ended) = run(output, &[&draw[..], &[image]].concat());
        assert_eq!(ended.code, Some(2), "{}", ended.told());
        assert!(ended.stderr.contains(told), "{}", ended.told());
        assert!(!place.path("out.png").exists());
    }
}
