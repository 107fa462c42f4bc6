//! ByT5, which needs no vocabulary file: each byte of UTF-8 is a token.
//!
//! Source: `transformers` 4.57, `ByT5Tokenizer`.

use super::error::{TokenizerError, malformed};
use super::files::{self, SlowSettings};
use super::token::TokenId;
use super::vocabulary::{Piece, PieceKind, Vocabulary, place};

/// How many `<extra_id_N>` ByT5 has.
const GAPS: usize = 125;

/// The id of byte 0.
const FIRST_BYTE: TokenId = 3;

/// Turns bytes into tokens; tokens that were added and are not special are matched first, the longest of
/// several.
#[derive(Debug)]
pub(super) struct ByteTokenizer {
    added: Vec<(String, TokenId)>,
}

impl ByteTokenizer {
    /// Makes the table of tokens.
    ///
    /// # Errors
    /// [`TokenizerError`] where an added token does not fit it.
    pub(super) fn new(settings: &SlowSettings) -> Result<(Self, Vocabulary), TokenizerError> {
        let named = [
            ("<pad>", PieceKind::Control),
            ("</s>", PieceKind::Control),
            ("<unk>", PieceKind::Unknown),
        ];
        let named = named.map(|(name, kind)| Piece::new(name, kind));
        let bytes = (0..=255_u8).map(|byte| Piece::new(format!("<0x{byte:02X}>"), PieceKind::Byte));
        let gaps = (0..GAPS).map(|gap| Piece::new(format!("<extra_id_{gap}>"), PieceKind::Control));
        let mut pieces: Vec<Piece> = named.into_iter().chain(bytes).chain(gaps).collect();
        let mut added = Vec::new();
        for (id, token) in &settings.numbered {
            let known = usize::try_from(*id).ok().and_then(|id| pieces.get(id));
            match known.filter(|piece| !piece.text.is_empty()) {
                Some(piece) if piece.text == token.content => continue,
                Some(piece) => {
                    let place = format!("added_tokens_decoder, '{id}'");
                    return Err(malformed(
                        files::CONFIG,
                        place,
                        &token.content,
                        format!("'{}'", piece.text),
                    ));
                }
                None => {}
            }
            let kind = if token.special {
                PieceKind::Control
            } else {
                PieceKind::Added
            };
            place(files::CONFIG, &mut pieces, *id, Piece::new(&token.content, kind))?;
            if let (false, Ok(id)) = (token.special, TokenId::try_from(*id)) {
                added.push((token.content.clone(), id));
            }
        }
        added.sort_by_key(|(content, _)| std::cmp::Reverse(content.len()));
        Ok((Self { added }, Vocabulary::new(files::CONFIG, pieces)?))
    }

    pub(super) fn encode_text(&self, text: &str) -> Vec<TokenId> {
        let mut ids = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((first, behind)) = rest.split_first() {
            let added = self
                .added
                .iter()
                .find(|(content, _)| rest.starts_with(content.as_bytes()));
            match added {
                Some((content, id)) => {
                    ids.push(*id);
                    rest = rest.get(content.len()..).unwrap_or_default();
                }
                None => {
                    ids.push(FIRST_BYTE + TokenId::from(*first));
                    rest = behind;
                }
            }
        }
        ids
    }
}
