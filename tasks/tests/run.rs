//! Tasks at work on a small random model: what holds whatever a model says.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use multiway_model::ProcessedImage;
use multiway_model::testing::{random_inference_model, tiny_config};
use multiway_prompts::{InputValue, SamplingOptions, TaskFile};
use multiway_runtime::{
    Constraint, Engine, FinishReason, Request, RequestError, Tokenizer, sentencepiece_to_json,
};
use multiway_tasks::{
    Answer, ExampleReport, RequestTerms, Task, TaskError, TaskEvent, TaskInputs, TaskLibrary, TaskOutcome,
};

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

fn with_image() -> TaskInputs {
    let pixels = (0..3 * 16 * 16u16)
        .map(|i| f32::from(i % 97) / 48.0 - 1.0)
        .collect();
    TaskInputs::new().with_image(ProcessedImage::from_pixels(pixels))
}

fn answer(engine: &Engine, task: &str, inputs: &TaskInputs) -> Result<TaskOutcome, TaskError> {
    TaskLibrary::builtin()
        .unwrap()
        .get(task)
        .unwrap()
        .run(engine, inputs)?
        .wait_blocking()
}

#[test]
fn the_pieces_of_a_text_joined_are_the_text() {
    let engine = engine();
    let library = TaskLibrary::builtin().unwrap();
    let mut run = library
        .get("caption")
        .unwrap()
        .run(&engine, &with_image())
        .unwrap();
    let (mut joined, mut outcome) = (String::new(), None);
    while let Some(event) = run.next_blocking() {
        match event.unwrap() {
            TaskEvent::Text(piece) => joined.push_str(&piece),
            TaskEvent::Finished(last) => outcome = Some(last),
            _ => unreachable!("there are no other events"),
        }
    }
    let outcome = outcome.unwrap();
    assert_eq!(outcome.answer.text(), Some(joined.as_str()));
    assert_eq!(outcome.usage.image_patches, 16);
    assert!(outcome.usage.new_tokens > 0);
    let again = answer(&engine, "caption", &with_image()).unwrap();
    assert_eq!((again.answer, again.usage), (outcome.answer, outcome.usage));
}

#[tokio::test]
async fn runs_at_the_same_time_give_what_they_give_alone() {
    let engine = engine();
    let library = TaskLibrary::builtin().unwrap();
    let requests = [
        ("caption", with_image().with("language", "German")),
        ("vqa", with_image().with("question", "what?")),
        (
            "classify",
            with_image().with("choices", InputValue::List(vec!["cat".into(), "a dog".into()])),
        ),
        ("infill", TaskInputs::new().with("text", "one ___ two ___")),
        ("retrieve", TaskInputs::new().with("text", "apple")),
        ("patches", with_image().with("hide", hidden(&["0:0-2", "3:3"]))),
    ];
    let run = async |(task, inputs): &(&str, TaskInputs)| {
        library
            .get(task)
            .unwrap()
            .run(&engine, inputs)
            .unwrap()
            .wait()
            .await
            .unwrap()
            .answer
    };
    let together = futures_util::future::join_all(requests.iter().map(&run)).await;
    for (request, answer) in requests.iter().zip(together) {
        assert_eq!(run(request).await, answer, "{}", request.0);
    }
}

#[test]
fn a_choice_ranks_by_the_likelihood_of_the_whole_answer() {
    let engine = engine();
    let library = TaskLibrary::builtin().unwrap();
    let task = library.get("classify").unwrap();
    let names: Vec<String> = ["cat", "a cat", "red apple", "x"].map(str::to_owned).to_vec();
    let inputs = with_image().with("choices", InputValue::List(names.clone()));
    let prepared = task.prepare(engine.tokenizer(), &inputs).unwrap();
    let mut request = Request::new(prepared.prompt().clone(), inputs.images.clone());
    request.sampling.prefix.clone_from(&task.file().decode.prefix);
    let scores = engine
        .score(request, names.clone())
        .wait_blocking()
        .unwrap()
        .value;
    let outcome = task.run(&engine, &inputs).unwrap().wait_blocking().unwrap();
    let total: f64 = scores
        .iter()
        .map(|score| f64::from(score.log_probability).exp())
        .sum();
    for (name, score) in names.iter().zip(&scores) {
        let choice = outcome
            .answer
            .choices()
            .iter()
            .find(|choice| choice.text == *name)
            .unwrap();
        let expected = f64::from(score.log_probability).exp() / total;
        assert!((choice.probability - expected).abs() < 1e-6, "{name}");
    }
    assert!(
        (outcome
            .answer
            .choices()
            .iter()
            .map(|choice| choice.probability)
            .sum::<f64>()
            - 1.0)
            .abs()
            < 1e-12
    );
    assert_eq!(outcome.finish_reason, Some(FinishReason::Stop));
    assert_eq!(
        outcome.answer.text(),
        outcome
            .answer
            .choices()
            .first()
            .map(|choice| choice.text.as_str())
    );
    let shortest = scores.iter().map(|score| score.tokens.len()).min().unwrap();
    assert!(outcome.usage.new_tokens >= shortest);
}

