//! Weights in `f32`: a word is a weight.

#![expect(unsafe_code, reason = "vector loads and stores inside a tile")]

use super::kernel::{Kernel, kernel};

/// The kernels of all machines, the fastest first.
pub(super) static KERNELS: &[&Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    &avx512::KERNEL,
    #[cfg(target_arch = "x86_64")]
    &avx2::KERNEL,
    &portable::KERNEL,
];

/// Turns a row of weights into words.
pub(super) fn encode(row: &[f32]) -> Vec<u32> {
    row.iter().map(|weight| weight.to_bits()).collect()
}

/// Computes the layer as its definition says: one fused multiply-add per input, in order.
#[cfg(test)]
pub(super) fn specified(x: &[f32], weight: &[f32], rows: usize, outputs: usize, inputs: usize) -> Vec<f32> {
    let mut y = Vec::with_capacity(rows * outputs);
    for row in 0..rows {
        for output in 0..outputs {
            let mut acc = 0.0_f32;
            for k in 0..inputs {
                acc = x[row * inputs + k].mul_add(weight[output * inputs + k], acc);
            }
            y.push(acc);
        }
    }
    y
}

#[cfg(target_arch = "x86_64")]
kernel! {
    avx512, detected: || is_x86_feature_detected!("avx512f"), features: "avx512f", vector: 16,
    format: Format { row_head: 0, head: 0, step: PANEL },
    start: |_, _| _mm512_setzero_ps(),
    load: |from: *const u32| _mm512_loadu_ps(from.cast()),
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
    format: Format { row_head: 0, head: 0, step: PANEL },
    start: |_, _| _mm256_setzero_ps(),
    load: |from: *const u32| _mm256_loadu_ps(from.cast()),
    splat: |x: u32| _mm256_set1_ps(f32::from_bits(x)),
    dot: |acc, x, w| _mm256_fmadd_ps(x, w, acc),
    finish: |sum, _, _, _| sum,
    store: |to: *mut f32, sum| _mm256_storeu_ps(to, sum),
    fetch: |line: *const u32| _mm_prefetch::<_MM_HINT_T1>(line.cast()),
    tiles: { 1: 4, 2: 2, 3: 2, 4: 1, 5: 1, 6: 1 }
}

// On a machine without a fused multiply-add this is slow, as `mul_add` is a library call; it is never wrong.
kernel! {
    portable, detected: || true, vector: 16,
    format: Format { row_head: 0, head: 0, step: PANEL },
    start: |_, _| [0.0_f32; 16],
    load: |from: *const u32| from.cast::<[f32; 16]>().read(),
    splat: |x: u32| f32::from_bits(x),
    dot: |acc: [f32; 16], x: f32, w: [f32; 16]| std::array::from_fn(|lane| x.mul_add(w[lane], acc[lane])),
    finish: |sum, _, _, _| sum,
    store: |to: *mut f32, sum: [f32; 16]| to.cast::<[f32; 16]>().write_unaligned(sum),
    fetch: |_: *const u32| {},
    tiles: { 1: 1, 2: 1, 3: 1, 4: 1 }
}
