//! How a checkpoint wants answers written where nobody says otherwise: its `generation_config.json`; where there is none, the
//! same keys of its `config.json`, as checkpoints had them before 2023.
//!
//! Source: `transformers` 4.57, `generation/configuration_utils.py`, for the keys, their meaning and their defaults.

use std::sync::Arc;

use multiway_model::{Checkpoint, ModelConfig};
use multiway_prompts::{EarlyStopping, SamplingOptions, text_of_file};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::EngineError;
use crate::request::SamplingParams;
use crate::tokenizer::TokenId;

const FILE: &str = "generation_config.json";
const MODEL_FILE: &str = "config.json";

/// How long answers are in `transformers` where nothing says otherwise.
const DEFAULT_LENGTH: usize = 20;

/// How many of the likeliest tokens are drawn from where a file asks to sample and does not say.
const SAMPLED_TOP_K: usize = 50;

/// The most tokens that end an answer.
const MAX_ENDS: usize = 64;

/// The tokens that end an answer. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ends(Arc<[TokenId]>);

impl Ends {
    /// One token.
    pub(crate) fn one(id: TokenId) -> Self {
        Self(Arc::new([id]))
    }

    pub(crate) fn contains(&self, id: TokenId) -> bool {
        self.0.contains(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = TokenId> {
        self.0.iter().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The token that is written where an answer is cut off.
    pub(crate) fn first(&self) -> TokenId {
        self.0.first().copied().unwrap_or_default()
    }
}

/// A checkpoint's defaults.
#[derive(Clone, Debug)]
pub(crate) struct GenerationConfig {
    pub(crate) sampling: SamplingParams,
    pub(crate) ends: Ends,
    /// What the decoder reads first.
    pub(crate) decoder_start: TokenId,
    /// What the file asks for and is not followed, in words.
    pub(crate) warnings: Vec<String>,
    /// The file that says so.
    pub(crate) file: &'static str,
}

/// The keys that are used. A key that is null counts as not there.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawGenerationConfig {
    eos_token_id: Option<OneOrMany>,
    decoder_start_token_id: Option<OneOrMany>,
    forced_bos_token_id: Option<TokenId>,
    forced_eos_token_id: Option<OneOrMany>,
    max_new_tokens: Option<usize>,
    max_length: Option<usize>,
    min_new_tokens: Option<usize>,
    min_length: Option<usize>,
    do_sample: Option<bool>,
    temperature: Option<f32>,
    /// Null draws from all.
    #[serde(deserialize_with = "present")]
    top_k: Option<Option<usize>>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    typical_p: Option<f32>,
    num_beams: Option<usize>,
    length_penalty: Option<f32>,
    early_stopping: Option<Value>,
    repetition_penalty: Option<f32>,
    no_repeat_ngram_size: Option<usize>,
    sequence_bias: Option<Vec<(Vec<TokenId>, f32)>>,
    bad_words_ids: Option<Vec<Vec<TokenId>>>,
    suppress_tokens: Option<Vec<TokenId>>,
    begin_suppress_tokens: Option<Vec<TokenId>>,
    exponential_decay_length_penalty: Option<(usize, f32)>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Tells a key that is null from one that is not there.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<usize>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(TokenId),
    Many(Vec<TokenId>),
}

impl OneOrMany {
    fn ids(&self) -> &[TokenId] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

/// Keys that say nothing about what is written: how it is computed, what else is returned, and who wrote the file.
const IGNORED: [&str; 24] = [
    "_from_model_config",
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_lookbehind",
    "bos_token_id",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "disable_compile",
    "is_assistant",
    "low_memory",
    "max_position_embeddings",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "return_dict_in_generate",
    "target_lookbehind",
    "transformers_version",
    "trust_remote_code",
    "use_cache",
];

/// Keys that would change what is written and are not followed, with the value that changes nothing.
///
/// Source: `transformers` 4.57, `GenerationConfig.__init__`.
const NOT_FOLLOWED: [(&str, Neutral); 23] = [
    ("constraints", Neutral::Nothing),
    ("diversity_penalty", Neutral::Number(0.0)),
    ("dola_layers", Neutral::Nothing),
    ("encoder_no_repeat_ngram_size", Neutral::Number(0.0)),
    ("encoder_repetition_penalty", Neutral::Number(1.0)),
    ("epsilon_cutoff", Neutral::Number(0.0)),
    ("eta_cutoff", Neutral::Number(0.0)),
    ("force_words_ids", Neutral::Nothing),
    ("forced_decoder_ids", Neutral::Nothing),
    ("guidance_scale", Neutral::Number(1.0)),
    ("max_matching_ngram_size", Neutral::Nothing),
    ("max_time", Neutral::Nothing),
    ("num_beam_groups", Neutral::Number(1.0)),
    ("output_logits", Neutral::False),
    ("penalty_alpha", Neutral::Number(0.0)),
    ("prefill_chunk_size", Neutral::Nothing),
    ("prompt_lookup_num_tokens", Neutral::Nothing),
    ("remove_invalid_values", Neutral::False),
    ("renormalize_logits", Neutral::False),
    ("stop_strings", Neutral::Nothing),
    ("tail_free_sampling", Neutral::Number(1.0)),
    ("token_healing", Neutral::False),
    ("watermarking_config", Neutral::Nothing),
];

/// A value with which a key changes nothing; null is one always.
#[derive(Clone, Copy)]
enum Neutral {
    Nothing,
    False,
    Number(f64),
}

impl Neutral {
    fn is(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) | (Self::False, Value::Bool(false)) => true,
            (Self::Number(neutral), value) => value
                .as_f64()
                .is_some_and(|found| (found - neutral).abs() < f64::EPSILON),
            _ => false,
        }
    }
}

impl GenerationConfig {
    /// The defaults of a model without such a file.
    pub(crate) fn of_model(config: &ModelConfig) -> Self {
        Self {
            sampling: SamplingParams::default(),
            ends: Ends(config.end_token_ids().into()),
            decoder_start: config.decoder_start_token_id,
            warnings: Vec::new(),
            file: MODEL_FILE,
        }
    }

