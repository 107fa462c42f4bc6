//! How a checkpoint wants answers written where nobody says otherwise: its `generation_config.json`.
//!
//! Source: `transformers` 4.57, `generation/configuration_utils.py`, for the keys, their meaning and their defaults.

use crate::error::EngineError;
use crate::request::{EarlyStopping, SamplingParams};
use crate::tokenizer::TokenId;
use multiway_model::{Checkpoint, ModelConfig};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::Arc;

const FILE: &str = "generation_config.json";

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
    /// What the decoder writes first, whatever it thinks likely.
    pub(crate) forced_start: Option<TokenId>,
}

/// The keys that are used. A key that is null counts as not there.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawGenerationConfig {
    eos_token_id: Option<OneOrMany>,
    forced_bos_token_id: Option<TokenId>,
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

/// Keys that say nothing about what is written, or that `config.json` says already.
const IGNORED: [&str; 13] = [
    "_from_model_config",
    "bos_token_id",
    "decoder_start_token_id",
    "max_position_embeddings",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "return_dict_in_generate",
    "transformers_version",
    "trust_remote_code",
    "use_cache",
];

impl GenerationConfig {
    /// The defaults of a model without such a file.
    pub(crate) fn of_model(config: &ModelConfig) -> Self {
        Self {
            sampling: SamplingParams::default(),
            ends: Ends(config.end_token_ids().into()),
            forced_start: None,
        }
    }

    /// Reads a checkpoint's file, if it has one.
    pub(crate) fn read(checkpoint: &Checkpoint) -> Result<Self, EngineError> {
        match checkpoint.file(FILE)? {
            Some(json) => Self::parse(&json, checkpoint.config()).map_err(EngineError::Generation),
            None => Ok(Self::of_model(checkpoint.config())),
        }
    }

    fn parse(json: &[u8], config: &ModelConfig) -> Result<Self, String> {
        let raw: RawGenerationConfig = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let foreign = raw
            .others
            .iter()
            .filter(|(key, value)| !value.is_null() && !IGNORED.contains(&key.as_str()));
        for (key, value) in foreign {
            tracing::warn!(key, %value, "{FILE} has a key that changes nothing here");
        }
        let ends = match &raw.eos_token_id {
            None => config.end_token_ids(),
            Some(OneOrMany::One(id)) => vec![*id],
            Some(OneOrMany::Many(ids)) => ids.clone(),
        };
        if ends.is_empty() || ends.len() > MAX_ENDS {
            return Err(format!(
                "eos_token_id lists {} ids, expected 1 to {MAX_ENDS}",
                ends.len()
            ));
        }
        let named = [
            ("eos_token_id", ends.as_slice()),
            ("forced_bos_token_id", raw.forced_bos_token_id.as_slice()),
        ];
        for (key, ids) in named {
            if let Some(id) = ids.iter().find(|id| **id as usize >= config.vocab_size) {
                return Err(format!(
                    "{key} is {id}, expected an id below vocab_size ({})",
                    config.vocab_size
                ));
            }
        }
        Ok(Self {
            ends: Ends(ends.into()),
            forced_start: raw.forced_bos_token_id,
            sampling: raw.sampling(config)?,
        })
    }
}

impl RawGenerationConfig {
    fn sampling(&self, config: &ModelConfig) -> Result<SamplingParams, String> {
        let defaults = SamplingParams::default();
        let beams = self.num_beams.unwrap_or(defaults.beams);
        // Beams are followed, not drawn.
        let samples = self.do_sample == Some(true) && beams == 1;
        // What is forced counts as new, and the older keys count the token that the decoder starts from too.
        let forced = usize::from(self.forced_bos_token_id.is_some());
        let older = |length: Option<usize>| length.map(|length| length.saturating_sub(1));
        let max_new_tokens = self.max_new_tokens.or(older(self.max_length));
        let max_new_tokens =
            max_new_tokens.map_or(defaults.max_new_tokens, |most| most.saturating_sub(forced));
        let room = config.max_target_length.saturating_sub(forced).max(1);
        let max_new_tokens = max_new_tokens.clamp(1, room);
        let min_new_tokens = self.min_new_tokens.or(older(self.min_length)).unwrap_or(0);
        let min_new_tokens = min_new_tokens.saturating_sub(forced);
        let params = SamplingParams {
            max_new_tokens,
            min_new_tokens: min_new_tokens.min(max_new_tokens),
            temperature: if samples {
                self.temperature.unwrap_or(1.0)
            } else {
                0.0
            },
            top_k: if samples {
                self.top_k.unwrap_or(Some(SAMPLED_TOP_K)).filter(|k| *k > 0)
            } else {
                None
            },
            top_p: if samples { self.top_p.unwrap_or(1.0) } else { 1.0 },
            min_p: if samples { self.min_p.unwrap_or(0.0) } else { 0.0 },
            typical_p: if samples {
                self.typical_p.unwrap_or(1.0)
            } else {
                1.0
            },
            beams,
            length_penalty: self.length_penalty.unwrap_or(defaults.length_penalty),
            early_stopping: match &self.early_stopping {
                None | Some(Value::Null | Value::Bool(false)) => EarlyStopping::WhenNoBetter,
                Some(Value::Bool(true)) => EarlyStopping::AtOnce,
                Some(Value::String(word)) if word == "never" => EarlyStopping::Never,
                Some(other) => {
                    return Err(format!(
                        "early_stopping is {other}, expected true, false or \"never\""
                    ));
                }
            },
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(defaults.no_repeat_ngram_size),
            ..defaults
        };
        params.check().map_err(|error| error.to_string())?;
        Ok(params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use multiway_model::testing::tiny_config;

    fn parse(json: &str) -> Result<GenerationConfig, String> {
        GenerationConfig::parse(json.as_bytes(), &tiny_config())
    }

    #[test]
    fn every_key_has_its_meaning() {
        let file = r#"{"eos_token_id": [1, 7], "forced_bos_token_id": 9, "max_length": 21, "min_length": 5, "num_beams": 4,
            "length_penalty": 2.0, "early_stopping": true, "no_repeat_ngram_size": 3, "repetition_penalty": 1.5,
            "do_sample": true, "temperature": 0.7, "pad_token_id": 0, "assistant_confidence_threshold": 0.4}"#;
        let read = parse(file).unwrap();
        assert_eq!(read.ends.iter().collect::<Vec<_>>(), [1, 7]);
        assert_eq!(read.forced_start, Some(9));
        let expected = SamplingParams {
            // The start token and the forced one are not new.
            max_new_tokens: 19,
            min_new_tokens: 3,
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
