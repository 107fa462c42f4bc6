//! Top-k of a row of logits and its log-sum-exp, in place.
//!
//! Greedy decoding, beam search and lists of alternatives need a handful of the `V` logits of a row, and the
//! log-sum-exp that turns these into log-probabilities: the others are neither copied nor sorted.

use super::pool;
use super::simd::multiversion;
use super::weigh::{maximum, sum_of_exponentials};

/// Logits of a block: most blocks hold none of the top k, and one comparison tells.
const BLOCK: usize = 128;

/// The k from which a row is sorted as a whole.
const MOST_LISTED: usize = 256;

/// The top k of a row's logits, and the log-sum-exp that turns them into log-probabilities.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranking {
    /// Ids and logits, the highest first, of equal ones that of the lower id. NaN counts as
    /// the lowest.
    pub highest: Vec<(u32, f32)>,
    /// The logarithm of the sum of the exponentials of all logits; nothing where none is finite or one is not
    /// a number.
    pub log_total: Option<f64>,
}

impl Ranking {
    /// Ranks one row of logits, and lists at most `count` of them.
    ///
    /// # Examples
    /// ```
    /// use multiway_model::kernels::Ranking;
    ///
    /// let ranking = Ranking::of(&[0.0, 3.0, 1.0, 3.0], 2);
    /// assert_eq!(ranking.highest, [(1, 3.0), (3, 3.0)]);
    /// let total = f64::ln(1.0 + 2.0 * f64::exp(3.0) + f64::exp(1.0));
    /// assert!((ranking.log_total.unwrap() - total).abs() < 1e-6);
    /// ```
    #[must_use]
    pub fn of(logits: &[f32], count: usize) -> Self {
        let mut ranking = Self::default();
        ranking.rank(logits, count);
        ranking
    }

    fn rank(&mut self, logits: &[f32], count: usize) {
        self.log_total = log_total(logits);
        find(logits, count, &mut self.highest);
    }

    /// Lists at most `count` of the highest logits of a row, as [`Ranking::highest`] has them.
    #[must_use]
    pub fn highest_of(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
        let mut highest = Vec::new();
        find(logits, count, &mut highest);
        highest
    }

    /// Returns the log-probability of a logit of the row.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "log-probabilities are given out in 32 bits"
    )]
    pub fn log_probability(&self, logit: f32) -> Option<f32> {
        self.log_total.map(|total| (f64::from(logit) - total) as f32)
    }
}

/// Ranks rows of logits `[rows, width]`, on several threads where there are several rows: of each row its
/// first `limit` logits, and as many of the highest as its entry of `counts` says; where that says nothing,
/// the row is not ranked.
///
/// A row's numbers depend on that row alone. Memory of `rankings` is used again.
pub fn rank_rows(
    logits: &[f32],
    width: usize,
    limit: usize,
    counts: &[Option<usize>],
    rankings: &mut Vec<Ranking>,
) {
    rankings.resize_with(counts.len(), Ranking::default);
    pool::for_each_item(rankings, &|row, ranking| {
        let values = logits.get(row * width..).unwrap_or_default();
        let values = values.get(..limit.min(width)).unwrap_or_default();
        match counts.get(row).copied().flatten() {
            Some(count) => ranking.rank(values, count),
            None => {
                ranking.highest.clear();
                ranking.log_total = None;
            }
        }
    });
}

/// Computes the logarithm of the sum of exponentials, in an order that depends on the length alone; nothing
/// where no value is finite or one is not a number.
pub(super) fn log_total(values: &[f32]) -> Option<f64> {
    let highest = maximum(values);
    if !highest.is_finite() {
        return None;
    }
    let total = sum_of_exponentials(values, highest, 1.0);
    // What is not a number is not seen by the maximum, but makes the sum none.
    (!total.is_nan()).then(|| f64::from(highest) + total.ln())
}

fn find(logits: &[f32], count: usize, highest: &mut Vec<(u32, f32)>) {
    highest.clear();
    let count = count.min(logits.len());
    if count >= MOST_LISTED {
        return order(logits, count, highest);
    }
    list(logits, count, highest);
}

multiversion! {
    /// Lists the highest in order, and keeps them while others go by.
    fn list(logits: &[f32], count: usize, highest: &mut Vec<(u32, f32)>) {
        if count == 0 {
            return;
        }
        for (first, block) in (0..).step_by(BLOCK).zip(logits.chunks(BLOCK)) {
            let least = highest.get(count - 1).map(|(_, logit)| *logit);
            let is_looked_at = least.is_none_or(|least| block.iter().fold(false, |any, logit| any | (*logit > least)));
            if is_looked_at {
                for (id, logit) in (first..).zip(block) {
                    insert(id, *logit, count, highest);
                }
            }
        }
    }
}

