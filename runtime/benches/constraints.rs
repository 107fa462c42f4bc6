//! How long the masks of constrained answers take, on a vocabulary of 32,000 pieces like those of
//! SentencePiece.
//!
//! `cargo bench -p multiway-runtime --bench constraints` prints, for each constraint, what compiling takes,
//! the median of starting an answer, and the median, mean and 99th percentile of the masks of 200 answers
//! whose tokens are drawn from random logits.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use multiway_runtime::testing::ConstraintCompiler;
use multiway_runtime::{Constraint, SamplingParams, Tokenizer};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};

const PIECES: usize = 32_000;
const ANSWERS: u64 = 200;
const END: u32 = 1;

/// Makes words of syllables, whole and in parts, in upper and lower case, with numbers and punctuation.
fn pieces(random: &mut ChaCha8Rng) -> Vec<Value> {
    let mut pieces: Vec<Value> = ["<pad>", "</s>", "<unk>"].map(|name| json!([name, 0.0])).to_vec();
    pieces.extend((0..=255).map(|byte| json!([format!("<0x{byte:02X}>"), -20.0])));
    let mut texts: BTreeSet<String> = (' '..='~').filter(|c| *c != ' ').map(String::from).collect();
    texts.extend((0..1000).map(|number| number.to_string()));
    texts.extend(
        [
            "▁", "\":", "\",", "{\"", "\"}", "[\"", "\":\"", "▁▁", "...", "é", "ü", "猫",
        ]
        .map(String::from),
    );
    let syllables: Vec<String> = "bcdfghjklmnprstvwz"
        .chars()
        .flat_map(|consonant| "aeiouy".chars().map(move |vowel| format!("{consonant}{vowel}")))
        .collect();
    while texts.len() + pieces.len() < PIECES {
        let count = 1 + random.next_u32() % 4;
        let mut word: String = (0..count)
            .map(|_| syllables[random.next_u32() as usize % syllables.len()].as_str())
            .collect();
        if random.next_u32().is_multiple_of(8) {
            word = word.to_uppercase();
        }
        if !random.next_u32().is_multiple_of(3) {
            word.insert(0, '▁');
        }
        texts.insert(word);
    }
    pieces.extend(texts.into_iter().map(|text| json!([text, -9.0])));
    pieces
}

fn tokenizer(random: &mut ChaCha8Rng) -> Tokenizer {
    let special = |id: usize, name: &str| json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(0, "<pad>"), special(1, "</s>"), special(2, "<unk>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "post_processor": null,
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": pieces(random), "byte_fallback": true},
    });
    Tokenizer::from_json(file.to_string().as_bytes()).unwrap()
}

fn constraints() -> Vec<(&'static str, Constraint)> {
    let schema = json!({"type": "object", "properties": {
        "title": {"type": "string", "maxLength": 80}, "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
        "kind": {"enum": ["photo", "drawing", "scan"]}, "width": {"type": "integer", "minimum": 1, "maximum": 20000},
        "score": {"type": "number", "minimum": 0, "maximum": 1}, "owner": {"type": ["string", "null"]},
        "boxes": {"type": "array", "items": {"type": "object", "properties": {"label": {"type": "string"}, "x": {"type": "integer"}}, "required": ["label", "x"]}},
    }, "required": ["title", "kind", "width", "boxes"]});
    let colors = ["red", "dark red", "green", "blue"];
    let choices = colors
        .iter()
        .flat_map(|color| (0..50).map(move |number| format!("{color} thing {number}")));
    vec![
        (
            "regex, words",
            Constraint::Regex("[a-z]+( [a-z]+){0,12}\\.".to_owned()),
        ),
        (
            "regex, date",
            Constraint::Regex("[0-9]{4}-(0[1-9]|1[0-2])-[0-3][0-9]".to_owned()),
        ),
        ("JSON schema", Constraint::JsonSchema(schema)),
        ("200 choices", Constraint::Choices(choices.collect())),
    ]
}

/// What was measured, in microseconds but for compiling.
struct Times {
    compiled: Duration,
    starts: Vec<f64>,
    masks: Vec<f64>,
}

/// Writes answers and times each start and each mask.
fn measure(compiler: &ConstraintCompiler, constraint: Constraint, random: &mut ChaCha8Rng) -> Times {
    let sampling = SamplingParams {
        max_new_tokens: 96,
        temperature: 1.0,
        top_k: Some(50),
        constraint: Some(constraint),
        ..SamplingParams::default()
    };
    let start = Instant::now();
    compiler.start(&sampling).unwrap();
    let compiled = start.elapsed();
    let (mut starts, mut masks) = (Vec::new(), Vec::new());
    for seed in 0..ANSWERS {
        let sampling = SamplingParams {
            seed: Some(seed),
            ..sampling.clone()
        };
        let start = Instant::now();
        let mut answer = compiler.start(&sampling).unwrap().unwrap();
        starts.push(start.elapsed().as_secs_f64() * 1e6);
        loop {
            let logits: Vec<f32> = (0..PIECES)
                .map(|_| (random.next_u32() >> 8) as f32 / 2e6)
                .collect();
            let start = Instant::now();
            std::hint::black_box(answer.allowed().unwrap());
            masks.push(start.elapsed().as_secs_f64() * 1e6);
            if answer.draw(&logits).unwrap().is_none() {
                break;
            }
        }
    }
    starts.sort_by(f64::total_cmp);
    masks.sort_by(f64::total_cmp);
    Times {
        compiled,
        starts,
        masks,
    }
}

fn main() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let tokenizer = tokenizer(&mut random);
    let start = Instant::now();
    let compiler = ConstraintCompiler::new(tokenizer, END);
    let first = SamplingParams {
        constraint: Some(Constraint::Regex("a".to_owned())),
        ..SamplingParams::default()
    };
    compiler.start(&first).unwrap();
    println!("{PIECES} pieces spelled in {:.1?}, once", start.elapsed());
    println!("constraint      compile ms  start us   masks   median us   mean us   p99 us");
    for (name, constraint) in constraints() {
        let Times {
            compiled,
            starts,
            masks,
        } = measure(&compiler, constraint, &mut random);
        let mean = masks.iter().sum::<f64>() / masks.len() as f64;
        let (median, p99) = (masks[masks.len() / 2], masks[masks.len() * 99 / 100]);
        let start = starts[starts.len() / 2];
        let compiled = compiled.as_secs_f64() * 1e3;
        println!(
            "{name:<14} {compiled:>11.2} {start:>9.1} {:>7} {median:>11.1} {mean:>9.1} {p99:>8.1}",
            masks.len()
        );
    }
}
