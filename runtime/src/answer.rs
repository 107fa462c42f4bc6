//! Answers, with their usage and timings.

use std::time::Duration;

use serde::Serialize;

use crate::tokenizer::TokenId;

/// An answer, with its usage and timings.
///
/// # Examples
///
/// ```
/// use multiway_runtime::{Answered, Timings, Usage};
///
/// let answered = Answered::new("a cat", Usage::default(), Timings::default());
/// assert_eq!(answered.map(str::len).value, 5);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Answered<T> {
    /// The answer.
    pub value: T,
    /// How many tokens and patches were processed.
    pub usage: Usage,
    /// How long each stage took.
    pub timings: Timings,
}

impl<T> Answered<T> {
    /// Combines an answer with its usage and timings.
    pub fn new(value: T, usage: Usage, timings: Timings) -> Self {
        Self {
            value,
            usage,
            timings,
        }
    }

    /// Maps the answer, and keeps its usage and timings.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Answered<U> {
        Answered {
            value: map(self.value),
            usage: self.usage,
            timings: self.timings,
        }
    }
}

/// One of the top-k tokens of a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Alternative {
    /// The token.
    pub id: TokenId,
    /// Its log-probability, after penalties and bans, before temperature and truncation.
    pub log_probability: f32,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// The model wrote `</s>`.
    Stop,
    /// One of the request's stop strings appeared.
    StopString,
    /// The answer reached `max_new_tokens`.
    Length,
}

/// Counts the tokens and patches of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Text tokens that the encoder read, `</s>` included.
    pub prompt_tokens: usize,
    /// Image patches that the encoder read, class rows not counted.
    pub image_patches: usize,
    /// Tokens that the model wrote, `</s>` included, the forced prefix not.
    pub new_tokens: usize,
}

/// Latency of a request, by stage.
///
/// `prepare`, `queued`, `encode`, `decode` and `select` do not overlap. The rest of the total is time in
/// which the engine worked on other requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Timings {
    /// Checking the request, tokenizing its texts, compiling its constraint, and hashing its pictures.
    pub prepare: Duration,
    /// The rest of the time from the call until admission.
    pub queued: Duration,
    /// Encoding (prefill), of the whole batch that the prompt was in.
    pub encode: Duration,
    /// The decoding steps that the request's rows were in, of the whole batch.
    pub decode: Duration,
    /// Number of these decoding steps.
    pub steps: usize,
    /// Sampling: penalties, constraint, choosing the token, and detokenizing it.
    pub select: Duration,
    /// Time to first token: from the call until the first new token; zero if there is none.
    pub first_token: Duration,
    /// From the call until the end.
    pub total: Duration,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Generation {
    /// The answer's text.
    pub text: String,
    /// The tokens that the model wrote.
    pub tokens: Vec<TokenId>,
    /// The log-probability of each token.
    pub log_probabilities: Vec<f32>,
    /// The top-k tokens of each step; empty unless they were requested.
    pub alternatives: Vec<Vec<Alternative>>,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// How many tokens and patches were processed.
    pub usage: Usage,
    /// How long each stage took.
    pub timings: Timings,
}

impl Generation {
    /// Returns the mean of the tokens' log-probabilities, `</s>` included.
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// # use multiway_prompts::Prompt;
    /// # use multiway_runtime::{Request, RequestError, SamplingParams, StreamEvent};
    /// let answer = engine.generate_blocking(Request::new(Prompt::from_text("a cat"), Vec::new()))?;
    /// assert!(answer.mean_log_probability() < 0.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn mean_log_probability(&self) -> f64 {
        let sum: f64 = self.log_probabilities.iter().map(|p| f64::from(*p)).sum();
        sum / self.log_probabilities.len().max(1) as f64
    }
}

/// One of the answers of a beam search.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Hypothesis {
    /// The answer's text.
    pub text: String,
    /// The tokens, including `</s>` unless the answer was cut off.
    pub tokens: Vec<TokenId>,
    /// The sum of the tokens' log-probabilities, divided by their count to the power of the length penalty.
    pub score: f32,
}

/// The log-likelihood of a given answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Score {
    /// The log-probability of the candidate's tokens and `</s>`, given the prompt and the forced prefix: the
    /// sum of `log_probabilities`.
    pub log_probability: f32,
    /// The candidate's tokens, including `</s>`, without the forced prefix.
    pub tokens: Vec<TokenId>,
    /// The log-probability of each token, given those before it.
    pub log_probabilities: Vec<f32>,
}

/// The logit of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ClassScore {
    /// The name of the class.
    pub label: String,
    /// The logit, not normalised.
    pub score: f32,
}

/// The log-probability of a token at a mask.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WordScore {
    /// The token.
    pub id: TokenId,
    /// Its log-probability.
    pub log_probability: f32,
}

/// The log-probability of a visual code at a masked patch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CodeScore {
    /// The index of the code in the model's visual vocabulary.
    pub code: u32,
    /// Its log-probability.
    pub log_probability: f32,
}
