//! Errors of reading and using a tokenizer.

use super::token::TokenId;

/// An error of reading or using a tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file is malformed or inconsistent.
    #[error("{file} is malformed at {place}: found {found}, expected {expected}")]
    Malformed {
        /// The kind of file.
        file: &'static str,
        /// Where in the file.
        place: String,
        /// What the file says.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A file is well formed but needs a feature that is not supported.
    #[error("{file} needs {found}, which is not supported; supported: {supported}")]
    Unsupported {
        /// The kind of file.
        file: &'static str,
        /// What it asks for.
        found: String,
        /// What is supported.
        supported: &'static str,
    },
    /// A checkpoint's tokenizer is a SentencePiece model, and this build has no library for it.
    #[error(
        "'{file}' is a SentencePiece model, which this build does not read: build with the feature 'sentencepiece', or put \
         a tokenizer.json beside it"
    )]
    NeedsFeature {
        /// The file's name.
        file: String,
    },
    /// The library that runs a tokenizer file fails on a text.
    #[error("cannot tokenize the text: {problem}")]
    Encode {
        /// What the library says.
        problem: String,
    },
    /// A checkpoint has no tokenizer that this build can read.
    #[error("checkpoint '{checkpoint}' has no tokenizer: expected one of {expected}")]
    Missing {
        /// The checkpoint's name.
        checkpoint: String,
        /// The files that were looked for.
        expected: &'static str,
    },
    /// A checkpoint's tokenizer file could not be read.
    #[error("cannot read the tokenizer of a checkpoint: {0}")]
    Read(#[from] multiway_model::LoadError),
    /// A tokenizer file could not be read.
    #[error("cannot read '{path}': {source}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The tokenizer and the model of one checkpoint do not belong together.
    #[error("tokenizer and config.json disagree: {what} is {found} in the tokenizer, expected {expected}")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// What the tokenizer says.
        found: String,
        /// What the model's configuration says.
        expected: String,
    },
    /// A prompt or a decoder prefix names a special token that the vocabulary does not have.
    #[error("unknown special token '{token}'; the vocabulary has {known}")]
    UnknownSpecial {
        /// The token as it was written.
        token: String,
        /// The first few that there are.
        known: String,
    },
    /// An id is outside the vocabulary.
    #[error("token id {found} is not below the vocabulary size {limit}")]
    TokenId {
        /// The id.
        found: TokenId,
        /// The vocabulary's size.
        limit: usize,
    },
}

/// Builds a [`TokenizerError::Malformed`].
pub(crate) fn malformed(
    file: &'static str,
    place: impl Into<String>,
    found: impl ToString,
    expected: impl Into<String>,
) -> TokenizerError {
    TokenizerError::Malformed {
        file,
        place: place.into(),
        found: found.to_string(),
        expected: expected.into(),
    }
}
