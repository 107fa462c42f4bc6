//! Any bytes are a tokenizer or are refused; a tokenizer cuts any text, and ids decode.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multiway_runtime::Tokenizer;

fuzz_target!(|data: &[u8]| {
    let read = [
        Tokenizer::from_json(data),
        Tokenizer::from_t5_sentencepiece(data),
        Tokenizer::from_xlmr_sentencepiece(data),
    ];
    let text = String::from_utf8_lossy(data.get(..200).unwrap_or(data));
    for tokenizer in read.into_iter().flatten() {
        let _ = tokenizer.encode_text(&text).map(|ids| tokenizer.decode(&ids));
    }
});
