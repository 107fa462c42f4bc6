//! Task files: written, checked, shown and run by the binary.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use common::TestFolder;

const SHOTS: &str = "---
description: Names what is in a picture.
inputs:
  image: {type: image}
few_shot:
  - {inputs: {image: dog.png}, target: dog}
  - {inputs: {image: dog.png}, target: dog}
  - {inputs: {image: dog.png}, target: dog}
  - {inputs: {image: dog.png}, target: dog}
decode: {prefix: \"<extra_id_0>\", max_new_tokens: 4}
---
{{ image }}caption English: <extra_id_0>";

#[test]
fn every_starter_passes_its_check_and_is_not_overwritten() {
    let place = TestFolder::new();
    for kind in ["text", "choice", "json", "embedding", "patches"] {
        let ended = place.run(&["tasks", "new", kind, "--kind", kind, "--out", "mine/tasks"]);
        assert_eq!(ended.code, Some(0), "{}", ended.told());
        let path = ended.stdout.trim_end();
        assert_eq!(path, format!("mine/tasks/{kind}.task"));
        let checked = place.run(&["tasks", "check", path]);
        assert_eq!(
            checked.stdout,
            format!("{kind}: no worked examples\n"),
            "{}",
            checked.told()
        );
        let again = place.run(&["tasks", "new", kind, "--out", "mine/tasks"]);
        assert_eq!(again.code, Some(2));
        assert_eq!(
            again.stderr,
            format!("error: '{path}' is there already: choose another name, or remove it\n")
        );
    }
    let ended = place.run(&[
        "--task-dir",
        "mine/tasks",
        "run",
        "choice",
        "--set",
        "text=How nice!",
        "--json",
    ]);
    assert_eq!(
        ended.json()["choices"].as_array().unwrap().len(),
        3,
        "{}",
        ended.told()
    );
}

#[test]
fn a_name_that_is_no_task_name_is_refused_and_nothing_is_written() {
    let place = TestFolder::new();
    for name in ["My Task", "../escape", "a/b", ""] {
        let ended = place.run(&["tasks", "new", name]);
        assert_eq!(ended.code, Some(2), "{name}: {}", ended.told());
    }
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().count(), 0);
}

