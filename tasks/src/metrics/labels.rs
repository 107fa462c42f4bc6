//! F1 of sets of labels.

use std::collections::HashSet;

use super::numbers::share;
use super::python_text::join_words;

/// Counts what the F1 of labels is computed from; the counts of a corpus are the sums of those of its
/// answers.
///
/// Labels are compared as sets, ignoring case and white space at the ends and between words.
///
/// Source: van Rijsbergen 1979, Information Retrieval, chapter 7; as `sklearn.metrics.f1_score` with
/// `average="micro"` over a corpus and `average="samples"` over single answers.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::LabelCounts;
///
/// let mut corpus = LabelCounts::of(&["Cat", "red  apple"], &["cat", "dog"]);
/// assert_eq!(corpus.f1(), 0.5);
/// corpus.add(&LabelCounts::of(&["sun", "moon"], &["moon", "sun"]));
/// assert_eq!(corpus.f1(), 0.75);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LabelCounts {
    /// The labels that were found and expected.
    pub shared: usize,
    /// The labels that were found.
    pub found: usize,
    /// The labels that were expected.
    pub expected: usize,
}

impl LabelCounts {
    /// Counts the labels of one answer.
    pub fn of<F: AsRef<str>, E: AsRef<str>>(found: &[F], expected: &[E]) -> Self {
        let found: HashSet<String> = found
            .iter()
            .map(|label| normalise_label(label.as_ref()))
            .collect();
        let expected: HashSet<String> = expected
            .iter()
            .map(|label| normalise_label(label.as_ref()))
            .collect();
        Self {
            shared: found.intersection(&expected).count(),
            found: found.len(),
            expected: expected.len(),
        }
    }

    /// Adds the counts of another answer.
    pub fn add(&mut self, other: &Self) {
        self.shared += other.shared;
        self.found += other.found;
        self.expected += other.expected;
    }

    /// Returns the harmonic mean of precision and recall, from 0 to 1; 1 where no label was found and none
    /// expected.
    pub fn f1(&self) -> f64 {
        match self.found + self.expected {
            0 => 1.0,
            labels => share(2 * self.shared, labels),
        }
    }
}

/// Writes a label in lower case, with single spaces between its words.
///
/// # Examples
///
/// ```
/// assert_eq!(multiway_tasks::metrics::normalise_label("  Red   apple"), "red apple");
/// ```
pub fn normalise_label(label: &str) -> String {
    join_words(&label.to_lowercase())
}
