//! Several sampled answers and their tokens.

use multiway_runtime::{Alternative, Engine, Generation, Request, RequestError, TokenId, Tokenizer};

use crate::answer::{Answer, ScoredToken, TaskOutcome, TaskSample, WrittenToken};
use crate::error::TaskError;
use crate::infill::Gaps;

impl ScoredToken {
    pub(crate) fn new(tokenizer: &Tokenizer, id: TokenId, log_probability: f32) -> Self {
        Self {
            id,
            piece: tokenizer.piece(id).unwrap_or_default().to_owned(),
            log_probability,
        }
    }
}

impl WrittenToken {
    /// Looks up the pieces of a token and its alternatives.
    pub(crate) fn new(
        tokenizer: &Tokenizer,
        id: TokenId,
        log_probability: f32,
        alternatives: &[Alternative],
    ) -> Self {
        let spell = |other: &Alternative| ScoredToken::new(tokenizer, other.id, other.log_probability);
        Self {
            token: ScoredToken::new(tokenizer, id, log_probability),
            alternatives: alternatives.iter().map(spell).collect(),
        }
    }
}

/// Samples the requested answers; the first, or the best of them, is the answer of the task.
pub(crate) async fn draw(
    engine: Engine,
    request: Request,
    gaps: Option<Gaps>,
) -> Result<TaskOutcome, TaskError> {
    let drawn = engine.samples(request).await?;
    let answer_tokens = drawn.value.first().map(|first| first.tokens.clone());
    let sample = |generation| sample(engine.tokenizer(), gaps.as_ref(), generation);
    let samples: Vec<TaskSample> = drawn.value.into_iter().map(sample).collect();
    // Only an engine that has shut down returns no answer.
    let first = samples.first().cloned().ok_or(RequestError::ShutDown)?;
    Ok(TaskOutcome {
        answer: first.answer,
        finish_reason: Some(first.finish_reason),
        usage: drawn.usage,
        timings: drawn.timings,
        tokens: first.tokens,
        answer_tokens: answer_tokens.unwrap_or_default(),
        samples,
        candidate_mass: None,
    })
}

fn sample(tokenizer: &Tokenizer, gaps: Option<&Gaps>, generation: Generation) -> TaskSample {
    let mean_log_probability = generation.mean_log_probability();
    let tokens = generation.tokens.iter().zip(&generation.log_probabilities);
    let written = tokens.zip(&generation.alternatives);
    let spell = |((id, value), others): ((&TokenId, &f32), &Vec<Alternative>)| {
        WrittenToken::new(tokenizer, *id, *value, others)
    };
    TaskSample {
        tokens: written.map(spell).collect(),
        answer: match gaps {
            Some(gaps) => gaps.fill(tokenizer, &generation.tokens),
            None => Answer::Text {
                text: generation.text,
                spans: Vec::new(),
            },
        },
        finish_reason: generation.finish_reason,
        mean_log_probability,
    }
}
