//! How sure a score is: intervals at 95 % confidence.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::numbers::count;

/// The 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// How often a bootstrap draws the samples again.
pub const BOOTSTRAP_RESAMPLES: usize = 1000;

/// Holds the bounds that a score lies within, with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

/// Returns Wilson's score interval of a proportion; from 0 to 1 without cases.
///
/// Source: <https://doi.org/10.1080/01621459.1927.10502953>.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::wilson_interval;
///
/// let interval = wilson_interval(8, 10);
/// assert!((interval.low - 0.4902).abs() < 1e-4 && (interval.high - 0.9433).abs() < 1e-4);
/// ```
pub fn wilson_interval(right: usize, total: usize) -> Interval {
    if total == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let n = count(total);
    let p = count(right.min(total)) / n;
    let centre = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let reach = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Interval {
        low: (centre - reach).max(0.0),
        high: (centre + reach).min(1.0),
    }
}

/// Returns the percentile bootstrap interval of a score over `samples` samples: the score is computed over
/// samples drawn again with replacement, [`BOOTSTRAP_RESAMPLES`] times. The seed fixes what is drawn, on
/// every machine.
///
/// `None` without samples, or where a score is not finite.
///
/// Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::bootstrap_interval;
///
/// let scores = [0.0, 1.0, 1.0, 1.0];
/// let mean = |drawn: &[usize]| drawn.iter().map(|at| scores[*at]).sum::<f64>() / 4.0;
/// let interval = bootstrap_interval(scores.len(), 7, mean).unwrap();
/// assert_eq!((interval.low, interval.high), (0.25, 1.0));
/// ```
pub fn bootstrap_interval(samples: usize, seed: u64, score: impl Fn(&[usize]) -> f64) -> Option<Interval> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn = vec![0; samples];
    let mut scores = Vec::with_capacity(BOOTSTRAP_RESAMPLES);
    for _ in 0..BOOTSTRAP_RESAMPLES {
        drawn.fill_with(|| below(samples, &mut random));
        scores.push(score(&drawn));
    }
    if samples == 0 || scores.iter().any(|score| !score.is_finite()) {
        return None;
    }
    scores.sort_by(f64::total_cmp);
    Some(Interval {
        low: quantile(&scores, 25)?,
        high: quantile(&scores, 975)?,
    })
}

/// Draws a number below `bound`, without the bias of a remainder that one could measure: 64 bits are scaled.
fn below(bound: usize, random: &mut ChaCha8Rng) -> usize {
    let scaled = (u128::from(random.next_u64()) * bound as u128) >> 64;
    usize::try_from(scaled).unwrap_or_default()
}

/// Interpolates between sorted values, as `numpy.percentile` does.
fn quantile(sorted: &[f64], per_mille: usize) -> Option<f64> {
    let scaled = sorted.len().checked_sub(1)? * per_mille;
    let (at, rest) = (scaled / 1000, count(scaled % 1000) / 1000.0);
    let low = *sorted.get(at)?;
    let high = *sorted.get(at + 1).unwrap_or(&low);
    Some(low + (high - low) * rest)
}
