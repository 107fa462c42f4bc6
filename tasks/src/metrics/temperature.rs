//! The temperature that makes probabilities as sure as they are right.

use super::numbers::mean;

/// The bounds of a temperature that is fitted.
pub const TEMPERATURE_BOUNDS: (f64, f64) = (0.01, 100.0);

/// How often the search narrows its interval: by 0.618 each time, to less than f64 resolves.
const STEPS: usize = 80;

/// Holds log-probabilities of the answers to one question, in any order and up to a constant.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledLogits {
    /// The log-probability of each answer.
    pub logits: Vec<f64>,
    /// The place of the right one.
    pub right: usize,
}

/// Holds a temperature that was fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TemperatureFit {
    /// What log-probabilities are to be divided by.
    pub temperature: f64,
    /// The mean negative log-likelihood of the right answers before, in nats.
    pub before: f64,
    /// The same with the temperature.
    pub after: f64,
}

impl TemperatureFit {
    /// Tells whether the temperature is at an end of [`TEMPERATURE_BOUNDS`], so that there may be no best
    /// one: answers that are all right want ever more certainty.
    pub fn is_at_bound(&self) -> bool {
        let (low, high) = TEMPERATURE_BOUNDS;
        self.temperature < low * 1.01 || self.temperature > high / 1.01
    }
}

/// Finds the temperature within [`TEMPERATURE_BOUNDS`] with the lowest negative log-likelihood of the right
/// answers, by golden-section search over its logarithm. `None` without cases, and where a right answer is
/// none of its case's.
///
/// The negative log-likelihood is convex in the inverse of the temperature, so there is one minimum.
///
/// Source: Guo et al. 2017 (<https://arxiv.org/abs/1706.04599>), section 4.2; Kiefer 1953
/// (<https://doi.org/10.1090/S0002-9939-1953-0055639-3>) for the search.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::{LabelledLogits, fit_temperature};
///
/// // 0.9 is said, and 3 of 4 are right.
/// let case = |right| LabelledLogits { logits: vec![0.9f64.ln(), 0.1f64.ln()], right };
/// let fit = fit_temperature(&[case(0), case(0), case(0), case(1)]).unwrap();
/// assert!((fit.temperature - 2.0).abs() < 1e-6 && fit.after < fit.before);
/// ```
pub fn fit_temperature(cases: &[LabelledLogits]) -> Option<TemperatureFit> {
    if cases.is_empty() || cases.iter().any(|case| case.right >= case.logits.len()) {
        return None;
    }
    let loss = |log: f64| mean_negative_log_likelihood(cases, log.exp());
    let (low, high) = TEMPERATURE_BOUNDS;
    let best = minimum(low.ln(), high.ln(), loss).exp();
    let (before, after) = (loss(0.0), loss(best.ln()));
    let (temperature, after) = if after < before {
        (best, after)
    } else {
        (1.0, before)
    };
    Some(TemperatureFit {
        temperature,
        before,
        after,
    })
}

/// Returns the mean negative log-likelihood of the right answers at a temperature, in nats; 0 without cases.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::{LabelledLogits, mean_negative_log_likelihood};
///
/// let case = LabelledLogits { logits: vec![0.25f64.ln(), 0.75f64.ln()], right: 0 };
/// assert!((mean_negative_log_likelihood(&[case], 1.0) - 4.0f64.ln()).abs() < 1e-12);
/// ```
pub fn mean_negative_log_likelihood(cases: &[LabelledLogits], temperature: f64) -> f64 {
    mean(cases.iter().map(|case| {
        let probabilities = case.probabilities(temperature);
        let right = probabilities.get(case.right).copied().unwrap_or_default();
        -right.max(f64::MIN_POSITIVE).ln()
    }))
}

impl LabelledLogits {
    /// Returns the softmax of the log-probabilities, divided by a temperature.
    pub fn probabilities(&self, temperature: f64) -> Vec<f64> {
        let most = self.logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weight = |logit: &f64| ((logit - most) / temperature).exp();
        let total: f64 = self.logits.iter().map(weight).sum();
        self.logits.iter().map(|logit| weight(logit) / total).collect()
    }
}

/// Finds where a function with one minimum has it.
fn minimum(mut low: f64, mut high: f64, value: impl Fn(f64) -> f64) -> f64 {
    let golden = (5.0f64.sqrt() - 1.0) / 2.0;
    let (mut left, mut right) = (high - golden * (high - low), low + golden * (high - low));
    let (mut at_left, mut at_right) = (value(left), value(right));
    for _ in 0..STEPS {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - golden * (high - low);
            at_left = value(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + golden * (high - low);
            at_right = value(right);
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    /// Draws questions of four answers, each right as often as its probability says.
    fn calibrated_cases(count: usize) -> Vec<LabelledLogits> {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut uniform = || f64::from(random.next_u32()) / f64::from(u32::MAX);
        let mut case = || {
            let logits: Vec<f64> = (0..4).map(|_| 4.0 * uniform()).collect();
            let mut case = LabelledLogits { logits, right: 0 };
            let mut left = uniform();
            for probability in case.probabilities(1.0) {
                left -= probability;
                if left > 0.0 {
                    case.right = (case.right + 1).min(3);
                }
            }
            case
        };
        (0..count).map(|_| case()).collect()
    }

    #[test]
    fn logits_that_are_scaled_by_a_factor_are_fitted_by_it() {
        let own = fit_temperature(&calibrated_cases(20_000)).unwrap().temperature;
        assert!((own - 1.0).abs() < 0.03, "{own}");
        for factor in [0.25, 3.0] {
            let mut cases = calibrated_cases(20_000);
            for case in &mut cases {
                case.logits.iter_mut().for_each(|logit| *logit *= factor);
            }
            let fit = fit_temperature(&cases).unwrap();
            assert!((fit.temperature / factor - own).abs() < 1e-6, "{factor}: {fit:?}");
            assert!(fit.after < fit.before && !fit.is_at_bound());
        }
    }

    #[test]
    fn answers_that_are_all_right_or_only_guessed_end_at_a_bound() {
        let case = |right| LabelledLogits {
            logits: vec![2.0, 0.0],
            right,
        };
        let right = fit_temperature(&[case(0), case(0)]).unwrap();
        assert!(right.is_at_bound() && right.temperature < 0.02);
        let wrong = fit_temperature(&[case(1), case(1)]).unwrap();
        assert!(wrong.is_at_bound() && wrong.temperature > 99.0);
        assert_eq!(fit_temperature(&[]), None);
        assert_eq!(fit_temperature(&[case(2)]), None);
    }

    #[test]
    fn probabilities_that_are_zero_are_fitted_without_infinities() {
        let case = LabelledLogits {
            logits: vec![0.0, f64::NEG_INFINITY],
            right: 1,
        };
        let fit = fit_temperature(&[case]).unwrap();
        assert!(fit.before.is_finite() && fit.after.is_finite());
    }
}
