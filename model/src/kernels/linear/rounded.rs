//! Products of which both factors change from step to step and are rounded to `bf16`: those of training.
//!
//! Sums and rounding are those of layers whose weights are in `bf16` (`bfloat`); here both factors are
//! rounded and packed for each product.
//!
//! Source: Kalamkar et al. 2019, "A Study of BFLOAT16 for Deep Learning Training" (arXiv 1905.12322), section
//! 3: factors in `bf16`, sums and weights that are updated in `f32`.

use std::cell::Cell;

use super::bfloat::{pairs, round_row, rounded};
use super::kernel::{Kernel, Line, PANEL};
use super::product::Operands;
use super::weight_type::WeightType;
use crate::kernels::simd::{multiversion, transpose};

/// A factor of a product.
#[derive(Clone, Copy, Debug)]
pub enum Factor<'a> {
    /// Row-major, the summed numbers of a row side by side: `[rows, depth]` on the left, `[outputs, depth]`
    /// on the right.
    Along(&'a [f32]),
    /// Row-major, the summed numbers one below the other: `[depth, rows]` on the left, `[depth, outputs]` on
    /// the right.
    Down(&'a [f32]),
}

impl Factor<'_> {
    pub(crate) fn numbers(&self) -> usize {
        match self {
            Self::Along(values) | Self::Down(values) => values.len(),
        }
    }
}

/// Words of packed factors that a thread keeps for the next product: 64 MiB.
const KEPT_WORDS: usize = 16 << 20;

/// The packed factors of one thread, warm from one product to the next.
#[derive(Default)]
struct Packed {
    rows: Vec<u32>,    // [rows, words]
    panels: Vec<Line>, // [out / PANEL, words]
}

thread_local! {
    static PACKED: Cell<Packed> = Cell::default();
}

/// Multiplies two matrices rounded to `bf16` into `y`, `[rows, outputs]`, with sums of `f32` over `depth`
/// products, on several threads where that pays.
///
/// # Panics
/// When a slice does not have as many numbers as its shape says: a defect of the caller.
pub(crate) fn multiply_rounded(
    left: Factor<'_>,
    right: Factor<'_>,
    [rows, depth, outputs]: [usize; 3],
    y: &mut [f32],
) {
    multiply_with(WeightType::Bf16.kernel(), left, right, [rows, depth, outputs], y);
}

fn multiply_with(
    kernel: &'static Kernel,
    left: Factor<'_>,
    right: Factor<'_>,
    [rows, depth, outputs]: [usize; 3],
    y: &mut [f32],
) {
    assert!(left.numbers() == rows * depth && right.numbers() == outputs * depth);
    assert!(y.len() == rows * outputs);
    if y.is_empty() {
        return;
    }
    let words = depth.div_ceil(2);
    let mut packed = PACKED.take();
    packed.rows.resize(rows * words, 0);
    packed
        .panels
        .resize(outputs.div_ceil(PANEL) * words, Line([0; PANEL]));
    match left {
        Factor::Along(values) => rows_along(values, depth, &mut packed.rows),
        Factor::Down(values) => rows_down(values, rows, &mut packed.rows),
    }
    match right {
        Factor::Along(values) => panels_along(values, depth, &mut packed.panels),
        Factor::Down(values) => panels_down(values, outputs, &mut packed.panels),
    }
    Operands {
        kernel,
        x: &packed.rows,
        panels: &packed.panels,
        rows,
        row_words: words,
        depth: words,
        outputs,
        stride: outputs,
    }
    .multiply_into(y);
    // What a single large product took is given back.
    if packed.rows.len() + packed.panels.len() * PANEL <= KEPT_WORDS {
        PACKED.set(packed);
    }
}

/// Makes words of the numbers of two rows.
#[inline(always)]
fn interleaved(first: &[f32], second: &[f32]) -> [u32; PANEL] {
    if let (Some(first), Some(second)) = (first.first_chunk::<PANEL>(), second.first_chunk::<PANEL>()) {
        return std::array::from_fn(|at| rounded(first[at]) | rounded(second[at]) << 16);
    }
    let number = |row: &[f32], at: usize| row.get(at).map_or(0, |value| rounded(*value));
    std::array::from_fn(|at| number(first, at) | number(second, at) << 16)
}

/// Reads a block of `[depth, columns]`: words of pairs of rows from `first` on, of 16 columns from `column`
/// on.
#[inline(always)]
fn block_down(values: &[f32], columns: usize, first: usize, column: usize) -> [[u32; PANEL]; PANEL] {
    let row = |row: usize| {
        let start = (row * columns + column).min(values.len());
        let end = ((row + 1) * columns).min(values.len());
        &values[start..end.max(start)]
    };
    std::array::from_fn(|pair| interleaved(row(first + 2 * pair), row(first + 2 * pair + 1)))
}

