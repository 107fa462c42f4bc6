//! What a token is called by, and how tokens spell text.

/// Names one entry of a vocabulary.
pub type TokenId = u32;

/// The name of the token that stands for a masked word.
pub(crate) const MASK: &str = "<mask>";

/// How the tokens of a vocabulary spell text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// U+2581 is a space.
    MetaSpace,
    /// Each character stands for a byte, as in GPT-2.
    ByteLevel,
    /// As the decoder of `tokenizer.json` says; only the library knows.
    Library,
}

/// What becomes of the spaces that decoded text starts with.
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
