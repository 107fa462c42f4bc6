//! What is wrong with a value of front matter, and where.

use serde_saphyr::Spanned;

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