    /// Reads a checkpoint's file, if it has one, else what its `config.json` says of generating.
    pub(crate) fn read(checkpoint: &Checkpoint) -> Result<Self, EngineError> {
        for file in [FILE, MODEL_FILE] {
            if let Some(json) = checkpoint.file(file)? {
                let parsed = Self::parse(file, &json, checkpoint.config());
                return parsed.map_err(|problem| EngineError::Generation { file, problem });
            }
        }
        Ok(Self::of_model(checkpoint.config()))
    }

    fn parse(file: &'static str, json: &[u8], config: &ModelConfig) -> Result<Self, String> {
        let json = text_of_file("the file", json).map_err(|error| error.to_string())?;
        let raw: RawGenerationConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let mut warnings = Vec::new();
        for (key, value) in raw.others.iter().filter(|(_, value)| !value.is_null()) {
            let known = NOT_FOLLOWED.iter().find(|(name, _)| name == key);
            let changes = known.is_some_and(|(_, neutral)| !neutral.is(value));
            // What `config.json` says of other things is not for here.
            let is_foreign = known.is_none() && file == FILE && !IGNORED.contains(&key.as_str());
            if changes || is_foreign {
                let warning = format!("{file}: the key '{key}' is not supported and changes nothing here");
                tracing::warn!("{warning}");
                warnings.push(warning);
            }
        }
        let ends = match &raw.eos_token_id {
            None => config.end_token_ids(),
            Some(ids) => ids.ids().to_vec(),
        };
        if ends.is_empty() || ends.len() > MAX_ENDS {
            return Err(format!(
                "eos_token_id lists {} ids, expected 1 to {MAX_ENDS}",
                ends.len()
            ));
        }
        let start = raw.decoder_start_token_id.as_ref();
        let start = start.and_then(|start| start.ids().first().copied());
        let decoder_start = start.unwrap_or(config.decoder_start_token_id);
        for (key, ids) in [
            ("eos_token_id", ends.as_slice()),
            ("decoder_start_token_id", &[decoder_start]),
        ] {
            if let Some(id) = ids.iter().find(|id| **id as usize >= config.vocab_size) {
                return Err(format!(
                    "{key} is {id}, expected an id below vocab_size ({})",
                    config.vocab_size
                ));
            }
        }
        let sampling = SamplingParams::default().overlay(raw.sampling(config)?);
        sampling.check().map_err(|error| error.to_string())?;
        sampling
            .check_token_ids(config.vocab_size, config.vocab_size)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            ends: Ends(ends.into()),
            decoder_start,
            sampling,
            warnings,
            file,
        })
    }
}