/// Puts a logit where it belongs among the highest, which come in the order of their ids.
#[inline(always)]
fn insert(id: u32, logit: f32, count: usize, highest: &mut Vec<(u32, f32)>) {
    let logit = number(logit);
    if highest.len() == count {
        if highest.last().is_some_and(|(_, least)| logit <= *least) {
            return;
        }
        highest.pop();
    }
    let place = highest.partition_point(|(_, other)| *other >= logit);
    highest.insert(place, (id, logit));
}

/// Puts all into order, which is less work where many are listed.
fn order(logits: &[f32], count: usize, highest: &mut Vec<(u32, f32)>) {
    highest.extend((0..).zip(logits.iter().copied().map(number)));
    let higher_first = |(a, p): &(u32, f32), (b, q): &(u32, f32)| q.total_cmp(p).then(a.cmp(b));
    if count < logits.len() {
        highest.select_nth_unstable_by(count, higher_first);
        highest.truncate(count);
    }
    highest.sort_unstable_by(higher_first);
}

/// Orders NaN lowest of all, and both zeros as one.
fn number(logit: f32) -> f32 {
    if logit.is_nan() {
        f32::NEG_INFINITY
    } else {
        logit + 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The specification: everything in order.
    fn ordered(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
        let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().map(|logit| number(*logit))).collect();
        all.sort_by(|(_, a), (_, b)| b.partial_cmp(a).unwrap());
        all.truncate(count);
        all
    }

    fn total(logits: &[f32]) -> f64 {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|x| f64::from(x - highest).exp()).sum();
        f64::from(highest) + sum.ln()
    }

    /// Logits of which many are equal, and some are none.
    fn logits() -> impl Strategy<Value = Vec<f32>> {
        let few = prop::sample::select(vec![-1.5_f32, 0.0, -0.0, 2.0, 2.5, f32::NEG_INFINITY, f32::NAN]);
        let logit = prop_oneof![2 => -9.0_f32..9.0, 1 => few];
        prop::collection::vec(logit, 0..900)
    }

    proptest! {
        #[test]
        fn the_highest_are_those_of_the_whole_order(logits in logits(), count in 0..1000_usize) {
            prop_assert_eq!(Ranking::of(&logits, count).highest, ordered(&logits, count));
            prop_assert_eq!(Ranking::highest_of(&logits, count), ordered(&logits, count));
        }

        #[test]
        fn the_total_is_that_in_64_bits(logits in prop::collection::vec(-40.0_f32..40.0, 1..5000)) {
            let found = Ranking::of(&logits, 0).log_total.unwrap();
            prop_assert!((found - total(&logits)).abs() < 1e-6, "{} {}", found, total(&logits));
        }

        #[test]
        fn rows_are_ranked_as_if_alone(rows in prop::collection::vec(prop::collection::vec(-9.0_f32..9.0, 700), 1..6), limit in 1..900_usize) {
            let counts: Vec<Option<usize>> = (0..rows.len()).map(|row| (row != 1).then_some(row * 3)).collect();
            let mut rankings = vec![Ranking::of(&[1.0, 2.0], 2); 9];
            rank_rows(&rows.concat(), 700, limit, &counts, &mut rankings);
            prop_assert_eq!(rankings.len(), rows.len());
            for ((ranking, row), count) in rankings.into_iter().zip(&rows).zip(counts) {
                let alone = count.map(|count| Ranking::of(&row[..limit.min(700)], count));
                prop_assert_eq!(ranking, alone.unwrap_or_default());
            }
        }
    }

    #[test]
    fn what_is_no_number_or_all_out_of_reach_has_no_total() {
        for logits in [
            vec![],
            vec![f32::NAN, 1.0],
            [vec![0.0; 70], vec![f32::NAN]].concat(),
            vec![f32::NEG_INFINITY; 3],
            vec![f32::INFINITY, 0.0],
        ] {
            assert_eq!(Ranking::of(&logits, 1).log_total, None, "{logits:?}");
            assert_eq!(Ranking::of(&logits, 1).log_probability(0.0), None);
        }
        let some = Ranking::of(&[f32::NEG_INFINITY, 3.0], 2);
        assert_eq!(some.highest, [(1, 3.0), (0, f32::NEG_INFINITY)]);
        assert_eq!(some.log_probability(3.0), Some(0.0));
    }
}
