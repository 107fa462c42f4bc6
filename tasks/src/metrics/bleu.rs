//! BLEU of captions, as the evaluation of COCO computes it.

use super::ngrams::{Ngrams, ORDERS};
use super::numbers::count;
use super::python_text::split;

/// Keeps a precision of nothing out of nothing near zero. Source: `pycocoevalcap` 1.2, `bleu_scorer.py`.
const TINY: f64 = 1e-15;
const SMALL: f64 = 1e-9;

/// Counts what BLEU is computed from; the counts of a corpus are the sums of those of its texts.
///
/// Source: <https://aclanthology.org/P02-1040>.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::BleuCounts;
///
/// let mut corpus = BleuCounts::of_caption("a red apple", &["a red apple on a table", "one red apple"]);
/// corpus.add(&BleuCounts::of_caption("two dogs run", &["two dogs are running"]));
/// let [bleu_1, bleu_2, ..] = corpus.caption_scores();
/// assert!(bleu_1 > bleu_2);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BleuCounts {
    /// The n-grams of the answers that a reference has, for n from 1 to 4.
    pub correct: [usize; ORDERS],
    /// All n-grams of the answers.
    pub total: [usize; ORDERS],
    /// The length of the answers in words.
    pub length: usize,
    /// The length of the references that are closest in length to their answer, the shorter of two.
    pub reference_length: usize,
}

impl BleuCounts {
    /// Counts over the words between white space.
    pub fn of_caption<S: AsRef<str>>(answer: &str, references: &[S]) -> Self {
        let references: Vec<Vec<&str>> = references
            .iter()
            .map(|reference| split(reference.as_ref()).collect())
            .collect();
        Self::of_words(&split(answer).collect::<Vec<_>>(), &references)
    }

    /// Counts over words.
    pub(super) fn of_words(answer: &[&str], references: &[Vec<&str>]) -> Self {
        let counts: Vec<_> = references
            .iter()
            .map(|words| Ngrams::up_to(ORDERS, words))
            .collect();
        let mut found = Self {
            length: answer.len(),
            reference_length: closest_length(answer.len(), references),
            ..Self::default()
        };
        for (ngram, times) in Ngrams::up_to(ORDERS, answer).iter() {
            let most = counts
                .iter()
                .map(|counts| counts.count(ngram))
                .max()
                .unwrap_or_default();
            let order = ngram.len().saturating_sub(1);
            if let (Some(correct), Some(total)) = (found.correct.get_mut(order), found.total.get_mut(order)) {
                *correct += most.min(times);
                *total += times;
            }
        }
        found
    }

    /// Adds the counts of another text.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.correct.iter_mut().zip(other.correct) {
            *sum += more;
        }
        for (sum, more) in self.total.iter_mut().zip(other.total) {
            *sum += more;
        }
        self.length += other.length;
        self.reference_length += other.reference_length;
    }

    /// Returns BLEU-1 to BLEU-4 from 0 to 1, without smoothing.
    ///
    /// Source: `pycocoevalcap` 1.2, `bleu_scorer.py`, with the closest reference length.
    pub fn caption_scores(&self) -> [f64; ORDERS] {
        let ratio = (count(self.length) + TINY) / (count(self.reference_length) + SMALL);
        let brevity = if ratio < 1.0 {
            (1.0 - 1.0 / ratio).exp()
        } else {
            1.0
        };
        let mut product = 1.0;
        let mut order = 0.0;
        let mut scores = [0.0; ORDERS];
        for ((score, correct), total) in scores.iter_mut().zip(self.correct).zip(self.total) {
            order += 1.0;
            product *= (count(correct) + TINY) / (count(total) + SMALL);
            *score = product.powf(1.0 / order) * brevity;
        }
        scores
    }
}

fn closest_length(length: usize, references: &[Vec<&str>]) -> usize {
    references
        .iter()
        .map(Vec::len)
        .min_by_key(|reference| (reference.abs_diff(length), *reference))
        .unwrap_or_default()
}
