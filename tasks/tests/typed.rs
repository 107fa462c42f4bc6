//! Typed answers of a small random model: what holds whatever a model says.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

use std::sync::Arc;

use multiway_model::ProcessedImage;
use multiway_model::testing::{random_inference_model, tiny_config};
use multiway_prompts::{Prompt, SamplingOptions, TaskFile};
use multiway_runtime::{Engine, Request, Tokenizer, sentencepiece_to_json};
use multiway_tasks::{Answer, Task, TaskError, TaskInputs, TaskOutcome};

fn engine() -> Engine {
    let json = sentencepiece_to_json(include_bytes!("../../runtime/tests/fixtures/tokenizer.model")).unwrap();
    let tokenizer = Tokenizer::from_json(&json).unwrap();
    let mut config = tiny_config();
    config.vocab_size = tokenizer.vocab_size();
    let model = random_inference_model(&config, 11).unwrap();
    Engine::builder_from_model(Arc::new(model), tokenizer)
        .threads(1)
        .build()
        .unwrap()
}

fn task(output: &str) -> Task {
    let file = format!(
        "---\nname: t\ndescription: A case.\ninputs: {{image: {{type: image}}, text: {{type: text, default: a cat}}}}\n\
         output: {output}\ndecode: {{max_new_tokens: 8}}\n---\n{{{{ image }}}}{{{{ text }}}}"
    );
    Task::new(TaskFile::parse("t.task", file.as_bytes()).unwrap())
}

fn with_image() -> TaskInputs {
    let pixels = (0..3 * 16 * 16u16)
        .map(|i| f32::from(i % 97) / 48.0 - 1.0)
        .collect();
    TaskInputs::new().with_image(ProcessedImage::from_pixels(pixels))
}

fn run(engine: &Engine, output: &str) -> Result<TaskOutcome, TaskError> {
    task(output).run(engine, &with_image())?.wait_blocking()
}

#[test]
fn a_predicate_and_a_level_are_choices_with_a_meaning() {
    let engine = engine();
    let outcome = run(&engine, "{kind: predicate, yes: a, no: b}").unwrap();
    let Answer::Predicate {
        value,
        probability,
        choices,
    } = &outcome.answer
    else {
        panic!("{outcome:?}")
    };
    assert_eq!(*value, *probability >= 0.5);
    assert_eq!(outcome.answer.text(), Some(if *value { "a" } else { "b" }));
    let plain = run(&engine, "{kind: choice, choices: [a, b]}").unwrap();
    assert_eq!(plain.answer.choices(), choices);

    let level = run(&engine, "{kind: level, levels: [a, b], values: [0, 1]}").unwrap();
    let Answer::Level { expected, .. } = level.answer else {
        panic!("{level:?}")
    };
    assert!((expected - (1.0 - probability)).abs() < 1e-9);
}

#[test]
fn a_temperature_and_a_normalization_change_probabilities_as_they_say() {
    let engine = engine();
    let ratio = |options: &str| {
        let output = format!("{{kind: choice, choices: [a, a cat and a dog]{options}}}");
        let outcome = run(&engine, &output).unwrap();
        let of = |text: &str| {
            let choices = outcome.answer.choices();
            choices
                .iter()
                .find(|choice| choice.text == text)
                .unwrap()
                .probability
        };
        (of("a") / of("a cat and a dog")).ln()
    };
    let plain = ratio("");
    assert!((ratio(", calibration: {temperature: 2}") - plain / 2.0).abs() < 1e-4);
    let mut request = Request::new(Prompt::from_text("x"), Vec::new());
    request.prompt = task("{kind: text}")
        .prepare(engine.tokenizer(), &with_image())
        .unwrap()
        .prompt()
        .clone();
    request.images = with_image().images;
    let candidates = ["a", "a cat and a dog"].map(str::to_owned).to_vec();
    let scores = engine.score(request, candidates).wait_blocking().unwrap().value;
    let by = |score: &multiway_runtime::Score, length: f64| f64::from(score.log_probability) / length;
    let tokens = |index: usize| f64::from(u32::try_from(scores[index].tokens.len()).unwrap());
    let per_token = by(&scores[0], tokens(0)) - by(&scores[1], tokens(1));
    assert!((ratio(", normalization: tokens") - per_token).abs() < 1e-4);
    let per_character = by(&scores[0], 1.0) - by(&scores[1], 15.0);
    assert!((ratio(", normalization: characters") - per_character).abs() < 1e-4);
    assert!((ratio(", normalization: unconditional") - plain).abs() > 1e-6);
    // What is written at all is neither.
    let mass: f64 = scores.iter().map(|score| by(score, 1.0).exp()).sum();
    let warm = run(
        &engine,
        "{kind: choice, choices: [a, a cat and a dog], calibration: {temperature: 2}}",
    );
    assert!((warm.unwrap().candidate_mass.unwrap() - mass).abs() < 1e-9);
}

