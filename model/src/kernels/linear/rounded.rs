//! Products of which both factors are rounded to `bf16`, while sums stay `f32`: those of training.
//!
//! A word has two neighbouring numbers of a sum, the first in the low half, and one instruction multiplies
//! both with their weights and adds them: twice as many numbers as one of `f32`. The factors are `f32`
//! matrices that change from step to step, so that both are rounded and packed for each product. A sum is, by
//! definition, what that instruction makes of it:
//!
//! ```text
//! acc = 0;  for k in 0, 2, .. { acc = fma(x[k + 1], w[k + 1], acc);  acc = fma(x[k], w[k], acc) }
//! ```
//!
//! with numbers below 2^-126 taken as zero, before and after each step.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, `VDPBF16PS`; Kalamkar et
//! al. 2019, "A Study of BFLOAT16 for Deep Learning Training" (arXiv 1905.12322), section 3: factors in
//! `bf16`, sums and weights that are updated in `f32`.

#![expect(unsafe_code, reason = "vector loads and stores inside a tile")]

use std::cell::Cell;

use super::kernel::{Kernel, Line, PANEL, kernel};
use super::product::Operands;
use crate::kernels::simd::{multiversion, transpose};

/// The kernels of all machines, the fastest first.
static KERNELS: &[&Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    &avx512bf16::KERNEL,
    &portable::KERNEL,
];

/// Lists the kernels that this machine can run, the fastest first.
pub(super) fn kernels() -> impl Iterator<Item = &'static Kernel> {
    KERNELS.iter().copied().filter(|kernel| (kernel.detected)())
}

/// Tells whether this machine has an instruction for such products, which makes them faster than those of
/// `f32`.
pub(crate) fn multiplies_bf16() -> bool {
    kernels()
        .next()
        .is_some_and(|kernel| kernel.name != portable::KERNEL.name)
}

#[cfg(target_arch = "x86_64")]
kernel! {
    avx512bf16, detected: || is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f"),
    features: "avx512bf16,avx512f", vector: 16,
    format: Format { row_head: 0, head: 0, step: PANEL },
    start: |_, _| _mm512_setzero_ps(),
    load: |from: *const u32| _mm512_loadu_si512(from.cast()),
    splat: |x: u32| _mm512_set1_epi32(x.cast_signed()),
    // SAFETY: both are registers of 64 bytes, of which all bits are numbers.
    dot: |acc, x, w| unsafe {
        let [x, w] = [x, w].map(|words| std::mem::transmute::<__m512i, __m512bh>(words));
        _mm512_dpbf16_ps(acc, x, w)
    },
    finish: |sum, _, _, _| sum,
    store: |to: *mut f32, sum| _mm512_storeu_ps(to, sum),
    fetch: |line: *const u32| _mm_prefetch::<_MM_HINT_T1>(line.cast()),
    tiles: { 1: 8, 2: 4, 3: 4, 4: 4, 5: 2, 6: 2, 7: 2, 8: 2, 9: 2, 10: 2, 11: 2, 12: 2 }
}

kernel! {
    portable, detected: || true, vector: 16,
    format: Format { row_head: 0, head: 0, step: PANEL },
    start: |_, _| [0.0_f32; 16],
    load: |from: *const u32| from.cast::<[u32; 16]>().read(),
    splat: |x: u32| x,
    dot: |acc: [f32; 16], x: u32, w: [u32; 16]| std::array::from_fn(|lane| {
        super::add_pair(acc[lane], x, w[lane])
    }),
    finish: |sum, _, _, _| sum,
    store: |to: *mut f32, sum: [f32; 16]| to.cast::<[f32; 16]>().write_unaligned(sum),
    fetch: |_: *const u32| {},
    tiles: { 1: 1, 2: 1, 3: 1, 4: 1 }
}

/// Adds two products to a sum, as the definition says: the second of the numbers first.
#[inline(always)]
fn add_pair(sum: f32, x: u32, w: u32) -> f32 {
    let high = |word: u32| flushed(f32::from_bits(word & 0xffff_0000));
    let low = |word: u32| flushed(f32::from_bits(word << 16));
    let sum = flushed(high(x).mul_add(high(w), sum));
    flushed(low(x).mul_add(low(w), sum))
}

/// Takes a number that is too small to be normal as zero.
#[inline(always)]
fn flushed(number: f32) -> f32 {
    if number.is_subnormal() {
        0.0_f32.copysign(number)
    } else {
        number
    }
}

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
    let kernel = kernels().next().unwrap_or(&portable::KERNEL);
    multiply_with(kernel, left, right, [rows, depth, outputs], y);
}

pub(super) fn multiply_with(
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

/// Rounds to the nearest `bf16`, ties to even; what is no number stays none.
#[inline(always)]
fn rounded(value: f32) -> u32 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // The highest bit of the fraction keeps it from becoming infinite.
    let unrounded = bits | 0x0040_0000;
    (if value.is_nan() { unrounded } else { nearest }) >> 16
}

/// Makes words of pairs of numbers of a row.
#[inline(always)]
fn pairs<const N: usize>(row: &[f32]) -> [u32; N] {
    if let Some((row, _)) = row.as_chunks::<2>().0.split_at_checked(N) {
        return std::array::from_fn(|at| rounded(row[at][0]) | rounded(row[at][1]) << 16);
    }
    let number = |at: usize| row.get(at).map_or(0, |value| rounded(*value));
    std::array::from_fn(|at| number(2 * at) | number(2 * at + 1) << 16)
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

multiversion! {
    /// Packs the left factor `[rows, depth]`.
    fn rows_along(values: &[f32], depth: usize, words: &mut [u32]) {
        let rows = values.chunks_exact(depth.max(1)).zip(words.chunks_exact_mut(depth.div_ceil(2).max(1)));
        for (row, words) in rows {
            for (row, words) in row.chunks(2 * PANEL).zip(words.chunks_mut(PANEL)) {
                let pairs = pairs::<PANEL>(row);
                words.copy_from_slice(&pairs[..words.len()]);
            }
        }
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
        for kernel in kernels() {
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

    #[test]
    fn every_instruction_set_takes_the_smallest_numbers_as_zero() {
        let tiny = f32::MIN_POSITIVE;
        let (x, w) = ([tiny / 2.0, tiny, 1.0, tiny], [1.0, 0.5, tiny, -0.75]);
        for kernel in kernels() {
            let mut y = [f32::NAN];
            let (left, right) = (Factor::Along(&x), Factor::Along(&w));
            multiply_with(kernel, left, right, [1, 4, 1], &mut y);
            // Too small to be normal: a factor of the first product, and the second and the fourth product.
            assert_eq!(y[0].to_bits(), tiny.to_bits(), "{kernel:?}");
        }
    }

    #[test]
    fn numbers_are_rounded_as_the_type_rounds_them() {
        let ends = [
            0.0,
            -0.0,
            1.0,
            f32::MAX,
            f32::MIN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MIN_POSITIVE,
        ];
        let ties = (0..64).map(|bits| f32::from_bits(0x3f80_0000 | bits << 10));
        for value in ends.into_iter().chain(ties).chain(numbers(500, 3)) {
            assert_eq!(
                rounded(value),
                u32::from(bf16::from_f32(value).to_bits()),
                "{value}"
            );
        }
        for bits in [0x7fc0_0000, 0x7fff_ffff, 0xffff_ffff, 0x7f80_0001] {
            let word = rounded(f32::from_bits(bits));
            assert!(f32::from_bits(word << 16).is_nan(), "{word:x}");
        }
    }
}
