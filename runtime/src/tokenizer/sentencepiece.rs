//! SentencePiece models, by the library itself.

use super::TokenId;
use super::charsmap::CharsMap;
use super::error::{TokenizerError, malformed};
use super::proto::{FILE, SentencePieceModel};
use super::vocabulary::Vocabulary;
use sentencepiece::SentencePieceProcessor;

/// Loads a model into the library, which trusts its input: it has been checked before, character map included.
pub(crate) fn open(
    bytes: &[u8],
    model: &SentencePieceModel,
) -> Result<SentencePieceProcessor, TokenizerError> {
    CharsMap::parse(FILE, &model.charsmap)?;
    let processor = SentencePieceProcessor::from_serialized_proto(bytes)
        .map_err(|e| malformed(FILE, "the file", e, "a SentencePiece model"))?;
    if processor.len() != model.vocabulary.len() {
        let expected = format!("{} pieces", model.vocabulary.len());
        return Err(malformed(
            FILE,
            "the file",
            format!("{} pieces", processor.len()),
            expected,
        ));
    }
    Ok(processor)
}

/// Cuts a text into ids.
pub(crate) fn encode(
    processor: &SentencePieceProcessor,
    vocabulary: &Vocabulary,
    text: &str,
) -> Vec<TokenId> {
    match processor.encode(text) {
        Ok(pieces) => pieces.into_iter().map(|piece| piece.id).collect(),
        Err(error) => {
            tracing::error!(%error, "SentencePiece failed; the text counts as unknown");
            vocabulary.unknown().into_iter().collect()
        }
    }
}
