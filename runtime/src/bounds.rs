//! Within which bounds the numbers of sampling parameters may lie.

use crate::error::RequestError;
use crate::request::SamplingParams;
use crate::tokenizer::TokenId;

/// The most tokens whose logits a request may change by a bias.
const MAX_BIASED: usize = 1024;
/// The most sequences of tokens that a request may rule out.
const MAX_BANNED: usize = 16_384;
/// The most tokens of such a sequence.
const MAX_SEQUENCE: usize = 64;
/// The most samples that a request draws.
const MAX_SAMPLES: usize = 64;
/// The most alternatives that come along with a token.
const MAX_ALTERNATIVES: usize = 20;

impl SamplingParams {
    /// Checks what says which tokens are drawn from.
    pub(crate) fn check_truncation(&self) -> Result<(), RequestError> {
        check("min_p", self.min_p, "a number from 0 to 1", |p| {
            (0.0..=1.0).contains(&p)
        })?;
        let expected = "a number above 0 and at most 1";
        check("typical_p", self.typical_p, expected, |p| p > 0.0 && p <= 1.0)
    }

    /// Checks what is added to logits and taken from them.
    pub(crate) fn check_penalties(&self) -> Result<(), RequestError> {
        let penalties = [
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ];
        for (name, penalty) in penalties {
            check(name, penalty, "a number from -2 to 2", |p| p.abs() <= 2.0)?;
        }
        if self.logit_bias.len() > MAX_BIASED {
            let found = format!("a bias for {} tokens", self.logit_bias.len());
            return Err(wrong("logit_bias", found, "at most 1024 tokens"));
        }
        let is_wrong = |bias: &f32| bias.is_nan() || bias.abs() > 100.0;
        if let Some((id, bias)) = self.logit_bias.iter().find(|(_, bias)| is_wrong(bias)) {
            let found = format!("{bias} for token {id}");
            return Err(wrong("logit_bias", found, "numbers from -100 to 100"));
        }
        Ok(())
    }

    /// Counts the answers that are drawn for those that are returned.
    #[must_use]
    pub fn drawn(&self) -> usize {
        self.best_of.unwrap_or(self.samples)
    }

    /// Checks how many answers are drawn and returned.
    pub(crate) fn check_drawn(&self) -> Result<(), RequestError> {
        if self.samples == 0 || self.samples > MAX_SAMPLES {
            return Err(wrong("samples", self.samples.to_string(), "1 to 64"));
        }
        let drawn = self.drawn();
        if drawn < self.samples || drawn > MAX_SAMPLES {
            let expected = "at least as many as samples, and at most 64";
            return Err(wrong("best_of", drawn.to_string(), expected));
        }
        let name = self.best_of.map_or("samples", |_| "best_of");
        if drawn > 1 && self.beams > 1 {
            return Err(wrong(name, drawn.to_string(), "1 where there are several beams"));
        }
        if drawn > 1 && self.temperature <= 0.0 {
            let expected = "1 at a temperature of 0, where all would be the same";
            return Err(wrong(name, drawn.to_string(), expected));
        }
        Ok(())
    }

    /// Checks what is to be told beside the tokens.
    pub(crate) fn check_alternatives(&self) -> Result<(), RequestError> {
        let (count, name) = (self.top_log_probabilities, "top_log_probabilities");
        if count > MAX_ALTERNATIVES {
            return Err(wrong(name, count.to_string(), "0 to 20"));
        }
        if count > 0 && self.beams > 1 {
            return Err(wrong(name, count.to_string(), "0 where there are several beams"));
        }
        Ok(())
    }

    /// Checks the sequences of tokens that are made likelier, less likely, or impossible.
    pub(crate) fn check_sequences(&self) -> Result<(), RequestError> {
        let biased = self.sequence_bias.iter().map(|(sequence, _)| sequence);
        let lists = [
            ("sequence_bias", biased.collect::<Vec<_>>(), MAX_BIASED),
            ("bad_words_ids", self.bad_words_ids.iter().collect(), MAX_BANNED),
        ];
        for (name, sequences, limit) in lists {
            if sequences.len() > limit {
                let found = format!("{} sequences", sequences.len());
                return Err(wrong(name, found, "at most 1024 biased and 16384 bad sequences"));
            }
            let is_wrong = |sequence: &&&Vec<_>| sequence.is_empty() || sequence.len() > MAX_SEQUENCE;
            if let Some(sequence) = sequences.iter().find(is_wrong) {
                let found = format!("a sequence of {} tokens", sequence.len());
                return Err(wrong(name, found, "sequences of 1 to 64 tokens"));
            }
        }
        if let Some((_, bias)) = self.sequence_bias.iter().find(|(_, bias)| bias.is_nan()) {
            return Err(wrong("sequence_bias", bias.to_string(), "numbers"));
        }
        match self.exponential_decay_length_penalty {
            Some((_, factor)) if !(factor > 0.0 && factor.is_finite()) => {
                let expected = "a finite factor above 0";
                Err(wrong(
                    "exponential_decay_length_penalty",
                    factor.to_string(),
                    expected,
                ))
            }
            _ => Ok(()),
        }
    }

