//! Token ids, and how tokens spell text.

use std::ops::Range;

/// The id of a token.
pub type TokenId = u32;

/// The name of the mask token.
pub(crate) const MASK: &str = "<mask>";

/// How the tokens of a vocabulary spell text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// U+2581 is a space.
    MetaSpace,
    /// Each character stands for a byte, as in GPT-2.
    ByteLevel,
    /// As the decoder of `tokenizer.json` says; left to the library.
    Library,
}

/// What happens to leading spaces of decoded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeadingSpace {
    Kept,
    OneDropped,
    /// Those of the first token, as `tokenizers` drops them.
    OfFirstToken,
    #[cfg_attr(
        not(feature = "sentencepiece"),
        expect(dead_code, reason = "only SentencePiece drops all")
    )]
    AllDropped,
}

/// A word, and the tokens that spell it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenWord {
    /// The word with its punctuation, or the name of a special token.
    pub text: String,
    /// Its tokens, counted from the first of those that were grouped.
    pub tokens: Range<usize>,
    /// Whether it is a special token.
    pub is_special: bool,
}
