//! Sampling parameters in layers: the checkpoint's, the task file's, the caller's.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most tokens whose logits one layer may bias.
const MAX_BIASED: usize = 1024;
/// The most sequences of tokens that one layer may ban.
const MAX_BANNED: usize = 16_384;
/// The most tokens of such a sequence.
const MAX_SEQUENCE: usize = 64;
/// The most beams, and the most samples.
const MAX_ROWS: usize = 64;
/// The most top-k alternatives of a token.
const MAX_ALTERNATIVES: usize = 20;
/// The most stop texts.
const MAX_STOPS: usize = 16;
/// The most bytes of a stop text.
const MAX_STOP_BYTES: usize = 256;

/// Holds one layer of sampling parameters: what a checkpoint, a task file or a caller says about writing an
/// answer.
///
/// What is `None` or empty is left to the layer below. Layers are put on top of each other with
/// [`overlay`](Self::overlay); what remains open is up to the engine. Task files write a parameter by the
/// name of its field.
///
/// # Examples
///
/// ```
/// use multiway_prompts::SamplingOptions;
///
/// let task = SamplingOptions { top_k: Some(40), seed: Some(7), ..SamplingOptions::default() };
/// let caller = SamplingOptions { seed: Some(1), ..SamplingOptions::default() };
///
/// let both = task.overlay(caller);
/// assert_eq!((both.top_k, both.seed), (Some(40), Some(1)));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingOptions {
    /// The most tokens that an answer may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<usize>,
    /// The sampling temperature; 0 is greedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Samples from the top k tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Samples from the fewest most likely tokens that have this probability together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Samples from the tokens that have at least this share of the most likely one's probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Samples from the most typical tokens that have this probability together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typical_p: Option<f32>,
    /// The seed of sampling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The number of beams; 1 is no beam search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beams: Option<usize>,
    /// Exponent of the length penalty: a beam's score is divided by `length^x`; above 0 favors longer
    /// answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length_penalty: Option<f32>,
    /// When a beam search ends: `at_once`, `when_no_better` or `never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// Repetition penalty: above 1, tokens that are already in the decoder's input become less likely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    /// Presence penalty: subtracted from the logit of every token that was generated before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f32>,
    /// Frequency penalty: subtracted from the logit of a token once for each earlier occurrence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f32>,
    /// Added to the logits of tokens, by their ids.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub logit_bias: BTreeMap<u32, f32>,
    /// Bans repeating any n-gram of this size; 0 turns it off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_repeat_ngram_size: Option<usize>,
    /// The fewest tokens that an answer may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_new_tokens: Option<usize>,
    /// Texts that end the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Sequences of token ids, and what is added to the logit of the last one where it would complete the
    /// sequence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// Sequences of token ids that are never completed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bad_words_ids: Vec<Vec<u32>>,
    /// Ids of tokens that are never written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suppress_tokens: Vec<u32>,
    /// Ids of tokens that are not written first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub begin_suppress_tokens: Vec<u32>,
    /// The id of the token that is written first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced_bos_token_id: Option<u32>,
    /// Forced last token, at `max_new_tokens`: the most likely of these ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced_eos_token_id: Option<Vec<u32>>,
    /// Start index, and factor by which the score of EOS grows exponentially from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponential_decay_length_penalty: Option<(usize, f32)>,
    /// How many answers to sample and return.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    /// How many answers to sample for the best to be returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_of: Option<usize>,
    /// How many alternatives come along with each token, with their log-probabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_log_probabilities: Option<usize>,
    /// Whether special tokens of the answer are shown by their names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub show_special: Option<bool>,
}

/// Says when a beam search ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EarlyStopping {
    /// As soon as there are as many finished hypotheses as beams.
    AtOnce,
    /// When no running beam scores better at its present length than the worst complete answer.
    #[default]
    WhenNoBetter,
    /// When no running beam can ever score better than the worst complete answer.
    Never,
}

