//! A reader of SentencePiece's `ModelProto`, as much of it as tokenizing needs.
//!
//! Source: <https://github.com/google/sentencepiece>, `src/sentencepiece_model.proto`.

use super::error::{TokenizerError, malformed};
use super::vocabulary::{MAX_PIECES, Piece, PieceKind, Vocabulary};

pub(crate) const FILE: &str = "SentencePiece model";

/// How a SentencePiece model cuts normalised text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ModelType {
    #[default]
    Unigram,
    Bpe,
    Word,
    Char,
}

/// A model file as it stands, its parts checked one by one but not against each other.
#[derive(Debug, Default)]
struct RawModel {
    pieces: Vec<Piece>,
    model_type: ModelType,
    byte_fallback: bool,
    whitespace_as_suffix: bool,
    normalizer: RawNormalizer,
    denormalizer: RawNormalizer,
}

/// `NormalizerSpec`, with its defaults.
#[derive(Debug)]
struct RawNormalizer {
    charsmap: Vec<u8>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

impl Default for RawNormalizer {
    fn default() -> Self {
        Self {
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        }
    }
}

/// A checked SentencePiece model.
#[derive(Debug)]
pub(crate) struct SentencePieceModel {
    pub(crate) model_type: ModelType,
    pub(crate) vocabulary: Vocabulary,
    /// The precompiled character map; empty for none.
    pub(crate) charsmap: Vec<u8>,
    pub(crate) add_dummy_prefix: bool,
    pub(crate) remove_extra_whitespaces: bool,
}

impl SentencePieceModel {
    /// Reads and checks a serialised `ModelProto`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let mut raw = RawModel::default();
        for field in Fields::new(bytes) {
            raw.set(field?)?;
        }
        let unsupported = |found: &str| TokenizerError::Unsupported {
            file: FILE,
            found: found.to_owned(),
            supported: "escaped white space before words, and no denormaliser",
        };
        if raw.whitespace_as_suffix {
            return Err(unsupported("treat_whitespace_as_suffix"));
        }
        if !raw.normalizer.escape_whitespaces {
            return Err(unsupported("escape_whitespaces = false"));
        }
        if !raw.denormalizer.charsmap.is_empty() {
            return Err(unsupported("a denormalizer_spec"));
        }
        let vocabulary = Vocabulary::new(FILE, raw.pieces, raw.byte_fallback)?;
        vocabulary.require_unknown(FILE)?;
        Ok(Self {
            model_type: raw.model_type,
            vocabulary,
            charsmap: raw.normalizer.charsmap,
            add_dummy_prefix: raw.normalizer.add_dummy_prefix,
            remove_extra_whitespaces: raw.normalizer.remove_extra_whitespaces,
        })
    }
}

impl RawModel {
    fn set(&mut self, field: Field) -> Result<(), TokenizerError> {
        match field.number {
            1 => {
                if self.pieces.len() >= MAX_PIECES {
                    return Err(malformed(FILE, "pieces", "more", format!("at most {MAX_PIECES}")));
                }
                let piece = piece(field.message("pieces")?, self.pieces.len())?;
                self.pieces.push(piece);
            }
            2 => self.set_trainer(field.message("trainer_spec")?)?,
            3 => self.normalizer.set(field.message("normalizer_spec")?)?,
            5 => self.denormalizer.set(field.message("denormalizer_spec")?)?,
            _ => {}
        }
        Ok(())
    }