fn hidden(patches: &[&str]) -> InputValue {
    InputValue::List(patches.iter().map(|patch| (*patch).to_owned()).collect())
}

#[test]
fn what_is_hidden_is_named_from_the_rest_of_the_picture_alone() {
    let engine = engine();
    let task = |image: TaskInputs, patches: &[&str]| {
        let outcome = answer(&engine, "patches", &image.with("hide", hidden(patches))).unwrap();
        outcome.answer.patches().to_vec()
    };
    let named = task(with_image(), &["1:2", "0:0"]);
    let places: Vec<_> = named.iter().map(|patch| (patch.row, patch.column)).collect();
    assert_eq!(places, [(0, 0), (1, 2)]);
    // Patches are 4 pixels wide: other pixels under the hidden ones change nothing, others elsewhere do.
    let painted = |top: usize, left: usize| {
        let mut pixels = with_image().images[0].pixels().to_vec();
        (top..top + 4).for_each(|y| pixels[y * 16 + left..][..4].fill(0.9));
        TaskInputs::new().with_image(ProcessedImage::from_pixels(pixels))
    };
    assert_eq!(task(painted(4, 8), &["1:2", "0:0"]), named);
    assert_ne!(task(painted(4, 4), &["1:2", "0:0"]), named);
    let error = answer(&engine, "patches", &with_image().with("hide", hidden(&["0:4"]))).unwrap_err();
    insta::assert_snapshot!(error, @"the task 'patches': cannot hide \"0:4\": the model sees a picture as 4 rows and 4 columns of patches, counted from 0");
}

#[test]
fn gaps_are_filled_and_all_other_text_stays() {
    let outcome = answer(&engine(), "infill", &with_image().with("text", "The ___ sat.")).unwrap();
    let Answer::Text { text, spans } = outcome.answer else {
        panic!("expected text")
    };
    assert_eq!(spans.len(), 1);
    assert_eq!(text, format!("The {} sat.", spans[0]));
}

