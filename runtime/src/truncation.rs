//! Truncation of the distribution before sampling: top-k, top-p, min-p and typical-p.
//!
//! Source: `transformers` 4.57, `generation/logits_process.py`, and the order of `generation/utils.py`: the
//! temperature first, then `top_k`, `top_p`, `min_p` and `typical_p`, each on what those before have left.
//! The most likely, or most typical, token always stays.

use std::cmp::Ordering;

use multiway_model::kernels::{Ranking, WeighedRow};

use crate::sampling_params::SamplingParams;
use crate::tokenizer::TokenId;

/// How many are sorted at first, while it is unknown how many will be needed.
const FIRST_IN_ORDER: usize = 64;

/// Truncates the distribution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Truncation {
    top_k: usize,
    top_p: f64,
    min_p: f64,
    typical_p: f64,
}

/// A token that is left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) id: TokenId,
    pub(crate) logit: f32,
    /// Its unnormalised probability.
    pub(crate) weight: f64,
}

impl Truncation {
    pub(crate) fn new(params: &SamplingParams) -> Self {
        Self {
            top_k: params.top_k.unwrap_or(usize::MAX),
            top_p: f64::from(params.top_p),
            min_p: f64::from(params.min_p),
            typical_p: f64::from(params.typical_p),
        }
    }

    /// Returns whether it may leave any token out.
    pub(crate) fn cuts(&self, row: &WeighedRow<'_>) -> bool {
        self.top_k < row.logits().len() || self.top_p < 1.0 || self.min_p > 0.0 || self.typical_p < 1.0
    }

    /// Lists the tokens that are left: sorted by probability if `top_k` or `top_p` needs it, else by id.
    pub(crate) fn candidates(&self, row: &WeighedRow<'_>) -> Vec<Candidate> {
        let logits = row.logits();
        // A nucleus is not truncated again: the share is that of all weights.
        let (mut candidates, top_p) = if self.top_k < logits.len() {
            (weigh(row, Ranking::highest_of(logits, self.top_k)), self.top_p)
        } else if self.top_p < 1.0 {
            (nucleus(row, self.top_p), 1.0)
        } else if self.min_p > 0.0 {
            (plausible(row, self.min_p), 1.0)
        } else {
            (weigh(row, (0..).zip(logits.iter().copied())), 1.0)
        };
        Self { top_p, ..*self }.truncate(&mut candidates);
        candidates
    }

    fn truncate(&self, candidates: &mut Vec<Candidate>) {
        keep_nucleus(candidates, self.top_p);
        keep_plausible(candidates, self.min_p);
        keep_typical(candidates, self.typical_p);
    }
}

fn weigh(row: &WeighedRow<'_>, tokens: impl IntoIterator<Item = (TokenId, f32)>) -> Vec<Candidate> {
    let candidate = |(id, logit): (TokenId, f32)| Candidate {
        id,
        logit,
        weight: row.weight(logit),
    };
    tokens.into_iter().map(candidate).collect()
}

/// Lists the nucleus of a row, sorted: the most likely tokens that together reach a share of the total
/// weight, as [`keep_nucleus`] keeps them.
fn nucleus(row: &WeighedRow<'_>, share: f64) -> Vec<Candidate> {
    let needed = share * row.total();
    let weight = |(_, logit): &(TokenId, f32)| row.weight(*logit);
    let order = |a: &(TokenId, f32), b: &(TokenId, f32)| likelier_first(*a, *b);
    let mut tokens = Ranking::highest_of(row.logits(), FIRST_IN_ORDER);
    if !keep_first(&mut tokens, needed, order, weight) {
        tokens = (0..).zip(row.logits().iter().copied()).collect();
        keep_first(&mut tokens, needed, order, weight);
    }
    weigh(row, tokens)
}

/// Lists a superset, with few others, of the tokens with at least a share of the most likely one's weight.
fn plausible(row: &WeighedRow<'_>, share: f64) -> Vec<Candidate> {
    let (highest, least) = (row.logit_of_share(1.0), row.logit_of_share(share));
    // A little lower, because differences are rounded; tokens with too little are dropped afterwards.
    let least = least - 1e-6 * (highest.abs() + least.abs()).max(1.0);
    let tokens = (0..).zip(row.logits().iter().copied());
    weigh(row, tokens.filter(|(_, logit)| f64::from(*logit) >= least))
}

/// Orders tokens by descending logits, NaN last; ties by id.
fn likelier_first((a, logit): (TokenId, f32), (b, other): (TokenId, f32)) -> Ordering {
    let number = |x: f32| if x.is_nan() { f32::NEG_INFINITY } else { x };
    number(other).total_cmp(&number(logit)).then(a.cmp(&b))
}

/// Keeps the most likely tokens that together reach a share of the total weight, sorted.
///
/// Source: Holtzman et al. 2020, nucleus sampling (arXiv 1904.09751), section 3.1.
fn keep_nucleus(candidates: &mut Vec<Candidate>, share: f64) {
    if share >= 1.0 {
        return;
    }
    let order = |a: &Candidate, b: &Candidate| likelier_first((a.id, a.logit), (b.id, b.logit));
    let needed = share * total(candidates);
    keep_first(candidates, needed, order, |candidate| candidate.weight);
}

