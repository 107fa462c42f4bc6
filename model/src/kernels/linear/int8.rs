//! Weights and activations in 8 bits: a word is four of neighbouring inputs, the first in the lowest byte.
//!
//! A row `v`, of weights or of activations, is written as whole numbers `q` and one scale:
//!
//! ```text
//! scale = max |v| / 127;  q[k] = round(v[k] * (127 / max |v|)), ties to even, -127 to 127
//! y[row, output] = (sum over k of q_x[row, k] * q_w[output, k]) * scale_x[row] * scale_w[output]
//! ```
//!
//! The sum is exact in `i32`, so that its order is free; it becomes `f32` with one rounding and is multiplied
//! from left to right. A row whose largest value is below 127 times the smallest normal number counts as
//! zeros. A row with a NaN or an infinity has the scale NaN and therefore gives nothing but NaN.
//!
//! Each scaled value is at most half a scale away from what it stands for, hence
//!
//! ```text
//! |y - x W^T| <= sum over k of (|x[k]| scale_w + |w[k]| scale_x + scale_x scale_w / 2) / 2
//! ```
//!
//! but for the roundings in `f32`.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes. Rows of `x` therefore hold `q + 128`, and its sums start
//! from `-128 * sum of q_w`, which each panel brings along. AVX2 has only `vpmaddubsw`, which saturates at
//! 32767: it is given `|q_w|` and `q_x` with the sign of `q_w`, whose pairs sum to 2 * 127 * 127 = 32258 at
//! most.
//!
//! Sources: symmetric quantization and exact sums, Jacob et al. 2018 (arXiv 1712.05877), section 2; a scale
//! for each row and for each output, Dettmers et al. 2022 (arXiv 2208.07339), section 2.1.

#![expect(unsafe_code, reason = "vector loads and stores inside a tile")]

use super::kernel::{Format, PANEL, kernel};
use crate::kernels::simd::multiversion;

/// Most inputs of a layer: as many as sums surely fit into an `i32`, 255 * 127 * 65536 < 2^31.
pub(super) const MAX_INPUTS: usize = 1 << 16;

/// The largest `q`.
const LARGEST: f32 = 127.0;

/// A row of zeros in words, each byte `0 + 128`; also the signs that tell `q + 128` from `q`.
const ZEROS: u32 = 0x8080_8080;

/// A row begins with its scale, behind which the rest of a line is free, so that no line of values touches
/// two of memory; a panel with its scales, and with what sums of `q + 128` start from.
pub(super) const FORMAT: Format = Format {
    row_head: PANEL,
    head: 2,
    step: PANEL,
};

/// Counts the words from one row of `inputs` to the next: whole lines, and an odd number of them where that
/// takes one more, as every other line of a cache is not enough for the rows of a tile.
pub(super) fn row_words(inputs: usize) -> usize {
    let lines = FORMAT.row_head / PANEL + inputs.div_ceil(4).div_ceil(PANEL);
    (lines | 1) * PANEL
}

/// Quantizes a row of activations into its words, head and values.
pub(super) fn quantize_row(x: &[f32], words: &mut [u32]) {
    if let Some((head, values)) = words.split_at_mut_checked(FORMAT.row_head) {
        head.iter_mut()
            .take(1)
            .for_each(|scale| *scale = quantize(x, values).to_bits());
    }
}

/// Quantizes a row of activations into words of four bytes `q + 128`, and returns its scale.
pub(super) fn quantize(x: &[f32], values: &mut [u32]) -> f32 {
    let largest = f32::from_bits(largest(x));
    values.fill(ZEROS);
    if largest < LARGEST * f32::MIN_POSITIVE {
        0.0
    } else if largest.is_finite() {
        round(x, LARGEST / largest, bytemuck::cast_slice_mut(values));
        largest / LARGEST
    } else {
        f32::NAN
    }
}

multiversion! {
    /// Finds the bits of the largest magnitude. As whole numbers, those of infinities and NaN are the
    /// largest.
    fn largest(x: &[f32]) -> u32 {
        x.iter().fold(0, |largest: u32, x| largest.max(x.abs().to_bits()))
    }
}

