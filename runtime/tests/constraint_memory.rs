//! That compiled constraints and running answers take no more memory than they are taken to.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use multiway_runtime::testing::ConstraintCompiler;
use multiway_runtime::{Constraint, SamplingParams, Tokenizer, sentencepiece_to_json};
use peak_alloc::PeakAlloc;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What a running answer is taken to need, as the docs of `EngineBuilder::memory_budget` say.
const ANSWER_BYTES: usize = (1 << 20) + (1 << 18);

fn constraints() -> Vec<Constraint> {
    let properties: serde_json::Map<_, _> = (0..60)
        .map(|n| {
            (
                format!("property {n}"),
                json!({"type": ["string", "number"], "maxLength": 40}),
            )
        })
        .collect();
    // Every answer can be read in as many ways as it has brackets.
    let arrays = (0..20).map(|n| json!({"type": "array", "items": {"$ref": "#"}, "minItems": n}));
    let words = (0..500).map(|n| format!("thing {n}"));
    vec![
        Constraint::Regex("[a-z]+( [a-z]+){0,12}\\.".to_owned()),
        Constraint::Regex("(cat|dog)s?".to_owned()),
        Constraint::JsonSchema(json!({"type": "object", "properties": properties})),
        Constraint::JsonSchema(json!({"type": "array", "items": {"type": "integer"}})),
        Constraint::JsonSchema(json!({"type": "array", "items": {"$ref": "#"}})),
        Constraint::JsonSchema(json!({"anyOf": arrays.collect::<Vec<_>>()})),
        Constraint::Choices(words.collect()),
        Constraint::Lark("start: (\"a\" | \"b\" start \"c\")+".to_owned()),
    ]
}

/// Writes an answer from logits without a pattern; returns the most that it took, in bytes.
fn write(compiler: &ConstraintCompiler, sampling: &SamplingParams, vocabulary: u32) -> usize {
    let before = (ALLOCATOR.current_usage(), compiler.cached_bytes());
    let mut answer = compiler.start(sampling).unwrap().unwrap();
    let mut most = 0;
    for step in 0..120_u32 {
        let logit = |id: u32| ((id ^ step).wrapping_mul(2_654_435_761) >> 20) as f32 / 500.0;
        let logits: Vec<f32> = (0..vocabulary).map(logit).collect();
        let ended = answer.draw(&logits).unwrap().is_none();
        drop(logits);
        let grown = compiler.cached_bytes() - before.1;
        let taken = ALLOCATOR.current_usage().saturating_sub(before.0);
        most = most.max(taken.saturating_sub(grown));
        if ended {
            break;
        }
    }
    most
}

#[test]
fn constraints_take_no_more_memory_than_they_are_taken_to() {
    let json = sentencepiece_to_json(include_bytes!("fixtures/tokenizer.model")).unwrap();
    let tokenizer = Tokenizer::from_json(&json).unwrap();
    let vocabulary = u32::try_from(tokenizer.vocab_size()).unwrap();
    let end = tokenizer.special("</s>").unwrap();
    let compiler = ConstraintCompiler::new(tokenizer, end);
    let of = |constraint| SamplingParams {
        max_new_tokens: 130,
        temperature: 1.0,
        seed: Some(5),
        constraint: Some(constraint),
        ..SamplingParams::default()
    };
    // The vocabulary is spelled once.
    drop(compiler.start(&of(Constraint::Regex("a".to_owned()))).unwrap());
    for constraint in constraints() {
        let name = format!("{:.60}", format!("{constraint:?}"));
        let sampling = of(constraint);
        let before = (ALLOCATOR.current_usage(), compiler.cached_bytes());
        drop(compiler.start(&sampling).unwrap());
        let (fresh, told) = (
            ALLOCATOR.current_usage().saturating_sub(before.0),
            compiler.cached_bytes() - before.1,
        );
        assert!(fresh <= told, "{name}: {fresh} bytes compiled, taken for {told}");
        let most = (0..3)
            .map(|_| write(&compiler, &sampling, vocabulary))
            .max()
            .unwrap();
        assert!(most <= ANSWER_BYTES, "{name}: an answer took {most} bytes");
        let (used, told) = (
            ALLOCATOR.current_usage().saturating_sub(before.0),
            compiler.cached_bytes() - before.1,
        );
        assert!(used <= told, "{name}: {used} bytes used, taken for {told}");
        println!("{name}: {fresh} bytes compiled, {used} used, taken for {told}; an answer {most}");
    }
}
