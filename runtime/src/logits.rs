//! Changes to the scores of the next token: a bias, penalties on what was written before, and bans.
//!
//! Source: the logits processors of `transformers` 4.57, `generation/logits_process.py`, applied in its order, with the
//! penalties on presence and frequency, which it lacks, where vLLM applies them (`v1/sample/sampler.py`): a bias first,
//! then the penalties on repetition, frequency and presence, and bans last.

use crate::generation::Ends;
use crate::request::SamplingParams;
use crate::tokenizer::TokenId;

/// Applies a request's penalties and bans.
#[derive(Clone, Debug)]
pub(crate) struct LogitsProcessor {
    logit_bias: Vec<(TokenId, f32)>,
    repetition_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    no_repeat_ngram_size: usize,
    min_new_tokens: usize,
    /// How many of the tokens before were not the model's own.
    forced: usize,
    ends: Ends,
}

impl LogitsProcessor {
    /// Reads the settings of a request whose decoder starts with `forced` tokens.
    pub(crate) fn new(params: &SamplingParams, forced: usize, ends: Ends) -> Self {
        Self {
            logit_bias: params.logit_bias.iter().map(|(id, bias)| (*id, *bias)).collect(),
            repetition_penalty: params.repetition_penalty,
            presence_penalty: params.presence_penalty,
            frequency_penalty: params.frequency_penalty,
            no_repeat_ngram_size: params.no_repeat_ngram_size,
            min_new_tokens: params.min_new_tokens,
            forced,
            ends,
        }
    }

    /// Tells whether anything can change.
    pub(crate) fn is_idle(&self) -> bool {
        self.logit_bias.is_empty()
            && (self.repetition_penalty - 1.0).abs() < f32::EPSILON
            && !self.counts_what_was_written()
            && self.no_repeat_ngram_size == 0
            && self.min_new_tokens == 0
    }

    /// Changes scores `[V]`, logits or log-probabilities, after the tokens `read`, the start token first.
    pub(crate) fn process(&self, read: &[TokenId], scores: &mut [f32]) {
        self.add_bias(scores);
        self.penalise_repetition(read, scores);
        self.penalise_what_was_written(read, scores);
        self.ban_repeated_ngrams(read, scores);
        if read.len() < self.forced + self.min_new_tokens {
            self.ends.iter().for_each(|end| ban(end, scores));
        }
    }

    fn counts_what_was_written(&self) -> bool {
        self.presence_penalty.abs() > 0.0 || self.frequency_penalty.abs() > 0.0
    }

    /// Source: the `logit_bias` of OpenAI's API; with sequences of one token, `SequenceBiasLogitsProcessor`.
    fn add_bias(&self, scores: &mut [f32]) {
        for (id, bias) in &self.logit_bias {
            if let Some(score) = scores.get_mut(*id as usize) {
                *score += bias;
            }
        }
    }

    /// Divides positive and multiplies negative scores of every token that was read, once.
    ///
    /// Source: Keskar et al. 2019, CTRL (arXiv 1909.05858), section 4.1.
    fn penalise_repetition(&self, read: &[TokenId], scores: &mut [f32]) {
        if (self.repetition_penalty - 1.0).abs() < f32::EPSILON {
            return;
        }
        let mut seen = read.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(score) = scores.get_mut(id as usize) {
                if *score < 0.0 {
                    *score *= self.repetition_penalty;
                } else {
                    *score /= self.repetition_penalty;
                }
            }
        }
    }

    /// Lowers the score of every token that the model wrote: once, and once more for each time.
    ///
    /// Source: OpenAI's API reference, "Frequency and presence penalties":
    /// `mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence`, where `c[j]` counts how often token `j` was
    /// sampled before.
    fn penalise_what_was_written(&self, read: &[TokenId], scores: &mut [f32]) {
        if !self.counts_what_was_written() {
            return;
        }
        let mut written = read.get(self.forced..).unwrap_or_default().to_vec();
        written.sort_unstable();
        for same in written.chunk_by(|a, b| a == b) {
            let score = same.first().and_then(|id| scores.get_mut(*id as usize));
            if let Some(score) = score {
                *score -= self.frequency_penalty * same.len() as f32;
                *score -= self.presence_penalty;
            }
        }
    }

    /// Bans every token that would complete an n-gram that was read before.
    fn ban_repeated_ngrams(&self, read: &[TokenId], scores: &mut [f32]) {
        let n = self.no_repeat_ngram_size;
        let Some(start) = (read.len() + 1).checked_sub(n).filter(|_| n > 0) else {
            return;
        };
        let (_, tail) = read.split_at(start);
        for window in read.windows(n) {
            if let Some((next, before)) = window.split_last()
                && before == tail
            {
                ban(*next, scores);
            }
        }
    }
}

