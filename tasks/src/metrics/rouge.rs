//! ROUGE-L: the longest common subsequence of an answer and a reference.

use super::numbers::count;

/// How much more recall weighs than precision.
const BETA: f64 = 1.2;

/// Returns the F score of the longest common subsequence of words, from 0 to 1, with the best precision and
/// the best recall over the references; 0 without references. Words are what stands between single spaces.
///
/// Source: <https://aclanthology.org/W04-1013>, section 3, as `pycocoevalcap` 1.2 computes it.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::rouge_l;
///
/// assert_eq!(rouge_l("a red apple", &["a red apple"]), 1.0);
/// assert!((rouge_l("a apple", &["a red apple"]) - 0.7722).abs() < 1e-4);
/// ```
pub fn rouge_l<S: AsRef<str>>(answer: &str, references: &[S]) -> f64 {
    let answer: Vec<&str> = answer.split(' ').collect();
    let (mut precision, mut recall) = (0.0_f64, 0.0_f64);
    for reference in references {
        let reference: Vec<&str> = reference.as_ref().split(' ').collect();
        let common = count(longest_common(&answer, &reference));
        precision = precision.max(common / count(answer.len()));
        recall = recall.max(common / count(reference.len()));
    }
    if precision <= 0.0 || recall <= 0.0 {
        return 0.0;
    }
    (1.0 + BETA * BETA) * precision * recall / (recall + BETA * BETA * precision)
}

/// Returns the length of the longest common subsequence, with one row of the table at a time.
fn longest_common(left: &[&str], right: &[&str]) -> usize {
    let mut lengths = vec![0; right.len()];
    for word in left {
        let (mut diagonal, mut before) = (0, 0);
        for (length, other) in lengths.iter_mut().zip(right) {
            let above = *length;
            *length = if word == other {
                diagonal + 1
            } else {
                above.max(before)
            };
            (diagonal, before) = (above, *length);
        }
    }
    lengths.last().copied().unwrap_or_default()
}
