//! Metrics over answers: accuracy, ranks and recall.
//!
//! Each metric keeps its counts, so that a report can state the number of cases.

use std::fmt;

/// Counts right answers among all answers.
///
/// # Examples
///
/// ```
/// use multiway_tasks::answer_metrics::Tally;
///
/// let tally: Tally = [true, false, true, true].into_iter().collect();
/// assert_eq!(tally.to_string(), "0.750 (3 of 4)");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// The number of right answers.
    pub right: usize,
    /// The number of all answers.
    pub total: usize,
}

impl Tally {
    /// Counts one more answer.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::answer_metrics::Tally;
    ///
    /// let mut tally = Tally::default();
    /// tally.add(true);
    /// assert_eq!(tally, Tally { right: 1, total: 1 });
    /// ```
    pub fn add(&mut self, right: bool) {
        self.right += usize::from(right);
        self.total += 1;
    }

    /// Returns the share of right answers from 0 to 1; 0 without answers.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::answer_metrics::Tally;
    ///
    /// assert_eq!(Tally { right: 3, total: 4 }.rate(), 0.75);
    /// ```
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

/// Returns whether an answer equals one of the references, ignoring case and white space.
///
/// # Examples
///
/// ```
/// use multiway_tasks::answer_metrics::exact_match;
///
/// assert!(exact_match(" Red  apple", &["fruit", "red apple"]));
/// assert!(!exact_match("apple", &["red apple"]));
/// ```
pub fn exact_match<S: AsRef<str>>(answer: &str, references: &[S]) -> bool {
    let answer = normalise(answer);
    references
        .iter()
        .any(|reference| normalise(reference.as_ref()) == answer)
}

/// Counts the answers that [match](exact_match) their reference.
///
/// # Examples
///
/// ```
/// use multiway_tasks::answer_metrics::accuracy;
///
/// assert_eq!(accuracy([("Cat", "cat"), ("dog", "cat")]).right, 1);
/// ```
pub fn accuracy<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Tally {
    pairs
        .into_iter()
        .map(|(answer, reference)| exact_match(answer, &[reference]))
        .collect()
}

/// Returns the rank of the candidate `target` by score, counted from 1; ties rank before it. `None` if
/// `target` is out of bounds, or its score is NaN.
///
/// # Examples
///
/// ```
/// use multiway_tasks::answer_metrics::rank_of;
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

/// Counts the ranks of [`rank_of`] that are at most `k`; a missing rank is a miss.
///
/// # Examples
///
/// ```
/// use multiway_tasks::answer_metrics::recall_at_k;
///
/// assert_eq!(recall_at_k(&[Some(1), Some(5), None], 3).right, 1);
/// ```
pub fn recall_at_k(ranks: &[Option<usize>], k: usize) -> Tally {
    ranks
        .iter()
        .map(|rank| rank.is_some_and(|rank| rank <= k))
        .collect()
}

/// Lowercases a text and collapses white space.
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
    fn a_model_that_scores_all_candidates_equally_gets_the_lowest_rank() {
        let scores = [0.0; 10];
        let ranks: Vec<_> = (0..10).map(|target| rank_of(target, &scores)).collect();
        assert_eq!(recall_at_k(&ranks, 1).right, 0);
        assert_eq!(recall_at_k(&ranks, 10).right, 10);
        assert_eq!(rank_of(10, &scores), None);
        assert_eq!(rank_of(0, &[f32::NAN, 1.0]), None);
    }
}
