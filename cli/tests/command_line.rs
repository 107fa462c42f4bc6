//! What the command line prints, whatever the model says.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod common;

use serde_json::Value;

use common::{TestFolder, picture};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_caption_is_streamed_as_one_line() {
    let place = TestFolder::new();
    place.picture("cat.png");
    let ended = place.run(&["run", "caption", "--image", "cat.png"]);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), ""),
        "{}",
        ended.told()
    );
    assert!(ended.stdout.ends_with('\n'));
    let json = place
        .run(&["run", "caption", "--image", "cat.png", "--json"])
        .json();
    assert_eq!(
        json["text"],
        ended.stdout.trim_end_matches('\n'),
        "the pieces joined are the text"
    );
}

#[test]
fn the_json_of_a_text_has_its_fields_and_no_others() {
    let place = TestFolder::new();
    place.picture("cat.png");
    let json = place
        .run(&[
            "run",
            "vqa",
            "--image",
            "cat.png",
            "--set",
            "question=what is it?",
            "--json",
        ])
        .json();
    assert_eq!(
        keys(&json),
        ["task", "text", "finish_reason", "usage", "timings_ms"]
    );
    assert_eq!(json["task"], "vqa");
    assert!(["stop", "length"].contains(&json["finish_reason"].as_str().unwrap()));
    assert_eq!(
        keys(&json["usage"]),
        ["prompt_tokens", "image_patches", "new_tokens"]
    );
    assert!(json["usage"]["image_patches"].as_u64().unwrap() > 0);
    assert_eq!(
        keys(&json["timings_ms"]),
        ["load", "queued", "encode", "first_token", "total"]
    );
}

#[test]
fn the_json_of_a_choice_has_probabilities_that_sum_to_one() {
    let place = TestFolder::new();
    place.picture("cat.png");
    let args = [
        "run",
        "classify",
        "--image",
        "cat.png",
        "--set",
        "choices=[\"cat\", \"red, apple\"]",
        "--set",
        "choices=dog",
        "--json",
    ];
    let json = place.run(&args).json();
    let choices = json["choices"].as_array().unwrap();
    let mut texts: Vec<&str> = choices
        .iter()
        .map(|choice| choice["text"].as_str().unwrap())
        .collect();
    assert_eq!(json["text"], texts[0]);
    let probabilities: Vec<f64> = choices
        .iter()
        .map(|choice| choice["probability"].as_f64().unwrap())
        .collect();
    assert!(probabilities.is_sorted_by(|a, b| a >= b));
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    texts.sort_unstable();
    assert_eq!(texts, ["cat", "dog", "red, apple"]);
}

#[test]
fn a_picture_on_standard_input_gives_what_the_file_gives() {
    let place = TestFolder::new();
    place.picture("green-triangle.jpg");
    let file = place.run(&["run", "caption", "--image", "green-triangle.jpg"]);
    let stdin = place.run_with(
        &["run", "caption", "--image", "-"],
        &picture("green-triangle.jpg"),
    );
    assert_eq!((stdin.code, stdin.stdout), (Some(0), file.stdout));
}

#[cfg(unix)]
#[test]
fn a_picture_from_a_pipe_gives_what_the_file_gives() {
    let place = TestFolder::new();
    place.picture("green-triangle.jpg");
    let vector = |ended: common::Ended| {
        assert_eq!(ended.code, Some(0), "{}", ended.told());
        ended.json()["embedding"].clone()
    };
    let file = vector(place.run(&["embed", "--image", "green-triangle.jpg"]));
    let stdin = place.run_with(
        &["embed", "--image", "/dev/stdin"],
        &picture("green-triangle.jpg"),
    );
    assert_eq!(vector(stdin), file);

    let pipe = place.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let writer = std::thread::spawn(move || std::fs::write(pipe, picture("green-triangle.jpg")));
    assert_eq!(vector(place.run(&["embed", "--image", "pipe"])), file);
    writer.join().unwrap().unwrap();
}

#[test]
fn the_same_seed_samples_the_same_text() {
    let place = TestFolder::new();
    place.picture("cat.png");
    let run = |seed: &str| {
        place
            .run(&[
                "run",
                "caption",
                "--image",
                "cat.png",
                "--temperature",
                "5",
                "--seed",
                seed,
            ])
            .stdout
    };
    assert_eq!(run("7"), run("7"));
    assert!(
        (0..20).any(|seed| run(&seed.to_string()) != run("7")),
        "another seed changes something"
    );
}

