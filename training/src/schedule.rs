//! The learning rate over a run.

use std::f64::consts::PI;

/// A learning rate that rises linearly, stays, then falls along half a cosine to a floor and stays there.
///
/// Source: Loshchilov and Hutter 2017 (SGDR), section 3, without restarts; warm-up as in BEiT-3, table 11;
/// the time between as in Hu et al. 2024, MiniCPM (arXiv 2404.06395), section 4.
///
/// # Examples
///
/// ```
/// use multiway_training::schedule::WarmupCosine;
///
/// let schedule = WarmupCosine { peak: 1e-3, floor: 1e-5, warmup_steps: 10, decay_steps: 90, total_steps: 100 };
/// assert!(schedule.learning_rate(0) < schedule.learning_rate(9));
/// assert!((schedule.learning_rate(10) - 1e-3).abs() < 1e-12);
/// assert!((schedule.learning_rate(100) - 1e-5).abs() < 1e-12);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmupCosine {
    /// The highest rate, reached after the warm-up.
    pub peak: f64,
    /// The rate at the end, and after it.
    pub floor: f64,
    /// Steps of the warm-up.
    pub warmup_steps: u64,
    /// Steps at the end over which it falls; at most all that follow the warm-up.
    pub decay_steps: u64,
    /// Steps of the whole run, warm-up included.
    pub total_steps: u64,
}

impl WarmupCosine {
    /// Returns the rate for a step, counted from 0; the first step's is above zero.
    #[must_use]
    pub fn learning_rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / (self.warmup_steps + 1) as f64;
        }
        if step >= self.total_steps {
            return self.floor;
        }
        let start = self
            .total_steps
            .saturating_sub(self.decay_steps)
            .max(self.warmup_steps);
        if step < start {
            return self.peak;
        }
        let progress = (step - start) as f64 / (self.total_steps - start) as f64;
        self.floor + (self.peak - self.floor) * 0.5 * (1.0 + (PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: WarmupCosine = WarmupCosine {
        peak: 2e-3,
        floor: 1e-4,
        warmup_steps: 50,
        decay_steps: 250,
        total_steps: 250,
    };

    #[test]
    fn the_rate_rises_to_the_peak_and_falls_to_the_floor() {
        let rates: Vec<f64> = (0..300).map(|step| SCHEDULE.learning_rate(step)).collect();
        assert!(rates[0] > 0.0);
        assert!(rates[..=50].is_sorted_by(|a, b| a < b));
        assert!(rates[50..=250].is_sorted_by(|a, b| a > b));
        assert!((rates[50] - 2e-3).abs() < 1e-12);
        assert!((rates[150] - 1.05e-3).abs() < 1e-12);
        assert!(rates[250..].iter().all(|rate| (rate - 1e-4).abs() < 1e-12));
    }

    #[test]
    fn a_late_fall_leaves_the_peak_until_then() {
        let late = WarmupCosine {
            decay_steps: 50,
            ..SCHEDULE
        };
        assert!((50..=200).all(|step| (late.learning_rate(step) - 2e-3).abs() < 1e-12));
        assert!((late.learning_rate(225) - 1.05e-3).abs() < 1e-12);
        assert!((late.learning_rate(250) - 1e-4).abs() < 1e-12);
    }

    #[test]
    fn a_schedule_without_warmup_or_length_is_still_a_number() {
        let none = WarmupCosine {
            warmup_steps: 0,
            total_steps: 0,
            ..SCHEDULE
        };
        assert!((none.learning_rate(0) - 1e-4).abs() < 1e-12);
        let all_warmup = WarmupCosine {
            warmup_steps: 9,
            total_steps: 3,
            ..SCHEDULE
        };
        assert!((0..20).all(|step| all_warmup.learning_rate(step).is_finite()));
    }
}
