//! What `transformers` writes beside a vocabulary: tokens that were added later, and their settings.
//!
//! Source: `transformers` 4.57, `tokenization_utils_base.py`, `_from_pretrained`: `added_tokens_decoder` of
//! `tokenizer_config.json` counts; without it `added_tokens.json` does, with the names in
//! `special_tokens_map.json`.

use std::collections::BTreeMap;

use multiway_prompts::text_of_file;
use serde::Deserialize;
use serde_json::Value;

use super::error::{TokenizerError, malformed};

pub(super) const CONFIG: &str = "tokenizer_config.json";
pub(super) const ADDED: &str = "added_tokens.json";
pub(super) const SPECIAL: &str = "special_tokens_map.json";

/// The keys that name one special token each, in the order in which those that the vocabulary lacks are
/// added.
const SINGLE: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];
const MANY: &str = "additional_special_tokens";

/// A token beside a model's own.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct AddedToken {
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    #[serde(default)]
    pub(super) special: bool,
}

impl AddedToken {
    pub(super) fn plain(content: impl Into<String>, special: bool) -> Self {
        Self {
            content: content.into(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            special,
        }
    }
}

/// What the files beside a vocabulary say.
#[derive(Clone, Debug, Default)]
#[cfg_attr(
    not(feature = "sentencepiece"),
    expect(dead_code, reason = "ByT5 needs less of it than SentencePiece models")
)]
pub(super) struct SlowSettings {
    /// The tokens that have ids.
    pub(super) numbered: BTreeMap<u64, AddedToken>,
    /// The special tokens by their roles, and the additional ones, in order.
    pub(super) specials: Vec<AddedToken>,
    /// How many `<extra_id_N>` there are, where the files say so.
    pub(super) extra_ids: Option<usize>,
    /// The names in `additional_special_tokens`, where the files have such a list.
    pub(super) additional: Option<Vec<String>>,
    /// `false` keeps spaces behind special tokens.
    pub(super) legacy: Option<bool>,
    pub(super) add_prefix_space: Option<bool>,
    /// The class that wrote the files.
    pub(super) class: Option<String>,
}

/// The bytes of the three files, where they are there.
#[derive(Default)]
pub(super) struct SlowFiles<B> {
    pub(super) config: Option<B>,
    pub(super) added: Option<B>,
    pub(super) special: Option<B>,
}

impl<B: AsRef<[u8]>> SlowFiles<B> {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TokenizerError::Malformed`] where one is no JSON object, or a token in it no token.
    pub(super) fn read(&self) -> Result<SlowSettings, TokenizerError> {
        let config = object(CONFIG, self.config.as_ref())?;
        let mut settings = SlowSettings {
            extra_ids: config
                .get("extra_ids")
                .and_then(Value::as_u64)
                .and_then(|n| usize::try_from(n).ok()),
            legacy: config.get("legacy").and_then(Value::as_bool),
            add_prefix_space: config.get("add_prefix_space").and_then(Value::as_bool),
            class: config
                .get("tokenizer_class")
                .and_then(Value::as_str)
                .map(str::to_owned),
            ..SlowSettings::default()
        };
        let decoder = config.get("added_tokens_decoder").and_then(Value::as_object);
        let mut roles = config.clone();
        if let Some(decoder) = decoder {
            for (id, token) in decoder {
                let number = id
                    .parse()
                    .map_err(|e| malformed(CONFIG, format!("added_tokens_decoder, '{id}'"), e, "an id"))?;
                settings.numbered.insert(number, numbered_token(id, token)?);
            }
        } else {
            for (key, value) in object(SPECIAL, self.special.as_ref())? {
                let value = match (key.as_str(), value) {
                    (MANY, Value::Array(more)) => {
                        let mut all = match roles.remove(MANY) {
                            Some(Value::Array(list)) => list,
                            _ => Vec::new(),
                        };
                        let more = more
                            .into_iter()
                            .filter(|token| !all.contains(token))
                            .collect::<Vec<_>>();
                        all.extend(more);
                        Value::Array(all)
                    }
                    (_, value) => value,
                };
                roles.insert(key, value);
            }
        }
        let listed = roles.get(MANY).and_then(Value::as_array);
        let singles = SINGLE.iter().filter_map(|key| roles.get(*key));
        settings.specials = singles
            .chain(listed.into_iter().flatten())
            .filter_map(special_token)
            .collect();
        settings.additional = listed.map(|list| {
            let tokens = list.iter().filter_map(special_token);
            tokens.map(|token| token.content).collect()
        });
        if decoder.is_none() {
            for (content, id) in object(ADDED, self.added.as_ref())? {
                let id = id
                    .as_u64()
                    .ok_or_else(|| malformed(ADDED, format!("'{content}'"), &id, "an id"))?;
                let special = settings.specials.iter().any(|token| token.content == content);
                settings.numbered.insert(id, AddedToken::plain(content, special));
            }
        }
        Ok(settings)
    }
}

fn object(
    file: &'static str,
    bytes: Option<impl AsRef<[u8]>>,
) -> Result<serde_json::Map<String, Value>, TokenizerError> {
    match bytes {
        None => Ok(serde_json::Map::new()),
        Some(bytes) => {
            let text =
                text_of_file(file, bytes.as_ref()).map_err(|e| malformed(file, "the file", e, "text"))?;
            serde_json::from_str(text).map_err(|e| malformed(file, "the file", e, "a JSON object"))
        }
    }
}

fn numbered_token(id: &str, token: &Value) -> Result<AddedToken, TokenizerError> {
    let token = AddedToken::deserialize(token)
        .map_err(|e| malformed(CONFIG, format!("added_tokens_decoder, '{id}'"), e, "a token"))?;
    if token.content.is_empty() {
        let place = format!("added_tokens_decoder, '{id}'");
        return Err(malformed(CONFIG, place, "an empty token", "some text"));
    }
    Ok(token)
}

/// Reads a special token: its name, or an object with its settings.
fn special_token(value: &Value) -> Option<AddedToken> {
    let token = match value {
        Value::String(name) => AddedToken::plain(name, true),
        Value::Object(_) => AddedToken {
            special: true,
            ..AddedToken::deserialize(value).ok()?
        },
        _ => return None,
    };
    (!token.content.is_empty()).then_some(token)
}
