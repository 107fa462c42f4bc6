//! Every recorded way of generating, through the engine: greedy, beams, penalties and bans.

use std::sync::Arc;

use multiway_model::{Checkpoint, DType, Device, Model};
use multiway_prompts::{Prompt, PromptPart};
use multiway_runtime::{EarlyStopping, Engine, Request, SamplingParams, Tokenizer};
use serde_json::{Value, json};

use super::case::Case;
use super::t5::prompts;

/// Reads the settings of a recorded run.
fn params(kwargs: &Value) -> SamplingParams {
    let known = [
        "num_beams",
        "num_return_sequences",
        "do_sample",
        "max_new_tokens",
        "min_new_tokens",
        "no_repeat_ngram_size",
        "repetition_penalty",
        "length_penalty",
        "early_stopping",
    ];
    for key in kwargs.as_object().unwrap().keys() {
        assert!(known.contains(&key.as_str()), "'{key}' is not compared");
    }
    let count = |key: &str| kwargs[key].as_u64().map(|value| usize::try_from(value).unwrap());
    #[expect(
        clippy::cast_possible_truncation,
        reason = "recorded settings are short numbers"
    )]
    let number = |key: &str| kwargs[key].as_f64().map_or(1.0, |value| value as f32);
    SamplingParams {
        max_new_tokens: count("max_new_tokens").unwrap(),
        min_new_tokens: count("min_new_tokens").unwrap_or(0),
        no_repeat_ngram_size: count("no_repeat_ngram_size").unwrap_or(0),
        repetition_penalty: number("repetition_penalty"),
        beams: count("num_beams").unwrap(),
        answers: count("num_return_sequences").unwrap_or(1),
        length_penalty: number("length_penalty"),
        early_stopping: match &kwargs["early_stopping"] {
            Value::Bool(true) => EarlyStopping::AtOnce,
            Value::String(word) if word == "never" => EarlyStopping::Never,
            _ => EarlyStopping::WhenNoBetter,
        },
        show_special: true,
        ..SamplingParams::default()
    }
}

fn piece(id: usize) -> String {
    match id {
        0 => "<pad>".to_owned(),
        1 => "</s>".to_owned(),
        2 => "<unk>".to_owned(),
        _ => format!("<loc_{id}>"),
    }
}

/// Makes a tokenizer in which each id is a special token of its own: the cases know ids only.
fn tokenizer(size: usize) -> Tokenizer {
    let vocab: Vec<_> = (0..size).map(|id| json!([piece(id), 0.0])).collect();
    let added: Vec<_> = (0..size)
        .map(|id| json!({"id": id, "content": piece(id), "special": true}))
        .collect();
    let json = json!({
        "added_tokens": added,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always"},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab},
    });
    Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

pub(crate) fn engine(case: &Case) -> Engine {
    let checkpoint = Checkpoint::open(&case.folder).unwrap();
    let model = Model::load(&checkpoint, &Device::Cpu, DType::F32).unwrap();
    let size = model.config().vocab_size;
    Engine::builder_from_model(Arc::new(model), tokenizer(size))
        .build()
        .unwrap()
}

/// Asks with token ids; the engine adds the closing `</s>`.
fn request(tokens: &[u32], sampling: SamplingParams) -> Request {
    let (last, tokens) = tokens.split_last().unwrap();
    assert_eq!(*last, 1, "a recorded prompt ends in </s>");
    let parts = tokens.iter().map(|id| PromptPart::Special(piece(*id as usize)));
    Request {
        sampling,
        ..Request::new(
            Prompt {
                parts: parts.collect(),
            },
            Vec::new(),
        )
    }
}

/// Cuts the start token and the padding off.
fn answer(sequence: &[u32]) -> &[u32] {
    let written = &sequence[1..];
    let end = written.iter().position(|id| *id == 1);
    &written[..end.map_or(written.len(), |end| end + 1)]
}

pub(crate) fn every_variant(case: &Case) {
    let engine = engine(case);
    assert_eq!(engine.config().eos_token_id, 1, "the cases end texts with id 1");
    let prompts = prompts(case);
    for run in case.inputs["generate"].as_array().unwrap() {
        let (name, params) = (&run["name"], params(&run["kwargs"]));
        let sequences: Vec<Vec<u32>> = serde_json::from_value(run["sequences"].clone()).unwrap();
        let scores: Option<Vec<f32>> = serde_json::from_value(run["sequences_scores"].clone()).unwrap();
        for (row, prompt) in prompts.iter().enumerate() {
            let place = format!("{}: {name}, row {row}", case.name);
            let request = request(prompt, params.clone());
            if params.beams == 1 {
                let found = engine.generate_blocking(request).unwrap();
                assert_eq!(found.tokens, answer(&sequences[row]), "{place}");
                continue;
            }
            let streamed = engine.generate_blocking(request.clone()).unwrap();
            let found = engine.search(request).wait_blocking().unwrap().value;
            assert_eq!(found.len(), params.answers, "{place}");
            assert_eq!(streamed.tokens, found[0].tokens, "{place}: streamed");
            assert_eq!(streamed.text, found[0].text, "{place}: streamed");
            let scores = scores.as_ref().unwrap();
            for (rank, found) in found.iter().enumerate() {
                let index = row * params.answers + rank;
                assert_eq!(found.tokens, answer(&sequences[index]), "{place}, answer {rank}");
                let error = (found.score - scores[index]).abs();
                assert!(
                    error <= 1e-4,
                    "{place}, answer {rank}: score {} of {}",
                    found.score,
                    scores[index]
                );
            }
        }
    }
}
