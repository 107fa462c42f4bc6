//! Every wrong input ends with exit code 2 and a message that says what was expected, what was found, and
//! where.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod common;

use insta::assert_snapshot;

use common::{Ended, TestFolder, picture, png_that_claims};

/// Runs `args` and checks that they are refused as wrong input.
fn refusal(place: &TestFolder, args: &[&str]) -> String {
    let ended = place.run(args);
    assert_eq!(ended.code, Some(2), "{}", ended.told());
    assert_eq!(ended.stdout, "", "nothing is printed beside the error");
    ended.stderr
}

fn caption(place: &TestFolder, image: &str) -> String {
    refusal(place, &["run", "caption", "--image", image])
}

/// Writes a task file into a folder of its own and runs it.
fn run_task_file(body: impl AsRef<[u8]>) -> String {
    let place = TestFolder::new();
    place.write("tasks/mine.task", body);
    refusal(
        &place,
        &["run", "mine", "--task-dir", "tasks", "--set", "name=Ada"],
    )
}

fn greeting(template: &str) -> String {
    format!("---\ndescription: Greets.\ninputs:\n  name: {{type: text}}\n---\n{template}\n")
}

#[test]
fn a_picture_that_is_no_picture_is_told_by_its_path() {
    let place = TestFolder::new();
    place.write("folder/inner.txt", "");
    place.write("text.png", "this is no picture\n");
    place.write("empty.png", "");
    place.write("cut.png", &picture("cat.png")[..1000]);
    place.write("huge.png", png_that_claims(30_000));
    assert_snapshot!("missing_picture", caption(&place, "missing.png"));
    assert_snapshot!("folder_as_picture", caption(&place, "folder"));
    assert_snapshot!("text_as_picture", caption(&place, "text.png"));
    assert_snapshot!("empty_picture", caption(&place, "empty.png"));
    assert_snapshot!("truncated_picture", caption(&place, "cut.png"));
    assert_snapshot!("huge_picture", caption(&place, "huge.png"));
}

#[test]
fn standard_input_that_is_no_picture_is_told() {
    let place = TestFolder::new();
    assert_snapshot!("empty_stdin", caption(&place, "-"));
    assert_snapshot!(
        "stdin_twice",
        refusal(&place, &["run", "caption", "--image", "-", "--image", "-"])
    );
}

#[test]
fn an_unknown_task_gets_a_suggestion() {
    assert_snapshot!("unknown_task", refusal(&TestFolder::new(), &["run", "captoin"]));
}

#[test]
fn inputs_that_the_task_does_not_take_are_told_by_their_names() {
    let place = TestFolder::new();
    place.picture("cat.png");
    let run = |rest: &[&str]| refusal(&place, &[&["run"], rest].concat());
    assert_snapshot!("missing_input", run(&["vqa", "--image", "cat.png"]));
    assert_snapshot!("missing_image", run(&["caption"]));
    assert_snapshot!(
        "extra_input",
        run(&["caption", "--image", "cat.png", "--set", "langauge=German"])
    );
    assert_snapshot!(
        "wrong_choice",
        run(&["caption", "--image", "cat.png", "--set", "language=Germna"])
    );
    assert_snapshot!(
        "input_set_twice",
        run(&[
            "vqa",
            "--image",
            "cat.png",
            "--set",
            "question=a",
            "--set",
            "question=b"
        ])
    );
    assert_snapshot!("picture_as_text", run(&["caption", "--set", "image=cat.png"]));
    assert_snapshot!(
        "no_choices",
        run(&["classify", "--image", "cat.png", "--set", "choices="])
    );
    assert_snapshot!(
        "repeated_choice",
        run(&["classify", "--image", "cat.png", "--set", "choices=cat,dog,cat"])
    );
    assert_snapshot!(
        "broken_list",
        run(&["classify", "--image", "cat.png", "--set", "choices=[\"cat\", 7]"])
    );
    assert_snapshot!(
        "two_pictures_for_one",
        run(&["caption", "--image", "cat.png", "--image", "cat.png"])
    );
    assert_snapshot!(
        "text_without_gaps",
        run(&["infill", "--set", "text=no gap at all"])
    );
    assert_snapshot!("empty_text_to_fill", run(&["infill", "--set", "text="]));
}

