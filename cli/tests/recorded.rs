//! Requests of every kind get the answers that they got when they were recorded: the same tokens, and the
//! same bits of every log-probability, score and vector.
//!
//! `tests/fixtures/recorded/requests.json` lists them: requests to engines, as the product of prompts, engine
//! options and questions, and command lines. What they answered is in `answers.json` beside it. A change that
//! is to change answers records them anew, with `MULTIWAY_UPDATE=1 cargo test --release --test recorded`, and
//! says why.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use multiway::checkpoint::{CacheType, WeightType};
use multiway::engine::Generation;
use multiway::image::ProcessedImage;
use multiway::prompt::{Prompt, PromptPart};
use multiway::{Checkpoint, Engine, ImageProcessor, Request, SamplingParams, embedded_checkpoint};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use common::TestFolder;

const PICTURES: [&str; 8] = [
    "cat.png",
    "dog.png",
    "bicycle.png",
    "guitar.png",
    "red-apple.png",
    "red-circle.png",
    "rocket.png",
    "turtle.png",
];

fn root(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requests {
    engine: Vec<Group>,
    commands: Vec<Vec<String>>,
}

/// Asks each question about each prompt, of an engine with each of the options.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    model: String,
    options: Vec<Options>,
    prompts: BTreeMap<String, Vec<Part>>,
    asks: BTreeMap<String, Question>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    weights: Option<String>,
    cache: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Part {
    Text(String),
    Special(String),
    Image(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Question {
    Generate(Box<SamplingParams>),
    Samples(Box<SamplingParams>),
    Search(Box<SamplingParams>),
    Score(Vec<String>),
    Embed {},
    Classify {},
    Unmask(usize),
    Uncover(Vec<usize>),
}

/// Writes numbers by their bits.
fn bits<'a>(numbers: impl IntoIterator<Item = &'a f32>) -> String {
    numbers
        .into_iter()
        .map(|number| format!("{:08x}", number.to_bits()))
        .collect()
}

fn written(generation: &Generation) -> Value {
    let alternatives = generation.alternatives.iter().map(|others| {
        let ids: Vec<_> = others.iter().map(|other| other.id).collect();
        json!([ids, bits(others.iter().map(|other| &other.log_probability))])
    });
    json!({
        "text": generation.text,
        "tokens": generation.tokens,
        "log_probabilities": bits(&generation.log_probabilities),
        "alternatives": alternatives.collect::<Vec<_>>(),
        "finish_reason": generation.finish_reason,
        "usage": generation.usage,
    })
}

fn ask(engine: &Engine, mut request: Request, question: &Question) -> Value {
    match question {
        Question::Generate(sampling) => {
            request.sampling = (**sampling).clone();
            written(&engine.generate_blocking(request).unwrap())
        }
        Question::Samples(sampling) => {
            request.sampling = (**sampling).clone();
            let samples = engine.samples(request).wait_blocking().unwrap().value;
            samples.iter().map(written).collect()
        }
        Question::Search(sampling) => {
            request.sampling = (**sampling).clone();
            let found = engine.search(request).wait_blocking().unwrap().value.into_iter();
            found
                .map(|answer| json!([answer.text, answer.tokens, bits([&answer.score])]))
                .collect()
        }
        Question::Score(candidates) => {
            let scores = engine
                .score(request, candidates.clone())
                .wait_blocking()
                .unwrap()
                .value
                .into_iter();
            scores
                .map(|score| {
                    json!([
                        score.tokens,
                        bits(&score.log_probabilities),
                        bits([&score.log_probability])
                    ])
                })
                .collect()
        }
        Question::Embed {} => json!(bits(&engine.embed(request).wait_blocking().unwrap().value)),
        Question::Classify {} => {
            let scores = engine.classify(request).wait_blocking().unwrap().value;
            json!(bits(scores.iter().map(|class| &class.score)))
        }
        Question::Unmask(count) => {
            let words = engine
                .unmask(request, *count)
                .wait_blocking()
                .unwrap()
                .value
                .into_iter();
            words
                .map(|words| {
                    let ids: Vec<_> = words.iter().map(|word| word.id).collect();
                    json!([ids, bits(words.iter().map(|word| &word.log_probability))])
                })
                .collect()
        }
        Question::Uncover(hidden) => {
            let patches = engine
                .uncover(request, hidden.clone(), 3)
                .wait_blocking()
                .unwrap()
                .value;
            patches
                .iter()
                .map(|codes| {
                    let ids: Vec<_> = codes.iter().map(|code| code.code).collect();
                    json!([ids, bits(codes.iter().map(|code| &code.log_probability))])
                })
                .collect()
        }
    }
}

/// Puts the small models into a folder, each with a tokenizer, and pictures beside them.
fn prepare(place: &TestFolder, models: &[String]) {
    PICTURES.iter().for_each(|name| place.picture(name));
    place.picture("green-triangle.jpg");
    for model in models.iter().filter(|model| *model != "embedded") {
        let case = root("tests/fixtures/parity").join(model);
        let mut config: Map<String, Value> =
            serde_json::from_slice(&fs::read(case.join("config.json")).unwrap()).unwrap();
        let (tokenizer, name) = if model.starts_with("beit3") {
            // The cases have a mask of their own, the last id; here it is the tokenizer's.
            config.insert("mask_token_id".to_owned(), 85.into());
            let classes = config.get("num_classes").and_then(Value::as_u64);
            let labels = (0..classes.unwrap_or_default()).map(|label| format!("label {label}\n"));
            if classes.is_some() {
                place.write(&format!("{model}/labels.txt"), labels.collect::<String>());
            }
            ("runtime/tests/fixtures/numbering/beit3.spm", "beit3.spm")
        } else {
            (
                "tests/fixtures/cases/checkpoints/plain/tokenizer.json",
                "tokenizer.json",
            )
        };
        place.write(&format!("{model}/config.json"), Value::Object(config).to_string());
        place.write(&format!("{model}/{name}"), fs::read(root(tokenizer)).unwrap());
        let weights = fs::read(case.join("model.safetensors")).unwrap();
        place.write(&format!("{model}/model.safetensors"), weights);
    }
}

fn request(processor: &ImageProcessor, place: &TestFolder, parts: &[Part]) -> Request {
    let mut images: Vec<ProcessedImage> = Vec::new();
    let mut prompt = Prompt::default();
    for part in parts {
        prompt.push(match part {
            Part::Text(text) => PromptPart::Text(text.clone()),
            Part::Special(name) => PromptPart::Special(name.clone()),
            Part::Image(name) => {
                images.push(processor.open(place.path(name)).unwrap());
                PromptPart::Image(images.len() - 1)
            }
        });
    }
    Request::new(prompt, images)
}

fn engine(checkpoint: &Checkpoint, options: &Options) -> Engine {
    let mut builder = Engine::builder(checkpoint);
    builder = match options.weights.as_deref() {
        Some("int8") => builder.weights(WeightType::Int8),
        Some("bf16") => builder.weights(WeightType::Bf16),
        other => {
            assert_eq!(other, None);
            builder
        }
    };
    builder = match options.cache.as_deref() {
        Some("int8") => builder.cache(CacheType::Int8),
        Some("bf16") => builder.cache(CacheType::Bf16),
        other => {
            assert_eq!(other, None);
            builder
        }
    };
    builder.build().unwrap()
}

fn ask_engines(groups: &[Group], place: &TestFolder, answers: &mut Map<String, Value>) {
    for group in groups {
        let checkpoint = match group.model.as_str() {
            "embedded" => embedded_checkpoint(),
            folder => Checkpoint::open(place.path(folder)),
        };
        let checkpoint = checkpoint.unwrap();
        let processor = ImageProcessor::new(checkpoint.config());
        for options in &group.options {
            let engine = engine(&checkpoint, options);
            let types = [&options.weights, &options.cache].map(|name| name.as_deref().unwrap_or("f32"));
            for (prompt, parts) in &group.prompts {
                let request = request(&processor, place, parts);
                for (name, question) in &group.asks {
                    let key = format!("{}, {}: {prompt}: {name}", group.model, types.join("/"));
                    let answer = ask(&engine, request.clone(), question);
                    assert!(answers.insert(key, answer).is_none(), "two requests of one name");
                }
            }
        }
    }
}

/// Takes what is measured out of a report: it differs from run to run.
fn without_times(report: &mut Value) {
    if let Value::Object(report) = report {
        report.retain(|key, _| key != "timings_ms");
        report.values_mut().for_each(without_times);
    }
}

fn run_commands(commands: &[Vec<String>], place: &TestFolder, answers: &mut Map<String, Value>) {
    for command in commands {
        let args: Vec<&str> = command.iter().map(String::as_str).collect();
        let ended = place.run(&args);
        assert_eq!(ended.code, Some(0), "{command:?}: {}", ended.stderr);
        let mut report = ended.json();
        without_times(&mut report);
        assert!(
            answers.insert(command.join(" "), report).is_none(),
            "two commands alike"
        );
    }
}

#[test]
fn every_recorded_request_gets_the_same_bits_again() {
    let folder = root("tests/fixtures/recorded");
    let requests: Requests =
        serde_json::from_slice(&fs::read(folder.join("requests.json")).unwrap()).unwrap();
    let mut models: Vec<_> = requests.engine.iter().map(|group| group.model.clone()).collect();
    models.sort();
    models.dedup();
    let place = TestFolder::new();
    prepare(&place, &models);
    let mut answers = Map::new();
    ask_engines(&requests.engine, &place, &mut answers);
    run_commands(&requests.commands, &place, &mut answers);
    assert!(answers.len() >= 200, "{} requests", answers.len());

    let file = folder.join("answers.json");
    if std::env::var_os("MULTIWAY_UPDATE").is_some() {
        let lines: Vec<_> = answers
            .iter()
            .map(|(key, answer)| format!("{}: {answer}", json!(key)))
            .collect();
        return fs::write(file, format!("{{\n{}\n}}\n", lines.join(",\n"))).unwrap();
    }
    let recorded: Map<String, Value> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let asked: Vec<_> = answers.keys().collect();
    assert_eq!(
        asked,
        recorded.keys().collect::<Vec<_>>(),
        "the requests are not those recorded"
    );
    let wrong: Vec<_> = answers
        .iter()
        .filter(|(key, answer)| recorded[*key] != **answer)
        .map(|(key, answer)| format!("{key}\n  recorded {}\n  found    {answer}", recorded[key]))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} answers differ:\n{}",
        wrong.len(),
        answers.len(),
        wrong.join("\n")
    );
}