    fn set_trainer(&mut self, fields: Fields) -> Result<(), TokenizerError> {
        for field in fields {
            let field = field?;
            match field.number {
                3 => {
                    self.model_type = match field.integer("trainer_spec.model_type")? {
                        1 => ModelType::Unigram,
                        2 => ModelType::Bpe,
                        3 => ModelType::Word,
                        4 => ModelType::Char,
                        found => return Err(malformed(FILE, "trainer_spec.model_type", found, "1 to 4")),
                    }
                }
                24 => self.whitespace_as_suffix = field.integer("treat_whitespace_as_suffix")? != 0,
                35 => self.byte_fallback = field.integer("byte_fallback")? != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

impl RawNormalizer {
    fn set(&mut self, fields: Fields) -> Result<(), TokenizerError> {
        for field in fields {
            let field = field?;
            match field.number {
                2 => self.charsmap = field.bytes("normalizer_spec.precompiled_charsmap")?.to_vec(),
                3 => self.add_dummy_prefix = field.integer("add_dummy_prefix")? != 0,
                4 => self.remove_extra_whitespaces = field.integer("remove_extra_whitespaces")? != 0,
                5 => self.escape_whitespaces = field.integer("escape_whitespaces")? != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

fn piece(fields: Fields, index: usize) -> Result<Piece, TokenizerError> {
    let place = || format!("piece {index}");
    let (mut text, mut score, mut kind) = (String::new(), 0.0, 1);
    for field in fields {
        let field = field?;
        match field.number {
            1 => {
                let bytes = field.bytes("piece")?;
                let utf8 = std::str::from_utf8(bytes);
                text = utf8
                    .map_err(|e| malformed(FILE, place(), e, "UTF-8 text"))?
                    .to_owned();
            }
            2 => score = field.float("score")?,
            3 => kind = field.integer("type")?,
            _ => {}
        }
    }
    let kind = match kind {
        1 => PieceKind::Normal,
        2 => PieceKind::Unknown,
        3 => PieceKind::Control,
        4 => PieceKind::UserDefined,
        5 => PieceKind::Unused,
        6 => PieceKind::Byte,
        found => return Err(malformed(FILE, place(), format!("type {found}"), "type 1 to 6")),
    };
    Ok(Piece { text, score, kind })
}

/// One field of a message.
struct Field<'a> {
    number: u64,
    value: Value<'a>,
}

enum Value<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Field<'a> {
    fn bytes(&self, place: &str) -> Result<&'a [u8], TokenizerError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(malformed(FILE, place, "a number", "a length-delimited field")),
        }
    }

    fn message(&self, place: &str) -> Result<Fields<'a>, TokenizerError> {
        self.bytes(place).map(Fields::new)
    }

    fn integer(&self, place: &str) -> Result<u64, TokenizerError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(malformed(FILE, place, "another wire type", "a varint")),
        }
    }

    fn float(&self, place: &str) -> Result<f32, TokenizerError> {
        match self.value {
            Value::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(malformed(FILE, place, "another wire type", "a 32-bit float")),
        }
    }
}

/// Walks over the fields of one protobuf message; stops at the first error.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], TokenizerError> {
        let split = usize::try_from(count)
            .ok()
            .and_then(|count| self.bytes.split_at_checked(count));
        let Some((head, tail)) = split else {
            let found = format!("{} bytes", self.bytes.len());
            return Err(malformed(FILE, "a field", found, format!("{count} bytes")));
        };
        self.bytes = tail;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, TokenizerError> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?.first().copied().unwrap_or_default();
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or_default();
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed(
            FILE,
            "a varint",
            "more than 10 bytes",
            "at most 10 bytes",
        ))
    }

    fn field(&mut self) -> Result<Field<'a>, TokenizerError> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(
                    bytes
                        .iter()
                        .rev()
                        .fold(0, |value, byte| value << 8 | u32::from(*byte)),
                )
            }
            found => {
                return Err(malformed(
                    FILE,
                    "a field",
                    format!("wire type {found}"),
                    "0, 1, 2 or 5",
                ));
            }
        };
        Ok(Field {
            number: key >> 3,
            value,
        })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, TokenizerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.bytes = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cut_file_is_an_error() {
        // Field 1, length 5, but two bytes follow.
        let error = SentencePieceModel::parse(&[0x0a, 5, 1, 2]).unwrap_err();
        insta::assert_snapshot!(error, @"SentencePiece model is malformed at a field: found 2 bytes, expected 5 bytes");
    }

    #[test]
    fn a_file_without_pieces_is_an_error() {
        let error = SentencePieceModel::parse(&[]).unwrap_err();
        insta::assert_snapshot!(error, @"SentencePiece model is malformed at the vocabulary: found no unknown piece, expected exactly one");
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(SentencePieceModel::parse(&bytes).is_err());
        }
    }
}
