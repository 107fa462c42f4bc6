//! The tokenizers against PyPI's `sentencepiece` and `tokenizers`, on what `scripts/check_tokenizers.sh` recorded.
#![cfg(feature = "sentencepiece")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use multiway_runtime::{TokenId, Tokenizer};
use serde::Deserialize;
use std::path::PathBuf;

#[derive(Deserialize)]
struct Reference {
    spm: PathBuf,
    json: PathBuf,
    /// Text, ids by `sentencepiece`, ids by `tokenizers`.
    texts: Vec<(String, Vec<TokenId>, Vec<TokenId>)>,
    decoded: Vec<String>,
}

#[test]
#[ignore = "needs what scripts/check_tokenizers.sh records"]
fn ids_are_those_of_sentencepiece_on_every_text_for_both_kinds_of_file() {
    let folder = std::env::var_os("MULTIWAY_TOKENIZER_REFERENCE").unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let reference: Reference = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let spm = Tokenizer::from_sentencepiece(&std::fs::read(reference.spm).unwrap()).unwrap();
        let json = Tokenizer::from_json(&std::fs::read(reference.json).unwrap()).unwrap();
        let mut others = 0;
        for (text, by_sentencepiece, by_tokenizers) in &reference.texts {
            assert_eq!(spm.encode_text(text), *by_sentencepiece, "{name}, .spm: {text:?}");
            assert_eq!(
                json.encode_text(text),
                *by_sentencepiece,
                "{name}, tokenizer.json: {text:?}"
            );
            others += usize::from(by_tokenizers == by_sentencepiece);
        }
        for (id, text) in (0..).zip(&reference.decoded) {
            // Control tokens are shown by their names there, and left out here.
            if !spm.is_special(id) {
                assert_eq!(spm.decode(&[id]), *text, "{name}: id {id}");
                assert_eq!(json.decode(&[id]), *text, "{name}, tokenizer.json: id {id}");
            }
        }
        println!(
            "{name}: {} texts and {} ids; `tokenizers` agrees on {others}",
            reference.texts.len(),
            reference.decoded.len()
        );
        count += 1;
    }
    assert!(count >= 3, "{count} references");
}
