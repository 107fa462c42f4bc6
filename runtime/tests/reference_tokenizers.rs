//! The tokenizers against the libraries that define their files: on what is recorded in
//! `tests/fixtures/reference`, and on what `scripts/check_tokenizers.sh` records in the folder that
//! `MULTIWAY_TOKENIZER_REFERENCE` names.
#![cfg(feature = "sentencepiece")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use multiway_prompts::Prompt;
use multiway_runtime::{TokenId, Tokenizer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    /// Where the tokenizer is; what is recorded beside this test names it from there.
    folder: PathBuf,
    /// The library, with its version.
    kind: String,
    /// A text, its ids, the ids of the text as a prompt, and the text that the ids say.
    texts: Vec<(String, Vec<TokenId>, Vec<TokenId>, String)>,
}

#[test]
fn ids_and_texts_are_those_of_the_library_that_defines_the_file() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference");
    let folder = std::env::var_os("MULTIWAY_TOKENIZER_REFERENCE").map_or_else(|| own.clone(), PathBuf::from);
    let (mut count, mut failed) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let reference: Reference = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let tokenizer = Tokenizer::from_folder(own.join(&reference.folder)).unwrap();
        let mut wrong = Vec::new();
        for (text, ids, closed, back) in &reference.texts {
            let found = tokenizer.encode_text(text).unwrap();
            let prompt = tokenizer.encode_prompt(&Prompt::from_text(text)).unwrap();
            let decoded = tokenizer.decode(ids);
            // Without an end of its own a file's prompts end as the model says.
            if found != *ids || decoded != *back || (prompt != *closed && closed != ids) {
                wrong.push(format!(
                    "{text:?}:\n  {ids:?} {back:?}\n  {found:?} {decoded:?}\n  {closed:?}\n  {prompt:?}"
                ));
            }
        }
        let texts = reference.texts.len();
        println!(
            "{name}: {} of {texts} texts as by {}",
            texts - wrong.len(),
            reference.kind
        );
        failed.extend(
            wrong
                .first()
                .map(|first| format!("{name}: {} of {texts}, such as {first}", wrong.len())),
        );
        count += 1;
    }
    assert!(count >= 1, "no references");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