fn ban(id: TokenId, scores: &mut [f32]) {
    if let Some(score) = scores.get_mut(id as usize) {
        *score = f32::NEG_INFINITY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor(change: impl FnOnce(&mut SamplingParams)) -> LogitsProcessor {
        let mut params = SamplingParams::default();
        change(&mut params);
        LogitsProcessor::new(&params, 1, Ends::one(1))
    }

    #[test]
    fn by_default_nothing_changes() {
        assert!(processor(|_| {}).is_idle());
    }

    #[test]
    fn what_was_read_is_penalised_once_and_towards_less_likely() {
        let mut scores = [2.0, -1.0, 0.5, 3.0];
        processor(|p| p.repetition_penalty = 2.0).process(&[0, 3, 3, 1], &mut scores);
        assert_eq!(
            scores.map(f32::to_bits),
            [1.0_f32, -2.0, 0.5, 1.5].map(f32::to_bits)
        );
    }

    /// Processes scores with two forced tokens and compares the bits.
    fn assert_scores(change: impl FnOnce(&mut SamplingParams), read: &[TokenId], expected: [f32; 5]) {
        let mut params = SamplingParams::default();
        change(&mut params);
        let mut scores = [2.0, -1.0, 0.5, 3.0, 0.0];
        LogitsProcessor::new(&params, 2, Ends::one(1)).process(read, &mut scores);
        assert_eq!(scores.map(f32::to_bits), expected.map(f32::to_bits), "{scores:?}");
    }

    #[test]
    fn what_the_model_wrote_is_penalised_once_for_presence_and_each_time_for_frequency() {
        let read = [0, 2, 3, 4, 3, 3];
        assert_scores(|p| p.presence_penalty = 0.5, &read, [2.0, -1.0, 0.5, 2.5, -0.5]);
        assert_scores(|p| p.frequency_penalty = 0.5, &read, [2.0, -1.0, 0.5, 1.5, -0.5]);
        let both = |p: &mut SamplingParams| (p.presence_penalty, p.frequency_penalty) = (-1.0, 0.25);
        assert_scores(both, &read, [2.0, -1.0, 0.5, 3.25, 0.75]);
    }

    #[test]
    fn the_start_token_and_the_forced_prefix_are_not_penalised_for_presence() {
        let both = |p: &mut SamplingParams| (p.presence_penalty, p.frequency_penalty) = (1.0, 1.0);
        assert_scores(both, &[0, 2], [2.0, -1.0, 0.5, 3.0, 0.0]);
    }

    #[test]
    fn a_bias_is_added_before_the_penalties() {
        let bias = |p: &mut SamplingParams| {
            p.logit_bias = [(1, 4.0), (3, -2.0)].into();
            p.repetition_penalty = 2.0;
            p.presence_penalty = 0.25;
        };
        // (-1 + 4) / 2, since the bias made it positive; (3 - 2) / 2 - 0.25.
        assert_scores(bias, &[7, 1, 3], [2.0, 1.5, 0.5, 0.25, 0.0]);
    }

    #[test]
    fn a_token_that_is_banned_stays_so_whatever_its_bias() {
        let end = |p: &mut SamplingParams| {
            p.logit_bias = [(1, 100.0)].into();
            p.min_new_tokens = 1;
        };
        assert_scores(end, &[0, 2], [2.0, f32::NEG_INFINITY, 0.5, 3.0, 0.0]);
    }

    #[test]
    fn each_of_the_penalties_and_biases_is_noticed() {
        assert!(!processor(|p| p.presence_penalty = -0.1).is_idle());
        assert!(!processor(|p| p.frequency_penalty = 0.1).is_idle());
        assert!(!processor(|p| p.logit_bias = [(4, 0.5)].into()).is_idle());
    }

    #[test]
    fn no_ngram_comes_twice() {
        let banned = |n: usize, read: &[TokenId]| {
            let mut scores = [0.0; 6];
            processor(|p| p.no_repeat_ngram_size = n).process(read, &mut scores);
            let banned = (0..6_u32).zip(scores).filter(|(_, score)| score.is_infinite());
            banned.map(|(id, _)| id).collect::<Vec<_>>()
        };
        assert_eq!(banned(2, &[0, 2, 3, 2]), [3]);
        assert_eq!(banned(3, &[0, 2, 3, 2, 3]), [2]);
        assert_eq!(banned(1, &[0, 2]), [0, 2]);
        assert_eq!(banned(3, &[0]), [0_u32; 0]);
        assert_eq!(banned(4, &[0, 2, 3]), [0_u32; 0]);
    }

    #[test]
    fn the_end_waits_for_the_minimum() {
        let end_is_banned = |read: &[TokenId]| {
            let mut scores = [0.0; 4];
            processor(|p| p.min_new_tokens = 2).process(read, &mut scores);
            scores[1].is_infinite()
        };
        assert!(end_is_banned(&[0]) && end_is_banned(&[0, 3]) && !end_is_banned(&[0, 3, 3]));
    }
}