multiversion! {
    /// Rounds scaled values, -127 to 127, to bytes `q + 128`.
    fn round(x: &[f32], factor: f32, bytes: &mut [u8]) {
        // To numbers of this size whole numbers are neighbours, so that adding rounds, ties to even.
        const NEIGHBOURS: f32 = 12_582_912.0 + 128.0;
        for (byte, x) in bytes.iter_mut().zip(x) {
            *byte = ((x * factor + NEIGHBOURS).to_bits() & 0xff) as u8;
        }
    }
}

/// Turns a row of weights into words: its scale, what sums start from, then `q` in bytes.
pub(super) fn encode(row: &[f32]) -> Vec<u32> {
    let mut values = vec![0; row.len().div_ceil(4)];
    let scale = quantize(row, &mut values);
    let mut start = 0;
    for word in &mut values {
        *word ^= ZEROS;
        start -= 128 * bytes(*word).into_iter().map(i32::from).sum::<i32>();
    }
    let head = [scale.to_bits(), start.cast_unsigned()];
    head.into_iter().chain(values).collect()
}

/// The four values of a word.
fn bytes(word: u32) -> [i8; 4] {
    word.to_ne_bytes().map(u8::cast_signed)
}

/// Computes the layer as its definition says.
#[cfg(test)]
pub(super) fn specified(x: &[f32], weight: &[f32], rows: usize, outputs: usize, inputs: usize) -> Vec<f32> {
    let mut y = Vec::with_capacity(rows * outputs);
    for row in 0..rows {
        let (scale_x, x) = quantized(&x[row * inputs..][..inputs]);
        for output in 0..outputs {
            let (scale_w, weight) = quantized(&weight[output * inputs..][..inputs]);
            let sum: i32 = x.iter().zip(weight).map(|(x, w)| x * w).sum();
            y.push(sum as f32 * scale_x * scale_w);
        }
    }
    y
}

/// Quantizes a row as the definition says: its scale and its whole numbers.
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "-127 to 127")]
pub(super) fn quantized(row: &[f32]) -> (f32, Vec<i32>) {
    let largest = row.iter().fold(0.0_f32, |largest, v| largest.max(v.abs()));
    if row.iter().any(|v| !v.is_finite()) {
        (f32::NAN, vec![0; row.len()])
    } else if largest < 127.0 * f32::MIN_POSITIVE {
        (0.0, vec![0; row.len()])
    } else {
        let q = |v: &f32| (v * (127.0 / largest)).round_ties_even() as i32;
        (largest / 127.0, row.iter().map(q).collect())
    }
}

#[cfg(target_arch = "x86_64")]
kernel! {
    avx512vnni,
    detected: || is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
    features: "avx512f,avx512vnni", vector: 16,
    format: super::FORMAT,
    // SAFETY: a panel begins with its head, two lines.
    start: |panel: *const u32, _| unsafe { _mm512_loadu_si512(panel.add(PANEL).cast()) },
    load: |from: *const u32| _mm512_loadu_si512(from.cast()),
    splat: |x: u32| _mm512_set1_epi32(x.cast_signed()),
    dot: |acc, x, w| _mm512_dpbusd_epi32(acc, x, w),
    finish: |sum, panel: *const u32, _, row: *const u32| {
        // SAFETY: a panel and a row begin with their heads.
        let (scale, scales) = unsafe { (f32::from_bits(*row), _mm512_loadu_ps(panel.cast())) };
        _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(scale)), scales)
    },
    store: |to: *mut f32, y| _mm512_storeu_ps(to, y),
    fetch: |line: *const u32| _mm_prefetch::<_MM_HINT_T1>(line.cast()),
    tiles: { 1: 4, 2: 4, 3: 4, 4: 4, 5: 2, 6: 2, 7: 2, 8: 2, 9: 2, 10: 2, 11: 2, 12: 2 }
}

