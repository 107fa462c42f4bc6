//! Random generation settings against `transformers`: those that `scripts/generation_reference.py` recorded
//! in `tests/fixtures/generation`, or in the folder that `MULTIWAY_GENERATION_REFERENCE` names.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};

use multiway::prompt::Prompt;
use multiway::{Checkpoint, Engine, Request};
use serde::Deserialize;
use serde_json::{Map, Value};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

#[derive(Deserialize)]
struct Reference {
    transformers: String,
    seed: u64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    /// The file that holds the keys: `generation_config.json`, or `config.json` where there is no such file.
    file: String,
    keys: Map<String, Value>,
    text: String,
    /// The start token first.
    ids: Vec<u32>,
}

fn read<T: serde::de::DeserializeOwned>(path: PathBuf) -> T {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn answers_are_those_of_transformers_whatever_the_settings() {
    let folder = std::env::var_os("MULTIWAY_GENERATION_REFERENCE");
    let folder = folder.map_or_else(|| Path::new(FIXTURES).join("generation"), PathBuf::from);
    let reference: Reference = read(folder.join("cases.json"));
    assert!(reference.cases.len() >= 300);
    let config: Map<String, Value> = read(folder.join("model/config.json"));
    let tokenizer = Path::new(FIXTURES).join("cases/checkpoints/plain/tokenizer.json");
    let mut wrong = Vec::new();
    for (number, case) in reference.cases.iter().enumerate() {
        let checkpoint = tempfile::tempdir().unwrap();
        let write = |name: &str, keys: Map<String, Value>| {
            fs::write(checkpoint.path().join(name), Value::Object(keys).to_string()).unwrap();
        };
        fs::copy(
            folder.join("model/model.safetensors"),
            checkpoint.path().join("model.safetensors"),
        )
        .unwrap();
        fs::copy(&tokenizer, checkpoint.path().join("tokenizer.json")).unwrap();
        write("config.json", config.clone());
        let others = if case.file == "config.json" {
            config.clone()
        } else {
            Map::new()
        };
        write(&case.file, others.into_iter().chain(case.keys.clone()).collect());
        let checkpoint = Checkpoint::open(checkpoint.path()).unwrap();
        let engine = Engine::builder(&checkpoint).threads(1).build().unwrap();
        let mut request = Request::new(Prompt::from_text(&case.text), Vec::new());
        request.sampling = engine.default_sampling().clone();
        let expected = case.ids.get(1..).unwrap();
        match engine.generate_blocking(request) {
            Ok(answer) if answer.tokens == expected => {}
            Ok(answer) => wrong.push(format!(
                "{number}: expected {expected:?}, found {:?}; {:?}",
                answer.tokens, case.keys
            )),
            Err(error) => wrong.push(format!("{number}: {error}; {:?}", case.keys)),
        }
        assert_eq!(engine.warnings(), [""; 0]);
    }
    let count = reference.cases.len();
    println!(
        "{} of {count} random settings (seed {}) are answered as by transformers {}",
        count - wrong.len(),
        reference.seed,
        reference.transformers
    );
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
