//! Texts of requests, which some clients send as token ids.

use multiway::tokenizer::Tokenizer;
use serde::Deserialize;
use utoipa::ToSchema;

/// Texts or token ids, one or several.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Texts {
    One(String),
    Many(Vec<String>),
    Ids(Vec<u32>),
    ManyIds(Vec<Vec<u32>>),
}

impl Texts {
    /// Returns the texts, of token ids what they stand for.
    pub(crate) fn texts(self, tokenizer: &Tokenizer) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
            Self::Ids(ids) => vec![tokenizer.decode(&ids)],
            Self::ManyIds(many) => many.iter().map(|ids| tokenizer.decode(ids)).collect(),
        }
    }
}
