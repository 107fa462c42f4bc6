//! What is wrong with a value of front matter, and where.

use serde_saphyr::Spanned;

use crate::error::PromptError;

/// What is wrong with a value, and where; lines are counted from the top of the front matter.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) line: Option<usize>,
    pub(super) key: String,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new<T>(at: &Spanned<T>, key: impl Into<String>, message: impl ToString) -> Self {
        Self {
            line: line(at),
            key: key.into(),
            message: message.to_string(),
        }
    }
}

/// Returns the line of a value, from the top of the front matter.
pub(super) fn line<T>(at: &Spanned<T>) -> Option<usize> {
    usize::try_from(at.referenced.line())
        .ok()
        .filter(|line| *line > 0)
}

/// Where a key of front matter is: the file, if it is not that of the task itself, and the line from its top.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    pub(crate) origin: Option<String>,
    pub(crate) line: Option<usize>,
}

/// Why merged front matter cannot be used: a wrong value, or a wrong template in a value.
pub(super) enum Fault {
    Problem(Problem),
    Template(PromptError),
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<PromptError> for Fault {
    fn from(error: PromptError) -> Self {
        Self::Template(error)
    }
}
