//! The built-in tasks: their prompts, and what checkpoints say of them.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::fmt::Write as _;
use std::fs;

use insta::assert_snapshot;
use multiway_model::Checkpoint;
use multiway_prompts::{InputKind, InputSpec, InputValue, Inputs, PromptPart};
use multiway_tasks::{Task, TaskLibrary};

/// Gives an input a value: a text that says which input it is, or the numbers and pictures in their order.
fn value(name: &str, spec: &InputSpec, pictures: &mut usize) -> InputValue {
    let mut picture = || {
        *pictures += 1;
        *pictures - 1
    };
    match spec.kind {
        InputKind::Choice => InputValue::Text(spec.choices.last().unwrap().clone()),
        InputKind::List if name == "hide" => InputValue::List(vec!["0:0".to_owned()]),
        InputKind::List => InputValue::List(vec![format!("{name} 1"), format!("{name} 2")]),
        InputKind::Image => InputValue::Image(picture()),
        InputKind::Images => InputValue::Images(vec![picture()]),
        InputKind::Text if name == "text" => InputValue::Text("the ___ sat".to_owned()),
        InputKind::Text => InputValue::Text(format!("({name})")),
        kind => unreachable!("no built-in task has an input of type {kind}"),
    }
}

fn rendered(task: &Task) -> String {
    let file = task.file();
    let mut pictures = 0;
    let values: Inputs = file
        .inputs
        .iter()
        .map(|(name, spec)| (name.clone(), value(name, spec, &mut pictures)))
        .collect();
    let prompt = file.complete(&values).unwrap().render(&[]).unwrap();
    let mut text = format!("{} -> {}\n  ", task.name(), file.output.kind());
    for part in &prompt.parts {
        let _ = match part {
            PromptPart::Text(part) => write!(text, "{part}"),
            PromptPart::Special(token) => write!(text, "[{token}]"),
            PromptPart::Image(index) => write!(text, "[picture {index}]"),
        };
    }
    let reference: Inputs = file
        .target_fields()
        .iter()
        .map(|field| (field.clone(), InputValue::Text(format!("({field})"))))
        .collect();
    if !file.output.is_encoded() {
        let target = file.render_target(&values, &reference, &[]).unwrap();
        let _ = write!(text, "\n  target: {}", target.text());
    }
    text
}

#[test]
fn every_built_in_task_of_the_native_model_renders_as_it_did() {
    let library = TaskLibrary::builtin().unwrap();
    let all: Vec<String> = library.iter().map(rendered).collect();
    assert_snapshot!(all.join("\n"));
}

#[test]
fn every_file_of_the_library_is_built_in() {
    let files = fs::read_dir("library")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<String> = files
        .filter(|path| path.is_file())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    let library = TaskLibrary::builtin().unwrap();
    let mut names: Vec<&str> = library.iter().map(Task::name).collect();
    names.sort_unstable();
    assert_eq!(files, names);
}

#[test]
fn every_task_that_the_default_checkpoint_names_exists_and_the_others_are_untrained() {
    let checkpoint = Checkpoint::open("../checkpoints/default").unwrap();
    let library = TaskLibrary::for_model(checkpoint.config()).unwrap();
    let named = checkpoint.config().trained_tasks().unwrap();
    for name in named {
        assert!(library.get(name).unwrap().is_trained_in(checkpoint.config()));
    }
    let trained = library
        .iter()
        .filter(|task| task.is_trained_in(checkpoint.config()));
    assert_eq!(trained.count(), named.len());
    assert!(library.iter().count() > named.len());
}
