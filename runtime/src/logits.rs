//! Logits processors: biases, penalties and bans.
//!
//! Source: the logits processors of `transformers` 4.57, `generation/logits_process.py`, applied in its
//! order, with the penalties on presence and frequency, which it lacks, where vLLM applies them
//! (`v1/sample/sampler.py`): a bias first, then the penalties on repetition, frequency and presence, bans,
//! what is forced, and what is suppressed last.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::eos::EosTokens;
use crate::sampling_params::SamplingParams;
use crate::tokenizer::TokenId;

/// Applies a request's penalties and bans.
#[derive(Clone, Debug)]
pub(crate) struct LogitsProcessor {
    logit_bias: Vec<(TokenId, f32)>,
    /// Shared by all rows of a request, since it may be long.
    sequences: Arc<Sequences>,
    repetition_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    no_repeat_ngram_size: usize,
    min_new_tokens: usize,
    max_new_tokens: usize,
    forced_bos: Option<TokenId>,
    decay: Option<(usize, f32)>,
    /// How many of the tokens before are the start token and the forced prefix.
    forced: usize,
    ends: EosTokens,
}

/// Biased, banned and forced tokens and sequences.
#[derive(Debug)]
struct Sequences {
    biased: Vec<(Vec<TokenId>, f32)>,
    bad: Vec<Vec<TokenId>>,
    suppressed: Vec<TokenId>,
    suppressed_first: Vec<TokenId>,
    forced_eos: Vec<TokenId>,
}

impl Sequences {
    fn is_empty(&self) -> bool {
        self.biased.is_empty()
            && self.bad.is_empty()
            && self.suppressed.is_empty()
            && self.suppressed_first.is_empty()
            && self.forced_eos.is_empty()
    }
}

impl LogitsProcessor {
    /// Reads the settings of a request whose decoder starts with `forced` tokens.
    pub(crate) fn new(params: &SamplingParams, forced: usize, ends: EosTokens) -> Self {
        let is_end = |sequence: &&Vec<TokenId>| matches!(sequence.as_slice(), [id] if ends.contains(*id));
        let sequences = Sequences {
            biased: params.sequence_bias.clone(),
            bad: params
                .bad_words_ids
                .iter()
                .filter(|bad| !is_end(bad))
                .cloned()
                .collect(),
            suppressed: params.suppress_tokens.clone(),
            suppressed_first: params.begin_suppress_tokens.clone(),
            forced_eos: params.forced_eos_token_id.clone(),
        };
        Self {
            logit_bias: params.logit_bias.iter().map(|(id, bias)| (*id, *bias)).collect(),
            sequences: Arc::new(sequences),
            repetition_penalty: params.repetition_penalty,
            presence_penalty: params.presence_penalty,
            frequency_penalty: params.frequency_penalty,
            no_repeat_ngram_size: params.no_repeat_ngram_size,
            min_new_tokens: params.min_new_tokens,
            max_new_tokens: params.max_new_tokens,
            // With a prefix, the token after the start is not the model's.
            forced_bos: params.forced_bos_token_id.filter(|_| forced == 1),
            decay: params.exponential_decay_length_penalty,
            forced,
            ends,
        }
    }

    /// Returns whether the processor never changes a score.
    pub(crate) fn is_idle(&self) -> bool {
        self.logit_bias.is_empty()
            && self.sequences.is_empty()
            && (self.repetition_penalty - 1.0).abs() < f32::EPSILON
            && !self.counts_what_was_written()
            && self.no_repeat_ngram_size == 0
            && self.min_new_tokens == 0
            && self.forced_bos.is_none()
            && self.decay.is_none()
    }

