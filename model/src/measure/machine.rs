//! The ceilings of a machine.

use std::hint::black_box;

use rayon::prelude::*;

use super::peaks::{self, Peak};
use super::seconds;
use crate::kernels::simd::multiversion;

/// A set that no cache holds, in bytes for all threads together.
const MEMORY_BYTES: usize = 512 << 20;

/// A set that the second-level cache of each thread's core holds, in bytes.
const CACHE_BYTES: usize = 256 << 10;

/// How often a cached set is read in one go, so that starting the threads does not count.
const CACHE_PASSES: usize = 512;

/// How often each ceiling is tried; the best counts, since nothing makes a machine faster than it is.
const TRIALS: usize = 7;

/// How long the threads do operations in one trial.
const OPERATION_ROUNDS: u32 = 4_000_000;

/// What the threads of the current rayon pool can do together.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Machine {
    /// How many threads were measured.
    pub threads: usize,
    /// Bytes read a second from memory.
    pub memory_bytes: f64,
    /// Bytes read a second from the cores' own caches.
    pub cache_bytes: f64,
    /// Operations a second on f32, a multiplication and an addition counting as two.
    pub f32_operations: f64,
    /// Operations a second on products of bf16 with sums in f32; none where no instruction does that.
    pub bf16_operations: Option<f64>,
    /// Operations a second on products of int8 with sums in i32; none where no instruction does that.
    pub int8_operations: Option<f64>,
}

impl Machine {
    /// Measures the machine on the threads of the current rayon pool, for about two seconds.
    #[must_use]
    pub fn measure() -> Self {
        let threads = rayon::current_num_threads().max(1);
        Self {
            threads,
            memory_bytes: read_rate(threads, MEMORY_BYTES / threads, 1),
            cache_bytes: read_rate(threads, CACHE_BYTES, CACHE_PASSES),
            f32_operations: rate(threads, peaks::f32()),
            bf16_operations: peaks::bf16().map(|peak| rate(threads, peak)),
            int8_operations: peaks::int8().map(|peak| rate(threads, peak)),
        }
    }
}

/// Returns the operations that all threads do a second.
fn rate(threads: usize, peak: Peak) -> f64 {
    let all = peak.operations_a_round * f64::from(OPERATION_ROUNDS) * threads as f64;
    let trial = |_| {
        all / seconds(|| {
            rayon::broadcast(|_| peak.run(OPERATION_ROUNDS));
        })
    };
    (0..TRIALS).map(trial).fold(0.0, f64::max)
}

/// Returns the bytes that all threads read a second, each over and over from a set of its own of `bytes`.
fn read_rate(threads: usize, bytes: usize, passes: usize) -> f64 {
    // Written by several threads, and with numbers: untouched memory would be one page of zeros.
    let sets: Vec<Vec<f32>> = (0..threads)
        .into_par_iter()
        .map(|_| vec![1.0; bytes / size_of::<f32>()])
        .collect();
    let all = (threads * bytes * passes) as f64;
    let read = |thread: usize| {
        for _ in 0..passes {
            black_box(sum(black_box(sets.get(thread).map_or(&[], Vec::as_slice))));
        }
    };
    let trial = |_| {
        all / seconds(|| {
            rayon::broadcast(|thread| read(thread.index()));
        })
    };
    (0..TRIALS).map(trial).fold(0.0, f64::max)
}

multiversion! {
    /// Adds numbers up in 128 lanes, so that reading them is all that takes time.
    fn sum(values: &[f32]) -> f32 {
        const LANES: usize = 128;
        let mut lanes = [0.0f32; LANES];
        for chunk in values.as_chunks::<LANES>().0 {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += value;
            }
        }
        lanes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_a_set_is_read() {
        let values: Vec<f32> = (0..1280u16).map(f32::from).collect();
        assert!(sum(&values).total_cmp(&(1279.0 * 1280.0 / 2.0)).is_eq());
    }
}
