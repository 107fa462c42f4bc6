//! Sampling parameters, and their bounds.

use std::collections::BTreeMap;

use multiway_prompts::{EarlyStopping, SamplingLists, SamplingOptions};
use serde::{Deserialize, Serialize};

use crate::constraint::spec::Constraint;
use crate::error::RequestError;
use crate::tokenizer::TokenId;

/// How an answer is decoded.
///
/// ```
/// use multiway_runtime::SamplingParams;
///
/// let greedy = SamplingParams { max_new_tokens: 16, ..SamplingParams::default() };
/// assert_eq!(greedy.temperature, 0.0);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingParams {
    /// The most tokens to generate, without the forced prefix.
    pub max_new_tokens: usize,
    /// The temperature of the softmax; 0 is greedy.
    pub temperature: f32,
    /// Top-k: sample from the `k` most likely tokens only; `None` for all.
    pub top_k: Option<usize>,
    /// Top-p (nucleus): sample from the most likely tokens whose probabilities sum to this; 1 for all.
    pub top_p: f32,
    /// Min-p: sample from tokens with at least this fraction of the most likely one's probability; 0 for all.
    ///
    /// Applied to the probabilities after temperature, `top_k` and `top_p`.
    pub min_p: f32,
    /// Locally typical sampling: sample from the most typical tokens whose probabilities sum to this; 1 for
    /// all.
    ///
    /// A token is the more typical, the nearer its information is to the entropy of the distribution that the
    /// parameters above leave.
    pub typical_p: f32,
    /// The seed of the random numbers; `None` for a fresh one for each request.
    pub seed: Option<u64>,
    /// Divides the positive logits of tokens in the decoder's input and multiplies the negative ones; 1 turns
    /// it off.
    pub repetition_penalty: f32,
    /// Subtracted from the logit of every token that was generated before, from -2 to 2; the prompt and the
    /// forced prefix do not count.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token once for each time that it was generated before, from -2 to 2;
    /// the prompt and the forced prefix do not count.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens at every step, before all penalties; from -100 to 100, at most
    /// 1024 tokens.
    pub logit_bias: BTreeMap<TokenId, f32>,
    /// Bans tokens that would repeat an n-gram of this size; 0 turns it off.
    pub no_repeat_ngram_size: usize,
    /// Sequences of tokens with a bias, which is added to the logit of the last token where the others are
    /// the last tokens so far; of a single token, at every step. At most 1024 sequences of at most 64 tokens.
    pub sequence_bias: Vec<(Vec<TokenId>, f32)>,
    /// Banned sequences of tokens. A sequence of one EOS token is ignored. At most 16384 sequences of at most
    /// 64 tokens.
    pub bad_words_ids: Vec<Vec<TokenId>>,
    /// Banned tokens.
    pub suppress_tokens: Vec<TokenId>,
    /// Tokens that are banned in the first step.
    pub begin_suppress_tokens: Vec<TokenId>,
    /// The forced first token, if there is no prefix.
    pub forced_bos_token_id: Option<TokenId>,
    /// The forced last token at [`max_new_tokens`](Self::max_new_tokens): the most likely of these.
    pub forced_eos_token_id: Vec<TokenId>,
    /// The number of tokens after which the EOS scores grow exponentially, and the factor.
    pub exponential_decay_length_penalty: Option<(usize, f32)>,
    /// Bans EOS before this many tokens.
    pub min_new_tokens: usize,
    /// The beam width. Only with 1 are tokens sampled, and streamed as they are decoded.
    pub beams: usize,
    /// The exponent of the length by which a beam's score is divided; above 0 it prefers longer answers.
    pub length_penalty: f32,
    /// When a beam search ends.
    pub early_stopping: EarlyStopping,
    /// How many answers [`Engine::search`](crate::Engine::search) returns, at most `beams`.
    pub answers: usize,
    /// How many answers [`Engine::samples`](crate::Engine::samples) returns, at most 64; more than one need a
    /// temperature.
    pub samples: usize,
    /// How many answers [`Engine::samples`](crate::Engine::samples) draws to return the best; `None` for as
    /// many as it returns. The best has the highest mean log-probability per token, including `</s>`.
    pub best_of: Option<usize>,
    /// The forced prefix of the decoder: names of special tokens, or plain text. It is not part of the
    /// answer.
    pub prefix: Vec<String>,
    /// Stop strings: the answer ends before the first of them.
    pub stop: Vec<String>,
    /// Whether special tokens are part of the answer's text, by their names.
    pub show_special: bool,
    /// How many of the top-k tokens are returned with each token, with their log-probabilities; at most 20.
    /// Not with beams.
    pub top_log_probabilities: usize,
    /// Constrained decoding; with one beam and no stop strings.
    pub constraint: Option<Constraint>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            max_new_tokens: 32,
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            seed: None,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            no_repeat_ngram_size: 0,
            sequence_bias: Vec::new(),
            bad_words_ids: Vec::new(),
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            forced_bos_token_id: None,
            forced_eos_token_id: Vec::new(),
            exponential_decay_length_penalty: None,
            min_new_tokens: 0,
            beams: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::WhenNoBetter,
            answers: 1,
            samples: 1,
            best_of: None,
            prefix: Vec::new(),
            stop: Vec::new(),
            show_special: false,
            top_log_probabilities: 0,
            constraint: None,
        }
    }
}