/// Keeps the tokens with at least a share of the most likely one's weight.
///
/// Source: Nguyen et al. 2024, min-p sampling (arXiv 2407.01082), section 3.
fn keep_plausible(candidates: &mut Vec<Candidate>, share: f64) {
    if share <= 0.0 {
        return;
    }
    let weights = candidates.iter().map(|candidate| candidate.weight);
    let least = share * weights.fold(0.0, f64::max);
    candidates.retain(|candidate| candidate.weight >= least);
}

/// Keeps the tokens whose information is nearest to the entropy, and which together reach a share of the
/// total weight. Of ties, all stay or none.
///
/// Source: Meister et al. 2023, locally typical sampling (arXiv 2202.00666), section 4.
fn keep_typical(candidates: &mut Vec<Candidate>, share: f64) {
    if share >= 1.0 {
        return;
    }
    let total = total(candidates);
    let weights = candidates.iter().map(|candidate| candidate.weight);
    let informed: Vec<(f64, f64)> = weights.map(|weight| (-(weight / total).ln(), weight)).collect();
    let possible = informed.iter().filter(|(_, weight)| *weight > 0.0);
    let entropy: f64 = possible
        .map(|(information, weight)| weight / total * information)
        .sum();
    let distance = |information: f64| (information - entropy).abs();
    let mut nearest = informed.clone();
    let nearer = |a: &(f64, f64), b: &(f64, f64)| distance(a.0).total_cmp(&distance(b.0));
    // Rounding can keep the sum of all below the share; then all stay.
    let furthest = if keep_first(&mut nearest, share * total, nearer, |(_, weight)| *weight) {
        nearest
            .last()
            .map_or(0.0, |(information, _)| distance(*information))
    } else {
        f64::INFINITY
    };
    let mut informed = informed.into_iter();
    candidates.retain(|_| {
        let own = informed.next();
        own.is_some_and(|(information, _)| distance(information) <= furthest)
    });
}

fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| candidate.weight).sum()
}

