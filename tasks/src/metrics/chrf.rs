//! chrF: the F score of character n-grams, which needs no tokenizer.

use super::ngrams::Ngrams;
use super::numbers::count;
use super::python_text::{is_space, split};

/// The longest n-gram of characters.
const CHARACTERS: usize = 6;

/// The longest n-gram of words in chrF++.
const WORDS: usize = 2;

/// Counts what chrF is computed from; the counts of a corpus are the sums of those of its texts.
///
/// Source: <https://aclanthology.org/W15-3049> and, for chrF++, <https://aclanthology.org/W17-4770>;
/// `sacrebleu` 2.6.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::ChrfCounts;
///
/// let mut corpus = ChrfCounts::of("ein Haus", &["ein Haus"]);
/// assert!((corpus.score() - 100.0).abs() < 1e-9);
/// corpus.add(&ChrfCounts::of("ein Hund", &["die Katze"]));
/// assert!(corpus.score() < 100.0);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChrfCounts {
    orders: [OrderCounts; CHARACTERS + WORDS],
}

/// Counts the n-grams of one length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct OrderCounts {
    answer: usize,
    reference: usize,
    common: usize,
}

impl ChrfCounts {
    /// Counts n-grams of one to six characters, white space left out, against the reference with the best
    /// score.
    pub fn of<S: AsRef<str>>(answer: &str, references: &[S]) -> Self {
        Self::best(answer, references, false)
    }

    /// Counts single words and pairs of words as well: chrF++.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::metrics::ChrfCounts;
    ///
    /// let texts = ("ein Haus", ["Haus ein"]);
    /// assert!(ChrfCounts::with_words(texts.0, &texts.1) != ChrfCounts::of(texts.0, &texts.1));
    /// ```
    pub fn with_words<S: AsRef<str>>(answer: &str, references: &[S]) -> Self {
        Self::best(answer, references, true)
    }

    /// Adds the counts of another text.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.orders.iter_mut().zip(other.orders) {
            sum.answer += more.answer;
            sum.reference += more.reference;
            sum.common += more.common;
        }
    }

    /// Returns the F score from 0 to 100, where recall weighs twice. Orders that the answer or the reference
    /// is too short for are left out.
    pub fn score(&self) -> f64 {
        let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0);
        for order in &self.orders {
            if order.answer > 0 && order.reference > 0 {
                precision += count(order.common) / count(order.answer);
                recall += count(order.common) / count(order.reference);
                orders += 1;
            }
        }
        if precision + recall <= 0.0 {
            return 0.0;
        }
        100.0 * 5.0 * precision * recall / ((4.0 * precision + recall) * count(orders))
    }

    fn best<S: AsRef<str>>(answer: &str, references: &[S], words: bool) -> Self {
        let mut best: Option<(f64, Self)> = None;
        for reference in references {
            let counts = Self::between(answer, reference.as_ref(), words);
            let score = counts.score();
            if best.is_none_or(|(highest, _)| score > highest) {
                best = Some((score, counts));
            }
        }
        best.map_or_else(Self::default, |(_, counts)| counts)
    }

    fn between(answer: &str, reference: &str, words: bool) -> Self {
        let mut counts = Self::default();
        let (characters, pairs) = counts.orders.split_at_mut(CHARACTERS);
        let letters = |text: &str| {
            text.chars()
                .filter(|letter| !is_space(*letter))
                .collect::<Vec<_>>()
        };
        count_orders(&letters(answer), &letters(reference), characters);
        if words {
            count_orders(&words_of(answer), &words_of(reference), pairs);
        }
        counts
    }
}

fn count_orders<T: Ord>(answer: &[T], reference: &[T], orders: &mut [OrderCounts]) {
    let answer = Ngrams::up_to(orders.len(), answer);
    let reference = Ngrams::up_to(orders.len(), reference);
    for (ngram, times) in reference.iter() {
        if let Some(order) = orders.get_mut(ngram.len() - 1) {
            order.reference += times;
        }
    }
    for (ngram, times) in answer.iter() {
        // The reference implementation counts nothing for a length that the reference text does not have.
        if let Some(order) = orders
            .get_mut(ngram.len() - 1)
            .filter(|order| order.reference > 0)
        {
            order.answer += times;
            order.common += times.min(reference.count(ngram));
        }
    }
}

/// Splits a text into words, and one punctuation mark from the end of each word, or else from its start.
fn words_of(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for word in split(text) {
        let at = if word.chars().nth(1).is_none() {
            0
        } else if word.ends_with(|last: char| last.is_ascii_punctuation()) {
            word.len() - 1
        } else {
            usize::from(word.starts_with(|first: char| first.is_ascii_punctuation()))
        };
        let (start, end) = word.split_at(at);
        words.extend([start, end].into_iter().filter(|part| !part.is_empty()));
    }
    words
}
