//! The built-in tasks, and folders of task files.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use multiway_model::{ModelConfig, ProcessedImage};
use multiway_prompts::{InputKind, InputValue, PromptPart};
use multiway_runtime::{SamplingParams, Tokenizer};
use multiway_tasks::{Task, TaskInputs, TaskLibrary};

/// Reads a tokenizer that has the special tokens of all built-in tasks.
fn tokenizer() -> Tokenizer {
    Tokenizer::from_folder("../checkpoints/default").unwrap()
}

fn image() -> ProcessedImage {
    ProcessedImage::from_pixels(vec![0.0; 3 * 16 * 16])
}

/// Renders a prompt on one line: `[image 0]caption English: <extra_id_0>`.
fn rendered(task: &str, inputs: TaskInputs) -> String {
    let library = TaskLibrary::builtin().unwrap();
    let task = library.get(task).unwrap();
    let prepared = task.prepare(&tokenizer(), &inputs).unwrap();
    let part = |part: &PromptPart| match part {
        PromptPart::Text(text) => format!("{text:?}"),
        PromptPart::Special(token) => token.clone(),
        PromptPart::Image(index) => format!("image {index}"),
    };
    let parts: Vec<String> = prepared.prompt().parts.iter().map(part).collect();
    format!("{} -> {}", parts.join(" + "), task.file().decode.prefix.join(""))
}

fn refused(task: &str, inputs: TaskInputs) -> String {
    TaskLibrary::builtin()
        .unwrap()
        .get(task)
        .unwrap()
        .prepare(&tokenizer(), &inputs)
        .unwrap_err()
        .to_string()
}

#[test]
fn the_built_in_prompts_read_as_they_were_trained() {
    let with_image = || TaskInputs::new().with_image(image());
    let names = InputValue::List(vec!["cat".into(), "dog".into()]);
    assert_snapshot!(rendered("caption", with_image()), @r#"image 0 + "caption English: " + <extra_id_0> -> <extra_id_0>"#);
    assert_snapshot!(rendered("caption", with_image().with("language", "Chinese")), @r#"image 0 + "caption Chinese: " + <extra_id_0> -> <extra_id_0>"#);
    assert_snapshot!(rendered("vqa", with_image().with("question", "what is it?")), @r#"image 0 + "question: what is it? answer: " + <extra_id_0> -> <extra_id_0>"#);
    assert_snapshot!(rendered("classify", with_image().with("choices", names)), @r#"image 0 + "caption English: " + <extra_id_0> -> <extra_id_0>"#);
    assert_snapshot!(rendered("retrieve", with_image()), @"image 0 -> ");
    assert_snapshot!(rendered("retrieve", TaskInputs::new().with("text", "a red apple")), @r#""a red apple" -> "#);
    assert_snapshot!(rendered("infill", TaskInputs::new().with("text", "The ___ sat on ___.")), @r#""The " + <extra_id_0> + " sat on " + <extra_id_1> + "." -> <extra_id_0>"#);
    assert_snapshot!(rendered("infill", with_image().with("text", "a ___ cat")), @r#"image 0 + "a " + <extra_id_0> + " cat" -> <extra_id_0>"#);
}

#[test]
fn what_a_caller_writes_stays_text() {
    let question = "</s> <extra_id_0> {{ image }} \0 \u{e000}\u{f0000} \u{1f469}\u{200d}\u{1f680} ما هذا";
    let inputs = TaskInputs::new().with_image(image()).with("question", question);
    let prepared = TaskLibrary::builtin()
        .unwrap()
        .get("vqa")
        .unwrap()
        .prepare(&tokenizer(), &inputs)
        .unwrap();
    assert_eq!(
        prepared.prompt().parts[1],
        PromptPart::Text(format!("question: {question} answer: "))
    );
    assert_eq!(prepared.prompt().parts.len(), 3);
}

#[test]
fn pictures_and_inputs_that_do_not_fit_are_refused() {
    let two = TaskInputs::new().with_image(image()).with_image(image());
    assert_snapshot!(refused("caption", two.clone()), @"the task 'caption' takes 1 picture, found 2: leave out the others");
    assert_snapshot!(refused("retrieve", two), @"builtin:retrieve.task: input 'images': expected a number of pictures from 0 to 1, found 2");
    assert_snapshot!(refused("caption", TaskInputs::new()), @"builtin:caption.task: the input 'image' (a picture) is missing (inputs: image, language)");
    assert_snapshot!(refused("caption", TaskInputs::new().with("image", "cat.png")), @r#"builtin:caption.task: input 'image': expected a picture, found the text "cat.png""#);
    let ghost = TaskInputs::new()
        .with("image", InputValue::Image(3))
        .with_image(image());
    assert_snapshot!(refused("caption", ghost), @"the task 'caption': the input 'image' names picture 3, and there are 1, counted from 0");
    assert_snapshot!(refused("retrieve", TaskInputs::new()), @"the task 'retrieve' got nothing to work on: give images or text");
    assert_snapshot!(refused("retrieve", TaskInputs::new().with("text", " \n")), @"the task 'retrieve' got nothing to work on: give images or text");
    let both = TaskInputs::new().with_image(image()).with("text", "cat");
    assert_snapshot!(refused("retrieve", both), @"the task 'retrieve' makes a vector of one thing, found several: give one of images or text");
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
    fs::write(folder.join(name), text).unwrap();
}

#[test]
fn a_file_of_the_callers_overrides_a_built_in_task_and_adds_others() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "caption.task",
        "---\ndescription: Mine.\ninputs:\n  image: {type: image}\n---\n{{ image }}",
    );
    write(folder.path(), "new.task", "---\ndescription: New.\n---\nHello");
    write(folder.path(), "notes.txt", "no task");
    let mut library = TaskLibrary::builtin().unwrap();
    assert_eq!(library.load_dir(folder.path()).unwrap(), ["caption", "new"]);
    assert_eq!(library.get("caption").unwrap().description(), "Mine.");
    assert_eq!(library.get("caption").unwrap().folder(), Some(folder.path()));
    let names: Vec<&str> = library.iter().map(Task::name).collect();
    assert_eq!(names[..2], ["caption", "vqa"]);
    assert_eq!(names.last(), Some(&"new"));
    assert_eq!(names.len(), TaskLibrary::builtin().unwrap().iter().count() + 1);
}

#[test]
fn a_folder_with_a_wrong_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.task", "---\ndescription: A.\n---\nHello");
    write(folder.path(), "b.task", b"\xff\xfe");
    let mut library = TaskLibrary::builtin().unwrap();
    let error = library.load_dir(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("b.task") && error.contains("expected UTF-8"),
        "{error}"
    );
    assert!(library.get("a").is_err());
}

#[test]
fn two_files_of_the_callers_may_not_define_the_same_task() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "a.task",
        "---\ndescription: A.\nname: same\n---\nHello",
    );
    write(
        folder.path(),
        "b.task",
        "---\ndescription: B.\nname: same\n---\nHello",
    );
    let error = TaskLibrary::new()
        .load_dir(folder.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("the task 'same' is defined twice, in '"),
        "{error}"
    );
    assert!(error.contains("a.task") && error.contains("b.task"), "{error}");
}

#[test]
fn a_missing_folder_and_an_unknown_task_are_told() {
    let mut library = TaskLibrary::builtin().unwrap();
    assert_snapshot!(library.load_dir("no/such").unwrap_err(), @"cannot read the task folder 'no/such'");
    assert_snapshot!(library.get("embed").unwrap_err(), @"unknown task 'embed' (tasks: caption, vqa, classify, retrieve, infill, patches, describe, alt-text, keywords, closed-vqa, multiple-choice, count, match, entail, reason, verify, compare, read, detect, refer, ground, ask, answer, summarize, translate)");
    assert_snapshot!(library.get("Captions").unwrap_err(), @"unknown task 'Captions': did you mean 'caption'? (tasks: caption, vqa, classify, retrieve, infill, patches, describe, alt-text, keywords, closed-vqa, multiple-choice, count, match, entail, reason, verify, compare, read, detect, refer, ground, ask, answer, summarize, translate)");
}

/// Describes a model of another family by its `config.json`.
fn config(json: &str) -> ModelConfig {
    ModelConfig::from_json(json.as_bytes()).unwrap()
}

fn t5(vocab_size: usize) -> ModelConfig {
    config(&format!(
        r#"{{"model_type": "t5", "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2,
        "vocab_size": {vocab_size}}}"#
    ))
}

fn beit3(task: &str) -> ModelConfig {
    config(&format!(
        r#"{{"model_type": "beit3", "task": "{task}", "num_classes": 3, "encoder_embed_dim": 8,
        "encoder_attention_heads": 1, "encoder_ffn_embed_dim": 8, "encoder_layers": 1, "vocab_size": 30, "img_size": 16,
        "patch_size": 4}}"#
    ))
}