/// Sorts as many of the first items as together reach a weight, and drops the rest. Returns whether the
/// weight was reached; if not, all items stay.
///
/// Few are mostly enough, so the sorted part grows until they are.
fn keep_first<T>(
    items: &mut Vec<T>,
    needed: f64,
    order: impl Fn(&T, &T) -> Ordering + Copy,
    weight: impl Fn(&T) -> f64,
) -> bool {
    let (mut done, mut count, mut sum) = (0, FIRST_IN_ORDER, 0.0);
    while let Some(rest) = items.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let next = if count < rest.len() {
            rest.select_nth_unstable_by(count, order).0
        } else {
            rest
        };
        next.sort_unstable_by(order);
        let reached = next.iter().position(|item| {
            sum += weight(item);
            sum >= needed
        });
        if let Some(last) = reached {
            items.truncate(done + last + 1);
            return true;
        }
        done += next.len();
        count *= 8;
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lists the weights that are left.
    fn left(change: impl FnOnce(&mut SamplingParams), weights: &[f64]) -> Vec<usize> {
        let mut params = SamplingParams::default();
        change(&mut params);
        // The order is that of the weights.
        let mut kept: Vec<Candidate> = (0_u16..)
            .zip(weights)
            .map(|(id, weight)| Candidate {
                id: id.into(),
                logit: -f32::from(id),
                weight: *weight,
            })
            .collect();
        Truncation::new(&params).truncate(&mut kept);
        for Candidate { id, weight, .. } in &kept {
            assert_eq!(weight.to_bits(), weights[*id as usize].to_bits());
        }
        let possible = kept.iter().filter(|candidate| candidate.weight > 0.0);
        let mut kept: Vec<usize> = possible.map(|candidate| candidate.id as usize).collect();
        kept.sort_unstable();
        kept
    }

    /// Probabilities of 1/2, 1/4, 1/8 and 1/8: information of 1, 2, 3 and 3 bits, entropy of 1.75 bits.
    const HALVES: [f64; 4] = [1.0, 0.5, 0.25, 0.25];

    #[test]
    fn min_p_keeps_what_has_a_share_of_the_highest() {
        assert_eq!(left(|p| p.min_p = 0.0, &HALVES), [0, 1, 2, 3]);
        assert_eq!(
            left(|p| p.min_p = 0.25, &HALVES),
            [0, 1, 2, 3],
            "what is at the bound stays"
        );
        assert_eq!(left(|p| p.min_p = 0.3, &HALVES), [0, 1]);
        assert_eq!(left(|p| p.min_p = 0.75, &HALVES), [0]);
        assert_eq!(left(|p| p.min_p = 1.0, &HALVES), [0]);
        assert_eq!(left(|p| p.min_p = 1.0, &[0.5, 0.5, 0.25]), [0, 1]);
    }

    #[test]
    fn typical_p_keeps_what_is_nearest_to_the_entropy() {
        // In bits, the distances are 0.75, 0.25, 1.25 and 1.25.
        assert_eq!(left(|p| p.typical_p = 0.2, &HALVES), [1]);
        assert_eq!(left(|p| p.typical_p = 0.25, &HALVES), [1]);
        assert_eq!(left(|p| p.typical_p = 0.3, &HALVES), [0, 1]);
        assert_eq!(left(|p| p.typical_p = 0.75, &HALVES), [0, 1]);
        assert_eq!(
            left(|p| p.typical_p = 0.8, &HALVES),
            [0, 1, 2, 3],
            "what is equally near stays together"
        );
    }

    #[test]
    fn what_is_impossible_is_never_typical() {
        assert_eq!(left(|p| p.typical_p = 0.999, &[1.0, 1.0, 0.0]), [0, 1]);
    }

    #[test]
    fn each_cut_sees_what_the_one_before_left() {
        // The nucleus leaves 2/3 and 1/3; their entropy is 0.918 bits, and 0.585 bits are nearer to it than
        // 1.585.
        let both = |p: &mut SamplingParams| (p.top_p, p.typical_p) = (0.7, 0.5);
        assert_eq!(left(both, &HALVES), [0]);
        // Without it the second is the most typical.
        assert_eq!(left(|p| p.typical_p = 0.2, &HALVES), [1]);
        let all = |p: &mut SamplingParams| (p.top_p, p.min_p, p.typical_p) = (0.9, 0.5, 0.7);
        // 7/8 < 0.9 keeps all, half of the highest keeps two, and 2/3 of the weight are not enough.
        assert_eq!(left(all, &HALVES), [0, 1]);
    }

    #[test]
    fn what_is_put_into_order_piece_by_piece_is_what_a_sort_puts_there() {
        let items: Vec<u32> = (0..5000)
            .map(|n: u32| n.wrapping_mul(2_654_435_761) % 1009)
            .collect();
        let mut sorted = items.clone();
        sorted.sort_unstable();
        for count in [1_u16, 63, 64, 65, 576, 577, 4999, 5000] {
            let mut kept = items.clone();
            assert!(keep_first(&mut kept, f64::from(count) - 0.5, Ord::cmp, |_| 1.0));
            assert_eq!(kept, sorted[..usize::from(count)]);
        }
        let mut all = items.clone();
        assert!(!keep_first(&mut all, 5001.0, Ord::cmp, |_| 1.0));
        assert_eq!(all, sorted);
    }

    fn softmax(logits: &[f64]) -> Vec<f64> {
        let total: f64 = logits.iter().map(|x| x.exp()).sum();
        logits.iter().map(|x| x.exp() / total).collect()
    }

    /// Sums the probabilities of the tokens that come strictly before one of distance `own`.
    fn before(probabilities: &[f64], distances: &[f64], own: f64) -> f64 {
        let pairs = probabilities.iter().zip(distances);
        pairs.filter(|(_, d)| **d < own).map(|(p, _)| p).sum()
    }

    proptest! {
        #[test]
        fn min_p_is_its_definition(
            mut logits in prop::collection::vec(-6.0_f64..6.0, 1..60), min_p in 0.001_f32..1.0,
        ) {
            logits.sort_by(|a, b| b.total_cmp(a));
            let probabilities = softmax(&logits);
            let most = probabilities.iter().copied().fold(0.0, f64::max);
            let least = f64::from(min_p) * most;
            prop_assume!(probabilities.iter().all(|p| (p - least).abs() > 1e-12));
            let expected: Vec<usize> = (0..logits.len()).filter(|i| probabilities[*i] >= least).collect();
            let weights: Vec<f64> = logits.iter().map(|x| (x - logits[0]).exp()).collect();
            prop_assert_eq!(left(|p| p.min_p = min_p, &weights), expected);
        }

        #[test]
        fn typical_p_is_its_definition(
            mut logits in prop::collection::vec(-6.0_f64..6.0, 1..60), typical_p in 0.01_f32..0.999,
        ) {
            logits.sort_by(|a, b| b.total_cmp(a));
            let probabilities = softmax(&logits);
            let entropy: f64 = probabilities.iter().map(|p| -p * p.ln()).sum();
            let distances: Vec<f64> = probabilities.iter().map(|p| (-p.ln() - entropy).abs()).collect();
            let share = f64::from(typical_p);
            let sums: Vec<f64> = distances.iter().map(|d| before(&probabilities, &distances, *d)).collect();
            prop_assume!(sums.iter().all(|sum| (sum - share).abs() > 1e-9));
            // Two distances that differ by rounding alone have no order.
            let mut sorted = distances.clone();
            sorted.sort_by(f64::total_cmp);
            prop_assume!(sorted.windows(2).all(|pair| pair[1] - pair[0] > 1e-9));
            let expected: Vec<usize> = (0..logits.len()).filter(|i| sums[*i] < share).collect();
            let weights: Vec<f64> = logits.iter().map(|x| (x - logits[0]).exp()).collect();
            prop_assert_eq!(left(|p| p.typical_p = typical_p, &weights), expected);
        }
    }
}
