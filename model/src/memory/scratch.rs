//! The memory that decoding steps work in.

use std::ops::Range;

/// Buffers that keep their size from step to step, so that a step asks for no memory once one as large has been made.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The rows between the layers, `[B, D]`.
    pub(crate) x: Vec<f32>,
    /// Normed rows, `[B, D]`.
    pub(crate) normed: Vec<f32>,
    /// Queries, keys and values, `[B, 3D]`; queries alone, `[B, D]`; gate and up, `[B, 2F]`.
    pub(crate) wide: Vec<f32>,
    /// What attention gathers, `[B, H Dh]`, or the rows between the projections of a feed-forward network, `[B, F]`.
    pub(crate) hidden: Vec<f32>,
    /// What a block adds to the rows, `[B, D]`.
    pub(crate) added: Vec<f32>,
    /// Scores of keys.
    pub(crate) scores: Vec<f32>,
    /// The positions of the rows.
    pub(crate) positions: Vec<u32>,
    /// The cache's rows that each query sees.
    pub(crate) ranges: Vec<Range<usize>>,
    /// Where each query's rows end in the list.
    pub(crate) ends: Vec<usize>,
}
