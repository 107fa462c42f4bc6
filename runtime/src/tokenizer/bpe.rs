//! Byte-pair encodings, by the `tokenizers` crate.

use super::TokenId;
use super::error::{TokenizerError, malformed};
use super::json::{FILE, RawTokenizer, charsmap, kind, replaces_metaspace, steps, unsupported};
use super::vocabulary::{MAX_PIECES, Piece, PieceKind, Vocabulary, byte_of};
use super::{LeadingSpace, Spelling};
use serde_json::{Value, json};

/// A byte-pair encoding that plain text cannot make special tokens with.
pub(crate) struct Bpe {
    tokenizer: tokenizers::Tokenizer,
}

impl Bpe {
    /// Builds the encoding from a file, its special tokens taken out of the reach of text.
    pub(crate) fn new(bytes: &[u8], vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        let mut file: Value =
            serde_json::from_slice(bytes).map_err(|e| malformed(FILE, "the file", e, "a tokenizer"))?;
        for step in file
            .get("normalizer")
            .map(|value| steps(value, "normalizers"))
            .unwrap_or_default()
        {
            if kind(step) == "Precompiled" {
                charsmap(step)?;
            }
        }
        for key in ["post_processor", "truncation", "padding"] {
            if let Some(value) = file.get_mut(key) {
                *value = Value::Null;
            }
        }
        if let Some(Value::Array(added)) = file.get_mut("added_tokens") {
            added.retain(|token| token.get("special") != Some(&json!(true)));
        }
        let unknown = file
            .pointer("/model/unk_token")
            .and_then(Value::as_str)
            .map(str::to_owned);
        if let Some(Value::Object(vocab)) = file.pointer_mut("/model/vocab") {
            vocab.retain(|text, _| vocabulary.special(text).is_none() || Some(text) == unknown.as_ref());
        }
        let file = serde_json::to_vec(&file).map_err(|e| malformed(FILE, "the file", e, "a tokenizer"))?;
        let tokenizer = tokenizers::Tokenizer::from_bytes(file);
        Ok(Self {
            tokenizer: tokenizer.map_err(|e| malformed(FILE, "the file", e, "a tokenizer"))?,
        })
    }

    pub(crate) fn encode(&self, vocabulary: &Vocabulary, text: &str) -> Vec<TokenId> {
        let encoding = match self.tokenizer.encode_fast(text, false) {
            Ok(encoding) => encoding,
            Err(error) => {
                tracing::error!(%error, "the byte-pair encoder failed; the text counts as unknown");
                return vocabulary.unknown().into_iter().collect();
            }
        };
        let allowed = |id: &TokenId| {
            Some(*id) == vocabulary.unknown()
                || vocabulary.get(*id).is_some_and(|piece| !piece.kind.is_special())
        };
        encoding.get_ids().iter().copied().filter(allowed).collect()
    }
}

/// Reads the vocabulary of a byte-pair encoding, and how its pieces spell text.
pub(crate) fn vocabulary(raw: &RawTokenizer) -> Result<(Vocabulary, Spelling, LeadingSpace), TokenizerError> {
    let (spelling, space) = decoder(raw)?;
    let byte_fallback = raw
        .model
        .get("byte_fallback")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let unknown = raw.model.get("unk_token").and_then(Value::as_str);
    let vocab = raw.model.get("vocab").and_then(Value::as_object);
    let vocab =
        vocab.ok_or_else(|| malformed(FILE, "model.vocab", "nothing", "an object from piece to id"))?;
    let mut entries: Vec<(u64, &str, bool)> = vocab
        .iter()
        .map(|(text, id)| (id.as_u64().unwrap_or(u64::MAX), text.as_str(), false))
        .collect();
    entries.extend(
        raw.added_tokens
            .iter()
            .map(|t| (u64::from(t.id), t.content.as_str(), t.special)),
    );
    let mut pieces = Vec::new();
    for (id, text, special) in entries {
        let index = usize::try_from(id).ok().filter(|id| *id < MAX_PIECES);
        let index =
            index.ok_or_else(|| malformed(FILE, format!("piece '{text}'"), id, "an id below 1048576"))?;
        if pieces.len() <= index {
            pieces.resize(index + 1, None);
        }
        let kind = match byte_of(text) {
            _ if Some(text) == unknown => PieceKind::Unknown,
            _ if special => PieceKind::Control,
            Some(_) if byte_fallback => PieceKind::Byte,
            _ => PieceKind::Normal,
        };
        if let Some(place) = pieces.get_mut(index) {
            *place = Some(Piece {
                text: text.to_owned(),
                score: 0.0,
                kind,
            });
        }
    }
    let unused = |id| Piece {
        text: format!("<unused_{id}>"),
        score: 0.0,
        kind: PieceKind::Unused,
    };
    let pieces = pieces
        .into_iter()
        .enumerate()
        .map(|(id, piece)| piece.unwrap_or_else(|| unused(id)))
        .collect();
    Ok((Vocabulary::new(FILE, pieces, byte_fallback)?, spelling, space))
}

fn decoder(raw: &RawTokenizer) -> Result<(Spelling, LeadingSpace), TokenizerError> {
    let (mut spelling, mut space) = (None, LeadingSpace::Kept);
    for step in steps(&raw.decoder, "decoders") {
        match kind(step) {
            "ByteLevel" => spelling = Some(Spelling::ByteLevel),
            "Metaspace" => {
                spelling = Some(Spelling::MetaSpace);
                if step.get("prepend_scheme").and_then(Value::as_str) != Some("never") {
                    space = LeadingSpace::OneDropped;
                }
            }
            "Replace" if replaces_metaspace(step) => spelling = Some(Spelling::MetaSpace),
            "Strip" => space = LeadingSpace::OneDropped,
            "ByteFallback" | "Fuse" => {}
            found => return Err(unsupported(format!("the decoder '{found}'"))),
        }
    }
    Ok((spelling.ok_or_else(|| unsupported("no known decoder"))?, space))
}
