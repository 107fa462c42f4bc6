//! Greedy choice and sampling of the next token.

use std::hash::{BuildHasher, RandomState};

use multiway_model::kernels::{Ranking, WeighedRow};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::answer::Alternative;
use crate::sampling_params::SamplingParams;
use crate::tokenizer::TokenId;
use crate::truncation::Truncation;

/// The 32-bit words of the random stream that each step owns: one ChaCha block.
const WORDS_PER_STEP: u128 = 16;

/// Chooses tokens for one request.
///
/// Random numbers depend on the seed, the stream and the step alone, so sampling is batch-invariant.
#[derive(Debug)]
pub(crate) struct Sampler {
    temperature: f32,
    truncation: Truncation,
    top_log_probabilities: usize,
    random: ChaCha8Rng,
}

/// Makes a seed for a request that brings none.
pub(crate) fn fresh_seed() -> u64 {
    RandomState::new().hash_one(())
}

/// A token that was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) id: TokenId,
    /// Its log-probability by the given logits, before temperature and truncation.
    pub(crate) log_probability: f32,
}

impl Sampler {
    pub(crate) fn new(params: &SamplingParams) -> Self {
        let seed = params.seed.unwrap_or_else(fresh_seed);
        Self {
            temperature: params.temperature,
            truncation: Truncation::new(params),
            top_log_probabilities: params.top_log_probabilities,
            random: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Draws from another random stream of the same seed; default: stream 0.
    pub(crate) fn set_stream(&mut self, stream: u64) {
        self.random.set_stream(stream);
    }

    /// Returns the `k` of the top-k logits that choosing a token needs.
    pub(crate) fn top_logits(&self) -> usize {
        let chosen = usize::from(self.temperature <= 0.0);
        self.top_log_probabilities.max(chosen)
    }

    /// Chooses a token by the logits `[V]` of a step; `None` if they are not finite.
    pub(crate) fn sample(&mut self, logits: &[f32], step: usize) -> Option<Choice> {
        self.choose(logits, &Ranking::of(logits, self.top_logits()), step)
    }

    /// Chooses a token where at least the top [`Sampler::top_logits`] logits are known.
    pub(crate) fn choose(&mut self, logits: &[f32], ranking: &Ranking, step: usize) -> Option<Choice> {
        ranking.log_total?;
        let id = if self.temperature > 0.0 {
            self.draw(logits, step)?
        } else {
            ranking.highest.first()?.0
        };
        Some(Choice {
            id,
            log_probability: ranking.log_probability(*logits.get(id as usize)?)?,
        })
    }

    /// Lists the requested top-k tokens of the logits `[V]` that are not banned, the highest first.
    ///
    /// Ties go to the lower id, as in greedy decoding.
    pub(crate) fn alternatives(&self, logits: &[f32]) -> Vec<Alternative> {
        match self.top_log_probabilities {
            0 => Vec::new(),
            count => self.alternatives_of(&Ranking::of(logits, count)),
        }
    }

    /// Lists them where the top logits are known.
    pub(crate) fn alternatives_of(&self, ranking: &Ranking) -> Vec<Alternative> {
        let alternative = |(id, logit): &(TokenId, f32)| {
            let log_probability = ranking.log_probability(*logit).filter(|p| p.is_finite())?;
            Some(Alternative {
                id: *id,
                log_probability,
            })
        };
        let first = ranking.highest.iter().take(self.top_log_probabilities);
        first.filter_map(alternative).collect()
    }

    fn draw(&mut self, logits: &[f32], step: usize) -> Option<TokenId> {
        let row = WeighedRow::new(logits, self.temperature);
        if !self.truncation.cuts(&row) {
            return row.draw(self.uniform(step));
        }
        let candidates = self.truncation.candidates(&row);
        let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        let mut target = self.uniform(step) * total;
        let drawn = candidates.iter().find(|candidate| {
            target -= candidate.weight;
            target < 0.0
        });
        // Rounding can leave a remainder; it belongs to the last token of nonzero weight.
        let last = || candidates.iter().rfind(|candidate| candidate.weight > 0.0);
        drawn.or_else(last).map(|candidate| candidate.id)
    }

    /// Draws the step's uniform number from 0 to 1.
    fn uniform(&mut self, step: usize) -> f64 {
        self.random.set_word_pos(WORDS_PER_STEP * step as u128);
        // 53 bits: the mantissa of an `f64`.
        (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampler(temperature: f32, top_k: Option<usize>, top_p: f32, seed: u64) -> Sampler {
        let seed = Some(seed);
        Sampler::new(&SamplingParams {
            temperature,
            top_k,
            top_p,
            seed,
            ..SamplingParams::default()
        })
    }

    #[test]
    fn greedy_takes_the_likeliest_and_the_first_of_equals() {
        let choice = sampler(0.0, None, 1.0, 0)
            .sample(&[0.0, 2.0, 2.0, -1.0], 0)
            .unwrap();
        assert_eq!(choice.id, 1);
        let sum: f64 = [0.0_f64, 2.0, 2.0, -1.0].iter().map(|x| x.exp()).sum();
        assert!((f64::from(choice.log_probability) - (2.0 - sum.ln())).abs() < 1e-6);
    }

    #[test]
    fn logits_that_are_no_numbers_choose_nothing() {
        for logits in [
            vec![],
            vec![f32::NAN, 1.0],
            vec![f32::NEG_INFINITY; 3],
            vec![f32::INFINITY, 0.0],
        ] {
            assert_eq!(sampler(0.0, None, 1.0, 0).sample(&logits, 0), None, "{logits:?}");
            assert_eq!(sampler(1.0, None, 1.0, 0).sample(&logits, 0), None, "{logits:?}");
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        let probabilities = [0.5_f32, 0.3, 0.15, 0.05];
        let logits = probabilities.map(f32::ln);
        let mut sampler = sampler(1.0, None, 1.0, 11);
        let mut counts = [0_u16; 4];
        for step in 0..20_000 {
            counts[sampler.sample(&logits, step).unwrap().id as usize] += 1;
        }
        for (count, probability) in counts.into_iter().zip(probabilities) {
            assert!(
                (f32::from(count) / 20_000.0 - probability).abs() < 0.015,
                "{counts:?}"
            );
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail_off() {
        let logits = [0.5_f32, 0.3, 0.15, 0.05].map(f32::ln);
        for step in 0..500 {
            assert!(sampler(1.0, Some(2), 1.0, 3).sample(&logits, step).unwrap().id < 2);
            assert!(sampler(1.0, None, 0.75, 3).sample(&logits, step).unwrap().id < 2);
            assert_eq!(sampler(1.0, None, 0.1, 3).sample(&logits, step).unwrap().id, 0);
        }
    }

    fn alternatives(count: usize, logits: &[f32]) -> Vec<(TokenId, f32)> {
        let sampler = Sampler::new(&SamplingParams {
            top_log_probabilities: count,
            ..SamplingParams::default()
        });
        let alternatives = sampler.alternatives(logits);
        alternatives.iter().map(|a| (a.id, a.log_probability)).collect()
    }

    #[test]
    fn alternatives_are_the_likeliest_tokens_that_are_possible() {
        let logits = [0.125_f32, 0.5, 0.0, 0.25, 0.125].map(f32::ln);
        let found = alternatives(3, &logits);
        assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 0]);
        for ((_, found), expected) in found.iter().zip([0.5_f32, 0.25, 0.125]) {
            assert!((found - expected.ln()).abs() < 1e-6, "{found}");
        }
        assert_eq!(
            alternatives(20, &logits).len(),
            4,
            "what is banned is no alternative"
        );
        assert_eq!(alternatives(0, &logits), []);
    }

    #[test]
    fn alternatives_are_ordered_by_logits_where_rounding_makes_log_probabilities_equal() {
        // Their log-probabilities are near -50, where two neighbours of 1.0 are the same number.
        let logits = [51.0, 1.0, 1.0 + f32::EPSILON];
        let found = alternatives(3, &logits);
        assert_eq!(found[1].1.to_bits(), found[2].1.to_bits());
        assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 2, 1]);
    }

    /// Lists the tokens that are drawn in many steps.
    fn drawn(change: impl FnOnce(&mut SamplingParams), logits: &[f32]) -> Vec<TokenId> {
        let mut params = SamplingParams {
            temperature: 1.0,
            seed: Some(5),
            ..SamplingParams::default()
        };
        change(&mut params);
        let mut sampler = Sampler::new(&params);
        let drawn = (0..500).map(|step| sampler.sample(logits, step).unwrap().id);
        drawn
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    #[test]
    fn min_p_and_typical_p_leave_out_what_is_unlikely_or_not_typical() {
        let logits = [0.125_f32, 0.5, 0.125, 0.25].map(f32::ln);
        assert_eq!(drawn(|_| {}, &logits), [0, 1, 2, 3]);
        assert_eq!(drawn(|p| p.min_p = 0.4, &logits), [1, 3]);
        assert_eq!(drawn(|p| p.typical_p = 0.2, &logits), [3]);
        assert_eq!(drawn(|p| p.typical_p = 0.5, &logits), [1, 3]);
        // At this temperature the least likely have half of the likeliest one's probability.
        let hot = |p: &mut SamplingParams| (p.temperature, p.min_p) = (2.0, 0.4);
        assert_eq!(drawn(hot, &logits), [0, 1, 2, 3]);
    }

    #[derive(serde::Deserialize)]
    struct Recorded {
        logits: Vec<f32>,
        params: SamplingParams,
        /// The ids that are left.
        kept: Vec<usize>,
    }

    #[test]
    fn what_is_left_to_be_drawn_is_what_transformers_leaves() {
        let recorded = include_str!("../tests/fixtures/truncation.json");
        let recorded: Vec<Recorded> = serde_json::from_str(recorded).unwrap();
        assert_eq!(recorded.len(), 64);
        for Recorded { logits, params, kept } in recorded {
            let row = WeighedRow::new(&logits, params.temperature);
            let candidates = Truncation::new(&params).candidates(&row);
            let left = candidates.iter().filter(|candidate| candidate.weight > 0.0);
            let mut left: Vec<usize> = left.map(|candidate| candidate.id as usize).collect();
            left.sort_unstable();
            assert_eq!(left, kept, "{params:?} of {logits:?}");
        }
    }

    #[test]
    fn streams_of_one_seed_draw_apart_and_the_first_is_that_of_the_seed() {
        let logits = [0.0; 50];
        let draw = |stream: Option<u64>| {
            let mut sampler = sampler(1.0, None, 1.0, 9);
            if let Some(stream) = stream {
                sampler.set_stream(stream);
            }
            (0..20)
                .map(|step| sampler.sample(&logits, step).unwrap().id)
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(None), draw(Some(0)));
        assert_ne!(draw(Some(0)), draw(Some(1)));
        assert_ne!(draw(Some(1)), draw(Some(2)));
    }

    proptest! {
        #[test]
        fn a_step_draws_the_same_whatever_was_drawn_before(
            logits in prop::collection::vec(-9.0_f32..9.0, 1..40), seed: u64, steps in prop::collection::vec(0..50_usize, 1..9),
        ) {
            let mut used = sampler(0.8, Some(20), 0.9, seed);
            for step in steps {
                let fresh = sampler(0.8, Some(20), 0.9, seed).sample(&logits, step);
                prop_assert_eq!(used.sample(&logits, step), fresh);
                prop_assert!(fresh.is_some_and(|choice| (choice.id as usize) < logits.len()));
            }
        }
    }
}