#[test]
fn gaps_are_filled_and_the_rest_of_the_text_stays() {
    let place = TestFolder::new();
    let ended = place.run(&["run", "infill", "--set", "text=Ein ___ und noch ein ___."]);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    assert!(
        ended.stdout.starts_with("Ein ")
            && ended.stdout.contains(" und noch ein ")
            && ended.stdout.ends_with(".\n")
    );
}

#[test]
fn text_with_special_tokens_and_any_script_is_plain_text() {
    let place = TestFolder::new();
    place.picture("cat.png");
    let plain = [
        "run",
        "vqa",
        "--image",
        "cat.png",
        "--set",
        "question=what?",
        "--json",
    ];
    let patches = place.run(&plain).json()["usage"]["image_patches"].clone();
    for text in [
        "</s>",
        "<extra_id_0> <pad>",
        "\u{1f469}\u{200d}\u{1f680}\u{1f3fd}",
        "ما هذا؟ שלום",
        "{{ image }}",
        "\u{e000}\u{f0000}",
    ] {
        let ended = place.run(&[
            "run",
            "vqa",
            "--image",
            "cat.png",
            "--set",
            &format!("question={text}"),
            "--json",
        ]);
        assert_eq!(ended.code, Some(0), "{text}: {}", ended.told());
        assert_eq!(ended.json()["usage"]["image_patches"], patches, "{text}");
    }
}

#[test]
fn pictures_and_texts_become_vectors_of_one_length() {
    let place = TestFolder::new();
    place.picture("cat.png");
    let vectors = [&["--image", "cat.png"], &["--text", "a cat"]].map(|source| {
        let json = place.run(&[&["embed"], source.as_slice()].concat()).json();
        assert_eq!(keys(&json), ["embedding", "usage", "timings_ms"]);
        json["embedding"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| value.as_f64().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(vectors[0].len(), vectors[1].len());
    for vector in vectors {
        assert!((vector.iter().map(|value| value * value).sum::<f64>() - 1.0).abs() < 1e-4);
    }
}

#[test]
fn a_picture_is_the_nearest_to_itself_in_an_index() {
    let place = TestFolder::new();
    for name in ["cat.png", "dog.png", "rocket.png"] {
        place.write(&format!("pictures/{name}"), picture(name));
    }
    place.write("pictures/deep/apple.PNG", picture("red-apple.png"));
    place.write("pictures/broken.png", "no picture");
    let index = ["search", "index", "pictures", "--out", "my.index", "--json"];
    let first = place.run(&index);
    assert_eq!(first.code, Some(0), "{}", first.told());
    assert!(first.stderr.contains("skipped broken.png: "), "{}", first.stderr);
    let first = first.json();
    assert_eq!(
        keys(&first),
        ["index", "pictures", "reused", "removed", "skipped", "seconds"]
    );
    assert_eq!((&first["pictures"], &first["reused"]), (&4.into(), &0.into()));

    let query = [
        "search",
        "query",
        "my.index",
        "--image",
        "pictures/dog.png",
        "--json",
    ];
    let results = place.run(&query).json()["results"].clone();
    assert!(
        results[0]["path"].as_str().unwrap().ends_with("dog.png"),
        "{results}"
    );
    assert!((results[0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-4);
    assert_eq!(results.as_array().unwrap().len(), 4);

    std::fs::remove_file(place.path("pictures/rocket.png")).unwrap();
    place.write("pictures/turtle.png", picture("turtle.png"));
    let again = place.run(&index).json();
    assert_eq!(
        (&again["pictures"], &again["reused"], &again["removed"]),
        (&4.into(), &3.into(), &1.into())
    );
    let text = place.run(&["search", "query", "my.index", "--text", "a turtle", "--top", "2"]);
    assert_eq!(text.stdout.lines().count(), 2);
}

#[test]
fn pictures_are_found_by_every_extension_of_their_formats() {
    let place = TestFolder::new();
    for name in ["a.JFIF", "b.jpe", "in/c.Jpeg", "in/d.pjpeg"] {
        place.write(&format!("pictures/{name}"), picture("green-triangle.jpg"));
    }
    place.write("pictures/e.apng", picture("cat.png"));
    place.write("pictures/notes.txt", "");
    let found = place.run(&["search", "index", "pictures", "--out", "my.index", "--json"]);
    let found = found.json();
    assert_eq!(
        (&found["pictures"], &found["skipped"]),
        (&5.into(), &serde_json::json!([]))
    );
}

#[test]
fn tasks_are_listed_and_shown() {
    let place = TestFolder::new();
    insta::assert_snapshot!("tasks", place.run(&["tasks"]).told());
    insta::assert_snapshot!("tasks_show", place.run(&["tasks", "show", "caption"]).told());
    let json = place.run(&["tasks", "--json"]).json();
    let names: Vec<&str> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names[..6],
        ["caption", "vqa", "classify", "retrieve", "infill", "patches"]
    );
    let trained: Vec<bool> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["trained"].as_bool().unwrap())
        .collect();
    assert_eq!(trained[..7], [true, true, true, true, true, true, false]);
    let image = picture("cat.png");
    place.write("cat.png", image);
    let ended = place.run(&["run", "match", "--image", "cat.png", "--set", "text=a cat"]);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    assert!(
        ended
            .stderr
            .starts_with("note: this checkpoint was not trained on the task 'match'")
    );
}

#[test]
fn worked_examples_that_do_not_hold_end_with_code_1() {
    let place = TestFolder::new();
    place.write("tasks/say.task", "---\ndescription: Repeats.\ninputs:\n  text: {type: text}\noutput: {kind: choice, choices: [one, two]}\nexamples:\n- inputs: {text: hello}\n  output: one\n- inputs: {text: hello}\n  output: two\n---\n{{ text }}");
    let ended = place.run(&["--task-dir", "tasks", "tasks", "check", "say", "--json"]);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(1), ""),
        "{}",
        ended.told()
    );
    let json = ended.json();
    let passed: Vec<bool> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["passed"].as_bool().unwrap())
        .collect();
    assert_eq!(
        passed.iter().filter(|passed| **passed).count(),
        1,
        "one of two opposite examples holds"
    );
}