impl EarlyStopping {
    /// Lists all, with the names that task files and the command line give them.
    pub const ALL: [(&'static str, Self); 3] = [
        ("at_once", Self::AtOnce),
        ("when_no_better", Self::WhenNoBetter),
        ("never", Self::Never),
    ];
}

/// Says which sampling parameter is out of bounds. A layer adds where its parameters come from.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{parameter}: expected {expected}, found {found}")]
#[non_exhaustive]
pub struct ParameterError {
    /// The name of the parameter, as in [`SamplingOptions`].
    pub parameter: &'static str,
    /// What would be right.
    pub expected: Cow<'static, str>,
    /// What was found.
    pub found: String,
}

impl ParameterError {
    fn new(parameter: &'static str, expected: impl Into<Cow<'static, str>>, found: impl ToString) -> Self {
        Self {
            parameter,
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

impl SamplingOptions {
    /// The names of all parameters, as task files write them.
    pub const NAMES: [&'static str; 28] = [
        "max_new_tokens",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "seed",
        "beams",
        "length_penalty",
        "early_stopping",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "no_repeat_ngram_size",
        "min_new_tokens",
        "stop",
        "sequence_bias",
        "bad_words_ids",
        "suppress_tokens",
        "begin_suppress_tokens",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "exponential_decay_length_penalty",
        "samples",
        "best_of",
        "top_log_probabilities",
        "show_special",
    ];

    /// Puts a layer on top of this one: its values win, and its biases, bans and stop texts are added to
    /// these.
    ///
    /// A temperature above 0 without `beams` implies 1 beam, which overrides the layers below.
    #[must_use]
    pub fn overlay(mut self, later: Self) -> Self {
        let beams = later.asked_beams();
        self.logit_bias.extend(later.logit_bias);
        Self {
            max_new_tokens: later.max_new_tokens.or(self.max_new_tokens),
            temperature: later.temperature.or(self.temperature),
            top_k: later.top_k.or(self.top_k),
            top_p: later.top_p.or(self.top_p),
            min_p: later.min_p.or(self.min_p),
            typical_p: later.typical_p.or(self.typical_p),
            seed: later.seed.or(self.seed),
            beams: beams.or_else(|| self.asked_beams()),
            length_penalty: later.length_penalty.or(self.length_penalty),
            early_stopping: later.early_stopping.or(self.early_stopping),
            repetition_penalty: later.repetition_penalty.or(self.repetition_penalty),
            presence_penalty: later.presence_penalty.or(self.presence_penalty),
            frequency_penalty: later.frequency_penalty.or(self.frequency_penalty),
            logit_bias: self.logit_bias,
            no_repeat_ngram_size: later.no_repeat_ngram_size.or(self.no_repeat_ngram_size),
            min_new_tokens: later.min_new_tokens.or(self.min_new_tokens),
            stop: joined(self.stop, later.stop),
            sequence_bias: joined(self.sequence_bias, later.sequence_bias),
            bad_words_ids: joined(self.bad_words_ids, later.bad_words_ids),
            suppress_tokens: joined(self.suppress_tokens, later.suppress_tokens),
            begin_suppress_tokens: joined(self.begin_suppress_tokens, later.begin_suppress_tokens),
            forced_bos_token_id: later.forced_bos_token_id.or(self.forced_bos_token_id),
            forced_eos_token_id: later.forced_eos_token_id.or(self.forced_eos_token_id),
            exponential_decay_length_penalty: later
                .exponential_decay_length_penalty
                .or(self.exponential_decay_length_penalty),
            samples: later.samples.or(self.samples),
            best_of: later.best_of.or(self.best_of),
            top_log_probabilities: later.top_log_probabilities.or(self.top_log_probabilities),
            show_special: later.show_special.or(self.show_special),
        }
    }

    /// Returns the number of beams that this layer asks for: the one it names, or 1 where it samples.
    #[must_use]
    pub fn asked_beams(&self) -> Option<usize> {
        let samples = self.temperature.is_some_and(|temperature| temperature > 0.0);
        self.beams.or(samples.then_some(1))
    }

    /// Checks each parameter by itself. How they go together is for the engine to check, once all layers are
    /// known.
    ///
    /// # Errors
    ///
    /// When a parameter is out of bounds, with its name.
    pub fn check(&self) -> Result<(), ParameterError> {
        self.check_counts()?;
        self.check_numbers()?;
        let lists = SamplingLists {
            logit_bias: &self.logit_bias,
            sequence_bias: &self.sequence_bias,
            bad_words_ids: &self.bad_words_ids,
            stop: &self.stop,
        };
        lists.check()
    }

    fn check_counts(&self) -> Result<(), ParameterError> {
        let counts = [
            ("max_new_tokens", self.max_new_tokens),
            ("top_k", self.top_k),
            ("beams", self.beams),
            ("samples", self.samples),
            ("best_of", self.best_of),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == Some(0)) {
            return Err(ParameterError::new(name, "a whole number of at least 1", 0));
        }
        let limits = [
            ("beams", self.beams, MAX_ROWS),
            ("samples", self.samples, MAX_ROWS),
            ("best_of", self.best_of, MAX_ROWS),
            (
                "top_log_probabilities",
                self.top_log_probabilities,
                MAX_ALTERNATIVES,
            ),
        ];
        let above = |(name, count, limit): (_, Option<usize>, usize)| {
            Some((name, count.filter(|count| *count > limit)?, limit))
        };
        match limits.into_iter().find_map(above) {
            Some((name, count, limit)) => Err(ParameterError::new(name, format!("at most {limit}"), count)),
            None => Ok(()),
        }
    }

    fn check_numbers(&self) -> Result<(), ParameterError> {
        const SHARE: &str = "a number above 0 and up to 1";
        const PENALTY: &str = "a number from -2 to 2";
        let is_share = |p: f32| p > 0.0 && p <= 1.0;
        let is_penalty = |penalty: f32| penalty.abs() <= 2.0;
        let decay = self.exponential_decay_length_penalty.map(|(_, factor)| factor);
        bounded("temperature", self.temperature, "a number of at least 0", |t| {
            t >= 0.0
        })?;
        bounded("top_p", self.top_p, SHARE, is_share)?;
        bounded("min_p", self.min_p, "a number from 0 to 1", |p| {
            (0.0..=1.0).contains(&p)
        })?;
        bounded("typical_p", self.typical_p, SHARE, is_share)?;
        bounded("length_penalty", self.length_penalty, "a finite number", |_| true)?;
        bounded(
            "repetition_penalty",
            self.repetition_penalty,
            "a number above 0",
            |p| p > 0.0,
        )?;
        bounded("presence_penalty", self.presence_penalty, PENALTY, is_penalty)?;
        bounded("frequency_penalty", self.frequency_penalty, PENALTY, is_penalty)?;
        bounded(
            "exponential_decay_length_penalty",
            decay,
            "a factor above 0",
            |factor| factor > 0.0,
        )
    }
}

/// Borrows the lists of a layer, or of resolved parameters, to check them without a copy.
#[derive(Debug, Clone, Copy)]
pub struct SamplingLists<'a> {
    /// As [`SamplingOptions::logit_bias`].
    pub logit_bias: &'a BTreeMap<u32, f32>,
    /// As [`SamplingOptions::sequence_bias`].
    pub sequence_bias: &'a [(Vec<u32>, f32)],
    /// As [`SamplingOptions::bad_words_ids`].
    pub bad_words_ids: &'a [Vec<u32>],
    /// As [`SamplingOptions::stop`].
    pub stop: &'a [String],
}

impl SamplingLists<'_> {
    /// Checks each list by itself.
    ///
    /// # Errors
    ///
    /// When a list or one of its items is out of bounds, with the name of the parameter.
    pub fn check(&self) -> Result<(), ParameterError> {
        self.check_logit_bias()?;
        self.check_sequences()?;
        self.check_stop()
    }

    fn check_stop(&self) -> Result<(), ParameterError> {
        let wrong = |expected: String, found: String| Err(ParameterError::new("stop", expected, found));
        if self.stop.len() > MAX_STOPS {
            return wrong(
                format!("at most {MAX_STOPS} texts"),
                format!("{} texts", self.stop.len()),
            );
        }
        match self
            .stop
            .iter()
            .map(String::len)
            .find(|bytes| *bytes == 0 || *bytes > MAX_STOP_BYTES)
        {
            Some(0) => wrong("text that ends the answer".to_owned(), "an empty text".to_owned()),
            Some(bytes) => wrong(
                format!("texts of at most {MAX_STOP_BYTES} bytes"),
                format!("a text of {bytes}"),
            ),
            None => Ok(()),
        }
    }

    fn check_logit_bias(&self) -> Result<(), ParameterError> {
        let name = "logit_bias";
        if self.logit_bias.len() > MAX_BIASED {
            let expected = format!("at most {MAX_BIASED} tokens");
            let found = format!("{} tokens", self.logit_bias.len());
            return Err(ParameterError::new(name, expected, found));
        }
        let is_wrong = |value: &f32| value.is_nan() || value.abs() > 100.0;
        match self.logit_bias.iter().find(|(_, value)| is_wrong(value)) {
            Some((id, value)) => {
                let found = format!("{value} for token {id}");
                Err(ParameterError::new(name, "numbers from -100 to 100", found))
            }
            None => Ok(()),
        }
    }

    fn check_sequences(&self) -> Result<(), ParameterError> {
        let biased: Vec<&Vec<u32>> = self.sequence_bias.iter().map(|(ids, _)| ids).collect();
        let banned: Vec<&Vec<u32>> = self.bad_words_ids.iter().collect();
        let lists = [
            ("sequence_bias", biased, MAX_BIASED),
            ("bad_words_ids", banned, MAX_BANNED),
        ];
        for (name, sequences, limit) in lists {
            if sequences.len() > limit {
                let expected = format!("at most {limit} sequences");
                let found = format!("{} sequences", sequences.len());
                return Err(ParameterError::new(name, expected, found));
            }
            let is_wrong = |ids: &&&Vec<u32>| ids.is_empty() || ids.len() > MAX_SEQUENCE;
            if let Some(ids) = sequences.iter().find(is_wrong) {
                let expected = format!("sequences of 1 to {MAX_SEQUENCE} tokens");
                return Err(ParameterError::new(
                    name,
                    expected,
                    format!("a sequence of {}", ids.len()),
                ));
            }
        }
        match self.sequence_bias.iter().find(|(_, bias)| bias.is_nan()) {
            Some((_, bias)) => Err(ParameterError::new("sequence_bias", "numbers", bias)),
            None => Ok(()),
        }
    }
}

fn joined<T>(mut first: Vec<T>, mut second: Vec<T>) -> Vec<T> {
    first.append(&mut second);
    first
}

fn bounded(
    name: &'static str,
    value: Option<f32>,
    expected: &'static str,
    allowed: impl Fn(f32) -> bool,
) -> Result<(), ParameterError> {
    match value {
        Some(value) if !(value.is_finite() && allowed(value)) => {
            Err(ParameterError::new(name, expected, value))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says everything, each list with one item that depends on `n`.
    fn full(n: u32) -> SamplingOptions {
        #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
        let x = n as f32 / 8.0;
        let count = Some(n as usize);
        SamplingOptions {
            max_new_tokens: count,
            temperature: Some(x),
            top_k: count,
            top_p: Some(x),
            min_p: Some(x),
            typical_p: Some(x),
            seed: Some(n.into()),
            beams: count,
            length_penalty: Some(x),
            early_stopping: Some(EarlyStopping::Never),
            repetition_penalty: Some(x),
            presence_penalty: Some(x),
            frequency_penalty: Some(x),
            logit_bias: [(n, x)].into(),
            no_repeat_ngram_size: count,
            min_new_tokens: count,
            stop: vec![n.to_string()],
            sequence_bias: vec![(vec![n], x)],
            bad_words_ids: vec![vec![n]],
            suppress_tokens: vec![n],
            begin_suppress_tokens: vec![n],
            forced_bos_token_id: Some(n),
            forced_eos_token_id: Some(vec![n]),
            exponential_decay_length_penalty: Some((n as usize, x)),
            samples: count,
            best_of: count,
            top_log_probabilities: count,
            show_special: Some(true),
        }
    }

    #[test]
    fn every_parameter_has_its_name_and_is_read_as_it_is_written() {
        let written = serde_json::to_value(full(3)).unwrap();
        let names: Vec<&String> = written.as_object().unwrap().keys().collect();
        assert_eq!(names, SamplingOptions::NAMES);
        assert_eq!(
            serde_json::from_value::<SamplingOptions>(written).unwrap(),
            full(3)
        );
        assert_eq!(serde_json::to_string(&SamplingOptions::default()).unwrap(), "{}");
        assert!(serde_json::from_str::<SamplingOptions>(r#"{"topk": 3}"#).is_err());
    }

    #[test]
    fn early_stopping_is_written_by_the_names_that_are_listed() {
        for (name, stopping) in EarlyStopping::ALL {
            assert_eq!(serde_json::to_value(stopping).unwrap(), name);
        }
    }

    #[test]
    fn a_later_layer_wins_and_its_lists_are_added() {
        let nothing = SamplingOptions::default;
        assert_eq!(full(3).overlay(nothing()), full(3));
        assert_eq!(nothing().overlay(full(3)), full(3));
        let both = full(3).overlay(full(5));
        let expected = SamplingOptions {
            logit_bias: [(3, 0.375), (5, 0.625)].into(),
            stop: vec!["3".to_owned(), "5".to_owned()],
            sequence_bias: vec![(vec![3], 0.375), (vec![5], 0.625)],
            bad_words_ids: vec![vec![3], vec![5]],
            suppress_tokens: vec![3, 5],
            begin_suppress_tokens: vec![3, 5],
            ..full(5)
        };
        assert_eq!(both, expected);
        let layers = || [full(3), full(5), full(7)];
        let [a, b, c] = layers();
        let left = a.overlay(b).overlay(c);
        let [a, b, c] = layers();
        assert_eq!(a.overlay(b.overlay(c)), left);
        let bias = |bias| SamplingOptions {
            logit_bias: [(3, bias)].into(),
            ..nothing()
        };
        assert_eq!(bias(1.0).overlay(bias(-1.0)), bias(-1.0));
    }

    #[test]
    fn a_layer_that_samples_follows_one_beam_and_a_greedy_one_as_many_as_those_below() {
        let beams = |beams| SamplingOptions {
            beams: Some(beams),
            ..SamplingOptions::default()
        };
        let at = |temperature| SamplingOptions {
            temperature: Some(temperature),
            ..SamplingOptions::default()
        };
        assert_eq!(beams(4).overlay(at(0.5)).beams, Some(1));
        assert_eq!(beams(4).overlay(at(0.0)).beams, Some(4));
        assert_eq!(at(0.5).overlay(beams(4)).beams, Some(4));
        assert_eq!(
            beams(4)
                .overlay(at(0.5).overlay(SamplingOptions::default()))
                .beams,
            Some(1)
        );
        assert_eq!(beams(4).overlay(at(0.5).overlay(at(0.0))).beams, Some(1));
    }

    #[test]
    fn what_is_out_of_bounds_is_told_by_its_name() {
        type Change = fn(&mut SamplingOptions);
        let changes: [Change; 21] = [
            |p| p.max_new_tokens = Some(0),
            |p| p.top_k = Some(0),
            |p| p.beams = Some(0),
            |p| p.samples = Some(0),
            |p| p.best_of = Some(0),
            |p| p.temperature = Some(f32::INFINITY),
            |p| p.top_p = Some(0.0),
            |p| p.min_p = Some(-0.1),
            |p| p.typical_p = Some(1.5),
            |p| p.length_penalty = Some(f32::NAN),
            |p| p.repetition_penalty = Some(0.0),
            |p| p.presence_penalty = Some(2.5),
            |p| p.frequency_penalty = Some(-2.5),
            |p| p.exponential_decay_length_penalty = Some((3, 0.0)),
            |p| p.logit_bias = (0..1025).map(|id| (id, 1.0)).collect(),
            |p| p.logit_bias = [(3, 101.0)].into(),
            |p| p.sequence_bias = vec![(vec![1], 1.0); 1025],
            |p| p.sequence_bias = vec![(vec![1], f32::NAN)],
            |p| p.bad_words_ids = vec![vec![]],
            |p| p.bad_words_ids = vec![vec![1; 65]],
            |p| p.stop = vec![String::new()],
        ];
        let refusals = changes.map(|change| {
            let mut options = SamplingOptions::default();
            change(&mut options);
            options.check().unwrap_err().to_string()
        });
        insta::assert_snapshot!(refusals.join("\n"), @r"
        max_new_tokens: expected a whole number of at least 1, found 0
        top_k: expected a whole number of at least 1, found 0
        beams: expected a whole number of at least 1, found 0
        samples: expected a whole number of at least 1, found 0
        best_of: expected a whole number of at least 1, found 0
        temperature: expected a number of at least 0, found inf
        top_p: expected a number above 0 and up to 1, found 0
        min_p: expected a number from 0 to 1, found -0.1
        typical_p: expected a number above 0 and up to 1, found 1.5
        length_penalty: expected a finite number, found NaN
        repetition_penalty: expected a number above 0, found 0
        presence_penalty: expected a number from -2 to 2, found 2.5
        frequency_penalty: expected a number from -2 to 2, found -2.5
        exponential_decay_length_penalty: expected a factor above 0, found 0
        logit_bias: expected at most 1024 tokens, found 1025 tokens
        logit_bias: expected numbers from -100 to 100, found 101 for token 3
        sequence_bias: expected at most 1024 sequences, found 1025 sequences
        sequence_bias: expected numbers, found NaN
        bad_words_ids: expected sequences of 1 to 64 tokens, found a sequence of 0
        bad_words_ids: expected sequences of 1 to 64 tokens, found a sequence of 65
        stop: expected text that ends the answer, found an empty text
        ");
        assert_eq!(SamplingOptions::default().check(), Ok(()));
        let zeros = SamplingOptions {
            min_new_tokens: Some(0),
            no_repeat_ngram_size: Some(0),
            temperature: Some(0.0),
            top_log_probabilities: Some(0),
            ..SamplingOptions::default()
        };
        assert_eq!(zeros.check(), Ok(()));
    }
}
