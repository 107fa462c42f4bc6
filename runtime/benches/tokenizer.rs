//! How fast texts become ids, for `scripts/bench_tokenizers.sh`, which times PyPI's `tokenizers` on the same
//! texts in turn.
//!
//! `cargo bench -p multiway-runtime --bench tokenizer -- FOLDER TEXTS` takes a folder with a tokenizer and a
//! file with a JSON string a line, encodes all texts one by one, on one thread, and prints `{"seconds": ..,
//! "tokens": ..}`. Without arguments it encodes a paragraph with the test vocabulary.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::time::Instant;

use multiway_runtime::{Tokenizer, sentencepiece_to_json};

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let (tokenizer, texts) = match arguments.as_slice() {
        [folder, texts] => {
            let texts = std::fs::read_to_string(texts).unwrap();
            let texts = texts
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            (Tokenizer::from_folder(folder).unwrap(), texts)
        }
        _ => {
            let json = sentencepiece_to_json(include_bytes!("../tests/fixtures/tokenizer.model")).unwrap();
            let text = "A photo of a cat that sits on a mat, beside a dog and an apple. ".repeat(8);
            (Tokenizer::from_json(&json).unwrap(), vec![text; 1000])
        }
    };
    let start = Instant::now();
    let tokens: usize = texts
        .iter()
        .map(|text: &String| tokenizer.encode_text(text).unwrap().len())
        .sum();
    println!(
        "{{\"seconds\": {:.4}, \"tokens\": {tokens}}}",
        start.elapsed().as_secs_f64()
    );
}
