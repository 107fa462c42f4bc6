//! Typed answers.

use multiway_runtime::{FinishReason, Timings, TokenId, Usage};
use serde::Serialize;

/// Holds a typed answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Answer {
    /// Text.
    Text {
        /// The generated text; for a task that fills gaps, the whole text with its gaps filled.
        text: String,
        /// The text of each gap, in order; empty for a task without gaps.
        spans: Vec<String>,
    },
    /// One of a closed set of answers.
    Choice {
        /// All candidates, the most probable first. Their probabilities sum to 1.
        choices: Vec<Choice>,
    },
    /// An embedding of unit length.
    Embedding(Vec<f32>),
    /// JSON that fits the task's schema.
    Json {
        /// The value.
        value: serde_json::Value,
        /// The generated text that it was parsed from, on one line.
        text: String,
    },
    /// Predictions for the hidden patches of a picture, row by row from the top left.
    Patches(Vec<PatchAnswer>),
}

/// Holds the predicted visual codes of a hidden patch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PatchAnswer {
    /// Its row, counted from 0 at the top.
    pub row: usize,
    /// Its column, counted from 0 at the left.
    pub column: usize,
    /// The top-k visual codes, the most probable first.
    pub codes: Vec<VisualCode>,
}

/// Holds a code of the model's visual vocabulary and its probability for a patch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct VisualCode {
    /// The code.
    pub code: u32,
    /// Its probability among all codes.
    pub probability: f64,
}

/// Holds a candidate answer and its probability among all candidates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// The answer.
    pub text: String,
    /// Its probability.
    pub probability: f64,
}

impl Answer {
    /// Returns the text of the answer: generated text, JSON included, or the most probable choice. Embeddings
    /// and patches have none.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::{Answer, Choice};
    ///
    /// let choice = |text: &str, probability| Choice { text: text.to_owned(), probability };
    /// let answer = Answer::Choice { choices: vec![choice("cat", 0.9), choice("dog", 0.1)] };
    /// assert_eq!(answer.text(), Some("cat"));
    /// ```
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text { text, .. } => Some(text),
            Self::Choice { choices } => choices.first().map(|choice| choice.text.as_str()),
            Self::Embedding(_) | Self::Patches(_) => None,
            Self::Json { text, .. } => Some(text),
        }
    }

    /// Returns the choices, the most probable first; empty for other kinds of answer.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::{Answer, Choice};
    ///
    /// let choices = vec![Choice { text: "cat".to_owned(), probability: 1.0 }];
    /// assert_eq!(Answer::Choice { choices }.choices().len(), 1);
    /// assert!(Answer::Embedding(vec![1.0]).choices().is_empty());
    /// ```
    pub fn choices(&self) -> &[Choice] {
        match self {
            Self::Choice { choices } => choices,
            Self::Text { .. } | Self::Embedding(_) | Self::Patches(_) | Self::Json { .. } => &[],
        }
    }

    /// Returns the embedding; `None` for other kinds of answer.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::Answer;
    ///
    /// assert_eq!(Answer::Embedding(vec![0.6, 0.8]).embedding(), Some([0.6, 0.8].as_slice()));
    /// ```
    pub fn embedding(&self) -> Option<&[f32]> {
        match self {
            Self::Embedding(vector) => Some(vector),
            Self::Text { .. } | Self::Choice { .. } | Self::Patches(_) | Self::Json { .. } => None,
        }
    }

    /// Returns the JSON value; `None` for other kinds of answer.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::Answer;
    ///
    /// let answer = Answer::Json { value: true.into(), text: "true".to_owned() };
    /// assert_eq!(answer.json().and_then(|value| value.as_bool()), Some(true));
    /// ```
    pub fn json(&self) -> Option<&serde_json::Value> {
        match self {
            Self::Json { value, .. } => Some(value),
            Self::Text { .. } | Self::Choice { .. } | Self::Embedding(_) | Self::Patches(_) => None,
        }
    }

    /// Returns the predictions for hidden patches; empty for other kinds of answer.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::{Answer, PatchAnswer};
    ///
    /// let patch = PatchAnswer { row: 3, column: 2, codes: Vec::new() };
    /// assert_eq!(Answer::Patches(vec![patch]).patches()[0].row, 3);
    /// ```
    pub fn patches(&self) -> &[PatchAnswer] {
        match self {
            Self::Patches(patches) => patches,
            Self::Text { .. } | Self::Choice { .. } | Self::Embedding(_) | Self::Json { .. } => &[],
        }
    }
}

/// Holds an answer with its usage and timings.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TaskOutcome {
    /// The answer.
    pub answer: Answer,
    /// Why generation ended; always [`FinishReason::Stop`] for a choice, `None` for embeddings and patches.
    pub finish_reason: Option<FinishReason>,
    /// The tokens and patches of the prompt, and the generated tokens: for a choice those of the most
    /// probable candidate, for several samples those of all returned ones.
    pub usage: Usage,
    /// The latencies of the request. For answers that are not generated, only the total is known.
    pub timings: Timings,
    /// The generated tokens, each with its top-k alternatives; empty unless requested, and for answers that
    /// are not free text.
    pub tokens: Vec<WrittenToken>,
    /// The returned samples, the task's own answer first; empty unless several were drawn.
    pub samples: Vec<TaskSample>,
}

/// Holds one of several sampled answers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TaskSample {
    /// The answer.
    pub answer: Answer,
    /// Why its generation ended.
    pub finish_reason: FinishReason,
    /// The mean of its tokens' log-probabilities, which ranks samples.
    pub mean_log_probability: f64,
    /// Its tokens with their alternatives; empty unless requested.
    pub tokens: Vec<WrittenToken>,
}

/// Holds a generated token and its alternatives.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WrittenToken {
    /// The token.
    #[serde(flatten)]
    pub token: ScoredToken,
    /// The top-k tokens at its position, the most probable first.
    pub alternatives: Vec<ScoredToken>,
}

/// Holds a token and its log-probability.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ScoredToken {
    /// Its id.
    pub id: TokenId,
    /// Its piece in the vocabulary.
    pub piece: String,
    /// Its log-probability, after penalties and bans, before temperature and truncation.
    pub log_probability: f32,
}

/// Turns log-likelihoods into choices, the most probable first; ties keep their order.
///
/// The probabilities are the softmax of the log-likelihoods in f64: each candidate's likelihood over the sum
/// of all.
pub(crate) fn rank(candidates: Vec<String>, log_probabilities: &[f32]) -> Vec<Choice> {
    let most = log_probabilities
        .iter()
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    // All candidates are impossible: their probabilities are uniform.
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
