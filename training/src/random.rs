//! Draws from a random number generator, the same on every machine.
//!
//! Everything random in training takes a [`ChaCha8Rng`] from its caller. [`fork`] derives independent
//! generators from one seed and a few counters (step, worker, sample), so that a resumed run needs no saved
//! generator to go on as before.

use std::f32::consts::TAU;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// Derives a generator from a seed and a path of counters; different paths give independent generators.
///
/// # Examples
///
/// ```
/// use multiway_training::random::{fork, unit};
///
/// let (mut a, mut b) = (fork(7, &[3, 0]), fork(7, &[3, 0]));
/// assert_eq!(unit(&mut a).to_bits(), unit(&mut b).to_bits());
/// ```
#[must_use]
pub fn fork(seed: u64, path: &[u64]) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    for counter in path {
        hash.update(counter.to_le_bytes());
    }
    ChaCha8Rng::from_seed(hash.finalize().into())
}

/// Draws a number from `[0, 1)` with 24 random bits.
pub fn unit(rng: &mut impl Rng) -> f32 {
    const SCALE: f32 = 1.0 / (1 << 24) as f32;
    (rng.next_u32() >> 8) as f32 * SCALE
}

/// Draws a number between `low` and `high`.
pub fn between(rng: &mut impl Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * unit(rng)
}

/// Says yes with the given probability.
pub fn chance(rng: &mut impl Rng, probability: f32) -> bool {
    unit(rng) < probability
}

/// Draws an index below `count`, or 0 when `count` is 0.
pub fn below(rng: &mut impl Rng, count: usize) -> usize {
    // Multiply-shift: its bias is below count / 2^64.
    let wide = u128::from(rng.next_u64()) * count as u128;
    usize::try_from(wide >> 64).unwrap_or(0)
}

/// Draws from the standard normal distribution (Box-Muller, one value a call).
pub fn normal(rng: &mut impl Rng) -> f32 {
    let radius = (-2.0 * (1.0 - unit(rng)).ln()).sqrt();
    radius * (TAU * unit(rng)).cos()
}

/// Shuffles a slice (Fisher-Yates).
pub fn shuffle<T>(rng: &mut impl Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_paths_give_different_generators() {
        let draws = |path: &[u64]| fork(1, path).next_u64();
        assert_ne!(draws(&[1, 2]), draws(&[2, 1]));
        assert_ne!(draws(&[]), draws(&[0]));
        assert_ne!(fork(1, &[]).next_u64(), fork(2, &[]).next_u64());
    }

    #[test]
    fn indices_cover_their_range_evenly() {
        let mut rng = fork(5, &[]);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[below(&mut rng, 7)] += 1;
        }
        assert!(
            counts.iter().all(|&count| (9_500..10_500).contains(&count)),
            "{counts:?}"
        );
        assert_eq!(below(&mut rng, 0), 0);
    }

    #[test]
    fn normal_draws_have_mean_zero_and_variance_one() {
        let mut rng = fork(9, &[]);
        let draws: Vec<f32> = (0..50_000).map(|_| normal(&mut rng)).collect();
        let mean = draws.iter().sum::<f32>() / 50_000.0;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f32>() / 50_000.0;
        assert!(
            mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03,
            "mean {mean}, variance {variance}"
        );
    }

    #[test]
    fn shuffling_keeps_every_item() {
        let mut items: Vec<usize> = (0..100).collect();
        shuffle(&mut fork(2, &[]), &mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
