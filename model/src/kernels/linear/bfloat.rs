//! Weights in `bf16`: a line is two steps of a panel, one after another.
//!
//! A `bf16` is the upper half of an `f32`, so that widening is a shift and exact, and the sums are those of
//! the `f32` kernel on rounded weights, to the bit. `vdpbf16ps` is left alone: it adds two products at once,
//! in an order and with a treatment of tiny numbers of its own.

#![expect(unsafe_code, reason = "vector loads and stores inside a tile")]

use half::bf16;

use super::kernel::{Kernel, Line, PANEL, kernel};

/// The kernels of all machines, the fastest first.
pub(super) static KERNELS: &[&Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    &avx512::KERNEL,
    #[cfg(target_arch = "x86_64")]
    &avx2::KERNEL,
    &portable::KERNEL,
];

/// Rounds a row of weights to the nearest, ties to even, and turns it into words of two, the first in the low
/// half.
pub(super) fn encode(row: &[f32]) -> Vec<u32> {
    let bits = |weight: Option<&f32>| weight.map_or(0, |w| u32::from(bf16::from_f32(*w).to_bits()));
    let pair = |pair: &[f32]| bits(pair.first()) | bits(pair.get(1)) << 16;
    row.chunks(2).map(pair).collect()
}

/// Puts the word of one output into a line.
pub(super) fn place(line: &mut Line, lane: usize, word: u32) {
    let [a, b, c, d] = word.to_le_bytes();
    let [first, second]: &mut [[u16; PANEL]; 2] = bytemuck::cast_mut(&mut line.0);
    for (step, bytes) in [(first, [a, b]), (second, [c, d])] {
        if let Some(slot) = step.get_mut(lane) {
            *slot = u16::from_le_bytes(bytes);
        }
    }
}

/// Reads the word of one output from a line.
pub(super) fn word(line: &Line, lane: usize) -> u32 {
    let steps: &[[u16; PANEL]; 2] = bytemuck::cast_ref(&line.0);
    let [first, second] = steps.map(|step| u32::from(step.get(lane).copied().unwrap_or_default()));
    first | second << 16
}

/// Computes the layer as its definition says: the `f32` layer on weights rounded to `bf16`.
#[cfg(test)]
pub(super) fn specified(x: &[f32], weight: &[f32], rows: usize, outputs: usize, inputs: usize) -> Vec<f32> {
    let rounded: Vec<f32> = weight.iter().map(|w| bf16::from_f32(*w).to_f32()).collect();
    super::single::specified(x, &rounded, rows, outputs, inputs)
}

#[cfg(target_arch = "x86_64")]
kernel! {
    avx512, detected: || is_x86_feature_detected!("avx512f"), features: "avx512f", vector: 16,
    format: Format { row_head: 0, head: 0, step: PANEL / 2 },
    start: |_, _| _mm512_setzero_ps(),
    load: |from: *const u32| {
        let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
    },
    splat: |x: u32| _mm512_set1_ps(f32::from_bits(x)),
    dot: |acc, x, w| _mm512_fmadd_ps(x, w, acc),
    finish: |sum, _, _, _| sum,
    store: |to: *mut f32, sum| _mm512_storeu_ps(to, sum),
    fetch: |line: *const u32| _mm_prefetch::<_MM_HINT_T1>(line.cast()),
    tiles: { 1: 8, 2: 4, 3: 4, 4: 4, 5: 2, 6: 2, 7: 2, 8: 2, 9: 2, 10: 2, 11: 2, 12: 2 }
}

#[cfg(target_arch = "x86_64")]
kernel! {
    avx2, detected: || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
    features: "avx2,fma", vector: 8,
    format: Format { row_head: 0, head: 0, step: PANEL / 2 },
    start: |_, _| _mm256_setzero_ps(),
    load: |from: *const u32| {
        let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
    },
    splat: |x: u32| _mm256_set1_ps(f32::from_bits(x)),
    dot: |acc, x, w| _mm256_fmadd_ps(x, w, acc),
    finish: |sum, _, _, _| sum,
    store: |to: *mut f32, sum| _mm256_storeu_ps(to, sum),
    fetch: |line: *const u32| _mm_prefetch::<_MM_HINT_T1>(line.cast()),
    tiles: { 1: 4, 2: 2, 3: 2, 4: 1, 5: 1, 6: 1 }
}

kernel! {
    portable, detected: || true, vector: 16,
    format: Format { row_head: 0, head: 0, step: PANEL / 2 },
    start: |_, _| [0.0_f32; 16],
    load: |from: *const u32| from.cast::<[u16; 16]>().read().map(|bits| f32::from_bits(u32::from(bits) << 16)),
    splat: |x: u32| f32::from_bits(x),
    dot: |acc: [f32; 16], x: f32, w: [f32; 16]| std::array::from_fn(|lane| x.mul_add(w[lane], acc[lane])),
    finish: |sum, _, _, _| sum,
    store: |to: *mut f32, sum: [f32; 16]| to.cast::<[f32; 16]>().write_unaligned(sum),
    fetch: |_: *const u32| {},
    tiles: { 1: 1, 2: 1, 3: 1, 4: 1 }
}
