//! Several drawn answers, and what each is made of.

use multiway_runtime::{
    Alternative, Engine, FinishReason, Generation, Request, RequestError, TokenId, Tokenizer,
};
use serde::Serialize;

use crate::answer::{Answer, TaskOutcome};
use crate::error::TaskError;
use crate::infill::Gaps;

/// Holds one of several answers that were drawn.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TaskSample {
    /// The answer.
    pub answer: Answer,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The mean of its tokens' log-probabilities, by which the best of many are found.
    pub mean_log_probability: f64,
    /// Its tokens, where their alternatives were asked for.
    pub tokens: Vec<WrittenToken>,
}

/// Holds a token that was written, and what could have been in its place.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WrittenToken {
    /// The token.
    #[serde(flatten)]
    pub token: ScoredToken,
    /// The likeliest tokens in its place, the likeliest first.
    pub alternatives: Vec<ScoredToken>,
}

/// Holds a token, and how likely it was.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ScoredToken {
    /// Its id.
    pub id: TokenId,
    /// How the vocabulary spells it.
    pub piece: String,
    /// Its log-probability, after penalties and bans, before temperature and truncation.
    pub log_probability: f32,
}

impl ScoredToken {
    fn new(tokenizer: &Tokenizer, id: TokenId, log_probability: f32) -> ScoredToken {
        ScoredToken {
            id,
            piece: tokenizer.piece(id).unwrap_or_default().to_owned(),
            log_probability,
        }
    }
}

impl WrittenToken {
    /// Spells a token and its alternatives.
    pub(crate) fn new(
        tokenizer: &Tokenizer,
        id: TokenId,
        log_probability: f32,
        alternatives: &[Alternative],
    ) -> WrittenToken {
        let spell = |other: &Alternative| ScoredToken::new(tokenizer, other.id, other.log_probability);
        WrittenToken {
            token: ScoredToken::new(tokenizer, id, log_probability),
            alternatives: alternatives.iter().map(spell).collect(),
        }
    }
}

/// Draws the answers that a request asks for; the first of them, or the best, is the answer of the task.
pub(crate) async fn draw(
    engine: Engine,
    request: Request,
    gaps: Option<Gaps>,
) -> Result<TaskOutcome, TaskError> {
    let drawn = engine.samples(request).await?;
    let sample = |generation| sample(engine.tokenizer(), gaps.as_ref(), generation);
    let samples: Vec<TaskSample> = drawn.value.into_iter().map(sample).collect();
    // An engine that gives no answers has stopped.
    let first = samples.first().cloned().ok_or(RequestError::ShutDown)?;
    Ok(TaskOutcome {
        answer: first.answer,
        finish_reason: Some(first.finish_reason),
        usage: drawn.usage,
        timings: drawn.timings,
        tokens: first.tokens,
        samples,
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
