//! Metrics of one answer against its references, each from 0 to 1: the best reference counts.

use std::collections::HashMap;

use super::numbers::share;
use super::python_text::{float, is_word, join_words, split};

/// The largest relative error of a number that is still right.
const RELAXED_ERROR: f64 = 0.05;

/// From this share of edited characters on, an answer is wrong.
const ANLS_THRESHOLD: f64 = 0.5;

/// Returns whether an answer equals one of the references, ignoring case and white space.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::exact_match;
///
/// assert!(exact_match(" Red  apple", &["fruit", "red apple"]));
/// assert!(!exact_match("apple", &["red apple"]));
/// ```
pub fn exact_match<S: AsRef<str>>(answer: &str, references: &[S]) -> bool {
    let answer = join_words(&answer.to_lowercase());
    references
        .iter()
        .any(|reference| join_words(&reference.as_ref().to_lowercase()) == answer)
}

/// Returns whether an answer is within 5 % of one of the references, or for text, equals it but for case.
///
/// A percentage counts as its hundredth. A reference of zero is compared as text.
///
/// Source: ChartQA (<https://arxiv.org/abs/2203.10244>), section 5.1, as `lmms-eval` 0.7.3 computes it.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::relaxed_match;
///
/// assert!(relaxed_match("10.4", &["10"]));
/// assert!(relaxed_match("50%", &["0.51"]));
/// assert!(!relaxed_match("11", &["10"]));
/// ```
pub fn relaxed_match<S: AsRef<str>>(answer: &str, references: &[S]) -> bool {
    references
        .iter()
        .any(|reference| relaxed_equal(answer, reference.as_ref()))
}

fn relaxed_equal(answer: &str, reference: &str) -> bool {
    match (
        quantity(answer),
        quantity(reference).filter(|number| *number != 0.0),
    ) {
        (Some(found), Some(expected)) => ((found - expected) / expected).abs() <= RELAXED_ERROR,
        _ => answer.to_lowercase() == reference.to_lowercase(),
    }
}

fn quantity(text: &str) -> Option<f64> {
    if text.ends_with('%') {
        float(text.trim_end_matches('%')).map(|percent| percent / 100.0)
    } else {
        float(text)
    }
}

/// Returns one less the share of characters to edit, or 0 where half of them or more differ: the average
/// normalised Levenshtein similarity, ANLS, of one answer. 0 without references.
///
/// Source: <https://arxiv.org/abs/1905.13648>, section 4.1, as `anls` 0.0.2 computes it.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::anls;
///
/// assert_eq!(anls("Hello  world", &["hello world"]), 1.0);
/// assert!((anls("hallo world", &["hello world"]) - 10.0 / 11.0).abs() < 1e-9);
/// assert_eq!(anls("no", &["yes"]), 0.0);
/// ```
pub fn anls<S: AsRef<str>>(answer: &str, references: &[S]) -> f64 {
    let answer = join_words(&answer.to_lowercase());
    best(references, |reference| {
        let reference = join_words(&reference.to_lowercase());
        let edited = share(
            strsim::levenshtein(&answer, &reference),
            longer(&answer, &reference),
        );
        if edited < ANLS_THRESHOLD {
            1.0 - edited
        } else {
            0.0
        }
    })
}

/// The reference measures texts in upper case, where some letters become two.
fn longer(left: &str, right: &str) -> usize {
    let length = |text: &str| text.to_uppercase().chars().count();
    length(left).max(length(right))
}

/// Returns the F1 of the words that an answer shares with a reference. Without words in either, both must be
/// without. 0 without references.
///
/// Source: the evaluation of SQuAD 2.0 (<https://arxiv.org/abs/1806.03822>).
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::token_f1;
///
/// assert_eq!(token_f1("The red apple.", &["red apple"]), 1.0);
/// assert!((token_f1("an apple", &["red apple"]) - 2.0 / 3.0).abs() < 1e-9);
/// ```
pub fn token_f1<S: AsRef<str>>(answer: &str, references: &[S]) -> f64 {
    let answer = normalise_squad_answer(answer);
    best(references, |reference| {
        shared_words(&answer, &normalise_squad_answer(reference))
    })
}

fn shared_words(answer: &str, reference: &str) -> f64 {
    let mut unused: HashMap<&str, usize> = HashMap::new();
    for word in split(reference) {
        *unused.entry(word).or_default() += 1;
    }
    let (found, expected) = (split(answer).count(), split(reference).count());
    if found == 0 || expected == 0 {
        return if found == expected { 1.0 } else { 0.0 };
    }
    let mut shared = 0;
    for word in split(answer) {
        if let Some(left) = unused.get_mut(word).filter(|left| **left > 0) {
            *left -= 1;
            shared += 1;
        }
    }
    share(2 * shared, found + expected)
}

/// Writes an answer as the evaluation of SQuAD compares it: lower case, without ASCII punctuation and English
/// articles, with single spaces.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::normalise_squad_answer;
///
/// assert_eq!(normalise_squad_answer("The U.S.,  a country"), "us country");
/// ```
pub fn normalise_squad_answer(answer: &str) -> String {
    let mut plain = answer.to_lowercase();
    plain.retain(|character| !character.is_ascii_punctuation());
    let mut kept = String::with_capacity(plain.len());
    // Word characters and others in turn, so that an article ends where `\b` finds a boundary.
    for run in plain
        .chars()
        .collect::<Vec<_>>()
        .chunk_by(|left, right| is_word(*left) == is_word(*right))
    {
        match run {
            ['a'] | ['a', 'n'] | ['t', 'h', 'e'] => kept.push(' '),
            other => kept.extend(other),
        }
    }
    join_words(&kept)
}

/// Returns the highest score over the references; 0 without references.
fn best<S: AsRef<str>>(references: &[S], score: impl Fn(&str) -> f64) -> f64 {
    references
        .iter()
        .map(|reference| score(reference.as_ref()))
        .fold(0.0, f64::max)
}
