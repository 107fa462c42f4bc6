//! Questions with closed answers, as both routes understand them.

use std::collections::HashSet;

use crate::error::ApiError;
use crate::message::Said;

/// The most questions of a request.
const MOST_QUESTIONS: usize = 400;

/// Checks how many questions a request has.
pub(crate) fn check_count(count: usize) -> Result<(), ApiError> {
    if (1..=MOST_QUESTIONS).contains(&count) {
        return Ok(());
    }
    let message = format!("questions: expected 1 to {MOST_QUESTIONS} questions, found {count}");
    Err(ApiError::field("questions", message))
}

/// What the answers of a question are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Yes, then no.
    Predicate,
    /// Any, in no order.
    Choice,
    /// Levels, the lowest first.
    Score,
}

/// An answer that a question has.
#[derive(Debug)]
pub(crate) struct Label {
    /// What the decoder writes.
    pub(crate) text: String,
    /// What it means; empty where that is not said.
    pub(crate) description: String,
}

impl Label {
    pub(crate) fn new(text: impl Into<String>, description: Option<String>) -> Self {
        Self {
            text: text.into(),
            description: description.unwrap_or_default(),
        }
    }
}

/// A question.
#[derive(Debug)]
pub(crate) struct Question {
    /// Where it stands in the request, such as `questions[3]`.
    pub(crate) place: String,
    /// What is asked, and pictures that are shown for this question alone.
    pub(crate) said: Said,
    pub(crate) scale: Scale,
    /// The answers, at least two.
    pub(crate) labels: Vec<Label>,
}

impl Question {
    /// Checks the answers, which are in a `field` of the question.
    pub(crate) fn check(&self, field: &str) -> Result<(), ApiError> {
        let (most, what) = match self.scale {
            Scale::Predicate => (2, "answers"),
            Scale::Choice => (255, "choices"),
            Scale::Score => (10, "levels"),
        };
        let place = format!("{}.{field}", self.place);
        let found = self.labels.len();
        if !(2..=most).contains(&found) {
            let message = format!("{place}: expected 2 to {most} {what}, found {found}");
            return Err(ApiError::field(place, message));
        }
        let mut seen = HashSet::new();
        for Label { text, .. } in &self.labels {
            let message = if text.trim().is_empty() {
                format!("{place}: expected texts, found an empty one")
            } else if !seen.insert(text) {
                format!(
                    "{place}: expected different texts, since the decoder writes them; found '{text}' twice"
                )
            } else {
                continue;
            };
            return Err(ApiError::field(place, message));
        }
        Ok(())
    }
}