#[test]
fn a_checkpoint_is_inspected() {
    let json = TestFolder::new().run(&["inspect", "--json"]).json();
    let total = json["parameters"]["total"].as_u64().unwrap();
    let parts = json["parameters"]["parts"].as_object().unwrap();
    assert_eq!(
        parts.values().map(|count| count.as_u64().unwrap()).sum::<u64>(),
        total
    );
    let tensors = json["tensors"].as_array().unwrap();
    let counted = |tensor: &Value| {
        tensor["shape"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap())
            .product::<u64>()
    };
    assert_eq!(tensors.iter().map(counted).sum::<u64>(), total);
    let human = TestFolder::new().run(&["inspect"]);
    assert_eq!(human.code, Some(0));
    assert!(
        human
            .stdout
            .contains("\nexecution: host kernels on the CPU, weights packed in ")
    );
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_multiway"))
        .args(["inspect", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(
        (ended.status.code(), ended.stderr.as_slice()),
        (Some(0), b"".as_slice())
    );
}

#[test]
fn help_and_version_are_results() {
    let place = TestFolder::new();
    for args in [
        &["--help"][..],
        &["run", "--help"],
        &["search", "index", "--help"],
        &["--version"],
    ] {
        let ended = place.run(args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        assert!(ended.stdout.contains("multiway"));
    }
}

/// Puts a small T5 of `transformers` into a folder, with a tokenizer of letters and the special tokens of
/// `infill`.
fn small_t5(place: &TestFolder) {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/parity/flan");
    for file in ["config.json", "model.safetensors"] {
        place.write(
            &format!("t5/{file}"),
            std::fs::read(format!("{fixture}/{file}")).unwrap(),
        );
    }
    let special = ["<pad>", "</s>", "<unk>"].map(str::to_owned);
    let sentinels = (0..10).rev().map(|n| format!("<extra_id_{n}>"));
    let letters = ('a'..='z').flat_map(|letter| [letter.to_string(), format!("\u{2581}{letter}")]);
    let letters: Vec<_> = letters.chain(["\u{2581}".to_owned()]).collect();
    let fillers = (0..200 - 3 - 10 - letters.len()).map(|n| format!("[{n}]"));
    let pieces: Vec<String> = special
        .into_iter()
        .chain(letters)
        .chain(fillers)
        .chain(sentinels)
        .collect();
    let vocab: Vec<_> = pieces
        .iter()
        .map(|piece| serde_json::json!([piece, -1.0]))
        .collect();
    let added = pieces
        .iter()
        .enumerate()
        .filter(|(_, piece)| piece.starts_with('<'));
    let added: Vec<_> = added
        .map(|(id, piece)| serde_json::json!({"id": id, "content": piece, "special": true}))
        .collect();
    let tokenizer = serde_json::json!({
        "added_tokens": added,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always"},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab},
    });
    place.write("t5/tokenizer.json", tokenizer.to_string());
}

#[test]
fn a_t5_of_transformers_runs_like_the_embedded_model() {
    let place = TestFolder::new();
    small_t5(&place);
    let infill = [
        "--checkpoint",
        "t5",
        "run",
        "infill",
        "--set",
        "text=a b ___ c",
        "--json",
    ];
    let json = place.run(&infill).json();
    assert_eq!(json["task"], "infill");
    assert!(json["usage"]["new_tokens"].as_u64().unwrap() > 0);
    let searched = place.run(&[&infill[..], &["--beams", "3"]].concat()).json();
    assert_eq!(searched["task"], "infill");
    let inspected = place.run(&["--checkpoint", "t5", "inspect", "--json"]).json();
    assert_eq!(inspected["config"]["model_type"], "t5");
    let tasks = place.run(&["--checkpoint", "t5", "tasks"]).stdout;
    for (task, inputs) in [
        ("translate", ["text=a b c", "to=c"]),
        ("summarize", ["text=a b c", ""]),
        ("answer", ["question=a b", "context=b c"]),
        ("entail", ["premise=a b", "hypothesis=b a"]),
    ] {
        assert!(tasks.contains(task), "{tasks}");
        let mut arguments = vec![
            "--checkpoint",
            "t5",
            "run",
            task,
            "--json",
            "--max-new-tokens",
            "5",
        ];
        arguments.extend(["--min-new-tokens", "2"]);
        for input in inputs.into_iter().filter(|input| !input.is_empty()) {
            arguments.extend(["--set", input]);
        }
        let answer = place.run(&arguments).json();
        assert!(answer["usage"]["new_tokens"].as_u64().unwrap() > 0, "{answer}");
    }
    let pictured = place.run(&["--checkpoint", "t5", "run", "caption", "--image", "cat.png"]);
    assert_eq!(pictured.code, Some(2), "a T5 sees no pictures");
}

#[test]
fn samples_are_one_line_each_and_have_their_log_probabilities_in_json() {
    let place = TestFolder::new();
    place.picture("cat.png");
    let sampled = |more: &[&str]| {
        let sampling = ["--seed", "3", "run", "caption", "--image", "cat.png"];
        let cut = ["--temperature", "1", "--min-p", "0.01", "--typical-p", "0.95"];
        place.run(&[&sampling[..], &cut, more].concat())
    };
    let lines = sampled(&["--samples", "3"]);
    assert_eq!(
        (lines.code, lines.stderr.as_str()),
        (Some(0), ""),
        "{}",
        lines.told()
    );
    let json = sampled(&["--samples", "3", "--json"]).json();
    let samples = json["samples"].as_array().unwrap();
    let texts: Vec<&str> = samples.iter().map(|s| s["text"].as_str().unwrap()).collect();
    assert_eq!(lines.stdout.lines().collect::<Vec<_>>(), texts);
    assert_eq!(json["text"], texts[0]);
    assert_eq!(
        keys(&samples[0]),
        ["text", "finish_reason", "mean_log_probability"]
    );
    let mean = |sample: &Value| sample["mean_log_probability"].as_f64().unwrap();
    let best = sampled(&["--best-of", "3", "--json"]).json()["samples"].clone();
    let most = samples.iter().map(mean).fold(f64::NEG_INFINITY, f64::max);
    assert_eq!(best.as_array().unwrap().len(), 1);
    assert!((mean(&best[0]) - most).abs() < 1e-12);
}

#[test]
fn the_likeliest_tokens_are_noted_beside_the_text_and_listed_in_json() {
    let place = TestFolder::new();
    place.picture("cat.png");
    let caption = [
        "run",
        "caption",
        "--image",
        "cat.png",
        "--presence-penalty",
        "-0.5",
    ];
    let told = |more: &[&str]| place.run(&[&caption[..], &["--top-log-probabilities", "2"], more].concat());
    let (shown, json) = (told(&[]), told(&["--json"]).json());
    let tokens = json["tokens"].as_array().unwrap();
    assert_eq!(json["usage"]["new_tokens"], tokens.len());
    assert_eq!(
        keys(&tokens[0]),
        ["id", "piece", "log_probability", "alternatives"]
    );
    for token in tokens {
        let alternatives = token["alternatives"].as_array().unwrap();
        assert_eq!(alternatives.len(), 2);
        assert_eq!(alternatives[0]["id"], token["id"], "the likeliest is written");
    }
    assert_eq!(shown.stdout.trim_end(), json["text"].as_str().unwrap());
    assert_eq!(shown.stderr.lines().count(), tokens.len());
    assert_eq!(told(&["--quiet"]).stderr, "");
}

#[test]
fn a_bias_bans_what_would_be_written() {
    let place = TestFolder::new();
    place.picture("cat.png");
    let first = |more: &[&str]| {
        let caption = ["run", "caption", "--image", "cat.png", "--json"];
        let json = place.run(&[&caption[..], &["--top-log-probabilities", "1"], more].concat());
        json.json()["tokens"][0]["id"].as_u64().unwrap()
    };
    let likeliest = first(&[]);
    assert_ne!(first(&["--logit-bias", &format!("{likeliest}=-100")]), likeliest);
}

#[test]
fn an_answer_has_the_form_that_was_asked_for() {
    let place = TestFolder::new();
    place.picture("cat.png");
    place.write(
        "schema.json",
        r#"{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}"#,
    );
    let run = |form: &[&str]| {
        let args = ["run", "caption", "--image", "cat.png", "--json"];
        place.run(&[&args, form].concat()).json()
    };
    let json = run(&["--json-schema", "schema.json"]);
    assert!(json["value"]["n"].is_i64(), "{json}");
    assert_eq!(json["text"], json["value"].to_string());
    let json = run(&["--regex", "[0-9]{3}"]);
    assert_eq!(json["text"].as_str().unwrap().len(), 3, "{json}");
    let json = run(&["--choice", "a cat", "--choice", "a dog"]);
    assert!(
        ["a cat", "a dog"].contains(&json["text"].as_str().unwrap()),
        "{json}"
    );
}

/// Schemas as other tools write them, each with how many tokens an answer may have.
const SCHEMAS: [(&str, &str); 6] = [
    ("safe-integers", "24"),
    ("int64", "60"),
    ("floats", "60"),
    ("linked-list", "60"),
    ("tree", "60"),
    ("with-byte-order-mark", "24"),
];

#[test]
fn schemas_of_other_tools_are_taken_and_answers_fit_them() {
    let place = TestFolder::new();
    place.picture("cat.png");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/schemas");
    for (name, most) in SCHEMAS {
        let file = format!("{folder}/{name}.json");
        let bytes = std::fs::read(&file).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let schema: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap();
        for seed in ["1", "2", "3"] {
            let args = [
                "run",
                "caption",
                "--image",
                "cat.png",
                "--json",
                "--temperature",
                "1.5",
            ];
            let form = ["--json-schema", &file, "--max-new-tokens", most, "--seed", seed];
            let ended = place.run(&[&args[..], &form].concat());
            assert_eq!(ended.code, Some(0), "{name}: {}", ended.told());
            let json = ended.json();
            assert!(jsonschema::is_valid(&schema, &json["value"]), "{name}: {json}");
            assert_eq!(json["finish_reason"], "stop");
        }
    }
}

#[test]
fn a_task_that_answers_with_json_prints_it_on_one_line() {
    let place = TestFolder::new();
    let file = "---\ndescription: Counts.\noutput: {kind: json, schema: {type: array, items: {type: integer}, minItems: 2, maxItems: 3}}\n---\nCount";
    place.write("tasks/count.task", file);
    let ended = place.run(&["--task-dir", "tasks", "run", "count"]);
    let numbers: Vec<i64> = serde_json::from_str(&ended.stdout).unwrap();
    assert!((2..=3).contains(&numbers.len()), "{}", ended.told());
    assert_eq!(ended.stdout.matches('\n').count(), 1);
}
