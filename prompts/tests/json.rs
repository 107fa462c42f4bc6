//! A task as JSON, as `tasks show --json` prints it.

use multiway_prompts::{PromptPart, TaskFile};

#[test]
fn a_task_is_written_as_json_with_all_that_it_declares() {
    let file = include_bytes!("cases/caption.task");
    let task = TaskFile::parse("tasks/caption.task", file).unwrap();
    let json = serde_json::to_string_pretty(&task).unwrap();
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "json", omit_expression => true }, {
        insta::assert_snapshot!("caption", json);
    });
}

#[test]
fn what_changes_the_next_token_is_read_from_a_task_and_written_as_json() {
    let file = "---\ndescription: x\ndecode:\n  min_p: 0.25\n  typical_p: 0.5\n  presence_penalty: -1.5\n  \
        frequency_penalty: 0.5\n  logit_bias: {7: -100, 12: 3.5}\n---\nhello";
    let task = TaskFile::parse("x.task", file.as_bytes()).unwrap();
    let expected = r#"{"min_p":0.25,"typical_p":0.5,"presence_penalty":-1.5,"frequency_penalty":0.5,"logit_bias":{"7":-100.0,"12":3.5}}"#;
    assert_eq!(serde_json::to_string(&task.decode).unwrap(), expected);
}

#[test]
fn answers_to_choose_from_are_written_beside_their_kind() {
    let choice = |output: &str| {
        let file = format!(
            "---\ndescription: x\ninputs: {{labels: {{type: list}}}}\noutput: {output}\n---\n{{{{ labels[0] }}}}"
        );
        let task = TaskFile::parse("x.task", file.as_bytes()).unwrap();
        serde_json::to_string(&task.output).unwrap()
    };
    assert_eq!(
        choice("{kind: choice, choices: [yes, no]}"),
        r#"{"kind":"choice","choices":["yes","no"]}"#
    );
    assert_eq!(
        choice("{kind: choice, choices_from: labels}"),
        r#"{"kind":"choice","choices_from":"labels"}"#
    );
    assert_eq!(choice("{kind: embedding}"), r#"{"kind":"embedding"}"#);
}

#[test]
fn the_options_of_an_output_are_written_beside_its_kind_and_defaults_are_left_out() {
    for (output, expected) in [
        (
            "{kind: choice, choices: [a, b], normalization: tokens, calibration: {temperature: 1.5}}",
            r#"{"kind":"choice","choices":["a","b"],"normalization":"tokens","calibration":{"temperature":1.5}}"#,
        ),
        (
            "{kind: choice, choices: [a, b], method: trie}",
            r#"{"kind":"choice","choices":["a","b"],"method":"trie"}"#,
        ),
        (
            "{kind: choice, of_model: true}",
            r#"{"kind":"choice","of_model":true}"#,
        ),
        (
            "{kind: predicate}",
            r#"{"kind":"predicate","yes":"yes","no":"no"}"#,
        ),
        (
            "{kind: level, levels: [a, b], values: [0, 2.5]}",
            r#"{"kind":"level","levels":["a","b"],"values":[0.0,2.5]}"#,
        ),
        (
            "{kind: labels, choices: [a]}",
            r#"{"kind":"labels","separator":",","choices":["a"]}"#,
        ),
        (
            "{kind: number, language: hi, unit: kg, max: 9}",
            r#"{"kind":"number","language":"hi","integer":false,"max":9.0,"unit":"kg"}"#,
        ),
        (
            "{kind: boxes, dialect: unified_io}",
            r#"{"kind":"boxes","dialect":"unified_io"}"#,
        ),
        ("{kind: grounded}", r#"{"kind":"grounded","dialect":"native"}"#),
        ("{kind: table}", r#"{"kind":"table"}"#),
    ] {
        let file = format!(
            "---\ndescription: x\ninputs: {{image: {{type: image}}}}\noutput: {output}\n---\n{{{{ image }}}}"
        );
        let task = TaskFile::parse("x.task", file.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&task.output).unwrap(), expected);
    }
}

#[test]
fn parts_are_written_with_their_kind() {
    let parts = [
        PromptPart::Image(0),
        PromptPart::Text("a".into()),
        PromptPart::Special("</s>".into()),
    ];
    assert_eq!(
        serde_json::to_string(&parts).unwrap(),
        r#"[{"image":0},{"text":"a"},{"special":"</s>"}]"#
    );
}
