//! Which tokens are drawn from.
//!
//! Source: `transformers` 4.57, `generation/logits_process.py`, and the order of `generation/utils.py`: the temperature
//! first, then `top_k`, `top_p`, `min_p` and `typical_p`, each on what those before have left. The likeliest, or most
//! typical, token always stays.

use crate::request::SamplingParams;
use crate::sampling::highest;

/// Cuts off the tokens that are not to be drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Truncation {
    top_k: usize,
    top_p: f64,
    min_p: f64,
    typical_p: f64,
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

    /// Lists the ids of the `top_k` highest logits, the highest first.
    pub(crate) fn candidates(&self, logits: &[f32]) -> Vec<usize> {
        highest(logits, self.top_k)
    }

    /// Cuts off the end of the candidates' weights, and sets to 0 the weights of those that are not typical.
    ///
    /// The weights are the candidates' probabilities, the highest first, up to a common factor.
    pub(crate) fn truncate(&self, weights: &mut Vec<f64>) {
        weights.truncate(nucleus(weights, self.top_p));
        weights.truncate(plausible(weights, self.min_p));
        keep_typical(weights, self.typical_p);
    }
}

/// Counts the likeliest tokens that together reach a share of the total weight.
///
/// Source: Holtzman et al. 2020, nucleus sampling (arXiv 1904.09751), section 3.1.
fn nucleus(weights: &[f64], share: f64) -> usize {
    if share >= 1.0 {
        return weights.len();
    }
    let needed = share * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let reached = weights.iter().position(|weight| {
        sum += weight;
        sum >= needed
    });
    reached.map_or(weights.len(), |last| last + 1)
}

/// Counts the tokens that have at least a share of the likeliest one's weight.
///
/// Source: Nguyen et al. 2024, min-p sampling (arXiv 2407.01082), section 3.
fn plausible(weights: &[f64], share: f64) -> usize {
    let least = weights.first().map_or(0.0, |highest| share * highest);
    weights.partition_point(|weight| *weight >= least)
}

/// Sets to 0 all but the tokens whose information is nearest to the entropy, and which together reach a share of the
/// total weight. Of tokens that are equally near, all stay or none.
///
/// Source: Meister et al. 2023, locally typical sampling (arXiv 2202.00666), section 4.
fn keep_typical(weights: &mut [f64], share: f64) {
    if share >= 1.0 {
        return;
    }
    let total: f64 = weights.iter().sum();
    let information = |weight: f64| -(weight / total).ln();
    let possible = weights.iter().filter(|weight| **weight > 0.0);
    let entropy: f64 = possible.map(|weight| weight / total * information(*weight)).sum();
    let distance = |weight: f64| (information(weight) - entropy).abs();
    let mut nearest_first = weights.to_vec();
    nearest_first.sort_by(|a, b| distance(*a).total_cmp(&distance(*b)));
    let mut sum = 0.0;
    let last = nearest_first.iter().find(|weight| {
        sum += **weight;
        sum >= share * total
    });
    // Rounding can keep the sum of all below the share; then all stay.
    let furthest = last.map_or(f64::INFINITY, |weight| distance(*weight));
    for weight in weights {
        if distance(*weight) > furthest {
            *weight = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tells which of the weights are left.
    fn left(change: impl FnOnce(&mut SamplingParams), weights: &[f64]) -> Vec<usize> {
        let mut params = SamplingParams::default();
        change(&mut params);
        let mut kept = weights.to_vec();
        Truncation::new(&params).truncate(&mut kept);
        for (kept, weight) in kept.iter().zip(weights) {
            assert!(*kept == 0.0 || kept.to_bits() == weight.to_bits());
        }
        (0..kept.len()).filter(|i| kept[*i] > 0.0).collect()
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
        // The nucleus leaves 2/3 and 1/3; their entropy is 0.918 bits, and 0.585 bits are nearer to it than 1.585.
        let both = |p: &mut SamplingParams| (p.top_p, p.typical_p) = (0.7, 0.5);
        assert_eq!(left(both, &HALVES), [0]);
        // Without it the second is the most typical.
        assert_eq!(left(|p| p.typical_p = 0.2, &HALVES), [1]);
        let all = |p: &mut SamplingParams| (p.top_p, p.min_p, p.typical_p) = (0.9, 0.5, 0.7);
        // 7/8 < 0.9 keeps all, half of the highest keeps two, and 2/3 of the weight are not enough.
        assert_eq!(left(all, &HALVES), [0, 1]);
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
