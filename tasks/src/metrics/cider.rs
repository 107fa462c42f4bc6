//! CIDEr-D: how alike the weighted n-grams of captions are.

use std::collections::HashMap;

use super::ngrams::{Ngrams, ORDERS};
use super::numbers::{count, mean};
use super::python_text::split;

/// The width of the penalty on lengths that differ.
const SIGMA: f64 = 6.0;

/// Returns the CIDEr-D of each answer of a corpus, mostly from 0 to 10; the score of the corpus is their
/// mean.
///
/// An n-gram weighs less the more pictures have it in their references. One picture alone scores 0, since
/// nothing tells its n-grams apart. Words are what stands between white space.
///
/// Source: <https://arxiv.org/abs/1411.5726>, section 5, as `pycocoevalcap` 1.2 computes it.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::cider_d;
///
/// let scores = cider_d(&[
///     ("a red apple lies here", vec!["a red apple lies here"]),
///     ("two cats", vec!["some dogs are running", "dogs run"]),
/// ]);
/// assert!((scores[0] - 10.0).abs() < 1e-9);
/// assert_eq!(scores[1], 0.0);
/// ```
pub fn cider_d<A: AsRef<str>, S: AsRef<str>>(corpus: &[(A, Vec<S>)]) -> Vec<f64> {
    let words: Vec<(Vec<&str>, Vec<Vec<&str>>)> = corpus
        .iter()
        .map(|(answer, references)| {
            let references = references
                .iter()
                .map(|reference| split(reference.as_ref()).collect());
            (split(answer.as_ref()).collect(), references.collect())
        })
        .collect();
    let weights = Weights::of(&words);
    words
        .iter()
        .map(|(answer, references)| {
            let answer = weights.vector(answer);
            let alike = references
                .iter()
                .map(|reference| similarity(&answer, &weights.vector(reference)));
            10.0 * mean(alike)
        })
        .collect()
}

/// Holds in how many pictures' references each n-gram occurs.
struct Weights<'a> {
    pictures: HashMap<&'a [&'a str], usize>,
    log_pictures: f64,
}

impl<'a> Weights<'a> {
    fn of(corpus: &'a [(Vec<&'a str>, Vec<Vec<&'a str>>)]) -> Self {
        let mut pictures = HashMap::new();
        for (_, references) in corpus {
            let mut ngrams: Vec<&[&str]> = references
                .iter()
                .flat_map(|words| (1..=ORDERS).flat_map(|n| words.windows(n)))
                .collect();
            ngrams.sort_unstable();
            ngrams.dedup();
            for ngram in ngrams {
                *pictures.entry(ngram).or_default() += 1;
            }
        }
        Self {
            pictures,
            log_pictures: count(corpus.len()).ln(),
        }
    }

    fn vector<'w>(&self, words: &'w [&'w str]) -> Vector<'w> {
        let mut vector = Vector {
            weights: HashMap::new(),
            order: Vec::new(),
            squares: [0.0; ORDERS],
            pairs: words.len().saturating_sub(1),
        };
        for (ngram, times) in Ngrams::up_to(ORDERS, words).iter() {
            let pictures = self.pictures.get(ngram).copied().unwrap_or(1);
            let weight = count(times) * (self.log_pictures - count(pictures).ln());
            if let Some(sum) = vector.squares.get_mut(ngram.len() - 1) {
                *sum += weight * weight;
            }
            vector.weights.insert(ngram, weight);
            vector.order.push(ngram);
        }
        vector
    }
}

/// Holds the weighted n-grams of one text.
struct Vector<'a> {
    weights: HashMap<&'a [&'a str], f64>,
    /// The n-grams in a fixed order, so that sums over them do not vary.
    order: Vec<&'a [&'a str]>,
    squares: [f64; ORDERS],
    /// The number of word pairs, which the reference takes for the length.
    pairs: usize,
}

/// Returns the clipped cosine similarity, averaged over the orders, less for lengths that differ.
fn similarity(answer: &Vector<'_>, reference: &Vector<'_>) -> f64 {
    let mut products = [0.0; ORDERS];
    for ngram in &answer.order {
        let (Some(own), Some(other)) = (answer.weights.get(ngram), reference.weights.get(ngram)) else {
            continue;
        };
        if let Some(product) = products.get_mut(ngram.len() - 1) {
            *product += own.min(*other) * other;
        }
    }
    let cosines = products
        .into_iter()
        .zip(answer.squares.iter().zip(reference.squares))
        .map(|(product, (own, other))| {
            let norm = own.sqrt() * other.sqrt();
            if norm > 0.0 { product / norm } else { product }
        });
    let apart = count(answer.pairs.abs_diff(reference.pairs));
    mean(cosines) * (-apart * apart / (2.0 * SIGMA * SIGMA)).exp()
}