impl RawGenerationConfig {
    /// Says as a layer of ours what the file says in the words of `transformers`.
    fn sampling(&self, config: &ModelConfig) -> Result<SamplingOptions, String> {
        // Beams are followed, not drawn.
        let samples = self.do_sample == Some(true) && self.num_beams.unwrap_or(1) == 1;
        let drawn = |parameter: Option<f32>| parameter.filter(|_| samples);
        // The older keys count the token that the decoder starts from too, but for the maximum that is the default of
        // `transformers`: it is of new tokens.
        let older = |length: Option<usize>| length.map(|length| length.saturating_sub(1));
        let most = self
            .max_length
            .filter(|most| *most == DEFAULT_LENGTH)
            .or(older(self.max_length));
        let most = self.max_new_tokens.or(most);
        let most = most.unwrap_or_else(|| SamplingParams::default().max_new_tokens);
        let max_new_tokens = most.clamp(1, config.max_target_length.max(1));
        let min_new_tokens = self.min_new_tokens.or(older(self.min_length));
        let top_k = self.top_k.unwrap_or(Some(SAMPLED_TOP_K));
        Ok(SamplingOptions {
            max_new_tokens: Some(max_new_tokens),
            min_new_tokens: min_new_tokens.map(|min| min.min(max_new_tokens)),
            temperature: samples.then(|| self.temperature.unwrap_or(1.0)),
            top_k: top_k.filter(|k| samples && *k > 0),
            top_p: drawn(self.top_p),
            min_p: drawn(self.min_p),
            typical_p: drawn(self.typical_p),
            beams: self.num_beams,
            length_penalty: self.length_penalty,
            early_stopping: self.early_stopping()?,
            repetition_penalty: self.repetition_penalty,
            no_repeat_ngram_size: self.no_repeat_ngram_size,
            sequence_bias: self.sequence_bias.clone().unwrap_or_default(),
            bad_words_ids: self.bad_words_ids.clone().unwrap_or_default(),
            suppress_tokens: self.suppress_tokens.clone().unwrap_or_default(),
            begin_suppress_tokens: self.begin_suppress_tokens.clone().unwrap_or_default(),
            forced_bos_token_id: self.forced_bos_token_id,
            forced_eos_token_id: self.forced_eos_token_id.as_ref().map(|ids| ids.ids().to_vec()),
            exponential_decay_length_penalty: self.exponential_decay_length_penalty,
            ..SamplingOptions::default()
        })
    }

    fn early_stopping(&self) -> Result<Option<EarlyStopping>, String> {
        match &self.early_stopping {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(false)) => Ok(Some(EarlyStopping::WhenNoBetter)),
            Some(Value::Bool(true)) => Ok(Some(EarlyStopping::AtOnce)),
            Some(Value::String(word)) if word == "never" => Ok(Some(EarlyStopping::Never)),
            Some(other) => Err(format!(
                "early_stopping is {other}, expected true, false or \"never\""
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use multiway_model::testing::tiny_config;

    fn parse(json: &str) -> Result<GenerationConfig, String> {
        GenerationConfig::parse(FILE, json.as_bytes(), &tiny_config())
    }

    #[test]
    fn every_key_has_its_meaning() {
        let file = r#"{"eos_token_id": [1, 7], "forced_bos_token_id": 9, "max_length": 21, "min_length": 5, "num_beams": 4,
            "length_penalty": 2.0, "early_stopping": true, "no_repeat_ngram_size": 3, "repetition_penalty": 1.5,
            "do_sample": true, "temperature": 0.7, "pad_token_id": 0, "assistant_confidence_threshold": 0.4}"#;
        let read = parse(file).unwrap();
        assert_eq!(read.ends.iter().collect::<Vec<_>>(), [1, 7]);
        let expected = SamplingParams {
            // The start token is not new; the forced one is.
            max_new_tokens: 20,
            min_new_tokens: 4,
            forced_bos_token_id: Some(9),
            beams: 4,
            length_penalty: 2.0,
            early_stopping: EarlyStopping::AtOnce,
            no_repeat_ngram_size: 3,
            repetition_penalty: 1.5,
            ..SamplingParams::default()
        };
        assert_eq!(read.sampling, expected);
    }

    #[test]
    fn sampling_is_that_of_the_file() {
        let read = parse(r#"{"do_sample": true, "top_p": 0.9}"#).unwrap().sampling;
        let expected = SamplingParams {
            // What the model can write.
            max_new_tokens: 24,
            temperature: 1.0,
            top_k: Some(50),
            top_p: 0.9,
            ..SamplingParams::default()
        };
        assert_eq!(read, expected);
        let cut = parse(r#"{"do_sample": true, "min_p": 0.05, "typical_p": 0.9}"#);
        let cut = cut.unwrap().sampling;
        assert_eq!((cut.min_p, cut.typical_p, cut.top_p), (0.05, 0.9, 1.0));
        let all = parse(r#"{"do_sample": true, "top_k": null}"#).unwrap().sampling;
        assert_eq!(all.top_k, None);
        let unused = parse(r#"{"temperature": 0.7, "min_p": 0.05, "typical_p": 0.9, "max_new_tokens": 9}"#);
        let expected = SamplingParams {
            max_new_tokens: 9,
            ..SamplingParams::default()
        };
        assert_eq!(unused.unwrap().sampling, expected);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let files = [
            "[]",
            r#"{"num_beams": 0}"#,
            r#"{"num_beams": "many"}"#,
            r#"{"eos_token_id": []}"#,
            r#"{"eos_token_id": 5000}"#,
            r#"{"early_stopping": 3}"#,
            r#"{"repetition_penalty": -1}"#,
            r#"{"do_sample": true, "min_p": 2}"#,
            r#"{"do_sample": true, "typical_p": 0}"#,
        ];
        let refusals: Vec<String> = files.iter().map(|file| parse(file).unwrap_err()).collect();
        insta::assert_snapshot!(refusals.join("\n"));
    }
}