#[test]
fn pictures_and_texts_become_vectors_of_unit_length_in_one_space() {
    let engine = engine();
    let text = TaskInputs::new().with("text", "a cat");
    let vectors = [with_image(), text].map(|inputs| {
        let outcome = answer(&engine, "retrieve", &inputs).unwrap();
        assert_eq!(outcome.finish_reason, None);
        outcome.answer.embedding().unwrap().to_vec()
    });
    assert_eq!(vectors[0].len(), vectors[1].len());
    for vector in &vectors {
        assert!((vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }
}

#[test]
fn the_callers_sampling_wins_over_the_task_files_and_the_model_bounds_the_latter() {
    let engine = engine();
    let short = SamplingOptions {
        max_new_tokens: Some(1),
        ..SamplingOptions::default()
    };
    let outcome = answer(&engine, "caption", &with_image().with_sampling(short)).unwrap();
    assert_eq!(outcome.usage.new_tokens, 1);

    let file = "---\ndescription: Long.\ndecode: {max_new_tokens: 5000}\n---\nHello";
    let task = Task::new(TaskFile::parse("long.task", file.as_bytes()).unwrap());
    let outcome = task
        .run(&engine, &TaskInputs::new())
        .unwrap()
        .wait_blocking()
        .unwrap();
    assert!(outcome.usage.new_tokens <= engine.config().max_target_length);

    let long = SamplingOptions {
        max_new_tokens: Some(5000),
        ..SamplingOptions::default()
    };
    let error = task
        .run(&engine, &TaskInputs::new().with_sampling(long))
        .unwrap()
        .wait_blocking()
        .unwrap_err();
    assert!(
        matches!(error, TaskError::Request(RequestError::MaxNewTokens { .. })) && error.is_input(),
        "{error}"
    );
}

#[tokio::test]
async fn a_dropped_run_leaves_the_engine_to_others() {
    let engine = engine();
    let library = TaskLibrary::builtin().unwrap();
    let caption = library.get("caption").unwrap();
    let mut run = caption.run(&engine, &with_image()).unwrap();
    assert!(run.next().await.unwrap().is_ok());
    drop(run);
    assert!(caption.run(&engine, &with_image()).unwrap().wait().await.is_ok());
}

#[tokio::test]
async fn an_engine_that_was_shut_down_is_no_fault_of_the_input() {
    let engine = engine();
    engine.shutdown(multiway_runtime::Shutdown::Abort);
    let library = TaskLibrary::builtin().unwrap();
    let error = library
        .get("caption")
        .unwrap()
        .run(&engine, &with_image())
        .unwrap()
        .wait()
        .await
        .unwrap_err();
    assert!(
        matches!(error, TaskError::Request(RequestError::ShutDown)) && !error.is_input(),
        "{error}"
    );
}

#[test]
fn a_task_gives_its_request_the_terms_and_returns_its_timings_whatever_it_answers() {
    let engine = engine();
    let choose = with_image().with("choices", InputValue::List(vec!["a".to_owned(), "b".to_owned()]));
    for (task, inputs, is_decoded) in [
        ("caption", with_image(), true),
        ("classify", choose, true),
        ("retrieve", with_image(), false),
    ] {
        let timings = answer(&engine, task, &inputs).unwrap().timings;
        assert!(timings.prepare > Duration::ZERO && timings.encode > Duration::ZERO);
        assert_eq!(timings.steps > 0, is_decoded, "{task}");
        assert!(timings.total >= timings.prepare + timings.encode + timings.decode);
        let after = Duration::from_nanos(1);
        let hurried = inputs.with_terms(RequestTerms {
            priority: 1,
            timeout: Some(after),
        });
        let error = answer(&engine, task, &hurried).unwrap_err();
        let expected = RequestError::DeadlineExceeded { after };
        assert!(
            matches!(&error, TaskError::Request(found) if *found == expected),
            "{task}: {error}"
        );
    }
}

#[tokio::test]
async fn worked_examples_are_run_with_the_pictures_beside_their_file() {
    let engine = engine();
    let folder = tempfile::tempdir().unwrap();
    let file = "---\ndescription: Chooses.\ninputs:\n  image: {type: image}\noutput: {kind: choice, choices: [one, two]}\nexamples:\n- inputs: {image: a.png}\n  output: one\n- inputs: {image: a.png}\n  output: two\n---\n{{ image }}";
    std::fs::write(folder.path().join("choose.task"), file).unwrap();
    let mut library = TaskLibrary::new();
    library.load_dir(folder.path()).unwrap();
    let task = library.get("choose").unwrap();
    let picture = folder.path().join("a.png");
    let reports = task
        .check_examples(&engine, RequestTerms::default(), |path| {
            assert_eq!(path, picture);
            Ok(with_image().images.swap_remove(0))
        })
        .await
        .unwrap();
    let passed: Vec<bool> = reports.iter().map(ExampleReport::passed).collect();
    assert!(
        passed == [true, false] || passed == [false, true],
        "one of two opposite examples holds"
    );

    let error = task
        .check_examples(&engine, RequestTerms::default(), |_| Err("it is blank".into()))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, TaskError::ExamplePicture { example, path, .. } if *path == picture && example == "example 1"),
        "{error}"
    );
}

fn with_sampling(change: impl FnOnce(&mut SamplingOptions)) -> TaskInputs {
    let mut sampling = SamplingOptions {
        temperature: Some(1.5),
        max_new_tokens: Some(6),
        seed: Some(4),
        ..SamplingOptions::default()
    };
    change(&mut sampling);
    TaskInputs::new()
        .with("text", "A ___ and a ___.")
        .with_sampling(sampling)
}

#[test]
fn of_several_answers_that_are_drawn_the_first_is_the_one_that_is_drawn_alone() {
    let engine = engine();
    let alone = answer(&engine, "infill", &with_sampling(|_| {})).unwrap();
    assert!(alone.samples.is_empty());
    let drawn = answer(&engine, "infill", &with_sampling(|s| s.samples = Some(3))).unwrap();
    assert_eq!(drawn.samples.len(), 3);
    assert_eq!(drawn.answer, alone.answer);
    assert_eq!(drawn.samples[0].answer, alone.answer);
    assert_ne!(drawn.samples[1].answer, alone.answer);
    for sample in &drawn.samples {
        assert!(sample.answer.text().unwrap().starts_with("A "), "{sample:?}");
        assert!(sample.mean_log_probability < 0.0);
    }
    assert_eq!(drawn.usage.prompt_tokens, alone.usage.prompt_tokens);
    assert!(drawn.usage.new_tokens > alone.usage.new_tokens);
}

