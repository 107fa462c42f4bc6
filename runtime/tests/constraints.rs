//! Constrained answers of the engine, with a small random model.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::{Arc, LazyLock};

use futures_util::future::join_all;
use multiway_model::Model;
use multiway_model::testing::{random_inference_model, tiny_config};
use multiway_prompts::Prompt;
use multiway_runtime::{
    Constraint, Engine, FinishReason, Generation, Request, RequestError, SamplingParams, Tokenizer,
    sentencepiece_to_json,
};
use serde_json::json;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    Tokenizer::from_json(&sentencepiece_to_json(include_bytes!("fixtures/tokenizer.model")).unwrap()).unwrap()
});
static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let mut config = tiny_config();
    config.vocab_size = TOKENIZER.vocab_size();
    Arc::new(random_inference_model(&config, 3).unwrap())
});

fn engine(max_batch: usize) -> Engine {
    let builder = Engine::builder_from_model(Arc::clone(&MODEL), TOKENIZER.clone());
    builder.max_batch(max_batch).threads(1).build().unwrap()
}

/// Makes requests with every kind of constraint and without any, greedy and drawn.
fn request(n: u64) -> Request {
    let constraint = match n % 5 {
        0 => Some(Constraint::Regex("[a-z]{2,5}( [a-z]+)*".to_owned())),
        1 => Some(Constraint::JsonSchema(
            json!({"type": "array", "items": {"type": "integer"}, "minItems": 1}),
        )),
        2 => Some(Constraint::Choices(
            ["cat", "cat face", "dog"].map(str::to_owned).to_vec(),
        )),
        3 => Some(Constraint::Lark("start: /[a-z]+/ (\", \" /[a-z]+/)*".to_owned())),
        _ => None,
    };
    let sampling = SamplingParams {
        max_new_tokens: 20,
        temperature: if n.is_multiple_of(2) { 0.0 } else { 1.0 },
        seed: Some(n),
        repetition_penalty: if n.is_multiple_of(3) { 1.2 } else { 1.0 },
        constraint,
        ..SamplingParams::default()
    };
    Request {
        sampling,
        ..Request::new(Prompt::from_text(format!("thing {n}")), Vec::new())
    }
}

fn bits(answer: &Generation) -> (Vec<u32>, Vec<u32>, &str, FinishReason) {
    let bits = answer.log_probabilities.iter().map(|p| p.to_bits()).collect();
    (answer.tokens.clone(), bits, &answer.text, answer.finish_reason)
}

#[tokio::test]
async fn constrained_answers_are_the_same_alone_and_in_any_company() {
    let alone: Vec<Generation> = (0..30)
        .map(|n| engine(1).generate_blocking(request(n)).unwrap())
        .collect();
    let crowded = engine(16);
    let answers = join_all((0..30).rev().map(|n| {
        let crowded = crowded.clone();
        async move { crowded.generate(request(n)).await.unwrap().wait().await.unwrap() }
    }));
    for (answer, alone) in answers.await.iter().rev().zip(&alone) {
        assert_eq!(bits(answer), bits(alone));
    }
}

#[test]
fn a_constraint_that_cannot_be_used_is_refused_at_submission() {
    let ask = |constraint| {
        let sampling = SamplingParams {
            max_new_tokens: 20,
            constraint: Some(constraint),
            ..SamplingParams::default()
        };
        let request = Request {
            sampling,
            ..request(4)
        };
        engine(2).try_generate(request).map(drop).unwrap_err()
    };
    let error = ask(Constraint::Regex("(a".to_owned()));
    insta::assert_snapshot!(error, @"the constraint (regex) cannot be used: unclosed group at byte 0");
    assert!(matches!(error, RequestError::Constraint { kind: "regex", .. }));
    let long = json!({"type": "array", "items": {"type": "boolean"}, "minItems": 40});
    insta::assert_snapshot!(ask(Constraint::JsonSchema(long)), @"max_new_tokens is 20, but the shortest answer that the constraint (JSON schema) allows has 122 tokens with the end; raise it, or allow shorter answers");
}

#[test]
fn log_probabilities_are_those_among_what_is_allowed() {
    let sampling = SamplingParams {
        max_new_tokens: 20,
        constraint: Some(Constraint::Choices(vec!["cat".to_owned()])),
        ..SamplingParams::default()
    };
    let request = Request {
        sampling,
        ..request(4)
    };
    let answer = engine(1).generate_blocking(request).unwrap();
    assert_eq!(
        (answer.text.as_str(), answer.finish_reason),
        ("cat", FinishReason::Stop)
    );
    assert!(answer.log_probabilities.iter().all(|p| p.abs() < 1e-6));
}

#[test]
fn the_likeliest_in_a_tokens_place_are_those_that_the_constraint_allows() {
    let choices = ["cat", "dog", "bird"].map(str::to_owned).to_vec();
    let mut request = Request::new(Prompt::from_text("thing"), Vec::new());
    request.sampling.constraint = Some(Constraint::Choices(choices));
    (
        request.sampling.max_new_tokens,
        request.sampling.top_log_probabilities,
    ) = (12, 20);
    let answer = engine(1).generate_blocking(request).unwrap();
    assert_eq!(answer.alternatives.len(), answer.tokens.len());
    let written = answer.tokens.iter().zip(&answer.log_probabilities);
    for ((token, log_probability), alternatives) in written.zip(&answer.alternatives) {
        let first = alternatives.first().unwrap();
        assert_eq!(
            (first.id, first.log_probability.to_bits()),
            (*token, log_probability.to_bits())
        );
        // There are few, so all of them are listed, and they share the probability among themselves.
        let total: f32 = alternatives.iter().map(|other| other.log_probability.exp()).sum();
        assert!(
            alternatives.len() <= 3 && (total - 1.0).abs() < 1e-4,
            "{alternatives:?}"
        );
    }
}
