//! Operations in registers: independent chains of multiply-and-add, with nothing to wait for but the units
//! that do them.

#![expect(
    unsafe_code,
    reason = "calls functions compiled for a detected instruction set"
)]

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use std::hint::black_box;

use crate::kernels::amx;

/// How many chains run side by side: they hide five cycles of latency on two units, and fit into 16
/// registers.
const CHAINS: usize = 10;

/// How many numbers a chain of the portable form is wide.
const LANES: usize = 4;

/// A way to keep this machine's units busy.
#[derive(Clone, Copy)]
pub(super) struct Peak {
    /// What all chains do in a round, a multiplication and an addition counting as two.
    pub(super) operations_a_round: f64,
    chains: unsafe fn(u32),
}

impl Peak {
    /// Takes chains that do `products` multiply-and-adds in each step, compiled for what this machine has.
    fn new(products: u32, chains: unsafe fn(u32)) -> Self {
        Self {
            operations_a_round: 2.0 * f64::from(products) * CHAINS as f64,
            chains,
        }
    }

    /// Does `rounds` rounds on the calling thread.
    pub(super) fn run(&self, rounds: u32) {
        // SAFETY: the functions below, which alone make a `Peak`, have detected the instruction set of its
        // chains.
        unsafe { (self.chains)(rounds) }
    }
}

/// Multiplies and adds f32.
pub(super) fn f32() -> Peak {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return Peak::new(16, x86::f32_avx512);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Peak::new(8, x86::f32_avx2);
        }
    }
    Peak::new(4, portable)
}

/// Multiplies bf16 and adds in f32, where there is an instruction for it.
pub(super) fn bf16() -> Option<Peak> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16") {
        return Some(Peak::new(32, x86::bf16_avx512));
    }
    None
}

/// Multiplies int8 and adds in i32, where there is an instruction for it.
pub(super) fn int8() -> Option<Peak> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if amx::is_granted() {
        return Some(Peak {
            operations_a_round: 2.0 * f64::from(amx::PRODUCTS_A_ROUND),
            chains: amx::products,
        });
    }
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
            return Some(Peak::new(64, x86::int8_avx512));
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni") {
            return Some(Peak::new(32, x86::int8_avx2));
        }
    }
    None
}

fn portable(rounds: u32) {
    let (a, b) = (black_box([0.0f32; LANES]), black_box([0.0f32; LANES]));
    let mut sums = [[0.0f32; LANES]; CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
                // Without an instruction for it, a fused step would be a call.
                *sum = if cfg!(target_arch = "aarch64") {
                    a.mul_add(b, *sum)
                } else {
                    *sum + a * b
                };
            }
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{CHAINS, black_box};
    use std::arch::x86_64::{
        _mm256_dpbusd_avx_epi32, _mm256_fmadd_ps, _mm256_setzero_ps, _mm256_setzero_si256,
        _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_setzero_ps,
        _mm512_setzero_si512,
    };

    /// Makes a function of chains from what a sum starts at, what the factors are, and a step.
    macro_rules! chains {
        ($name:ident, $features:literal, $start:expr, $factor:expr, |$sum:ident, $a:ident, $b:ident| $step:expr) => {
            #[target_feature(enable = $features)]
            pub(super) fn $name(rounds: u32) {
                // Zeros are as fast as any numbers; the compiler must not know them.
                let ($a, $b) = (black_box($factor), black_box($factor));
                let mut sums = [$start; CHAINS];
                for _ in 0..rounds {
                    for sum in &mut sums {
                        let $sum = *sum;
                        *sum = $step;
                    }
                }
                black_box(sums);
            }
        };
    }

    chains!(
        f32_avx512,
        "avx512f",
        _mm512_setzero_ps(),
        _mm512_setzero_ps(),
        |sum, a, b| _mm512_fmadd_ps(a, b, sum)
    );
    chains!(
        f32_avx2,
        "avx2,fma",
        _mm256_setzero_ps(),
        _mm256_setzero_ps(),
        |sum, a, b| _mm256_fmadd_ps(a, b, sum)
    );
    chains!(
        bf16_avx512,
        "avx512f,avx512bf16",
        _mm512_setzero_ps(),
        _mm512_cvtne2ps_pbh(_mm512_setzero_ps(), _mm512_setzero_ps()),
        |sum, a, b| _mm512_dpbf16_ps(sum, a, b)
    );
    chains!(
        int8_avx512,
        "avx512f,avx512vnni",
        _mm512_setzero_si512(),
        _mm512_setzero_si512(),
        |sum, a, b| _mm512_dpbusd_epi32(sum, a, b)
    );
    chains!(
        int8_avx2,
        "avx2,avxvnni",
        _mm256_setzero_si256(),
        _mm256_setzero_si256(),
        |sum, a, b| _mm256_dpbusd_avx_epi32(sum, a, b)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_has_runs_and_counts_its_operations() {
        let peaks = [Some(f32()), bf16(), int8()];
        for peak in peaks.into_iter().flatten() {
            peak.run(3);
            assert!(peak.operations_a_round >= 2.0 * (CHAINS * LANES) as f64);
        }
        assert!(Peak::new(4, portable).operations_a_round <= f32().operations_a_round);
    }
}