    /// Checks that every token that is named is one of the vocabulary's, or of the model's, which may have more.
    pub(crate) fn check_token_ids(&self, vocabulary: usize, logits: usize) -> Result<(), RequestError> {
        let check = |id: TokenId, vocabulary: usize| {
            if id as usize >= vocabulary {
                return Err(RequestError::UnknownToken { id, vocabulary });
            }
            Ok(())
        };
        if let Some((id, _)) = self.logit_bias.last_key_value() {
            check(*id, vocabulary)?;
        }
        let biased = self.sequence_bias.iter().flat_map(|(sequence, _)| sequence);
        let bad = self.bad_words_ids.iter().flatten();
        let suppressed = self.suppress_tokens.iter().chain(&self.begin_suppress_tokens);
        let forced = self.forced_bos_token_id.iter().chain(&self.forced_eos_token_id);
        biased
            .chain(bad)
            .chain(suppressed)
            .chain(forced)
            .try_for_each(|id| check(*id, logits))
    }
}

fn check(
    name: &'static str,
    value: f32,
    expected: &'static str,
    allowed: impl Fn(f32) -> bool,
) -> Result<(), RequestError> {
    if allowed(value) {
        return Ok(());
    }
    Err(wrong(name, value.to_string(), expected))
}

fn wrong(name: &'static str, found: String, expected: &'static str) -> RequestError {
    RequestError::Parameter {
        name,
        found,
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(change: impl FnOnce(&mut SamplingParams)) -> SamplingParams {
        let mut params = SamplingParams::default();
        change(&mut params);
        params
    }

    #[test]
    fn what_is_at_a_bound_is_taken() {
        let at_bounds = [
            params(|p| (p.min_p, p.typical_p) = (1.0, 1.0)),
            params(|p| (p.min_p, p.typical_p) = (0.0, f32::MIN_POSITIVE)),
            params(|p| (p.presence_penalty, p.frequency_penalty) = (2.0, -2.0)),
            params(|p| p.logit_bias = (0..1024).map(|id| (id, -100.0)).collect()),
            params(|p| p.top_log_probabilities = 20),
            params(|p| (p.samples, p.best_of, p.temperature) = (64, Some(64), 1.0)),
            params(|p| p.best_of = Some(1)),
        ];
        for params in at_bounds {
            assert_eq!(params.check(), Ok(()), "{params:?}");
        }
        assert_eq!(
            params(|p| p.logit_bias = [(8, 1.0)].into()).check_token_ids(9, 9),
            Ok(())
        );
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_with_what_was_expected() {
        let out = [
            params(|p| p.min_p = -0.1),
            params(|p| p.min_p = f32::NAN),
            params(|p| p.typical_p = 0.0),
            params(|p| p.typical_p = 1.5),
            params(|p| p.presence_penalty = 2.5),
            params(|p| p.frequency_penalty = f32::NAN),
            params(|p| p.logit_bias = (0..1025).map(|id| (id, 1.0)).collect()),
            params(|p| p.logit_bias = [(3, 1.0), (4, f32::INFINITY)].into()),
            params(|p| p.logit_bias = [(3, f32::NAN)].into()),
            params(|p| p.samples = 0),
            params(|p| (p.samples, p.temperature) = (65, 1.0)),
            params(|p| (p.samples, p.best_of, p.temperature) = (3, Some(2), 1.0)),
            params(|p| (p.best_of, p.temperature) = (Some(65), 1.0)),
            params(|p| p.samples = 2),
            params(|p| p.best_of = Some(2)),
            params(|p| (p.samples, p.beams) = (2, 2)),
            params(|p| p.top_log_probabilities = 21),
            params(|p| (p.top_log_probabilities, p.beams) = (1, 2)),
        ];
        let mut refusals: Vec<String> = out.iter().map(|p| p.check().unwrap_err().to_string()).collect();
        let foreign = params(|p| p.logit_bias = [(3, 1.0), (9, 1.0)].into());
        refusals.push(foreign.check_token_ids(9, 9).unwrap_err().to_string());
        insta::assert_snapshot!(refusals.join("\n"));
    }
}
