//! The scratch buffers of a decoding step.

use std::ops::Range;

use crate::layers::scratch::LayerScratch;

/// Buffers that keep their size from step to step: a step as large as one before needs no allocation.
#[derive(Debug, Default)]
pub(crate) struct StepScratch {
    /// The residual stream, `[B, D]`.
    pub(crate) x: Vec<f32>,
    pub(crate) layer: LayerScratch,
    /// Attended rows of tokens and masks, where the encoder writes, `[2B, H Dh]`.
    pub(crate) attended: Vec<f32>,
    /// Scores of keys.
    pub(crate) scores: Vec<f32>,
    /// The positions of the rows.
    pub(crate) positions: Vec<u32>,
    /// The cache's rows that each query sees.
    pub(crate) ranges: Vec<Range<usize>>,
    /// Where each query's rows end in the list.
    pub(crate) ends: Vec<usize>,
}

/// Returns the `index`-th of lists that lie one after another and end at `ends`.
pub(crate) fn slot_rows<'a>(ranges: &'a [Range<usize>], ends: &[usize], index: usize) -> &'a [Range<usize>] {
    let start = index.checked_sub(1).and_then(|before| ends.get(before)).copied();
    let end = ends.get(index).copied().unwrap_or_default();
    ranges.get(start.unwrap_or(0)..end).unwrap_or_default()
}