#[test]
fn mistyped_inputs_say_what_was_expected_and_found() {
    let place = TestFolder::new();
    let task = "---\ndescription: Counts.\ninputs:\n  most: {type: integer, min: 1, max: 9}\n  loud: {type: boolean, default: false}\n---\n{% if loud %}COUNT{% else %}count{% endif %} to {{ most }}";
    place.write("tasks/count.task", task);
    let run = |values: &[&str]| {
        let mut args = vec!["run", "count", "--task-dir", "tasks"];
        args.extend(values.iter().flat_map(|value| ["--set", value]));
        refusal(&place, &args)
    };
    assert_snapshot!("text_for_a_number", run(&["most=many"]));
    assert_snapshot!("number_out_of_range", run(&["most=12"]));
    assert_snapshot!("text_for_a_boolean", run(&["most=3", "loud=maybe"]));
}

#[test]
fn decoding_options_out_of_bounds_say_what_was_expected_and_found() {
    let place = TestFolder::new();
    place.picture("cat.png");
    let told = |options: &[&str]| {
        refusal(
            &place,
            &[&["run", "caption", "--image", "cat.png"], options].concat(),
        )
    };
    let refusals = [
        told(&["--min-p", "2"]),
        told(&["--typical-p", "0"]),
        told(&["--presence-penalty", "-3"]),
        told(&["--frequency-penalty", "nan"]),
        told(&["--logit-bias", "3=101"]),
        told(&["--logit-bias", "3=1", "--logit-bias", "3=2"]),
        told(&["--samples", "2"]),
        told(&["--samples", "2", "--temperature", "1", "--best-of", "1"]),
        told(&["--best-of", "33", "--temperature", "1"]),
        told(&["--top-log-probabilities", "21"]),
        told(&["--top-log-probabilities", "1", "--beams", "2"]),
    ];
    assert_snapshot!("decoding_options", refusals.concat());
}

#[test]
fn a_broken_task_file_is_told_with_its_line() {
    assert_snapshot!(
        "endless_loop",
        run_task_file(greeting(
            "{% for a in range(9999) %}{% for b in range(9999) %}{{ name }}{% endfor %}{% endfor %}"
        ))
    );
    assert_snapshot!(
        "undefined_name",
        run_task_file(greeting("Hello {{ name }},\nhow is {{ nmae }}?"))
    );
    assert_snapshot!(
        "syntax_error",
        run_task_file(greeting("Hello {{ name }},\n{% if name %}how are you?"))
    );
    assert_snapshot!(
        "unknown_filter",
        run_task_file(greeting("Hello {{ name | uper }}"))
    );
    let utf16: Vec<u8> = greeting("Hello")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert_snapshot!("task_in_utf16", run_task_file(utf16));
    assert_snapshot!(
        "not_utf8",
        run_task_file(b"---\ndescription: Gr\xfc\xdft.\n---\nHello")
    );
    assert_snapshot!("no_front_matter", run_task_file("Hello {{ name }}"));
    assert_snapshot!(
        "unknown_key",
        run_task_file("---\ndescription: Greets.\nmetric: [bleu]\n---\nHello")
    );
}

#[test]
fn a_task_folder_that_cannot_be_used_is_told() {
    let place = TestFolder::new();
    assert_snapshot!(
        "missing_task_folder",
        refusal(&place, &["tasks", "--task-dir", "nowhere"])
    );
    place.write("one/a.task", "---\ndescription: Greets.\nname: greet\n---\nHello");
    place.write("one/b.task", "---\ndescription: Greets.\nname: greet\n---\nHi");
    assert_snapshot!(
        "task_defined_twice",
        refusal(&place, &["tasks", "--task-dir", "one"])
    );
}

#[test]
fn a_prompt_over_the_models_length_is_refused_with_both_numbers() {
    let text = format!("text=___ {}", "many words ".repeat(2000));
    let message = refusal(&TestFolder::new(), &["run", "infill", "--set", &text]);
    let pattern = numberless(&message);
    assert_eq!(
        pattern,
        "error: the prompt has # tokens, the model takes at most # (the closing </s> counts); shorten the inputs\n"
    );
}

