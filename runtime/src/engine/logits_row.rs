//! What a decoding step gives of one row.

use std::borrow::Cow;

use multiway_model::kernels::Ranking;

/// The logits of a row, and where they were asked for, the highest of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogitsRow<'a> {
    /// Those of the tokenizer's vocabulary, `[V]`.
    pub(crate) logits: &'a [f32],
    ranking: Option<&'a Ranking>,
}

impl<'a> LogitsRow<'a> {
    pub(crate) fn new(logits: &'a [f32], ranking: Option<&'a Ranking>) -> Self {
        Self { logits, ranking }
    }

    /// Returns the `count` highest logits at least: those that the step has found, else found here.
    pub(crate) fn ranking(&self, count: usize) -> Cow<'a, Ranking> {
        match self.ranking {
            Some(ranking) if ranking.highest.len() >= count.min(self.logits.len()) => Cow::Borrowed(ranking),
            _ => Cow::Owned(Ranking::of(self.logits, count)),
        }
    }
}