/// Packs the left factor `[rows, depth]`.
fn rows_along(values: &[f32], depth: usize, words: &mut [u32]) {
    let rows = values.chunks_exact(depth.max(1));
    for (row, words) in rows.zip(words.chunks_exact_mut(depth.div_ceil(2).max(1))) {
        round_row(row, words);
    }
}

multiversion! {
    /// Packs the left factor `[depth, rows]`.
    fn rows_down(values: &[f32], rows: usize, words: &mut [u32]) {
        let width = words.len() / rows.max(1);
        for first in (0..rows).step_by(PANEL) {
            for word in (0..width).step_by(PANEL) {
                let mut block = block_down(values, rows, 2 * word, first);
                transpose(&mut block);
                for (row, pairs) in (first..rows).zip(&block) {
                    let words = &mut words[row * width + word..(row + 1) * width];
                    let count = words.len().min(PANEL);
                    words[..count].copy_from_slice(&pairs[..count]);
                }
            }
        }
    }
}

multiversion! {
    /// Packs the right factor `[outputs, depth]`.
    fn panels_along(values: &[f32], depth: usize, lines: &mut [Line]) {
        let panels = values.chunks(depth.max(1) * PANEL).zip(lines.chunks_exact_mut(depth.div_ceil(2).max(1)));
        for (outputs, lines) in panels {
            for (index, lines) in lines.chunks_mut(PANEL).enumerate() {
                let mut block = [[0; PANEL]; PANEL];
                for (row, words) in outputs.chunks_exact(depth).zip(&mut block) {
                    *words = pairs::<PANEL>(&row[2 * PANEL * index..depth.min(2 * PANEL * (index + 1))]);
                }
                transpose(&mut block);
                for (line, words) in lines.iter_mut().zip(block) {
                    line.0 = words;
                }
            }
        }
    }
}

multiversion! {
    /// Packs the right factor `[depth, outputs]`.
    fn panels_down(values: &[f32], outputs: usize, lines: &mut [Line]) {
        let panels = outputs.div_ceil(PANEL);
        let words = lines.len() / panels.max(1);
        for (word, rows) in values.chunks(2 * outputs.max(1)).enumerate() {
            let (first, second) = rows.split_at(outputs);
            for panel in 0..panels {
                let second = second.get(panel * PANEL..).unwrap_or_default();
                lines[panel * words + word].0 = interleaved(&first[panel * PANEL..], second);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::tests::numbers;
    use super::*;

    /// The definition, in `f64`, and how far sums in `f32` may be from it.
    fn specified(x: &[f32], w: &[f32], [rows, depth, outputs]: [usize; 3]) -> Vec<(f64, f64)> {
        let round = |value: f32| f64::from(bf16::from_f32(value).to_f32());
        let mut sums = Vec::new();
        for row in 0..rows {
            for output in 0..outputs {
                let products = (0..depth).map(|k| round(x[row * depth + k]) * round(w[output * depth + k]));
                let sum: f64 = products.clone().sum();
                let size: f64 = products.map(f64::abs).sum();
                // Each addition is off by half a unit in the last place of what the sum can be.
                let steps = 2.0 + depth as f64;
                sums.push((sum, size * steps * f64::from(f32::EPSILON) / 2.0));
            }
        }
        sums
    }

    fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
        let columns = values.len() / rows.max(1);
        let at = |index: usize| values[index % rows * columns + index / rows];
        (0..values.len()).map(at).collect()
    }

    fn check(shape: [usize; 3]) {
        let [rows, depth, outputs] = shape;
        let (x, w) = (numbers(rows * depth, 1), numbers(outputs * depth, 2));
        let (x_down, w_down) = (transposed(&x, rows), transposed(&w, outputs));
        let expected = specified(&x, &w, shape);
        let mut first: Option<Vec<u32>> = None;
        for kernel in WeightType::Bf16.kernels() {
            for left in [Factor::Along(&x), Factor::Down(&x_down)] {
                for right in [Factor::Along(&w), Factor::Down(&w_down)] {
                    let mut y = vec![f32::NAN; rows * outputs];
                    multiply_with(kernel, left, right, shape, &mut y);
                    for (found, (sum, within)) in y.iter().zip(&expected) {
                        assert!(
                            (f64::from(*found) - sum).abs() <= *within,
                            "{kernel:?} {shape:?} {left:?} {right:?}: {found}, expected {sum} to {within}"
                        );
                    }
                    let bits: Vec<u32> = y.iter().map(|y| y.to_bits()).collect();
                    assert!(
                        *first.get_or_insert_with(|| bits.clone()) == bits,
                        "{kernel:?} {shape:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_defined_product_in_every_layout() {
        for rows in [1, 2, 5, 12, 13, 16, 17, 40, 97] {
            for outputs in [1, 15, 16, 17, 33, 130] {
                for depth in [1, 2, 3, 31, 32, 33, 64, 67] {
                    check([rows, depth, outputs]);
                }
            }
        }
        check([200, 515, 49]);
        check([3, 0, 5]);
        check([0, 3, 5]);
        check([5, 3, 0]);
    }
}
