//! Weights and activations rounded to `bf16`, with sums in `f32`: a word is two of neighbouring inputs, the
//! first in the low half.
//!
//! One instruction of AVX512-BF16 multiplies both numbers of a word with their weights and adds them: twice
//! as many numbers as one of `f32`. A sum is, by definition, what that instruction makes of it:
//!
//! ```text
//! acc = 0;  for k in 0, 2, .. { acc = fma(x[k + 1], w[k + 1], acc);  acc = fma(x[k], w[k], acc) }
//! ```
//!
//! with one rounding per step, of numbers that are rounded to the nearest `bf16`, ties to even; those smaller
//! than 2^-56 count as zero. The instruction takes numbers below 2^-126 as zero, which no sum can be: the
//! product of two such `bf16` is a multiple of 2^-126, as the last of their eight bits is worth 2^-63 at
//! least, and so is every sum of products. Everywhere else two fused multiply-adds give the same bits.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, `VDPBF16PS`.

#![expect(unsafe_code, reason = "vector loads and stores inside a tile")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::kernel::{Kernel, Line, PANEL, kernel};
use super::product::Operands;
use super::single;
use crate::kernels::simd::multiversion;

/// The kernels of all machines, the fastest first.
pub(super) static KERNELS: &[&Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    &avx512bf16::KERNEL,
    #[cfg(target_arch = "x86_64")]
    &avx512::KERNEL,
    #[cfg(target_arch = "x86_64")]
    &avx2::KERNEL,
    &portable::KERNEL,
];

/// Chooses the kernel of this machine. An instruction that is there need not be fast: some processors take
/// four times as long for it as for a fused multiply-add of as many lanes.
pub(super) fn kernel() -> &'static Kernel {
    static CHOSEN: OnceLock<&Kernel> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let mut kernels = KERNELS.iter().copied().filter(|kernel| (kernel.detected)());
        let first = kernels.next().unwrap_or(&portable::KERNEL);
        match kernels.next() {
            Some(second) if is_narrow(first) && tile_time(second, 1) < tile_time(first, 1) => second,
            _ => first,
        }
    })
}

/// Tells whether this machine has an instruction for such products that makes them faster than those of
/// `f32`.
pub(crate) fn multiplies_bf16() -> bool {
    static IS_FASTER: OnceLock<bool> = OnceLock::new();
    *IS_FASTER.get_or_init(|| {
        let mut singles = single::KERNELS
            .iter()
            .copied()
            .filter(|kernel| (kernel.detected)());
        let is_faster = |single| tile_time(kernel(), 1) * 5 / 4 < tile_time(single, 2);
        is_narrow(kernel()) && singles.next().is_some_and(is_faster)
    })
}

/// Tells whether a kernel is that of the instruction.
fn is_narrow(kernel: &Kernel) -> bool {
    kernel.name == "avx512bf16"
}

/// Times a tile of a kernel, `words` for each two numbers: the least of several times, for others use the
/// processor, too.
fn tile_time(kernel: &'static Kernel, words: usize) -> Duration {
    const ROWS: usize = 12;
    const OUTPUTS: usize = 2 * PANEL;
    let depth = 128 * words;
    let (x, panels) = (vec![0; ROWS * depth], vec![Line([0; PANEL]); 2 * depth]);
    let mut y = [0.0; ROWS * OUTPUTS];
    let mut time = || {
        let start = Instant::now();
        for _ in 0..8 {
            Operands {
                kernel,
                x: &x,
                panels: &panels,
                rows: ROWS,
                row_words: depth,
                depth,
                outputs: OUTPUTS,
                stride: OUTPUTS,
            }
            .multiply_here(std::hint::black_box(&mut y));
        }
        start.elapsed()
    };
    (0..10).map(|_| time()).min().unwrap_or_default()
}

/// Numbers from this size on are rounded, smaller ones are zero: 2^-56.
const SMALLEST: u32 = (127 - 56) << 23;

/// Rounds to the nearest `bf16`, ties to even; what is no number stays none.
#[inline(always)]
pub(super) fn rounded(value: f32) -> u32 {
    let bits = value.to_bits();
    let size = bits & 0x7fff_ffff;
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // The highest bit of the fraction keeps it from becoming infinite.
    let unrounded = bits | 0x0040_0000;
    let rounded = if value.is_nan() { unrounded } else { nearest } >> 16;
    if size < SMALLEST { 0 } else { rounded }
}

/// Makes words of pairs of numbers of a row; behind its end stand zeros.
#[inline(always)]
pub(super) fn pairs<const N: usize>(row: &[f32]) -> [u32; N] {
    if let Some((row, _)) = row.as_chunks::<2>().0.split_at_checked(N) {
        return std::array::from_fn(|at| rounded(row[at][0]) | rounded(row[at][1]) << 16);
    }
    let number = |at: usize| row.get(at).map_or(0, |value| rounded(*value));
    std::array::from_fn(|at| number(2 * at) | number(2 * at + 1) << 16)
}

multiversion! {
    /// Makes words of a row: half as many as it has numbers, rounded up.
    pub(super) fn round_row(row: &[f32], words: &mut [u32]) {
        for (row, words) in row.chunks(2 * PANEL).zip(words.chunks_mut(PANEL)) {
            let pairs = pairs::<PANEL>(row);
            words.copy_from_slice(&pairs[..words.len()]);
        }
    }
}

