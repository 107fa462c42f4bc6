//! Rows of activations as the words that kernels of narrow weights read.

use std::cell::Cell;

use super::kernel::{Line, PANEL};
use crate::kernels::pool;

/// Makes words of rows `[rows, inputs]`, `width` of each, on several threads when that pays, and calls `f`
/// with them. `fill` writes the words of a row; those behind them are of no row. A width is whole lines.
pub(super) fn with_words<T>(
    x: &[f32],
    [rows, inputs, width]: [usize; 3],
    fill: &(dyn Fn(&[f32], &mut [u32]) + Sync),
    f: impl FnOnce(&[u32]) -> T,
) -> T {
    thread_local! {
        /// A scratch buffer, so that a warm step needs no allocation.
        static SCRATCH: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    }
    let mut lines = SCRATCH.take();
    // It never shrinks: what is there already need not be set.
    let needed = rows * width / PANEL;
    lines.resize(lines.len().max(needed), Line([0; PANEL])); // [rows, width / PANEL]
    let used = lines.get_mut(..needed).unwrap_or_default();
    pool::for_each_rows(
        bytemuck::cast_slice_mut(used),
        width,
        &|first, words: &mut [f32]| {
            for (row, words) in words.chunks_exact_mut(width).enumerate() {
                let start = (first + row) * inputs;
                let x = x.get(start..start + inputs).unwrap_or_default();
                fill(x, bytemuck::cast_slice_mut(words));
            }
        },
    );
    let result = f(bytemuck::cast_slice(used));
    SCRATCH.set(lines);
    result
}
