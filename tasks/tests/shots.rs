//! Few-shot examples, from the task file and from the caller.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use multiway_model::{Checkpoint, ImageProcessor, ProcessedImage};
use multiway_prompts::{Inputs, PromptPart, TaskFile};
use multiway_runtime::{Engine, Tokenizer};
use multiway_tasks::{PreparedTask, Task, TaskInputs, TaskLibrary, TaskShot};

const FILE: &str = "---
description: Names what is in a picture.
name: name
inputs:
  image: {type: image}
few_shot:
  - {inputs: {image: cat.png}, target: cat}
  - {inputs: {image: dog.png}, target: dog}
---
{{ image }}name: <extra_id_0>";

fn tokenizer() -> Tokenizer {
    Tokenizer::from_folder("../checkpoints/default").unwrap()
}

fn image(value: f32) -> ProcessedImage {
    ProcessedImage::from_pixels(vec![value; 3 * 16 * 16])
}

/// Loads the task from a folder that has no pictures.
fn task(text: &str) -> Task {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("name.task");
    fs::write(&path, text).unwrap();
    let mut library = TaskLibrary::new();
    let name = library.load_file(&path).unwrap();
    library.get(&name).unwrap().clone()
}

fn shown(prepared: &PreparedTask) -> String {
    let part = |part: &PromptPart| match part {
        PromptPart::Text(text) => format!("{text:?}"),
        PromptPart::Special(token) => token.clone(),
        PromptPart::Image(index) => format!("image {index}"),
    };
    let parts: Vec<String> = prepared.prompt().parts.iter().map(part).collect();
    parts.join(" + ")
}

fn prepare(task: &Task, inputs: &TaskInputs) -> Result<String, String> {
    let prepared = task.prepare(&tokenizer(), inputs);
    prepared
        .map(|prepared| shown(&prepared))
        .map_err(|error| error.to_string())
}

