//! Metrics of rankings: where the first match of each query stands.

use super::numbers::{count, mean};
use super::tally::Tally;

/// Returns the rank of the candidate `target` by score, counted from 1; ties rank before it. `None` if
/// `target` is out of bounds, or its score is NaN.
///
/// # Examples
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

/// Returns the best rank among several matches of one query, counted from 1. Other matches do not push a
/// match down; candidates that tie with it do. `None` if no match has a score.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::best_rank;
///
/// assert_eq!(best_rank(&[0, 2], &[0.5, 0.9, 0.7]), Some(2));
/// assert_eq!(best_rank(&[0, 2], &[0.5, 0.9, 0.5]), Some(2));
/// assert_eq!(best_rank(&[], &[0.5]), None);
/// ```
pub fn best_rank(matches: &[usize], scores: &[f32]) -> Option<usize> {
    let own = matches
        .iter()
        .filter_map(|target| scores.get(*target).copied())
        .filter(|score| !score.is_nan())
        .max_by(f32::total_cmp)?;
    let before = scores
        .iter()
        .enumerate()
        .filter(|(at, score)| **score >= own && !matches.contains(at))
        .count();
    Some(before + 1)
}

/// Counts the ranks that are at most `k`; a missing rank is a miss.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::recall_at_k;
///
/// assert_eq!(recall_at_k(&[Some(1), Some(5), None], 3).right, 1);
/// ```
pub fn recall_at_k(ranks: &[Option<usize>], k: usize) -> Tally {
    ranks
        .iter()
        .map(|rank| rank.is_some_and(|rank| rank <= k))
        .collect()
}

/// Returns the mean of the ranks that there are; 0 without any.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::mean_rank;
///
/// assert_eq!(mean_rank(&[Some(1), Some(4), None]), 2.5);
/// ```
pub fn mean_rank(ranks: &[Option<usize>]) -> f64 {
    mean(ranks.iter().flatten().map(|rank| count(*rank)))
}

/// Returns the median of the ranks that there are, between the middle two of an even number; 0 without any.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::median_rank;
///
/// assert_eq!(median_rank(&[Some(9), Some(1), None, Some(2)]), 2.0);
/// assert_eq!(median_rank(&[Some(1), Some(2)]), 1.5);
/// ```
pub fn median_rank(ranks: &[Option<usize>]) -> f64 {
    let mut sorted: Vec<usize> = ranks.iter().flatten().copied().collect();
    sorted.sort_unstable();
    let upper = sorted.len() / 2;
    let lower = sorted.len().saturating_sub(1) / 2;
    mean(
        sorted
            .get(lower..=upper)
            .unwrap_or_default()
            .iter()
            .map(|rank| count(*rank)),
    )
}

/// Returns the mean of one over the rank, where a missing rank counts as zero; 0 without ranks.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::mean_reciprocal_rank;
///
/// assert_eq!(mean_reciprocal_rank(&[Some(1), Some(2), None, None]), 0.375);
/// ```
pub fn mean_reciprocal_rank(ranks: &[Option<usize>]) -> f64 {
    mean(
        ranks
            .iter()
            .map(|rank| rank.map_or(0.0, |rank| 1.0 / count(rank.max(1)))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_scores_all_candidates_equally_gets_the_lowest_rank() {
        let scores = [0.0; 10];
        let ranks: Vec<_> = (0..10).map(|target| rank_of(target, &scores)).collect();
        assert_eq!(recall_at_k(&ranks, 1).right, 0);
        assert_eq!(recall_at_k(&ranks, 10).right, 10);
        assert_eq!(rank_of(10, &scores), None);
        assert_eq!(rank_of(0, &[f32::NAN, 1.0]), None);
    }

    #[test]
    fn one_match_ranks_alike_by_both_functions() {
        let scores = [0.5, 0.9, 0.5, 0.1, f32::NAN];
        for target in 0..5 {
            assert_eq!(
                best_rank(&[target], &scores),
                rank_of(target, &scores),
                "{target}"
            );
        }
    }
}