    /// Processes scores `[V]`, logits or log-probabilities, given the tokens so far, the start token first.
    pub(crate) fn process(&self, read: &[TokenId], scores: &mut [f32]) {
        self.add_bias(scores);
        self.add_sequence_bias(read, scores);
        self.penalise_repetition(read, scores);
        self.penalise_what_was_written(read, scores);
        self.ban_repeated_ngrams(read, scores);
        let bad = self.sequences.bad.iter().filter_map(|bad| completed(bad, read));
        bad.for_each(|id| ban(id, scores));
        let written = read.len().saturating_sub(self.forced);
        if written < self.min_new_tokens {
            self.ends.iter().for_each(|end| ban(end, scores));
        }
        self.force(written, scores);
        self.raise_ends(written, scores);
        let first = usize::from(self.forced_bos.is_some());
        let suppressed_first = (written == first).then_some(&self.sequences.suppressed_first);
        let suppressed = self.sequences.suppressed.iter();
        suppressed
            .chain(suppressed_first.into_iter().flatten())
            .for_each(|id| ban(*id, scores));
    }

    /// Adds the bias of each sequence whose last token comes next.
    ///
    /// Source: `SequenceBiasLogitsProcessor`: a sequence counts only if there are at least as many tokens so
    /// far as it has, and the biases of a token are summed first.
    fn add_sequence_bias(&self, read: &[TokenId], scores: &mut [f32]) {
        let mut sums: BTreeMap<TokenId, f32> = BTreeMap::new();
        for (sequence, bias) in &self.sequences.biased {
            match completed(sequence, read) {
                // Of several sequences of the same single token the last counts.
                Some(id) if sequence.len() == 1 => drop(sums.insert(id, *bias)),
                _ => {}
            }
        }
        for (sequence, bias) in self
            .sequences
            .biased
            .iter()
            .filter(|(sequence, _)| sequence.len() > 1)
        {
            if let Some(id) = completed(sequence, read) {
                *sums.entry(id).or_default() += bias;
            }
        }
        for (id, bias) in sums {
            if let Some(score) = scores.get_mut(id as usize) {
                *score += bias;
            }
        }
    }

    /// Bans all but the forced first or last token.
    ///
    /// Source: `ForcedBOSTokenLogitsProcessor`, `ForcedEOSTokenLogitsProcessor`.
    fn force(&self, written: usize, scores: &mut [f32]) {
        let is_last = written + 1 == self.max_new_tokens && !self.sequences.forced_eos.is_empty();
        let forced = match self.forced_bos {
            _ if is_last => self.sequences.forced_eos.as_slice(),
            Some(ref first) if written == 0 => std::slice::from_ref(first),
            _ => return,
        };
        scores.fill(f32::NEG_INFINITY);
        for id in forced {
            if let Some(score) = scores.get_mut(*id as usize) {
                *score = 0.0;
            }
        }
    }

