//! Typed answers.

use multiway_runtime::{Answered, FinishReason, Timings, TokenId, Usage};
use serde::Serialize;

use crate::parse::{Form, GroundedAnswer, LabelsAnswer, LocatedObject, NumberAnswer, TableAnswer};

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
    /// Yes or no.
    Predicate {
        /// The answer: whether yes is at least as probable as no.
        value: bool,
        /// The probability of yes.
        probability: f64,
        /// Both words, the most probable first.
        choices: Vec<Choice>,
    },
    /// A step of a graded scale.
    Level {
        /// The expected value: the mean of the levels' numbers, weighted by their probabilities.
        expected: f64,
        /// All levels, the most probable first.
        choices: Vec<Choice>,
    },
    /// Several labels.
    Labels {
        /// The labels.
        labels: LabelsAnswer,
        /// The generated text that they were read from.
        text: String,
    },
    /// A number, or the reason why there is none.
    Number {
        /// The number.
        number: NumberAnswer,
        /// The generated text that it was read from.
        text: String,
    },
    /// Labelled forms in the first picture.
    Located {
        /// The form of the objects.
        form: Form,
        /// The objects.
        objects: Vec<LocatedObject>,
        /// The generated text that they were read from, location tokens included.
        text: String,
    },
    /// Text whose phrases are tied to boxes in the first picture.
    Grounded {
        /// The text and its phrases.
        grounded: GroundedAnswer,
        /// The generated text that they were read from, tags and location tokens included.
        text: String,
    },
    /// A table.
    Table {
        /// The table.
        table: TableAnswer,
        /// The generated text that it was read from.
        text: String,
    },
    /// The log-likelihood of a given text.
    Score {
        /// The sum of the log-probabilities of the tokens.
        log_probability: f64,
        /// The tokens of the text, `</s>` included.
        tokens: Vec<ScoredToken>,
        /// The text.
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
    /// Returns the text of the answer: the raw generated text, or the most probable choice. Embeddings and
    /// patches have none.
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
            Self::Text { text, .. }
            | Self::Json { text, .. }
            | Self::Labels { text, .. }
            | Self::Number { text, .. }
            | Self::Located { text, .. }
            | Self::Grounded { text, .. }
            | Self::Table { text, .. }
            | Self::Score { text, .. } => Some(text),
            Self::Choice { .. } | Self::Predicate { .. } | Self::Level { .. } => {
                self.choices().first().map(|choice| choice.text.as_str())
            }
            Self::Embedding(_) | Self::Patches(_) => None,
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
            Self::Choice { choices } | Self::Predicate { choices, .. } | Self::Level { choices, .. } => {
                choices
            }
            _ => &[],
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
            _ => None,
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
            _ => None,
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
            _ => &[],
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
    /// The ids of the answer's tokens as the decoder wrote or scored them, without the forced prefix: for a
    /// choice those of the most probable candidate. Empty where no decoder did, as for classes and
    /// embeddings.
    pub answer_tokens: Vec<TokenId>,
    /// The returned samples, the task's own answer first; empty unless several were drawn.
    pub samples: Vec<TaskSample>,
    /// The probability that the decoder writes any of the candidates: the sum of their likelihoods, neither
    /// normalised nor calibrated. It is low where the prompt does not lead to them. `None` where the decoder
    /// scored none.
    pub candidate_mass: Option<f64>,
}

impl TaskOutcome {
    /// Creates the outcome of an answer that comes at once.
    pub(crate) fn whole(answered: Answered<Answer>, finish_reason: Option<FinishReason>) -> Self {
        Self {
            answer: answered.value,
            finish_reason,
            usage: answered.usage,
            timings: answered.timings,
            tokens: Vec::new(),
            answer_tokens: Vec::new(),
            samples: Vec::new(),
            candidate_mass: None,
        }
    }
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