impl SamplingParams {
    /// Returns how many answers are drawn: `best_of`, or `samples`.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_runtime::SamplingParams;
    ///
    /// let sampling = SamplingParams { samples: 2, best_of: Some(5), ..SamplingParams::default() };
    /// assert_eq!(sampling.drawn(), 5);
    /// ```
    #[must_use]
    pub fn drawn(&self) -> usize {
        self.best_of.unwrap_or(self.samples)
    }

    /// Checks all bounds that depend on neither the tokenizer nor the model: each parameter by itself, as a
    /// layer is checked, and how they go together.
    pub(crate) fn check(&self) -> Result<(), RequestError> {
        let lists = SamplingLists {
            logit_bias: &self.logit_bias,
            sequence_bias: &self.sequence_bias,
            bad_words_ids: &self.bad_words_ids,
            stop: &self.stop,
        };
        let checked = self.scalars().check().and_then(|()| lists.check());
        checked.map_err(|error| RequestError::Parameter {
            name: error.parameter,
            found: error.found,
            expected: error.expected,
        })?;
        self.check_beams()?;
        let least = self.min_new_tokens;
        let expected = "at most max_new_tokens";
        check(least <= self.max_new_tokens, "min_new_tokens", least, expected)?;
        self.check_drawn()
    }

    /// Says the parameters that are no lists as a layer, but for `max_new_tokens`: its bounds depend on the
    /// model.
    fn scalars(&self) -> SamplingOptions {
        SamplingOptions {
            temperature: Some(self.temperature),
            top_k: self.top_k,
            top_p: Some(self.top_p),
            min_p: Some(self.min_p),
            typical_p: Some(self.typical_p),
            beams: Some(self.beams),
            length_penalty: Some(self.length_penalty),
            repetition_penalty: Some(self.repetition_penalty),
            presence_penalty: Some(self.presence_penalty),
            frequency_penalty: Some(self.frequency_penalty),
            exponential_decay_length_penalty: self.exponential_decay_length_penalty,
            samples: Some(self.samples),
            best_of: self.best_of,
            top_log_probabilities: Some(self.top_log_probabilities),
            ..SamplingOptions::default()
        }
    }

    /// Checks that every token id is in the vocabulary, or among the model's logits, which may be more.
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

    fn check_beams(&self) -> Result<(), RequestError> {
        let is_greedy = self.beams == 1 || self.temperature <= 0.0;
        let expected = "0 where there are several beams";
        check(is_greedy, "temperature", self.temperature, expected)?;
        let (count, name) = (self.top_log_probabilities, "top_log_probabilities");
        check(count == 0 || self.beams == 1, name, count, expected)?;
        let are_there = (1..=self.beams).contains(&self.answers);
        check(are_there, "answers", self.answers, "1 to the number of beams")
    }

    /// Checks how many answers are drawn and returned.
    fn check_drawn(&self) -> Result<(), RequestError> {
        let drawn = self.drawn();
        check(
            drawn >= self.samples,
            "best_of",
            drawn,
            "at least as many as samples",
        )?;
        let (name, is_one) = (self.best_of.map_or("samples", |_| "best_of"), drawn == 1);
        let expected = "1 where there are several beams";
        check(is_one || self.beams == 1, name, drawn, expected)?;
        let expected = "1 at a temperature of 0, where all would be the same";
        check(is_one || self.temperature > 0.0, name, drawn, expected)
    }
}

fn check(
    is_right: bool,
    name: &'static str,
    found: impl ToString,
    expected: &'static str,
) -> Result<(), RequestError> {
    if is_right {
        return Ok(());
    }
    Err(RequestError::Parameter {
        name,
        found: found.to_string(),
        expected: expected.into(),
    })
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
