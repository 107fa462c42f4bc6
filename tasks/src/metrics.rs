//! Metrics: how often answers are right.
//!
//! Each metric keeps its counts, so that a report can say of how many cases it speaks.

use std::fmt;

/// Counts right answers among all answers.
///
/// ```
/// use multiway_tasks::metrics::Tally;
///
/// let tally: Tally = [true, false, true, true].into_iter().collect();
/// assert_eq!(tally.to_string(), "0.750 (3 of 4)");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many answers are right.
    pub right: usize,
    /// How many answers there are.
    pub total: usize,
}

impl Tally {
    /// Counts one more answer.
    pub fn add(&mut self, right: bool) {
        self.right += usize::from(right);
        self.total += 1;
    }

    /// Returns the share of right answers, 0 where there are no answers.
    #[expect(clippy::cast_precision_loss, reason = "counts of answers stay far below 2^53")]
    pub fn rate(&self) -> f64 {
        if self.total == 0 {
            0.0
        } else {
            self.right as f64 / self.total as f64
        }
    }
}

impl FromIterator<bool> for Tally {
    fn from_iter<I: IntoIterator<Item = bool>>(answers: I) -> Self {
        let mut tally = Self::default();
        answers.into_iter().for_each(|right| tally.add(right));
        tally
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ({} of {})", self.rate(), self.right, self.total)
    }
}

/// Tells whether an answer equals one of the references, but for case and white space.
///
/// ```
/// assert!(multiway_tasks::metrics::exact_match(" Red  apple", &["fruit", "red apple"]));
/// assert!(!multiway_tasks::metrics::exact_match("apple", &["red apple"]));
/// ```
pub fn exact_match<S: AsRef<str>>(answer: &str, references: &[S]) -> bool {
    let answer = normalise(answer);
    references
        .iter()
        .any(|reference| normalise(reference.as_ref()) == answer)
}

/// Counts the answers that [match exactly](exact_match) the reference beside them.
pub fn accuracy<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Tally {
    pairs
        .into_iter()
        .map(|(answer, reference)| exact_match(answer, &[reference]))
        .collect()
}

/// Finds the rank of the candidate `target` by its score, counted from 1; candidates that score the same as it count as
/// better. `None` where `target` is no candidate, or its score is not a number.
///
/// ```
/// use multiway_tasks::metrics::rank_of;
///
/// assert_eq!(rank_of(0, &[0.5, 0.9, 0.1]), Some(2));
/// assert_eq!(rank_of(0, &[0.5, 0.5]), Some(2));
/// ```
pub fn rank_of(target: usize, scores: &[f32]) -> Option<usize> {
    let own = *scores.get(target)?;
    if own.is_nan() {
        return None;
    }
    Some(scores.iter().filter(|score| **score >= own).count())
}

/// Counts the ranks that are `k` or better, as [`rank_of`] gives them; a missing rank is a miss.
pub fn recall_at_k(ranks: &[Option<usize>], k: usize) -> Tally {
    ranks
        .iter()
        .map(|rank| rank.is_some_and(|rank| rank <= k))
        .collect()
}

/// Lowers the case and makes all white space single blanks.
fn normalise(text: &str) -> String {
    text.split_whitespace()
        .map(str::to_lowercase)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_counts_matches_and_keeps_the_total() {
        let tally = accuracy([("Cat ", "cat"), ("dog", "cat"), ("ÉTÉ", "été")]);
        assert_eq!(tally, Tally { right: 2, total: 3 });
        assert!((Tally::default().rate() - 0.0).abs() < f64::EPSILON);
    }

    #[test]
    fn ranks_never_flatter_a_model_that_says_the_same_of_everything() {
        let scores = [0.0; 10];
        let ranks: Vec<_> = (0..10).map(|target| rank_of(target, &scores)).collect();
        assert_eq!(recall_at_k(&ranks, 1).right, 0);
        assert_eq!(recall_at_k(&ranks, 10).right, 10);
        assert_eq!(rank_of(10, &scores), None);
        assert_eq!(rank_of(0, &[f32::NAN, 1.0]), None);
    }
}
