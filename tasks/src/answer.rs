//! What a task answers.

use multiway_runtime::{FinishReason, Timings, TokenId, Usage};
use serde::Serialize;

/// Holds a typed answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Answer {
    /// Text.
    Text {
        /// The text; where the task fills gaps, the whole text with its gaps filled.
        text: String,
        /// What was put into the gaps, in order; empty where the task fills none.
        spans: Vec<String>,
    },
    /// One of a closed set of answers.
    Choice {
        /// All answers, the most probable first. Their probabilities sum to 1.
        choices: Vec<Choice>,
    },
    /// A vector of unit length.
    Embedding(Vec<f32>),
    /// JSON that fits the task's schema.
    Json {
        /// The value.
        value: serde_json::Value,
        /// The same as it was written, on one line.
        text: String,
    },
    /// What hidden patches of a picture show, row by row from the top left.
    Patches(Vec<PatchAnswer>),
}

/// Says what a hidden patch shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PatchAnswer {
    /// Its row, counted from 0 at the top.
    pub row: usize,
    /// Its column, counted from 0 at the left.
    pub column: usize,
    /// The likeliest visual codes, the likeliest first.
    pub codes: Vec<VisualCode>,
}

/// A code of the model's visual vocabulary, and how probable it is for a patch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct VisualCode {
    /// The code.
    pub code: u32,
    /// Its probability among all codes.
    pub probability: f64,
}

/// Holds an answer to choose, and how probable it is among all that could be chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// The answer.
    pub text: String,
    /// Its probability.
    pub probability: f64,
}

impl Answer {
    /// Returns the text of the answer: what was written, JSON included, or the most probable choice. Embeddings and patches have none.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text { text, .. } => Some(text),
            Self::Choice { choices } => choices.first().map(|choice| choice.text.as_str()),
            Self::Embedding(_) | Self::Patches(_) => None,
            Self::Json { text, .. } => Some(text),
        }
    }

    /// Returns the choices, the most probable first; none where the task gives another kind of answer.
    pub fn choices(&self) -> &[Choice] {
        match self {
            Self::Choice { choices } => choices,
            Self::Text { .. } | Self::Embedding(_) | Self::Patches(_) | Self::Json { .. } => &[],
        }
    }

    /// Returns the vector, where the answer is one.
    pub fn embedding(&self) -> Option<&[f32]> {
        match self {
            Self::Embedding(vector) => Some(vector),
            Self::Text { .. } | Self::Choice { .. } | Self::Patches(_) | Self::Json { .. } => None,
        }
    }

    /// Returns the value, where the answer is JSON.
    pub fn json(&self) -> Option<&serde_json::Value> {
        match self {
            Self::Json { value, .. } => Some(value),
            Self::Text { .. } | Self::Choice { .. } | Self::Embedding(_) | Self::Patches(_) => None,
        }
    }

    /// Returns what the hidden patches show; none where the task gives another kind of answer.
    pub fn patches(&self) -> &[PatchAnswer] {
        match self {
            Self::Patches(patches) => patches,
            Self::Text { .. } | Self::Choice { .. } | Self::Embedding(_) | Self::Json { .. } => &[],
        }
    }
}

/// Holds an answer, and what it took.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TaskOutcome {
    /// The answer.
    pub answer: Answer,
    /// Why the text ended. A choice always ends as the model would end it; what is read off the prompt has no end.
    pub finish_reason: Option<FinishReason>,
    /// How much the model read and wrote. For a choice, the tokens of the most probable one; for several answers, those
    /// of all that are returned.
    pub usage: Usage,
    /// How long it took. For all but text, only the total is known.
    pub timings: Timings,
    /// The tokens of the answer, each with the likeliest in its place; none unless they were asked for, and none where
    /// the answer is not written freely.
    pub tokens: Vec<WrittenToken>,
    /// The answers that are returned where several were drawn, the task's own first; none where one was written.
    pub samples: Vec<TaskSample>,
}

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

/// Turns log-likelihoods into choices, the most probable first; the earlier one where two are the same.
///
/// The probabilities are the softmax of the log-likelihoods in f64: each candidate's likelihood over the sum of all.
pub(crate) fn rank(candidates: Vec<String>, log_probabilities: &[f32]) -> Vec<Choice> {
    let most = log_probabilities
        .iter()
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    // Where nothing is possible at all, everything is as probable as anything.
    let weight = |value: f32| {
        if most == f32::NEG_INFINITY {
            1.0
        } else {
            f64::from(value - most).exp()
        }
    };
    let total: f64 = log_probabilities.iter().map(|value| weight(*value)).sum();
    let mut choices: Vec<Choice> = candidates
        .into_iter()
        .zip(log_probabilities)
        .map(|(text, value)| Choice {
            text,
            probability: weight(*value) / total,
        })
        .collect();
    choices.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    choices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(log_probabilities: &[f32]) -> Vec<Choice> {
        let candidates = (0..log_probabilities.len()).map(|i| i.to_string()).collect();
        rank(candidates, log_probabilities)
    }

    #[test]
    fn probabilities_are_ratios_of_likelihoods_and_sum_to_one() {
        let choices = ranked(&[0.25f32.ln(), 0.5f32.ln(), 0.05f32.ln()]);
        assert_eq!(choices[0].text, "1");
        assert!((choices[0].probability - 0.625).abs() < 1e-6);
        assert!((choices.iter().map(|choice| choice.probability).sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn very_unlikely_answers_still_have_probabilities() {
        let choices = ranked(&[-1e4, -1e4 - 1.0, f32::NEG_INFINITY]);
        assert!((choices[0].probability - 0.731_058_578).abs() < 1e-6);
        assert!(choices[2].probability.abs() < f64::EPSILON);
        let impossible = ranked(&[f32::NEG_INFINITY; 4]);
        assert!(
            impossible
                .iter()
                .all(|choice| (choice.probability - 0.25).abs() < 1e-12)
        );
    }

    #[test]
    fn equal_answers_keep_their_order() {
        let texts: Vec<_> = ranked(&[-2.0, -1.0, -1.0])
            .into_iter()
            .map(|choice| choice.text)
            .collect();
        assert_eq!(texts, ["1", "2", "0"]);
    }
}
