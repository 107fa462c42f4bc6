//! Whether probabilities are as often right as they say.

use super::numbers::{count, mean};

/// The bins of a calibration error, unless the caller says otherwise.
///
/// Source: Guo et al. 2017 (<https://arxiv.org/abs/1706.04599>), section 5.
pub const CALIBRATION_BINS: usize = 15;

/// Holds how sure an answer was, and whether it was right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confidence {
    /// The probability of the answer.
    pub probability: f64,
    /// Whether the answer was right.
    pub is_right: bool,
}

/// Returns the expected calibration error, ECE, from 0 to 1: the mean difference between how sure answers
/// were and how often they were right, over bins of equal width and weighted by their answers. 0 without
/// answers.
///
/// A bin takes probabilities above its lower bound and up to its upper one.
///
/// Source: Naeini et al. 2015 (<https://doi.org/10.1609/aaai.v29i1.9602>); Guo et al. 2017
/// (<https://arxiv.org/abs/1706.04599>), section 2.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::{CALIBRATION_BINS, Confidence, calibration_error};
///
/// let answer = |probability, is_right| Confidence { probability, is_right };
/// let answers = [answer(0.9, true), answer(0.9, false)];
/// assert!((calibration_error(&answers, CALIBRATION_BINS) - 0.4).abs() < 1e-12);
/// ```
pub fn calibration_error(answers: &[Confidence], bins: usize) -> f64 {
    let bins = bins.max(1);
    let mut sums = vec![Bin::default(); bins];
    for answer in answers {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the number of bins; NaN becomes 0"
        )]
        let at = (answer.probability.clamp(0.0, 1.0) * count(bins)).ceil() as usize;
        if let Some(bin) = sums.get_mut(at.saturating_sub(1)) {
            bin.add(*answer);
        }
    }
    error_of(&sums, answers.len())
}

/// Returns the calibration error over bins that hold equally many answers, sorted by probability; the first
/// ones hold one more where they do not divide evenly.
///
/// Source: Nguyen and O'Connor 2015 (<https://aclanthology.org/D15-1182>), section 3.2.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::{Confidence, adaptive_calibration_error};
///
/// let answer = |probability, is_right| Confidence { probability, is_right };
/// let answers = [answer(0.6, false), answer(0.9, true)];
/// assert!((adaptive_calibration_error(&answers, 2) - 0.35).abs() < 1e-12);
/// ```
pub fn adaptive_calibration_error(answers: &[Confidence], bins: usize) -> f64 {
    let mut sorted = answers.to_vec();
    sorted.sort_by(|one, other| one.probability.total_cmp(&other.probability));
    let bins = bins.clamp(1, sorted.len().max(1));
    let (each, more) = (sorted.len() / bins, sorted.len() % bins);
    let mut sums = vec![Bin::default(); bins];
    let mut answers = sorted.into_iter();
    for (at, bin) in sums.iter_mut().enumerate() {
        let size = each + usize::from(at < more);
        answers.by_ref().take(size).for_each(|answer| bin.add(answer));
    }
    error_of(&sums, each * bins + more)
}

/// The sums over the answers of a bin.
#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    probability: f64,
    right: usize,
}

impl Bin {
    fn add(&mut self, answer: Confidence) {
        self.probability += answer.probability;
        self.right += usize::from(answer.is_right);
    }
}

fn error_of(bins: &[Bin], answers: usize) -> f64 {
    let errors = bins.iter().map(|bin| (bin.probability - count(bin.right)).abs());
    errors.sum::<f64>() / count(answers.max(1))
}

/// Returns the squared distance of probabilities from certainty about the right answer, from 0 to 2. A right
/// answer that is none of them (`None`) had the probability 0.
///
/// Source: Brier 1950 (<https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2>), equation 2,
/// without the mean over cases; of two answers, twice what some call the Brier score.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::brier_score;
///
/// assert!((brier_score(&[0.8, 0.2], Some(0)) - 0.08).abs() < 1e-12);
/// assert!((brier_score(&[0.5, 0.5], None) - 1.5).abs() < 1e-12);
/// ```
pub fn brier_score(probabilities: &[f64], right: Option<usize>) -> f64 {
    let squares = probabilities.iter().enumerate().map(|(at, probability)| {
        let target = if right == Some(at) { 1.0 } else { 0.0 };
        (probability - target) * (probability - target)
    });
    let missed = if right.is_some_and(|right| right < probabilities.len()) {
        0.0
    } else {
        1.0
    };
    squares.sum::<f64>() + missed
}

/// Returns the mean absolute error of numbers, each with the one that was expected; 0 of none.
///
/// # Examples
///
/// ```
/// assert_eq!(multiway_tasks::metrics::mean_absolute_error(&[(3.0, 4.0), (7.0, 7.0)]), 0.5);
/// ```
pub fn mean_absolute_error(pairs: &[(f64, f64)]) -> f64 {
    mean(pairs.iter().map(|(found, expected)| (found - expected).abs()))
}