/// Writes a kernel of 256-bit vectors, for one name of the dot product of four bytes.
#[cfg(target_arch = "x86_64")]
macro_rules! vnni256 {
    ($isa:ident, detected: $detected:expr, features: $features:literal, dot: $dot:ident) => {
        kernel! {
            $isa, detected: $detected, features: $features, vector: 8,
            format: super::FORMAT,
            // SAFETY: a panel begins with its head, two lines.
            start: |panel: *const u32, lane| unsafe { _mm256_loadu_si256(panel.add(PANEL + lane).cast()) },
            load: |from: *const u32| _mm256_loadu_si256(from.cast()),
                    splat: |x: u32| _mm256_set1_epi32(x.cast_signed()),
            dot: |acc, x, w| $dot(acc, x, w),
            finish: |sum, panel: *const u32, lane, row: *const u32| {
                // SAFETY: a panel and a row begin with their heads.
                let (scale, scales) = unsafe { (f32::from_bits(*row), _mm256_loadu_ps(panel.add(lane).cast())) };
                _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(scale)), scales)
            },
            store: |to: *mut f32, y| _mm256_storeu_ps(to, y),
            fetch: |line: *const u32| _mm_prefetch::<_MM_HINT_T1>(line.cast()),
            tiles: { 1: 2, 2: 2, 3: 2, 4: 1, 5: 1, 6: 1 }
        }
    };
}

#[cfg(target_arch = "x86_64")]
vnni256! {
    avxvnni, detected: || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni"),
    features: "avx2,avxvnni", dot: _mm256_dpbusd_avx_epi32
}

#[cfg(all(test, target_arch = "x86_64"))]
vnni256! {
    avx512vnni_256,
    detected: || is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512vnni"),
    features: "avx512vl,avx512vnni", dot: _mm256_dpbusd_epi32
}

#[cfg(target_arch = "x86_64")]
kernel! {
    avx2, detected: || is_x86_feature_detected!("avx2"), features: "avx2", vector: 8,
    format: super::FORMAT,
    start: |_, _| _mm256_setzero_si256(),
    load: |from: *const u32| _mm256_loadu_si256(from.cast()),
    splat: |x: u32| _mm256_set1_epi32((x ^ super::ZEROS).cast_signed()),
    dot: |acc, x, w| {
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
        _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    },
    finish: |sum, panel: *const u32, lane, row: *const u32| {
        // SAFETY: a panel and a row begin with their heads.
        let (scale, scales) = unsafe { (f32::from_bits(*row), _mm256_loadu_ps(panel.add(lane).cast())) };
        _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(scale)), scales)
    },
    store: |to: *mut f32, y| _mm256_storeu_ps(to, y),
    fetch: |line: *const u32| _mm_prefetch::<_MM_HINT_T1>(line.cast()),
    tiles: { 1: 2, 2: 1, 3: 1, 4: 1 }
}

kernel! {
    portable, detected: || true, vector: 16,
    format: super::FORMAT,
    start: |_, _| [0_i32; 16],
    load: |from: *const u32| from.cast::<[u32; 16]>().read().map(super::bytes),
    splat: |x: u32| super::bytes(x ^ super::ZEROS),
    dot: |acc: [i32; 16], x: [i8; 4], w: [[i8; 4]; 16]| std::array::from_fn(|lane| {
        let products = x.iter().zip(&w[lane]).map(|(x, w)| i32::from(*x) * i32::from(*w));
        acc[lane].wrapping_add(products.sum()) // as the instructions do, where a file lies
    }),
    finish: |sums: [i32; 16], panel: *const u32, _, row: *const u32| {
        // SAFETY: a panel and a row begin with their heads.
        let (scale, scales) = unsafe { (f32::from_bits(*row), panel.cast::<[f32; 16]>().read()) };
        std::array::from_fn(|lane| sums[lane] as f32 * scale * scales[lane])
    },
    store: |to: *mut f32, y: [f32; 16]| to.cast::<[f32; 16]>().write_unaligned(y),
    fetch: |_: *const u32| {},
    tiles: { 1: 1, 2: 1, 3: 1, 4: 1 }
}
