//! Answers, and what they took.

use std::time::Duration;

use serde::Serialize;

use crate::tokenizer::TokenId;

/// What the engine answered, and what that took.
///
/// # Examples
///
/// ```
/// use multiway_runtime::{Answered, Timings, Usage};
///
/// let answered = Answered::new("a cat", Usage::default(), Timings::default());
/// assert_eq!(answered.map(str::len).value, 5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Answered<T> {
    /// The answer.
    pub value: T,
    /// How much work it was.
    pub usage: Usage,
    /// How long it took.
    pub timings: Timings,
}

impl<T> Answered<T> {
    /// Puts an answer together with what it took.
    pub fn new(value: T, usage: Usage, timings: Timings) -> Self {
        Self {
            value,
            usage,
            timings,
        }
    }

    /// Turns the answer into another, which took the same.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Answered<U> {
        Answered {
            value: map(self.value),
            usage: self.usage,
            timings: self.timings,
        }
    }
}

/// A token that could have been written.
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

/// How much work a request was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Text tokens that the encoder read, `</s>` included.
    pub prompt_tokens: usize,
    /// Image patches that the encoder read, class rows not counted.
    pub image_patches: usize,
    /// Tokens that the model wrote, `</s>` included, the forced prefix not.
    pub new_tokens: usize,
}

/// How long the parts of a request took.
///
/// `prepare`, `queued`, `encode`, `decode` and `select` follow each other and do not overlap; what the total has besides
/// them went by while the engine worked for other requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Timings {
    /// Checking the request, tokenizing its texts, compiling its constraint, and telling its pictures apart.
    pub prepare: Duration,
    /// The rest of the time from the call until it was admitted.
    pub queued: Duration,
    /// Encoding the prompt, together with the prompts that were admitted with it.
    pub encode: Duration,
    /// The decoding steps that its rows were in, together with those of other requests.
    pub decode: Duration,
    /// How many decoding steps these were.
    pub steps: usize,
    /// Reading the steps' logits: penalties, constraint, drawing the token, and turning it into text.
    pub select: Duration,
    /// From the call until the first new token; zero where none was written.
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
    /// For each token the likeliest ones in its place; nothing where they were not asked for.
    pub alternatives: Vec<Vec<Alternative>>,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// How much work it was.
    pub usage: Usage,
    /// How long it took.
    pub timings: Timings,
}

impl Generation {
    /// Returns the mean of the tokens' log-probabilities, `</s>` included.
    #[must_use]
    pub fn mean_log_probability(&self) -> f64 {
        let sum: f64 = self.log_probabilities.iter().map(|p| f64::from(*p)).sum();
        sum / self.log_probabilities.len().max(1) as f64
    }
}

/// One of several answers that a search with beams found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Hypothesis {
    /// The answer's text.
    pub text: String,
    /// The tokens, `</s>` included where the answer ended by itself.
    pub tokens: Vec<TokenId>,
    /// The sum of the tokens' log-probabilities, divided by their count to the power of the length penalty.
    pub score: f32,
}

/// How likely a given answer is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Score {
    /// The log-probability of the candidate's tokens and `</s>`, given the prompt and the forced prefix: the sum of
    /// `log_probabilities`.
    pub log_probability: f32,
    /// The candidate's tokens, `</s>` included, the forced prefix not.
    pub tokens: Vec<TokenId>,
    /// The log-probability of each token, given those before it.
    pub log_probabilities: Vec<f32>,
}

/// How well a class of the model's head fits a prompt.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ClassScore {
    /// What the class is called.
    pub label: String,
    /// The head's value, not normalised: the class of the highest fits best.
    pub score: f32,
}

/// How likely a word is behind a mask.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WordScore {
    /// The word's token.
    pub id: TokenId,
    /// Its log-probability.
    pub log_probability: f32,
}

/// How likely a visual code is behind a hidden patch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CodeScore {
    /// The code, as the model's visual vocabulary numbers it.
    pub code: u32,
    /// Its log-probability.
    pub log_probability: f32,
}
