//! SentencePiece's `ModelProto`, as much of it as tokenizing needs.
//!
//! Source: <https://github.com/google/sentencepiece>, `src/sentencepiece_model.proto`.

use prost::Message;

use super::charsmap;
use super::error::{TokenizerError, malformed};
use super::vocabulary::{MAX_TOKENS, PieceKind};

pub(super) const FILE: &str = "SentencePiece model";

/// How a SentencePiece model cuts normalised text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum ModelType {
    Unigram = 1,
    Bpe = 2,
    Word = 3,
    Char = 4,
}

#[derive(Message)]
struct RawModel {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<RawPiece>,
    #[prost(message, optional, tag = "2")]
    trainer_spec: Option<RawTrainer>,
    #[prost(message, optional, tag = "3")]
    normalizer_spec: Option<RawNormalizer>,
    #[prost(message, optional, tag = "5")]
    denormalizer_spec: Option<RawNormalizer>,
}

#[derive(Message)]
struct RawPiece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Message)]
struct RawTrainer {
    #[prost(enumeration = "ModelType", optional, tag = "3")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    treat_whitespace_as_suffix: Option<bool>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
}

#[derive(Message)]
struct RawNormalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    escape_whitespaces: Option<bool>,
}

/// One entry of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ScoredPiece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

/// A checked SentencePiece model.
#[derive(Debug)]
pub(super) struct SentencePieceModel {
    pub(super) model_type: ModelType,
    pub(super) pieces: Vec<ScoredPiece>,
    pub(super) byte_fallback: bool,
    /// The precompiled character map; empty for none.
    pub(super) charsmap: Vec<u8>,
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
}

impl SentencePieceModel {
    /// Reads and checks a serialised `ModelProto`. The library trusts its input; so what it would trust is
    /// checked here, the character map included.
    ///
    /// # Errors
    /// [`TokenizerError`] where the bytes are no such model, or one of a kind that is not supported.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let raw =
            RawModel::decode(bytes).map_err(|e| malformed(FILE, "the file", e, "a SentencePiece model"))?;
        let trainer = raw.trainer_spec.unwrap_or_default();
        let normalizer = raw.normalizer_spec.unwrap_or_default();
        let unsupported = |found: &str| TokenizerError::Unsupported {
            file: FILE,
            found: found.to_owned(),
            supported: "escaped white space before words, and no denormaliser",
        };
        if trainer.treat_whitespace_as_suffix == Some(true) {
            return Err(unsupported("treat_whitespace_as_suffix"));
        }
        if normalizer.escape_whitespaces == Some(false) {
            return Err(unsupported("escape_whitespaces = false"));
        }
        let denormalizer = raw.denormalizer_spec.unwrap_or_default();
        if denormalizer
            .precompiled_charsmap
            .is_some_and(|map| !map.is_empty())
        {
            return Err(unsupported("a denormalizer_spec"));
        }
        let model_type = match trainer.model_type {
            None => ModelType::Unigram,
            Some(number) => ModelType::try_from(number)
                .map_err(|_| malformed(FILE, "trainer_spec.model_type", number, "1 to 4"))?,
        };
        if raw.pieces.len() > MAX_TOKENS {
            let expected = format!("at most {MAX_TOKENS}");
            return Err(malformed(FILE, "pieces", raw.pieces.len(), expected));
        }
        let pieces: Vec<ScoredPiece> = (0..)
            .zip(raw.pieces)
            .map(|(id, raw)| piece(id, raw))
            .collect::<Result<_, _>>()?;
        let unknown = pieces
            .iter()
            .filter(|piece| piece.kind == PieceKind::Unknown)
            .count();
        if unknown != 1 {
            let found = format!("{unknown} unknown pieces");
            return Err(malformed(FILE, "the vocabulary", found, "exactly one"));
        }
        let charsmap = normalizer.precompiled_charsmap.unwrap_or_default();
        charsmap::check(FILE, &charsmap)?;
        Ok(Self {
            model_type,
            pieces,
            byte_fallback: trainer.byte_fallback.unwrap_or_default(),
            charsmap,
            add_dummy_prefix: normalizer.add_dummy_prefix.unwrap_or(true),
            remove_extra_whitespaces: normalizer.remove_extra_whitespaces.unwrap_or(true),
        })
    }
}

fn piece(id: usize, raw: RawPiece) -> Result<ScoredPiece, TokenizerError> {
    let kind = match raw.kind.unwrap_or(1) {
        1 => PieceKind::Normal,
        2 => PieceKind::Unknown,
        3 => PieceKind::Control,
        4 => PieceKind::Added,
        5 => PieceKind::Unused,
        6 => PieceKind::Byte,
        found => {
            return Err(malformed(
                FILE,
                format!("piece {id}"),
                format!("type {found}"),
                "type 1 to 6",
            ));
        }
    };
    let (text, score) = (raw.piece.unwrap_or_default(), raw.score.unwrap_or_default());
    if text.is_empty() || !score.is_finite() {
        let expected = "a piece that is not empty and has a finite score";
        return Err(malformed(
            FILE,
            format!("piece {id}"),
            format!("'{text}', {score}"),
            expected,
        ));
    }
    Ok(ScoredPiece { text, score, kind })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cut_file_is_an_error() {
        // Field 1, length 5, but two bytes follow.
        let error = SentencePieceModel::parse(&[0x0a, 5, 1, 2]).unwrap_err();
        insta::assert_snapshot!(error);
    }

    #[test]
    fn a_file_without_pieces_is_an_error() {
        let error = SentencePieceModel::parse(&[]).unwrap_err();
        insta::assert_snapshot!(error, @"SentencePiece model is malformed at the vocabulary: found 0 unknown pieces, expected exactly one");
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(SentencePieceModel::parse(&bytes).is_err());
        }
    }
}
