//! Whatever the verb and the kind of task: inputs are checked once, the template is rendered once, the prompt
//! is tokenized once. The log says each time that it happens.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use common::TestFolder;

/// Runs a command, and counts what the log says was done.
fn counts(place: &TestFolder, args: &[&str]) -> [usize; 3] {
    let log = ["--log", "multiway_prompts=debug,multiway_runtime=debug"];
    let ended = place.run(&[&log, args].concat());
    assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
    ["checked the inputs", "rendered a prompt", "tokenizing a prompt"]
        .map(|event| ended.stderr.matches(event).count())
}

#[test]
fn a_request_is_prepared_once_whatever_the_task_and_the_verb() {
    let place = TestFolder::new();
    place.picture("cat.png");
    place.write("pictures/cat.png", common::picture("cat.png"));
    place.write(
        "tasks/animal.task",
        "---\ndescription: Describes an animal.\ninputs:\n  image: {type: image}\noutput:\n  kind: json\n  schema: \
         {type: object, properties: {legs: {type: integer, minimum: 0, maximum: 9}}, required: [legs]}\n---\n\
         {{ image }}animal: <extra_id_0>",
    );
    let indexed = place.run(&["search", "index", "pictures", "--out", "pictures.index"]);
    assert_eq!(indexed.code, Some(0), "{}", indexed.stderr);
    let commands: [&[&str]; 12] = [
        &["run", "caption", "--image", "cat.png"],
        &["run", "caption", "--image", "cat.png", "--json", "--beams", "3"],
        &[
            "run",
            "caption",
            "--image",
            "cat.png",
            "--samples",
            "2",
            "--temperature",
            "1",
        ],
        &["run", "caption", "--image", "cat.png", "--regex", "[a-z]+"],
        &[
            "run",
            "vqa",
            "--image",
            "cat.png",
            "--set",
            "question=what is it?",
        ],
        &[
            "run",
            "classify",
            "--image",
            "cat.png",
            "--set",
            "choices=cat,dog,a red apple",
        ],
        &["run", "infill", "--set", "text=a ___ and a ___"],
        &["run", "patches", "--image", "cat.png", "--set", "hide=1:1-2"],
        &["--task-dir", "tasks", "run", "animal", "--image", "cat.png"],
        &["embed", "--text", "a red apple"],
        &["search", "query", "pictures.index", "--image", "cat.png"],
        &[
            "tokenize",
            "--task",
            "vqa",
            "--image",
            "cat.png",
            "--set",
            "question=what is it?",
        ],
    ];
    for command in commands {
        assert_eq!(counts(&place, command), [1, 1, 1], "{command:?}");
    }
}
