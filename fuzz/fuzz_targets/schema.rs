//! Any bytes are a JSON schema that can be used or are refused; an answer to it ends in time and is JSON.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use multiway_runtime::testing::ConstraintCompiler;
use multiway_runtime::{Constraint, SamplingParams, Tokenizer};

/// The most tokens of an answer; of ByT5, a token is a byte.
const MAX_NEW_TOKENS: usize = 200;

struct Writer {
    tokenizer: Tokenizer,
    end: u32,
}

static WRITER: LazyLock<Writer> = LazyLock::new(|| {
    let tokenizer = Tokenizer::byt5().unwrap();
    let end = tokenizer.special("</s>").unwrap();
    Writer { tokenizer, end }
});

fuzz_target!(|data: &[u8]| {
    // The first byte says what is liked: another answer for each.
    let Some((liked, schema)) = data.split_first() else {
        return;
    };
    let Ok(schema) = serde_json::from_slice(schema) else {
        return;
    };
    let sampling = SamplingParams {
        max_new_tokens: MAX_NEW_TOKENS,
        constraint: Some(Constraint::JsonSchema(schema)),
        ..SamplingParams::default()
    };
    // What one run compiles is dropped at its end, so that memory stays bounded.
    let compiler = ConstraintCompiler::new(WRITER.tokenizer.clone(), WRITER.end);
    let Ok(Some(mut answer)) = compiler.start(&sampling) else {
        return;
    };
    let vocabulary = u32::try_from(WRITER.tokenizer.vocab_size()).unwrap();
    let logits: Vec<f32> = (0..vocabulary)
        .map(|id| (id.wrapping_mul(u32::from(*liked) | 1) % 251) as f32 / 25.0)
        .collect();
    let mut ids = Vec::new();
    loop {
        // A grammar may turn out to be too complex.
        let Ok(next) = answer.draw(&logits) else { return };
        match next {
            Some(id) => ids.push(id),
            None => break,
        }
    }
    let text = WRITER.tokenizer.decode(&ids);
    serde_json::from_str::<serde_json::Value>(&text).unwrap();
});