/// Turns a row of weights into words.
pub(super) fn encode(row: &[f32]) -> Vec<u32> {
    let mut words = vec![0; row.len().div_ceil(2)];
    round_row(row, &mut words);
    words
}

/// Counts the words from one row of `inputs` activations to the next: whole lines, and an odd number of them,
/// as every other line of a cache is not enough for the rows of a tile.
pub(super) fn row_words(inputs: usize) -> usize {
    (inputs.div_ceil(2).div_ceil(PANEL) | 1) * PANEL
}

/// Computes the layer as its definition says.
#[cfg(test)]
pub(super) fn specified(x: &[f32], weight: &[f32], rows: usize, outputs: usize, inputs: usize) -> Vec<f32> {
    let round = |values: &[f32]| -> Vec<f32> {
        let round = |value: &f32| match value.abs() < 2.0_f32.powi(-56) {
            true => 0.0,
            false => half::bf16::from_f32(*value).to_f32(),
        };
        values.iter().map(round).collect()
    };
    let (x, weight) = (round(x), round(weight));
    let mut y = Vec::with_capacity(rows * outputs);
    for row in 0..rows {
        for output in 0..outputs {
            let (x, w) = (&x[row * inputs..][..inputs], &weight[output * inputs..][..inputs]);
            let add = |acc: f32, k: usize| x[k].mul_add(w[k], acc);
            let pair = |acc: f32, k: usize| match k + 1 < inputs {
                true => add(add(acc, k + 1), k),
                false => add(acc, k),
            };
            y.push((0..inputs).step_by(2).fold(0.0, pair));
        }
    }
    y
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

#[cfg(target_arch = "x86_64")]
kernel! {
    avx512, detected: || is_x86_feature_detected!("avx512f"), features: "avx512f", vector: 16,
    format: Format { row_head: 0, head: 0, step: PANEL },
    start: |_, _| _mm512_setzero_ps(),
    load: |from: *const u32| {
        let words = _mm512_loadu_si512(from.cast());
        let second = _mm512_and_si512(words, _mm512_set1_epi32(super::SECOND.cast_signed()));
        [second, _mm512_slli_epi32::<16>(words)].map(|bits| _mm512_castsi512_ps(bits))
    },
    splat: |x: u32| [x & super::SECOND, x << 16].map(|bits| _mm512_set1_ps(f32::from_bits(bits))),
    dot: |acc, x: [__m512; 2], w: [__m512; 2]| {
        _mm512_fmadd_ps(x[1], w[1], _mm512_fmadd_ps(x[0], w[0], acc))
    },
    finish: |sum, _, _, _| sum,
    store: |to: *mut f32, sum| _mm512_storeu_ps(to, sum),
    fetch: |line: *const u32| _mm_prefetch::<_MM_HINT_T1>(line.cast()),
    tiles: { 1: 8, 2: 4, 3: 4, 4: 4, 5: 2, 6: 2, 7: 2, 8: 2, 9: 2, 10: 2, 11: 2, 12: 2 }
}

#[cfg(target_arch = "x86_64")]
kernel! {
    avx2, detected: || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
    features: "avx2,fma", vector: 8,
    format: Format { row_head: 0, head: 0, step: PANEL },
    start: |_, _| _mm256_setzero_ps(),
    load: |from: *const u32| {
        let words = _mm256_loadu_si256(from.cast());
        let second = _mm256_and_si256(words, _mm256_set1_epi32(super::SECOND.cast_signed()));
        [second, _mm256_slli_epi32::<16>(words)].map(|bits| _mm256_castsi256_ps(bits))
    },
    splat: |x: u32| [x & super::SECOND, x << 16].map(|bits| _mm256_set1_ps(f32::from_bits(bits))),
    dot: |acc, x: [__m256; 2], w: [__m256; 2]| {
        _mm256_fmadd_ps(x[1], w[1], _mm256_fmadd_ps(x[0], w[0], acc))
    },
    finish: |sum, _, _, _| sum,
    store: |to: *mut f32, sum| _mm256_storeu_ps(to, sum),
    fetch: |line: *const u32| _mm_prefetch::<_MM_HINT_T1>(line.cast()),
    tiles: { 1: 4, 2: 2, 3: 1, 4: 1 }
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

/// The bits of a word that are its second number.
const SECOND: u32 = 0xffff_0000;

/// Adds two products to a sum, as the definition says: the second of the numbers first.
#[inline(always)]
fn add_pair(sum: f32, x: u32, w: u32) -> f32 {
    let second = |word: u32| f32::from_bits(word & SECOND);
    let first = |word: u32| f32::from_bits(word << 16);
    first(x).mul_add(first(w), second(x).mul_add(second(w), sum))
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::tests::numbers;
    use super::*;

    #[test]
    fn numbers_are_rounded_as_the_type_rounds_them() {
        let ends = [
            0.0,
            1.0,
            f32::MAX,
            f32::MIN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            2.0_f32.powi(-56),
            -2.0_f32.powi(-56),
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
        for tiny in [-0.0, f32::from_bits(SMALLEST - 1), -f32::MIN_POSITIVE] {
            assert_eq!(rounded(tiny), 0, "{tiny}");
        }
    }

    #[test]
    fn a_choice_stays() {
        assert!(std::ptr::eq(kernel(), kernel()));
        assert_eq!(multiplies_bf16(), multiplies_bf16());
        assert!((kernel().detected)());
        assert!(is_narrow(kernel()) || !multiplies_bf16());
    }
}