#[test]
fn the_best_of_many_answers_is_the_answer() {
    let engine = engine();
    let all = answer(&engine, "infill", &with_sampling(|s| s.samples = Some(8))).unwrap();
    let best = answer(&engine, "infill", &with_sampling(|s| s.best_of = Some(8))).unwrap();
    let by_mean = |a: &&multiway_tasks::TaskSample, b: &&multiway_tasks::TaskSample| {
        a.mean_log_probability.total_cmp(&b.mean_log_probability)
    };
    let expected = all.samples.iter().max_by(by_mean).unwrap();
    assert_eq!(best.samples, std::slice::from_ref(expected));
    assert_eq!(best.answer, expected.answer);
}

#[test]
fn tokens_are_told_with_their_alternatives_only_if_asked_for() {
    let engine = engine();
    let plain = answer(&engine, "infill", &with_sampling(|_| {})).unwrap();
    assert!(plain.tokens.is_empty());
    let asked =
        |samples: usize| with_sampling(|s| (s.top_log_probabilities, s.samples) = (Some(3), Some(samples)));
    let told = answer(&engine, "infill", &asked(1)).unwrap();
    assert_eq!(told.tokens.len(), told.usage.new_tokens);
    for written in &told.tokens {
        assert_eq!(written.alternatives.len(), 3);
        let piece = engine.tokenizer().piece(written.token.id);
        assert_eq!(piece, Some(written.token.piece.as_str()));
        assert!(written.alternatives[0].log_probability >= written.token.log_probability);
    }
    let drawn = answer(&engine, "infill", &asked(2)).unwrap();
    assert_eq!(drawn.tokens, told.tokens);
    assert_eq!(drawn.samples[0].tokens, told.tokens);
    assert_ne!(drawn.samples[1].tokens, told.tokens);
}

#[test]
fn the_callers_biases_are_added_to_those_of_the_task_file() {
    let engine = engine();
    let [one, two] =
        ["cat", "dog"].map(|word| *engine.tokenizer().encode_text(word).unwrap().last().unwrap());
    let file = format!(
        "---\ndescription: Barks.\ndecode: {{max_new_tokens: 4, logit_bias: {{{one}: 90, {two}: 100}}}}\n---\nHello"
    );
    let task = Task::new(TaskFile::parse("bark.task", file.as_bytes()).unwrap());
    let written = |bias: &[(u32, f32)]| {
        let sampling = SamplingOptions {
            logit_bias: bias.iter().copied().collect(),
            top_log_probabilities: Some(1),
            ..SamplingOptions::default()
        };
        let run = task.run(&engine, &TaskInputs::new().with_sampling(sampling));
        let tokens = run.unwrap().wait_blocking().unwrap().tokens;
        tokens.iter().map(|written| written.token.id).collect::<Vec<_>>()
    };
    assert_eq!(written(&[]), [two; 4]);
    assert_eq!(written(&[(two, -100.0)]), [one; 4]);
}

#[test]
fn a_task_file_may_say_how_many_samples_are_drawn_and_what_is_never_written() {
    let written = |decode: &str, inputs: &TaskInputs| {
        let outcome = run_file(&format!("decode: {{{decode}}}"), inputs).unwrap();
        let ids = outcome.tokens.iter().map(|written| written.token.id);
        (ids.collect::<Vec<_>>(), outcome.samples.len())
    };
    let greedy = "max_new_tokens: 2, top_log_probabilities: 1";
    let (free, _) = written(greedy, &TaskInputs::new());
    let banned = free[0];
    let (other, _) = written(
        &format!("{greedy}, suppress_tokens: [{banned}]"),
        &TaskInputs::new(),
    );
    assert!(other[0] != banned, "{banned} is written");

    let caller = SamplingOptions {
        begin_suppress_tokens: vec![other[0]],
        ..SamplingOptions::default()
    };
    let caller = TaskInputs::new().with_sampling(caller);
    let (third, _) = written(&format!("{greedy}, suppress_tokens: [{banned}]"), &caller);
    assert!(![banned, other[0]].contains(&third[0]), "{third:?}");

    let samples = "max_new_tokens: 2, samples: 3, temperature: 1, seed: 4";
    assert_eq!(written(samples, &TaskInputs::new()).1, 3);
    let caller = SamplingOptions {
        samples: Some(3),
        temperature: Some(1.0),
        ..SamplingOptions::default()
    };
    let caller = TaskInputs::new().with_sampling(caller);
    let refused = run_file("output: {kind: choice, choices: [a, b]}", &caller);
    assert!(
        matches!(refused, Err(TaskError::NothingDrawn { .. })),
        "{refused:?}"
    );
}