#[test]
fn more_pictures_than_the_model_takes_are_refused_with_both_numbers() {
    let place = TestFolder::new();
    place.picture("cat.png");
    let task = "---\ndescription: Tells of many.\ninputs:\n  images: {type: images}\n---\n{% for image in images %}{{ image }}{% endfor %}";
    place.write("tasks/many.task", task);
    let mut args = vec!["run", "many", "--task-dir", "tasks"];
    args.extend(["--image", "cat.png"].repeat(100));
    assert_eq!(
        numberless(&refusal(&place, &args)),
        "error: the prompt shows # images, the model takes at most #\n"
    );
}

/// Puts `#` for every number: the limits are the model's.
fn numberless(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('#') => {}
            true => out.push('#'),
            false => out.push(c),
        }
    }
    out
}

#[test]
fn nothing_and_too_much_to_embed_are_refused() {
    let place = TestFolder::new();
    place.picture("cat.png");
    let embedding = |args: &[&str]| error_of(&place.run(&[&["embed"], args].concat()));
    assert_snapshot!("empty_text_to_embed", embedding(&["--text", ""]));
    let ended = place.run(&["embed", "--text", "cat", "--image", "cat.png"]);
    assert_eq!(ended.code, Some(2));
    let both = ["run", "retrieve", "--image", "cat.png", "--set", "text=cat"];
    assert_snapshot!("picture_and_text_to_embed", refusal(&place, &both));
}

fn error_of(ended: &Ended) -> String {
    assert_eq!(ended.code, Some(2), "{}", ended.told());
    assert_eq!(ended.json()["error"]["exit_code"], 2);
    ended.stderr.clone()
}

#[test]
fn with_json_an_error_is_one_line_on_standard_output_too() {
    let place = TestFolder::new();
    let ended = place.run(&["run", "captoin", "--json"]);
    assert_snapshot!("error_as_json", ended.told());
    assert_eq!(ended.json()["error"]["kind"], "input");
}

#[test]
fn with_json_a_command_line_that_cannot_be_read_is_one_line_too() {
    let place = TestFolder::new();
    let told = [
        &["run", "caption", "--json", "--bogus"][..],
        &["run", "caption", "--json", "--set", "x"],
        &["embed"],
        &["embed", "--text", "a", "--image", "b"],
        &["run", "caption", "--beams", "zero", "--json"],
        &["run", "caption", "--json", "--regex", "a", "--choice", "b"],
        &["run", "--json"],
        &["--json", "run", "caption"],
        &["search", "--json"],
        &["search", "query", "--json"],
        &["fly", "--json"],
        &["bench", "decode", "--batch", "x", "--json"],
        &["run", "caption", "--json", "--seed"],
    ]
    .map(|args| {
        let ended = place.run(args);
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.told());
        let json = ended.json();
        assert_eq!(json["error"]["kind"], "input");
        assert_eq!(json["error"]["exit_code"], 2);
        assert!(
            ended.stderr.starts_with("error: ") || ended.stderr.contains("Usage:"),
            "{}",
            ended.stderr
        );
        format!(
            "{}: {}\n",
            args.join(" "),
            json["error"]["message"].as_str().unwrap()
        )
    });
    assert_snapshot!("usage_as_json", told.concat());
}