#[test]
fn a_score_is_the_sum_of_its_tokens() {
    let outcome = run(&engine(), "{kind: score, target_from: text}").unwrap();
    let Answer::Score {
        log_probability,
        tokens,
        text,
    } = outcome.answer
    else {
        panic!("{outcome:?}")
    };
    let sum: f64 = tokens.iter().map(|token| f64::from(token.log_probability)).sum();
    assert!((sum - log_probability).abs() < 1e-9 && log_probability < 0.0);
    assert_eq!(text, "a cat");
    assert_eq!(outcome.usage.new_tokens, tokens.len());
}

#[test]
fn a_trie_gives_one_of_the_choices_and_its_probability_on_the_way() {
    let outcome = run(
        &engine(),
        "{kind: choice, choices: [a cat, a dog, sheep], method: trie}",
    )
    .unwrap();
    let [choice] = outcome.answer.choices() else {
        panic!("{outcome:?}")
    };
    assert!(["a cat", "a dog", "sheep"].contains(&choice.text.as_str()));
    assert!(choice.probability > 0.0 && choice.probability <= 1.0);
}

#[test]
fn labels_of_a_closed_set_are_never_unknown() {
    let output = "{kind: labels, choices: [cat, \"dog (big)\", sheep]}";
    let mut inputs = with_image();
    inputs.sampling = SamplingOptions {
        max_new_tokens: Some(24),
        ..SamplingOptions::default()
    };
    let outcome = task(output)
        .run(&engine(), &inputs)
        .unwrap()
        .wait_blocking()
        .unwrap();
    let Answer::Labels { labels, text } = outcome.answer else {
        panic!("{outcome:?}")
    };
    assert!(!labels.labels.is_empty() && labels.unknown.is_empty(), "{text}");
}

#[test]
fn what_is_read_from_text_keeps_the_text() {
    let engine = engine();
    for output in [
        "{kind: number}",
        "{kind: boxes}",
        "{kind: grounded}",
        "{kind: table}",
        "{kind: labels}",
    ] {
        let outcome = run(&engine, output).unwrap();
        assert!(
            outcome.answer.text().is_some_and(|text| !text.is_empty()),
            "{output}"
        );
        assert!(!outcome.answer.typed().is_empty(), "{output}");
    }
}

#[test]
fn each_of_several_samples_is_read() {
    let mut inputs = with_image();
    inputs.sampling = SamplingOptions {
        samples: Some(2),
        temperature: Some(1.0),
        ..SamplingOptions::default()
    };
    let outcome = task("{kind: number}")
        .run(&engine(), &inputs)
        .unwrap()
        .wait_blocking()
        .unwrap();
    assert_eq!(outcome.samples.len(), 2);
    assert!(
        outcome
            .samples
            .iter()
            .all(|sample| matches!(sample.answer, Answer::Number { .. }))
    );
}
