//! Errors of decisions.

use multiway_prompts::InputError;
use multiway_runtime::RequestError;
use thiserror::Error;

use crate::error::TaskError;

/// Reports why a question cannot be answered.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DecisionError {
    /// A question has too few or too many answers.
    #[error("expected 2 to {most} {what}, found {found}")]
    AnswerCount {
        /// The most answers that it may have.
        most: usize,
        /// What the answers are: `answers`, `choices` or `levels`.
        what: &'static str,
        /// The number of its answers.
        found: usize,
    },
    /// An answer has no text.
    #[error("expected texts, found an empty one")]
    EmptyAnswer,
    /// Two answers have the same text.
    #[error("expected different texts, since the decoder writes them; found '{answer}' twice")]
    AnswerTwice {
        /// The text.
        answer: String,
    },
    /// The task does not rank answers.
    #[error(
        "expected a task that ranks answers by likelihood, as choice, predicate, level and score do; '{task}' gives {kind}"
    )]
    NotRanked {
        /// The task.
        task: String,
        /// What it answers with.
        kind: &'static str,
    },
    /// The task has answers of its own, and the question has another one.
    #[error("the task '{task}' has no answer '{answer}'")]
    NoSuchAnswer {
        /// The task.
        task: String,
        /// The answer of the question.
        answer: String,
    },
    /// The prompt of the task contains the text to score, so that answers cannot be compared.
    #[error("the task '{task}' shows the text that it scores")]
    ShowsTarget {
        /// The task.
        task: String,
    },
    /// The task has no input for the text that a question is about.
    #[error("the task '{task}' takes no text that its questions are about")]
    NoState {
        /// The task.
        task: String,
    },
    /// The question does not fit the input of the task that takes it.
    #[error("input '{name}': {source}")]
    Input {
        /// The input.
        name: String,
        /// Why.
        source: InputError,
    },
    /// The task failed.
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl From<RequestError> for DecisionError {
    fn from(error: RequestError) -> Self {
        Self::Task(error.into())
    }
}

impl DecisionError {
    /// Returns whether the caller's input is at fault: another question or task would work.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Task(error) => error.is_input(),
            _ => true,
        }
    }
}