#[test]
fn json_that_is_a_value_or_a_plain_argument_asks_for_nothing() {
    let place = TestFolder::new();
    for args in [
        &["run", "caption", "--set", "--json"][..],
        &["run", "caption", "--", "--json"],
        &["run", "caption", "--bogus"],
    ] {
        let ended = place.run(args);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{args:?}");
    }
    for args in [
        &["run", "--json", "--help"][..],
        &["embed", "--help"],
        &["--version"],
    ] {
        let ended = place.run(args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(ended.stdout.starts_with("multiway") || ended.stdout.contains("Usage:"));
    }
}

#[test]
fn a_number_that_cannot_be_is_told_with_what_was_expected() {
    let place = TestFolder::new();
    let told = [
        ["--seed", "-1"],
        ["--seed", "18446744073709551616"],
        ["--seed", "one"],
        ["--threads", "-1"],
        ["--beams", "-2"],
        ["--min-new-tokens", "-1"],
        ["--temperature", "-1"],
    ]
    .map(|option| {
        refusal(
            &place,
            &[&["run", "infill", "--set", "text=a ___"], &option[..]].concat(),
        )
    });
    assert_snapshot!("numbers", told.concat());
}

#[test]
fn an_index_that_is_none_is_refused_and_never_overwritten() {
    let place = TestFolder::new();
    place.picture("cat.png");
    place.write("notes.txt", "my notes");
    place.write("empty/readme.txt", "");
    assert_snapshot!(
        "query_of_no_index",
        refusal(&place, &["search", "query", "notes.txt", "--text", "cat"])
    );
    assert_snapshot!(
        "query_of_missing_index",
        refusal(&place, &["search", "query", "no.index", "--text", "cat"])
    );
    assert_snapshot!(
        "index_over_other_file",
        refusal(&place, &["search", "index", ".", "--out", "notes.txt", "--quiet"])
    );
    assert_eq!(std::fs::read(place.path("notes.txt")).unwrap(), b"my notes");
    assert_snapshot!(
        "index_of_no_pictures",
        refusal(&place, &["search", "index", "empty", "--out", "new.index"])
    );
    assert_snapshot!(
        "index_of_missing_folder",
        refusal(&place, &["search", "index", "nowhere", "--out", "new.index"])
    );
    assert!(!place.path("new.index").exists());
}

#[test]
fn a_wrong_command_line_ends_with_code_2() {
    let place = TestFolder::new();
    for args in [
        &["run"][..],
        &["run", "caption", "--set", "language"],
        &["run", "caption", "--max-new-tokens", "0"],
        &["run", "caption", "--samples", "0"],
        &["run", "caption", "--logit-bias", "3"],
        &["run", "caption", "--logit-bias", "cat=1"],
        &["run", "caption", "--threads", "0"],
        &["fly"],
        &["tasks", "--log", "x=y=z"],
        &["search", "query", "x.index"],
        &[],
    ] {
        let ended = place.run(args);
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.told());
        assert_eq!(ended.stdout, "", "{args:?}");
        assert!(!ended.stderr.is_empty());
    }
}

#[test]
fn a_form_that_cannot_be_used_is_told() {
    let place = TestFolder::new();
    place.picture("cat.png");
    place.write(
        "schema.json",
        r#"{"type": "object", "properties": {"n": {"type": "number", "not": {}}}}"#,
    );
    place.write("broken.json", "{");
    let run =
        |task: &str, form: &[&str]| refusal(&place, &[&["run", task, "--image", "cat.png"], form].concat());
    assert_snapshot!("regex_unclosed", run("caption", &["--regex", "(cat"]));
    assert_snapshot!(
        "schema_not_supported",
        run("caption", &["--json-schema", "schema.json"])
    );
    assert_snapshot!(
        "schema_no_json",
        run("caption", &["--json-schema", "broken.json"])
    );
    let utf16: Vec<u8> = "\u{feff}{\"type\": \"null\"}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    place.write("utf16.json", utf16);
    assert_snapshot!(
        "schema_in_utf16",
        run("caption", &["--json-schema", "utf16.json"])
    );
    place.write("latin1.json", b"{\"enum\": [\"Gr\xfc\xdfe\"]}");
    assert_snapshot!(
        "schema_not_utf8",
        run("caption", &["--json-schema", "latin1.json"])
    );
    place.write(
        "endless.json",
        r##"{"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}"##,
    );
    assert_snapshot!(
        "schema_endless",
        run("caption", &["--json-schema", "endless.json"])
    );
    assert_snapshot!(
        "schema_missing",
        run("caption", &["--json-schema", "missing.json"])
    );
    assert_snapshot!(
        "regex_too_long",
        run("caption", &["--regex", "[a-z]{200}", "--max-new-tokens", "9"])
    );
    assert_snapshot!("form_of_an_embedding", run("retrieve", &["--choice", "cat"]));
}