#[test]
fn the_pictures_of_shots_come_before_those_of_the_request() {
    let task = task(FILE);
    let open = |path: &Path| Ok(image(f32::from(u8::from(path.ends_with("dog.png")))));
    let inputs = |count| {
        let shots = task.open_shots(count, open).unwrap();
        TaskInputs::new().with_image(image(0.5)).with_shots(shots)
    };
    assert_snapshot!(prepare(&task, &inputs(9)).unwrap(), @r#"image 0 + "name: " + <extra_id_0> + "cat\n" + image 1 + "name: " + <extra_id_0> + "dog\n" + image 2 + "name: " + <extra_id_0>"#);
    assert_snapshot!(prepare(&task, &inputs(1)).unwrap(), @r#"image 0 + "name: " + <extra_id_0> + "cat\n" + image 1 + "name: " + <extra_id_0>"#);
    assert_snapshot!(prepare(&task, &inputs(0)).unwrap(), @r#"image 0 + "name: " + <extra_id_0>"#);
}

#[test]
fn shots_that_do_not_fit_are_refused_with_what_to_do() {
    let named = task(FILE);
    let request = || TaskInputs::new().with_image(image(0.5));
    assert_snapshot!(prepare(&named, &request()).unwrap_err(), @"the few-shot examples of the task 'name' have pictures: open them with `Task::open_shots`, or give no shots");
    let refused = |shot| prepare(&named, &request().with_shots(vec![shot])).unwrap_err();
    let file = named.origin().to_owned();
    let told = |error: String| error.replace(&file, "name.task");
    assert_snapshot!(told(refused(TaskShot::new("cat"))), @"name.task: shot 1: the input 'image' (a picture) is missing (inputs: image)");
    let two = TaskShot::new("cat").with_image(image(0.0)).with_image(image(0.0));
    assert_snapshot!(told(refused(two)), @"shot 1: the task 'name' takes 1 picture, found 2: leave out the others");
    let without_target = TaskShot::default().with_image(image(0.0));
    assert_snapshot!(told(refused(without_target)), @"name.task: shot 1: the field 'target' of the target is missing (fields: target)");
    let library = TaskLibrary::builtin().unwrap();
    let inputs = TaskInputs::new()
        .with("text", "a ___")
        .with_shots(vec![TaskShot::new("cat")]);
    assert_snapshot!(prepare(library.get("infill").unwrap(), &inputs).unwrap_err(), @"the task 'infill' answers with text, which takes no few-shot examples");
}

#[test]
fn text_of_a_shot_stays_text() {
    let file = "---\ndescription: x\ninputs: {word: {type: text}}\n---\n{{ word }}<extra_id_0>";
    let task = Task::new(TaskFile::parse("x.task", file.as_bytes()).unwrap());
    let shot = TaskShot::new("</s>{{ word }}").with("word", "<extra_id_0>");
    let inputs = TaskInputs::new().with("word", "new").with_shots(vec![shot]);
    assert_snapshot!(prepare(&task, &inputs).unwrap(), @r#""<extra_id_0>" + <extra_id_0> + "</s>{{ word }}\nnew" + <extra_id_0>"#);
}

#[test]
fn no_text_changes_the_ids_of_the_special_tokens_of_shots_and_targets() {
    let file = "---\ndescription: x\ninputs: {word: {type: text}}\ntarget: \"<extra_id_1>{{ a }}</s>\"\n---\n{{ word }}<extra_id_0>";
    let task = Task::new(TaskFile::parse("x.task", file.as_bytes()).unwrap());
    let tokenizer = tokenizer();
    let specials = |text: &str| {
        let fields = Inputs::from([("a".to_owned(), text.into())]);
        let shot = TaskShot {
            target: fields.clone(),
            ..TaskShot::default()
        };
        let inputs = TaskInputs::new()
            .with("word", text)
            .with_shots(vec![shot.with("word", text)]);
        let prepared = task.prepare(&tokenizer, &inputs).unwrap();
        let target = task.prepare_target(&tokenizer, &inputs, &fields).unwrap();
        let ids = [prepared.prompt(), &target].map(|prompt| tokenizer.encode_prompt(prompt).unwrap());
        ids.map(|ids| {
            ids.into_iter()
                .filter(|id| tokenizer.is_special(*id))
                .collect::<Vec<_>>()
        })
    };
    let plain = specials("word");
    assert!(plain[0].len() >= 4 && plain[1].len() >= 2, "{plain:?}");
    for text in [
        "</s>",
        "<extra_id_0><extra_id_1><pad><unk>",
        "{{ word }}{% raw %}",
        "{{ special(\"</s>\") }}",
        "\0\u{1}\u{1a}\u{f0000}\u{10fffd}\u{fdd0}",
        "<s></S>< /s>\u{202e}</s>",
        "ما هذا؟ \u{1f469}\u{200d}\u{1f680}",
    ] {
        assert_eq!(specials(text), plain, "{text:?}");
    }
}

#[test]
fn a_model_answers_with_as_many_shots_as_it_takes_pictures_and_refuses_more() {
    let checkpoint = Checkpoint::open("../checkpoints/default").unwrap();
    let engine = Engine::builder(&checkpoint).build().unwrap();
    let task = task(FILE);
    let picture = ImageProcessor::new(checkpoint.config())
        .open("../examples/pictures/cat.png")
        .unwrap();
    let most = checkpoint.config().max_images();
    let run = |count: usize| {
        let shot = TaskShot::new("cat").with_image(picture.clone());
        let inputs = TaskInputs::new()
            .with_image(picture.clone())
            .with_shots(vec![shot; count]);
        task.run(&engine, &inputs)
    };
    let outcome = run(most - 1).unwrap().wait_blocking().unwrap();
    assert!(outcome.answer.text().is_some());
    assert_eq!(outcome.usage.image_patches, most * checkpoint.config().patches());
    assert_snapshot!(run(most).unwrap_err(), @"the task 'name': 4 shots and the request have 5 pictures together, and the model takes at most 4: give at most 3 of the shots (--shots 3)");
}

#[test]
fn preprocessing_is_that_of_the_models_family_and_an_unknown_family_is_named() {
    let checkpoint = Checkpoint::open("../checkpoints/default").unwrap();
    let config = checkpoint.config();
    let pixels = |settings: &str| {
        let text = FILE.replace("inputs:\n", &format!("preprocessing: {{{settings}}}\ninputs:\n"));
        let wide: Vec<u8> = (0..=255).cycle().take(3 * 64 * 16).collect();
        let processor = task(&text).image_processor(config);
        processor.process_rgb8(64, 16, &wide).unwrap().pixels().to_vec()
    };
    assert!(pixels("multiway: {fit: squash}") != pixels("multiway: {fit: crop}"));
    assert!(pixels("multiway: {fit: squash}") == pixels("beit3: {fit: crop}"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.task");
    fs::write(
        &path,
        "---\ndescription: x\npreprocessing: {beit: {fit: crop}}\n---\nx",
    )
    .unwrap();
    let error = TaskLibrary::new().load_file(&path).unwrap_err().to_string();
    assert_snapshot!(error.replace(folder.path().to_str().unwrap(), ""), @"/a.task: preprocessing.beit: there is no model family 'beit': did you mean 'beit3'? (families: multiway, t5, mt5, umt5, beit3)");
}
