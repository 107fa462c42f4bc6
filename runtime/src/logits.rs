//! Changes to the scores of the next token that depend on what was written before.
//!
//! Source: the logits processors of `transformers` 4.57, `generation/logits_process.py`, applied in its order.

use crate::generation::Ends;
use crate::request::SamplingParams;
use crate::tokenizer::TokenId;

/// Applies a request's penalties and bans.
#[derive(Clone, Debug)]
pub(crate) struct LogitsProcessor {
    repetition_penalty: f32,
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
            repetition_penalty: params.repetition_penalty,
            no_repeat_ngram_size: params.no_repeat_ngram_size,
            min_new_tokens: params.min_new_tokens,
            forced,
            ends,
        }
    }

    /// Tells whether anything can change.
    pub(crate) fn is_idle(&self) -> bool {
        (self.repetition_penalty - 1.0).abs() < f32::EPSILON
            && self.no_repeat_ngram_size == 0
            && self.min_new_tokens == 0
    }

    /// Changes scores `[V]`, logits or log-probabilities, after the tokens `read`, the start token first.
    pub(crate) fn process(&self, read: &[TokenId], scores: &mut [f32]) {
        self.penalise_repetition(read, scores);
        self.ban_repeated_ngrams(read, scores);
        if read.len() < self.forced + self.min_new_tokens {
            self.ends.iter().for_each(|end| ban(end, scores));
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