/// Runs a task file without inputs.
fn run_file(front: &str, inputs: &TaskInputs) -> Result<TaskOutcome, TaskError> {
    let file = format!("---\ndescription: Writes.\n{front}\n---\nHello");
    let task = Task::new(TaskFile::parse("form.task", file.as_bytes()).unwrap());
    task.run(&engine(), inputs)?.wait_blocking()
}

#[test]
fn json_is_a_value_and_its_text() {
    let schema = "{type: object, properties: {n: {type: integer, minimum: 0, maximum: 99}}, required: [n]}";
    let outcome = run_file(
        &format!("output: {{kind: json, schema: {schema}}}"),
        &TaskInputs::new(),
    )
    .unwrap();
    let value = outcome.answer.json().unwrap();
    assert!((0..=99).contains(&value["n"].as_i64().unwrap()));
    assert_eq!(outcome.answer.text(), Some(value.to_string().as_str()));
    assert_eq!(outcome.finish_reason, Some(FinishReason::Stop));
}

#[test]
fn text_has_the_form_of_the_task_file_or_of_the_caller() {
    let regex = "decode: {regex: \"[0-9]{3}\"}";
    let outcome = run_file(regex, &TaskInputs::new()).unwrap();
    let text = outcome.answer.text().unwrap();
    assert!(
        text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit()),
        "{text}"
    );
    let wanted = Constraint::Choices(vec!["cat".to_owned(), "dog".to_owned()]);
    let outcome = run_file(regex, &TaskInputs::new().with_constraint(wanted.clone())).unwrap();
    assert!(matches!(outcome.answer.text(), Some("cat" | "dog")));
    let error = run_file(
        "output: {kind: choice, choices: [a, b]}",
        &TaskInputs::new().with_constraint(wanted),
    );
    insta::assert_snapshot!(error.unwrap_err(), @"the task 'form' answers with choice: a regular expression, choices or a JSON schema go with tasks that write text");
}

#[test]
fn a_schema_that_cannot_be_used_is_the_task_files_fault() {
    let error = run_file("output: {kind: json, schema: {type: text}}", &TaskInputs::new()).unwrap_err();
    assert!(error.is_input());
    insta::assert_snapshot!(error, @"the constraint (JSON schema) cannot be used: #/type: expected null, boolean, integer, number, string, array or object, found 'text'");
}

#[test]
fn every_sample_of_json_is_json() {
    let sampling = SamplingOptions {
        samples: Some(3),
        temperature: Some(1.0),
        seed: Some(4),
        ..SamplingOptions::default()
    };
    let schema = "{type: object, properties: {n: {type: integer, minimum: 0, maximum: 99}}, required: [n]}";
    let outcome = run_file(
        &format!("output: {{kind: json, schema: {schema}}}"),
        &TaskInputs::new().with_sampling(sampling),
    )
    .unwrap();
    assert_eq!(outcome.samples.len(), 3);
    assert_eq!(outcome.samples[0].answer, outcome.answer);
    assert!(
        outcome
            .samples
            .iter()
            .all(|sample| sample.answer.json().is_some())
    );
}

#[test]
fn the_callers_minimum_is_checked_and_what_draws_nothing_is_not_sampled() {
    let minimum = SamplingOptions {
        min_new_tokens: Some(9),
        max_new_tokens: Some(5),
        ..SamplingOptions::default()
    };
    let inputs = with_image().with_sampling(minimum);
    insta::assert_snapshot!(answer(&engine(), "caption", &inputs).unwrap_err(), @"sampling parameter 'min_new_tokens' is 9, expected at most max_new_tokens");
    let sampled = SamplingOptions {
        samples: Some(2),
        temperature: Some(1.0),
        ..SamplingOptions::default()
    };
    let inputs = TaskInputs::new().with("text", "a cat").with_sampling(sampled);
    insta::assert_snapshot!(answer(&engine(), "retrieve", &inputs).unwrap_err(), @"the task 'retrieve' answers with embedding: samples and the likeliest tokens go with tasks that write text");
}
