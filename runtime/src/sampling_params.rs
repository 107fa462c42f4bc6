//! Sampling parameters, and their bounds.

use std::collections::BTreeMap;

use multiway_prompts::EarlyStopping;
use serde::{Deserialize, Serialize};

use crate::constraint::spec::Constraint;
use crate::error::RequestError;
use crate::tokenizer::TokenId;

/// The most stop strings of a request.
const MAX_STOPS: usize = 16;
/// The most bytes of a stop string.
const MAX_STOP_BYTES: usize = 256;
/// The most beams of a search.
const MAX_BEAMS: usize = 64;
/// The most tokens with a logit bias, and the most biased sequences.
const MAX_BIASED: usize = 1024;
/// The most banned sequences.
const MAX_BANNED: usize = 16_384;
/// The most tokens of a biased or banned sequence.
const MAX_SEQUENCE: usize = 64;
/// The most samples of a request.
const MAX_SAMPLES: usize = 64;
/// The most top-k alternatives of a token.
const MAX_ALTERNATIVES: usize = 20;

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

    /// Checks all bounds that depend on neither the tokenizer nor the model.
    pub(crate) fn check(&self) -> Result<(), RequestError> {
        self.check_scale()?;
        self.check_beams()?;
        self.check_length()?;
        self.check_truncation()?;
        self.check_penalties()?;
        self.check_sequences()?;
        self.check_drawn()?;
        self.check_alternatives()
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

    fn check_scale(&self) -> Result<(), RequestError> {
        let temperature = self.temperature;
        let is_scale = temperature >= 0.0 && temperature.is_finite();
        check(
            is_scale,
            "temperature",
            temperature,
            "a finite number of at least 0",
        )?;
        let top_p = self.top_p;
        let is_share = top_p > 0.0 && top_p <= 1.0;
        check(is_share, "top_p", top_p, "a number above 0 and at most 1")?;
        check(
            self.top_k != Some(0),
            "top_k",
            0,
            "at least 1, or none for all tokens",
        )?;
        let penalty = self.repetition_penalty;
        let is_factor = penalty > 0.0 && penalty.is_finite();
        check(
            is_factor,
            "repetition_penalty",
            penalty,
            "a finite number above 0",
        )
    }

    fn check_beams(&self) -> Result<(), RequestError> {
        let (beams, penalty) = (self.beams, self.length_penalty);
        check(penalty.is_finite(), "length_penalty", penalty, "a finite number")?;
        check((1..=MAX_BEAMS).contains(&beams), "beams", beams, "1 to 64")?;
        let is_greedy = beams == 1 || self.temperature <= 0.0;
        let expected = "0 where there are several beams";
        check(is_greedy, "temperature", self.temperature, expected)?;
        let are_there = (1..=beams).contains(&self.answers);
        check(are_there, "answers", self.answers, "1 to the number of beams")
    }

    /// Checks what ends an answer.
    fn check_length(&self) -> Result<(), RequestError> {
        let least = self.min_new_tokens;
        let expected = "at most max_new_tokens";
        check(least <= self.max_new_tokens, "min_new_tokens", least, expected)?;
        if self.stop.len() > MAX_STOPS {
            let found = format!("{} strings", self.stop.len());
            return Err(wrong("stop", found, "at most 16 strings"));
        }
        let is_wrong = |stop: &&String| stop.is_empty() || stop.len() > MAX_STOP_BYTES;
        match self.stop.iter().find(is_wrong) {
            Some(stop) => {
                let found = format!("a string of {} bytes", stop.len());
                Err(wrong("stop", found, "strings of 1 to 256 bytes"))
            }
            None => Ok(()),
        }
    }

    fn check_truncation(&self) -> Result<(), RequestError> {
        let (min_p, typical_p) = (self.min_p, self.typical_p);
        let is_probability = (0.0..=1.0).contains(&min_p);
        check(is_probability, "min_p", min_p, "a number from 0 to 1")?;
        let is_share = typical_p > 0.0 && typical_p <= 1.0;
        check(is_share, "typical_p", typical_p, "a number above 0 and at most 1")
    }

    fn check_penalties(&self) -> Result<(), RequestError> {
        let penalties = [
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ];
        for (name, penalty) in penalties {
            check(penalty.abs() <= 2.0, name, penalty, "a number from -2 to 2")?;
        }
        if self.logit_bias.len() > MAX_BIASED {
            let found = format!("a bias for {} tokens", self.logit_bias.len());
            return Err(wrong("logit_bias", found, "at most 1024 tokens"));
        }
        let is_wrong = |bias: &f32| bias.is_nan() || bias.abs() > 100.0;
        match self.logit_bias.iter().find(|(_, bias)| is_wrong(bias)) {
            Some((id, bias)) => {
                let found = format!("{bias} for token {id}");
                Err(wrong("logit_bias", found, "numbers from -100 to 100"))
            }
            None => Ok(()),
        }
    }

    /// Checks biased and banned sequences.
    fn check_sequences(&self) -> Result<(), RequestError> {
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
            return Err(wrong("sequence_bias", bias, "numbers"));
        }
        let Some((_, factor)) = self.exponential_decay_length_penalty else {
            return Ok(());
        };
        let is_factor = factor > 0.0 && factor.is_finite();
        let name = "exponential_decay_length_penalty";
        check(is_factor, name, factor, "a finite factor above 0")
    }

    /// Checks how many answers are drawn and returned.
    fn check_drawn(&self) -> Result<(), RequestError> {
        let (samples, drawn) = (self.samples, self.drawn());
        check(
            (1..=MAX_SAMPLES).contains(&samples),
            "samples",
            samples,
            "1 to 64",
        )?;
        let are_enough = (samples..=MAX_SAMPLES).contains(&drawn);
        let expected = "at least as many as samples, and at most 64";
        check(are_enough, "best_of", drawn, expected)?;
        let (name, is_one) = (self.best_of.map_or("samples", |_| "best_of"), drawn == 1);
        let expected = "1 where there are several beams";
        check(is_one || self.beams == 1, name, drawn, expected)?;
        let expected = "1 at a temperature of 0, where all would be the same";
        check(is_one || self.temperature > 0.0, name, drawn, expected)
    }

    fn check_alternatives(&self) -> Result<(), RequestError> {
        let (count, name) = (self.top_log_probabilities, "top_log_probabilities");
        check(count <= MAX_ALTERNATIVES, name, count, "0 to 20")?;
        let expected = "0 where there are several beams";
        check(count == 0 || self.beams == 1, name, count, expected)
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
    Err(wrong(name, found, expected))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "numbers and texts that are made for it"
)]
fn wrong(name: &'static str, found: impl ToString, expected: &'static str) -> RequestError {
    RequestError::Parameter {
        name,
        found: found.to_string(),
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
