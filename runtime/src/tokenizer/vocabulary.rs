//! The table of pieces that every backend shares: what an id means, and which ids are special.

use super::TokenId;
use super::error::{TokenizerError, malformed};
use std::collections::HashMap;

/// The most pieces that a vocabulary may have.
pub(crate) const MAX_PIECES: usize = 1 << 20;

/// U+2581, which stands for a space inside pieces.
pub(crate) const META_SPACE: char = '\u{2581}';

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PieceKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl PieceKind {
    /// Tells whether plain text can never become this piece by its spelling, nor be shown as it.
    pub(crate) fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// One entry of a vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) score: f32,
    pub(crate) kind: PieceKind,
}

/// All pieces by id, and the special ones by name.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pieces: Vec<Piece>,
    specials: HashMap<String, TokenId>,
    unknown: Option<TokenId>,
    /// The ids of the 256 byte pieces, where the vocabulary falls back to bytes.
    bytes: Option<Box<[TokenId; 256]>>,
}

impl Vocabulary {
    /// Checks a table of pieces.
    pub(crate) fn new(
        file: &'static str,
        pieces: Vec<Piece>,
        byte_fallback: bool,
    ) -> Result<Self, TokenizerError> {
        let count = pieces.len();
        if count > MAX_PIECES {
            return Err(malformed(
                file,
                "the vocabulary",
                count,
                format!("at most {MAX_PIECES} pieces"),
            ));
        }
        let mut specials = HashMap::new();
        let mut unknown = Vec::new();
        for (id, piece) in (0..).zip(&pieces) {
            if piece.text.is_empty() || !piece.score.is_finite() {
                let expected = "a piece that is not empty and has a finite score";
                return Err(malformed(
                    file,
                    format!("piece {id}"),
                    format!("{piece:?}"),
                    expected,
                ));
            }
            if piece.kind == PieceKind::Unknown {
                unknown.push(id);
            }
            if piece.kind.is_special() && specials.insert(piece.text.clone(), id).is_some() {
                return Err(malformed(
                    file,
                    format!("piece {id}"),
                    &piece.text,
                    "a name used once",
                ));
            }
        }
        if unknown.len() > 1 {
            let found = format!("{} unknown pieces", unknown.len());
            return Err(malformed(file, "the vocabulary", found, "at most one"));
        }
        let unknown = unknown.first().copied();
        let bytes = byte_ids(file, &pieces, byte_fallback)?;
        Ok(Self {
            pieces,
            specials,
            unknown,
            bytes,
        })
    }

    /// Makes special tokens of the pieces `<extra_id_N>`, or adds `count` of them at the end, the last `<extra_id_0>`.
    pub(crate) fn with_gaps(self, file: &'static str, count: usize) -> Result<Self, TokenizerError> {
        let byte_fallback = self.byte_fallback();
        let mut pieces = self.pieces;
        let mut found = false;
        for piece in pieces.iter_mut().filter(|piece| !piece.kind.is_special()) {
            let name = piece.text.trim_start_matches(META_SPACE);
            if name.starts_with("<extra_id_") && multiway_prompts::is_special_form(name) {
                piece.text = name.to_owned();
                piece.kind = PieceKind::Control;
                found = true;
            }
        }
        if !found {
            pieces.extend((0..count).rev().map(|number| Piece {
                text: format!("<extra_id_{number}>"),
                score: 0.0,
                kind: PieceKind::Control,
            }));
        }
        Self::new(file, pieces, byte_fallback)
    }

    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
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

    pub(crate) fn unknown(&self) -> Option<TokenId> {
        self.unknown
    }

    /// Checks that there is an id for what no piece covers.
    pub(crate) fn require_unknown(&self, file: &'static str) -> Result<(), TokenizerError> {
        match self.unknown {
            Some(_) => Ok(()),
            None => Err(malformed(
                file,
                "the vocabulary",
                "no unknown piece",
                "exactly one",
            )),
        }
    }

    pub(crate) fn byte_fallback(&self) -> bool {
        self.bytes.is_some()
    }

    /// Adds the ids of a text that no piece covers: one per byte, or one `<unk>` for a run of such text.
    pub(crate) fn push_unknown(&self, text: &[u8], after_unknown: bool, ids: &mut Vec<TokenId>) {
        match &self.bytes {
            Some(table) => ids.extend(text.iter().filter_map(|byte| table.get(usize::from(*byte)))),
            None if !after_unknown => ids.extend(self.unknown),
            None => {}
        }
    }
}

/// Reads `<0x41>` as the byte 0x41.
pub(crate) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let exact = digits.len() == 2
        && !digits
            .bytes()
            .any(|digit| digit.is_ascii_lowercase() || digit == b'+');
    exact.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

fn byte_ids(
    file: &'static str,
    pieces: &[Piece],
    byte_fallback: bool,
) -> Result<Option<Box<[TokenId; 256]>>, TokenizerError> {
    let mut table = [None; 256];
    for (id, piece) in (0..)
        .zip(pieces)
        .filter(|(_, piece)| piece.kind == PieceKind::Byte)
    {
        let slot = byte_of(&piece.text).and_then(|byte| table.get_mut(usize::from(byte)));
        match slot {
            Some(slot @ None) if byte_fallback => *slot = Some(id),
            _ => {
                let expected = "byte pieces <0x00> to <0xFF>, once each, and only with byte fallback";
                return Err(malformed(file, format!("piece {id}"), &piece.text, expected));
            }
        }
    }
    if !byte_fallback {
        return Ok(None);
    }
    let mut ids = Box::new([0; 256]);
    for (byte, (id, found)) in ids.iter_mut().zip(table).enumerate() {
        *id = found.ok_or_else(|| {
            malformed(
                file,
                "the vocabulary",
                "nothing",
                format!("a piece <0x{byte:02X}>"),
            )
        })?;
    }
    Ok(Some(ids))
}