    /// Raises the EOS scores exponentially with each token beyond a number of them.
    ///
    /// Source: `ExponentialDecayLengthPenalty`: `|score| * (factor^tokens - 1)` is added.
    fn raise_ends(&self, written: usize, scores: &mut [f32]) {
        let Some((start, factor)) = self.decay.filter(|(start, _)| written > *start) else {
            return;
        };
        let tokens = i32::try_from(written - start).unwrap_or(i32::MAX);
        #[expect(clippy::cast_possible_truncation, reason = "scores are 32-bit")]
        let raise = (f64::from(factor).powi(tokens) - 1.0) as f32;
        for end in self.ends.iter() {
            // Banned tokens stay banned.
            if let Some(score) = scores.get_mut(end as usize).filter(|score| score.is_finite()) {
                *score += score.abs() * raise;
            }
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

    /// Divides positive and multiplies negative scores of every token so far, once.
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

    /// Subtracts the presence penalty once, and the frequency penalty for each occurrence of a new token.
    ///
    /// Source: OpenAI's API reference, "Frequency and presence penalties": `mu[j] - c[j] * alpha_frequency -
    /// float(c[j] > 0) * alpha_presence`, where `c[j]` counts how often token `j` was sampled before.
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

    /// Bans every token that would repeat an n-gram.
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

/// Returns the last token of a sequence if the others are the last tokens so far. As in `transformers`, there
/// must be at least as many tokens so far as the sequence has.
fn completed(sequence: &[TokenId], read: &[TokenId]) -> Option<TokenId> {
    let (last, before) = sequence.split_last()?;
    let is_there = before.is_empty() || (sequence.len() <= read.len() && read.ends_with(before));
    is_there.then_some(*last)
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
        LogitsProcessor::new(&params, 1, EosTokens::one(1))
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
        LogitsProcessor::new(&params, 2, EosTokens::one(1)).process(read, &mut scores);
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
    fn sequences_change_their_last_token_where_the_others_were_read() {
        let biased = |p: &mut SamplingParams| {
            p.sequence_bias = vec![
                (vec![3], 1.0),
                (vec![7, 2], 0.25),
                (vec![2, 7, 2], 0.5),
                (vec![4, 1], 9.0),
            ];
        };
        assert_scores(biased, &[0, 2, 7], [2.0, -1.0, 1.25, 4.0, 0.0]);
        // So many tokens must have been read as the sequence has.
        assert_scores(biased, &[2, 7], [2.0, -1.0, 0.75, 4.0, 0.0]);
        let bad =
            |p: &mut SamplingParams| p.bad_words_ids = vec![vec![4], vec![1], vec![7, 0], vec![9, 9, 2]];
        let banned = f32::NEG_INFINITY;
        assert_scores(bad, &[0, 2, 7], [banned, -1.0, 0.5, 3.0, banned]);
    }

    #[test]
    fn suppressed_tokens_are_never_written_and_some_not_first() {
        let both = |p: &mut SamplingParams| (p.suppress_tokens, p.begin_suppress_tokens) = (vec![3], vec![0]);
        let banned = f32::NEG_INFINITY;
        assert_scores(both, &[5, 5], [banned, -1.0, 0.5, banned, 0.0]);
        assert_scores(both, &[5, 5, 2], [2.0, -1.0, 0.5, banned, 0.0]);
    }

    #[test]
    fn forced_tokens_come_first_and_last() {
        let banned = f32::NEG_INFINITY;
        let last = |p: &mut SamplingParams| (p.max_new_tokens, p.forced_eos_token_id) = (2, vec![1, 4]);
        assert_scores(last, &[0, 2], [2.0, -1.0, 0.5, 3.0, 0.0]);
        assert_scores(last, &[0, 2, 3], [banned, 0.0, banned, banned, 0.0]);
        let mut params = SamplingParams {
            forced_bos_token_id: Some(2),
            begin_suppress_tokens: vec![0],
            ..SamplingParams::default()
        };
        let scores = |params: &SamplingParams, forced, read: &[TokenId]| {
            let mut scores = [2.0, -1.0, 0.5, 3.0, 0.0];
            LogitsProcessor::new(params, forced, EosTokens::one(1)).process(read, &mut scores);
            scores.map(f32::to_bits)
        };
        assert_eq!(
            scores(&params, 1, &[0]),
            [banned, banned, 0.0, banned, banned].map(f32::to_bits)
        );
        // What may not come first may not come after it.
        assert_eq!(
            scores(&params, 1, &[0, 2]),
            [banned, -1.0, 0.5, 3.0, 0.0].map(f32::to_bits)
        );
        params.begin_suppress_tokens.clear();
        assert_eq!(
            scores(&params, 2, &[0, 4]),
            [2.0, -1.0, 0.5, 3.0, 0.0].map(f32::to_bits)
        );
    }

    #[test]
    fn ends_become_likelier_with_each_token_beyond_a_number() {
        let decay = |p: &mut SamplingParams| p.exponential_decay_length_penalty = Some((1, 2.0));
        assert_scores(decay, &[0, 2, 3], [2.0, -1.0, 0.5, 3.0, 0.0]);
        // -1 + 1 * (2^2 - 1).
        assert_scores(decay, &[0, 2, 3, 3, 3], [2.0, 2.0, 0.5, 3.0, 0.0]);
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
