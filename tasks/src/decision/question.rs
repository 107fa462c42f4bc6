//! Questions with closed answers.

use std::collections::HashSet;

use super::error::DecisionError;

/// Says how the answers of a question are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerScale {
    /// Yes, then no.
    Predicate,
    /// Any, in no order.
    Choice,
    /// Levels, the lowest first.
    Level,
}

/// Holds an answer that a question may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedAnswer {
    /// What the decoder writes.
    pub text: String,
    /// What it means; empty where that is not said.
    pub description: String,
}

impl ClosedAnswer {
    /// Creates an answer from its text and, where it needs one, its meaning.
    pub fn new(text: impl Into<String>, description: Option<String>) -> Self {
        Self {
            text: text.into(),
            description: description.unwrap_or_default(),
        }
    }
}

impl From<&str> for ClosedAnswer {
    fn from(text: &str) -> Self {
        Self::new(text, None)
    }
}

/// Holds a question with closed answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedQuestion {
    text: String,
    scale: AnswerScale,
    answers: Vec<ClosedAnswer>,
}

impl ClosedQuestion {
    /// Creates a question and checks its answers: at least two, at most 255 and of levels 10, with different
    /// texts.
    ///
    /// # Errors
    ///
    /// When there are too few or too many answers, one is empty, or one is there twice.
    pub fn new(
        text: impl Into<String>,
        scale: AnswerScale,
        answers: Vec<ClosedAnswer>,
    ) -> Result<Self, DecisionError> {
        let (most, what) = match scale {
            AnswerScale::Predicate => (2, "answers"),
            AnswerScale::Choice => (255, "choices"),
            AnswerScale::Level => (10, "levels"),
        };
        let found = answers.len();
        if !(2..=most).contains(&found) {
            return Err(DecisionError::AnswerCount { most, what, found });
        }
        let mut seen = HashSet::new();
        for ClosedAnswer { text, .. } in &answers {
            if text.trim().is_empty() {
                return Err(DecisionError::EmptyAnswer);
            }
            if !seen.insert(text) {
                let answer = text.clone();
                return Err(DecisionError::AnswerTwice { answer });
            }
        }
        Ok(Self {
            text: text.into(),
            scale,
            answers,
        })
    }

    /// Creates a question that is answered by yes or no.
    ///
    /// # Errors
    ///
    /// None: both answers are right. The type is that of [`new`](Self::new).
    pub fn predicate(text: impl Into<String>) -> Result<Self, DecisionError> {
        Self::new(text, AnswerScale::Predicate, vec!["yes".into(), "no".into()])
    }

    /// Creates a question that is answered by one of `answers`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn choice(
        text: impl Into<String>,
        answers: impl IntoIterator<Item = impl Into<ClosedAnswer>>,
    ) -> Result<Self, DecisionError> {
        let answers = answers.into_iter().map(Into::into).collect();
        Self::new(text, AnswerScale::Choice, answers)
    }

    /// Returns what is asked.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns how the answers are related.
    pub fn scale(&self) -> AnswerScale {
        self.scale
    }

    /// Returns the answers, at least two.
    pub fn answers(&self) -> &[ClosedAnswer] {
        &self.answers
    }
}