#[test]
fn the_starter_for_text_with_its_examples_switched_on_is_run() {
    let place = TestFolder::new();
    place.run(&["tasks", "new", "mine"]);
    place.picture("cat.png");
    let text = std::fs::read_to_string(place.path("mine.task")).unwrap();
    let text = text.replace("# examples:", "examples:");
    let text = text.replace(
        "#   - inputs: {image: cat.png}\n#     output: cat",
        "   - inputs: {image: cat.png}\n     output: cat",
    );
    place.write("mine.task", text);
    let ended = place.run(&["tasks", "check", "./mine.task", "--json"]);
    let report = &ended.json()[0];
    assert_eq!(report["expected"], "cat", "{}", ended.told());
    assert!(report["found"].is_string() && report["passed"].is_boolean());
    let rendered = place.run(&["tasks", "check", "mine.task", "--no-run"]);
    insta::assert_snapshot!(rendered.told(), @r"
    exit code 0
    --- stdout
    mine example 1: renders to 9 tokens
    ");
    let json = place
        .run(&["tasks", "check", "mine.task", "--no-run", "--json"])
        .json();
    assert_eq!(json[0]["task"], "mine");
}

#[test]
fn a_wrong_file_is_named_with_its_line() {
    let place = TestFolder::new();
    place.write("wrong.task", "---\ndescription: x\nextends: nothing\n---\n");
    insta::assert_snapshot!(place.run(&["tasks", "check", "wrong.task"]).told(), @r"
    exit code 2
    --- stderr
    error: wrong.task:3: extends: there is no task 'nothing': it is looked for as 'nothing.task' beside this file, and among the built-in tasks
    ");
    place.write("example.task", "---\ndescription: x\ninputs: {image: {type: image}}\nexamples: [{inputs: {image: none.png}, output: x}]\n---\n{{ image }}");
    insta::assert_snapshot!(place.run(&["tasks", "check", "example.task", "--no-run"]).told(), @r"
    exit code 2
    --- stderr
    error: example.task: example 1: cannot use the picture 'none.png': cannot read it: No such file or directory (os error 2)
    ");
}

#[test]
fn a_prompt_is_shown_as_parts_and_tokens_with_special_tokens_marked() {
    let place = TestFolder::new();
    place.picture("cat.png");
    let args = [
        "tasks",
        "render",
        "vqa",
        "--image",
        "cat.png",
        "--set",
        "question=what </s>?",
    ];
    insta::assert_snapshot!("render", place.run(&args).told());
    let json = place
        .run(&[args.as_slice(), &["--json", "--target", "target=a cat"]].concat())
        .json();
    assert_eq!(json["parts"][1]["text"], "question: what </s>? answer: ");
    assert_eq!(json["target"][0]["text"], "a cat");
    let special = |token: &serde_json::Value| token["special"].as_bool().unwrap();
    let tokens = json["tokens"].as_array().unwrap();
    let named: Vec<&str> = tokens
        .iter()
        .filter(|token| special(token))
        .map(|token| token["piece"].as_str().unwrap())
        .collect();
    assert_eq!(
        named.iter().filter(|name| **name == "<extra_id_0>").count(),
        1,
        "{named:?}"
    );
    assert_eq!(json["prefix"][0]["piece"], "<extra_id_0>");
    let wrong = place.run(&[args.as_slice(), &["--target", "answer=x"]].concat());
    assert!(
        wrong.stderr.contains("the target has no field 'answer'"),
        "{}",
        wrong.told()
    );
}

#[test]
fn few_shot_examples_are_shown_as_far_as_the_caller_and_the_model_allow() {
    let place = TestFolder::new();
    place.picture("cat.png");
    place.write("tasks/dog.png", common::picture("dog.png"));
    place.write("tasks/name.task", SHOTS);
    let run = |more: &[&str]| {
        let args = [
            "--task-dir",
            "tasks",
            "run",
            "name",
            "--image",
            "cat.png",
            "--json",
        ];
        place.run(&[args.as_slice(), more].concat())
    };
    let patches = |shots: &str| {
        run(&["--shots", shots]).json()["usage"]["image_patches"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(patches("2"), 3 * patches("0"));
    let refused = run(&[]);
    assert_eq!(refused.code, Some(2));
    insta::assert_snapshot!(refused.json()["error"]["message"].as_str().unwrap(), @"the task 'name': 4 shots and the request have 5 pictures together, and the model takes at most 4: give at most 3 of the shots (--shots 3)");
    let shown = place.run(&[
        "--task-dir",
        "tasks",
        "tasks",
        "render",
        "name",
        "--image",
        "cat.png",
        "--shots",
        "1",
        "--json",
    ]);
    let parts = &shown.json()["parts"];
    assert_eq!(
        (&parts[0]["image"], &parts[3]["text"], &parts[4]["image"]),
        (&0.into(), &"dog\n".into(), &1.into())
    );
}

#[test]
fn a_task_of_the_callers_extends_a_built_in_one_and_imports_from_its_folder() {
    let place = TestFolder::new();
    place.picture("cat.png");
    place.write("tasks/brief.task", "---\nextends: caption\ndescription: Says it briefly.\nversion: 2\nmetadata: {author: Ada, tags: [a, b]}\ninputs: {language: ~}\ndecode: {max_new_tokens: 2}\ntarget: \"{{ caption }}\"\n---\n{% from \"lib/words.jinja\" import ask %}\n{{ image }}{{ ask(\"English\") }}");
    place.write(
        "tasks/lib/words.jinja",
        "{% macro ask(language) %}caption {{ language }}: <extra_id_0>{% endmacro %}",
    );
    let ended = place.run(&[
        "--task-dir",
        "tasks",
        "run",
        "brief",
        "--image",
        "cat.png",
        "--json",
    ]);
    assert!(
        ended.json()["usage"]["new_tokens"].as_u64().unwrap() <= 2,
        "{}",
        ended.told()
    );
    let by_path = place.run(&["tasks", "show", "tasks/brief.task"]);
    let by_name = place.run(&["--task-dir", "tasks", "tasks", "show", "brief"]);
    assert_eq!(by_path.stdout, by_name.stdout);
    insta::assert_snapshot!(
        "show_extended",
        place
            .run(&["--task-dir", "tasks", "tasks", "show", "brief"])
            .told()
    );
}

#[test]
fn the_schema_is_printed_whole_and_on_one_line() {
    let place = TestFolder::new();
    let pretty: serde_json::Value = serde_json::from_str(&place.run(&["tasks", "schema"]).stdout).unwrap();
    assert_eq!(pretty, place.run(&["tasks", "schema", "--json"]).json());
    assert_eq!(pretty, multiway::prompt::task_file_schema());
}

const TEMPLATES: &str = "dataset: imdb
templates:
  1: !Template
    answer_choices: negative ||| positive
    id: '1'
    jinja: '{{text}} Is it {{answer_choices[0]}}? ||| {{answer_choices[label]}}'
    metadata: !TemplateMetadata
      metrics: [Accuracy, Other]
    name: Is it?
    reference: ''
  2: !Template
    answer_choices: null
    id: '2'
    jinja: '{{ text.append(1) }} ||| a'
    name: grows
";

#[test]
fn templates_of_promptsource_become_task_files_or_are_reported() {
    let place = TestFolder::new();
    place.write("templates.yaml", TEMPLATES);
    let ended = place.run(&["tasks", "import", "templates.yaml", "--out", "imported", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let reports = ended.json();
    assert_eq!(reports[0]["file"], "imported/imdb-is-it.task");
    assert_eq!(reports[0]["notes"][0]["message"], "'Other' has no counterpart");
    assert_eq!(reports[1]["reason"], "construct");
    let rendered = place.run(&[
        "--task-dir",
        "imported",
        "tasks",
        "render",
        "imdb-is-it",
        "--set",
        "text=Fine.",
        "--target",
        "label=1",
    ]);
    assert_eq!(rendered.code, Some(0), "{}", rendered.told());
    let again = place.run(&["tasks", "import", "templates.yaml", "--out", "imported"]);
    assert_eq!(again.code, Some(1), "{}", again.told());
    assert!(
        again.stdout.ends_with("0 of 2 templates imported\n"),
        "{}",
        again.told()
    );
}
