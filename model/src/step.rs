//! The rows of a decoding step.

use crate::memory::PromptMemory;

/// One row of a decoding step: the next token of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct DecoderRow<'a> {
    /// The last token of the sequence, or the start token.
    pub token: u32,
    /// The cache slot of the sequence; its position is the slot's length.
    pub slot: usize,
    /// The keys and values of the sequence's prompt.
    pub memory: &'a PromptMemory,
}

/// The rows of one decoding step, one per sequence.
#[derive(Clone, Copy, Debug)]
pub struct DecoderBatch<'a> {
    /// The rows; no two may name the same slot.
    pub rows: &'a [DecoderRow<'a>],
}

impl DecoderBatch<'_> {
    /// Lists the slot of each row.
    pub(crate) fn slots(&self) -> impl Iterator<Item = usize> + Clone {
        self.rows.iter().map(|row| row.slot)
    }
}