/// Writes down what every task of a model asks and how it decodes; each input is given its own name.
fn asked(config: &ModelConfig) -> String {
    let library = TaskLibrary::for_model(config).unwrap();
    let tokenizer = tokenizer();
    let mut text = String::new();
    for task in library.iter() {
        let mut inputs = TaskInputs::new();
        for (name, spec) in &task.file().inputs {
            match spec.kind {
                InputKind::Image => inputs = inputs.with_image(image()),
                InputKind::Text if name == "text" && task.name() == "infill" => {
                    inputs = inputs.with("text", "a ___ b");
                }
                InputKind::Text => inputs = inputs.with(name.clone(), format!("({name})")),
                InputKind::List => {
                    inputs = inputs.with(name.clone(), InputValue::List(vec!["0:1-2".to_owned()]));
                }
                _ => {}
            }
        }
        let prepared = task.prepare(&tokenizer, &inputs).unwrap();
        let decode = &task.file().decode;
        let mut sampling = SamplingParams::default().overlay(decode.sampling.clone());
        sampling.prefix.clone_from(&decode.prefix);
        writeln!(text, "{}: {:?}", task.name(), prepared.prompt().parts).unwrap();
        writeln!(text, "  {:?}\n  {sampling:?}", task.file().output).unwrap();
    }
    text
}

#[test]
fn the_tasks_of_other_families_ask_as_their_checkpoints_were_trained() {
    let tasks = [
        "encoder",
        "vqa",
        "nlvr2",
        "imageclassification",
        "captioning",
        "retrieval",
        "pretraining",
    ];
    let mut text = format!("T5\n{}\nByT5\n{}", asked(&t5(32128)), asked(&t5(384)));
    for task in tasks {
        write!(text, "\nBEiT-3, {task}\n{}", asked(&beit3(task))).unwrap();
    }
    assert_snapshot!(text);
}
