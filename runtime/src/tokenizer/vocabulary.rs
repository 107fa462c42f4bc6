//! The table of tokens that every kind of tokenizer shares: what an id means, and which ids are special.

use std::collections::HashMap;

use super::error::{TokenizerError, malformed};
use super::token::TokenId;

/// The most tokens that a vocabulary may have.
pub(crate) const MAX_TOKENS: usize = 1 << 20;

/// U+2581, which stands for a space inside of SentencePiece's pieces.
pub(crate) const META_SPACE: char = '\u{2581}';

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PieceKind {
    /// A piece of ordinary text.
    Normal,
    /// The token of text that no other token covers.
    Unknown,
    /// A special token: only a template reaches it.
    Control,
    /// A token that was added beside the model's own and is matched verbatim in text.
    Added,
    /// The same for a SentencePiece model, where `transformers` shows it with spaces around it.
    Word,
    /// An unused id.
    Unused,
    /// One byte, `<0x00>` to `<0xFF>`.
    Byte,
}

impl PieceKind {
    /// Returns whether the token is special: plain text neither becomes it nor shows it.
    pub(crate) fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// One entry of a vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) kind: PieceKind,
}

impl Piece {
    pub(crate) fn new(text: impl Into<String>, kind: PieceKind) -> Self {
        Self {
            text: text.into(),
            kind,
        }
    }
}

/// All tokens by id, and the special ones by name.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pieces: Vec<Piece>,
    specials: HashMap<String, TokenId>,
}

impl Vocabulary {
    /// Checks a table of tokens.
    pub(crate) fn new(file: &'static str, pieces: Vec<Piece>) -> Result<Self, TokenizerError> {
        let count = pieces.len();
        if count > MAX_TOKENS {
            let expected = format!("at most {MAX_TOKENS} tokens");
            return Err(malformed(file, "the vocabulary", count, expected));
        }
        let numbered = (0..).zip(&pieces).filter(|(_, piece)| piece.kind.is_special());
        let specials = numbered.map(|(id, piece)| (piece.text.clone(), id)).collect();
        Ok(Self { pieces, specials })
    }

    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    pub(crate) fn get(&self, id: TokenId) -> Option<&Piece> {
        self.pieces.get(usize::try_from(id).ok()?)
    }

    pub(crate) fn special(&self, name: &str) -> Option<TokenId> {
        self.specials.get(name).copied()
    }

    pub(crate) fn specials(&self) -> &HashMap<String, TokenId> {
        &self.specials
    }
}

/// Puts a token at its place in a table that may have gaps.
pub(crate) fn place(
    file: &'static str,
    pieces: &mut Vec<Piece>,
    id: u64,
    piece: Piece,
) -> Result<(), TokenizerError> {
    let index = usize::try_from(id).ok().filter(|id| *id < MAX_TOKENS);
    let index = index.ok_or_else(|| {
        let expected = format!("an id below {MAX_TOKENS}");
        malformed(file, format!("token '{}'", piece.text), id, expected)
    })?;
    while pieces.len() <= index {
        pieces.push(Piece::new(String::new(), PieceKind::Unused));
    }
    if let Some(place) = pieces.get_mut(index) {
        *place = piece;
    }
    Ok(())
}

/// Reads `<0x41>` as the byte 0x41.
pub(crate) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_exact = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_exact.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}
