//! Random generation settings against `transformers`, on what `scripts/check_generation.sh` recorded.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use multiway::{Checkpoint, Engine, Prompt, Request};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Deserialize)]
struct Reference {
    transformers: String,
    seed: u64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    files: BTreeMap<String, String>,
    text: String,
    /// The start token first.
    ids: Vec<u32>,
}

#[test]
#[ignore = "needs what scripts/check_generation.sh records"]
fn answers_are_those_of_transformers_whatever_the_settings() {
    let folder = PathBuf::from(std::env::var_os("MULTIWAY_GENERATION_REFERENCE").unwrap());
    let reference: Reference =
        serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for (number, case) in reference.cases.iter().enumerate() {
        let checkpoint = tempfile::tempdir().unwrap();
        for file in ["model.safetensors", "tokenizer.json"] {
            std::fs::copy(folder.join("model").join(file), checkpoint.path().join(file)).unwrap();
        }
        for (name, text) in &case.files {
            std::fs::write(checkpoint.path().join(name), text).unwrap();
        }
        let checkpoint = Checkpoint::open(checkpoint.path()).unwrap();
        let engine = Engine::builder(&checkpoint).threads(1).build().unwrap();
        let mut request = Request::new(Prompt::from_text(&case.text), Vec::new());
        request.sampling = engine.default_sampling().clone();
        let written = engine.generate_blocking(request);
        let expected = case.ids.get(1..).unwrap();
        match written {
            Ok(answer) if answer.tokens == expected => {}
            Ok(answer) => wrong.push(format!(
                "{number}: expected {expected:?}, found {:?}; {:?}",
                answer.tokens, case.files
            )),
            Err(error) => wrong.push(format!("{number}: {error}; {:?}", case.files)),
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
