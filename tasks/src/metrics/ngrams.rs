//! Counts of the word n-grams of a text.

use std::collections::BTreeMap;

/// The longest n-gram of the metrics over words.
pub(super) const ORDERS: usize = 4;

/// Counts runs of one to [`ORDERS`] items, in a fixed order, so that sums over them do not vary.
pub(super) struct Ngrams<'a, T>(BTreeMap<&'a [T], usize>);

impl<'a, T: Ord> Ngrams<'a, T> {
    /// Counts the n-grams of up to `longest` items.
    pub(super) fn up_to(longest: usize, items: &'a [T]) -> Self {
        let mut counts = BTreeMap::new();
        for n in 1..=longest {
            for ngram in items.windows(n) {
                *counts.entry(ngram).or_default() += 1;
            }
        }
        Self(counts)
    }

    /// Iterates over the n-grams and how often each occurs.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a [T], usize)> {
        self.0.iter().map(|(ngram, count)| (*ngram, *count))
    }

    /// Returns how often an n-gram occurs.
    pub(super) fn count(&self, ngram: &[T]) -> usize {
        self.0.get(ngram).copied().unwrap_or_default()
    }
}
