//! SentencePiece models with more tokens than their files have: T5's gaps, and the numbering of XLM-R.
//!
//! ByT5 needs no file at all.
//!
//! Sources: `transformers`, `T5Tokenizer`, its `extra_ids`; `XLMRobertaTokenizer`: ids 0 to 3 are `<s>`, `<pad>`, `</s>` and
//! `<unk>`, then come the model's pieces from its fourth on, each one id later than in the model, and `<mask>` behind the
//! last. BEiT-3 uses its `beit3.spm` so.

use super::charsmap::CharsMap;
use super::error::{TokenizerError, malformed};
use super::normalizer::Normalizer;
use super::proto::{FILE, ModelType, SentencePieceModel};
use super::trie::Trie;
use super::unigram::Unigram;
use super::vocabulary::{Piece, PieceKind, Vocabulary};
use super::{Backend, Spelling, Tokenizer};

/// How many `<extra_id_N>` T5 has.
const GAPS: usize = 100;

/// How many pieces of the model, `<unk>`, `<s>` and `</s>`, have other ids.
const REPLACED: usize = 3;

/// The name of the token that stands for a masked word.
pub(crate) const MASK: &str = "<mask>";

/// How many `<extra_id_N>` ByT5 has.
const BYT5_GAPS: usize = 125;

/// Tells whether a `tokenizer_config.json` is that of ByT5, which needs no other file.
pub(super) fn names_byt5(json: &[u8]) -> bool {
    let json: Option<serde_json::Value> = serde_json::from_slice(json).ok();
    let class = json
        .as_ref()
        .and_then(|json| json.get("tokenizer_class")?.as_str());
    class == Some("ByT5Tokenizer")
}

impl Tokenizer {
    /// Makes the tokenizer of ByT5: `<pad>`, `</s>`, `<unk>`, the 256 bytes, and `<extra_id_0>` to `<extra_id_124>`.
    ///
    /// Source: `transformers`, `ByT5Tokenizer`.
    ///
    /// # Errors
    /// None in practice: the table is checked like any other.
    pub fn byt5() -> Result<Self, TokenizerError> {
        let piece = |text: String, kind| Piece {
            text,
            score: 0.0,
            kind,
        };
        let named = [
            ("<pad>", PieceKind::Control),
            ("</s>", PieceKind::Control),
            ("<unk>", PieceKind::Unknown),
        ];
        let named = named.map(|(name, kind)| piece(name.to_owned(), kind));
        let bytes = (0..=255_u8).map(|byte| piece(format!("<0x{byte:02X}>"), PieceKind::Byte));
        let gaps = (0..BYT5_GAPS).map(|gap| piece(format!("<extra_id_{gap}>"), PieceKind::Control));
        let pieces = named.into_iter().chain(bytes).chain(gaps).collect();
        let vocabulary = Vocabulary::new(FILE, pieces, true)?;
        Ok(Self::new(
            Backend::Bytes,
            vocabulary,
            Spelling::MetaSpace,
            super::LeadingSpace::Kept,
        ))
    }

    /// Reads the bytes of a SentencePiece unigram model for T5: where the file has no `<extra_id_N>`, as T5's own, the last
    /// hundred ids are these, counted down; where it has them, as mT5's, they are special tokens.
    ///
    /// # Errors
    /// [`TokenizerError`] where the file is malformed or is no unigram model.
    pub fn from_t5_sentencepiece(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let mut model = SentencePieceModel::parse(bytes)?;
        model.vocabulary = model.vocabulary.with_gaps(FILE, GAPS)?;
        Self::from_unigram(model)
    }

    /// Reads the bytes of a SentencePiece unigram model whose pieces are numbered as XLM-R numbers them.
    ///
    /// # Errors
    /// [`TokenizerError`] where the file is malformed, is no unigram model, or does not begin with `<unk>`, `<s>` and
    /// `</s>`.
    pub fn from_xlmr_sentencepiece(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let mut model = SentencePieceModel::parse(bytes)?;
        model.vocabulary = renumbered(&model.vocabulary)?;
        Self::from_unigram(model)
    }

    fn from_unigram(model: SentencePieceModel) -> Result<Self, TokenizerError> {
        if model.model_type != ModelType::Unigram {
            return Err(TokenizerError::Unsupported {
                file: FILE,
                found: format!("a {:?} model", model.model_type),
                supported: "unigram models",
            });
        }
        let normalizer = Normalizer {
            charsmap: CharsMap::parse(FILE, &model.charsmap)?,
            verbatim: Trie::new([]),
            add_dummy_prefix: model.add_dummy_prefix,
            remove_extra_whitespaces: model.remove_extra_whitespaces,
        };
        let unigram = Unigram::new(&model.vocabulary, normalizer);
        let space = unigram.leading_space();
        let backend = Backend::Unigram(unigram);
        Ok(Self::new(backend, model.vocabulary, Spelling::MetaSpace, space))
    }
}

fn renumbered(vocabulary: &Vocabulary) -> Result<Vocabulary, TokenizerError> {
    let (replaced, rest) = vocabulary
        .pieces()
        .split_at_checked(REPLACED)
        .unwrap_or((vocabulary.pieces(), &[]));
    let names: Vec<&str> = replaced.iter().map(|piece| piece.text.as_str()).collect();
    if names != ["<unk>", "<s>", "</s>"] {
        let expected = "'<unk>', '<s>' and '</s>'";
        return Err(malformed(FILE, "the first pieces", names.join(", "), expected));
    }
    let special = |text: &str, kind| Piece {
        text: text.to_owned(),
        score: 0.0,
        kind,
    };
    let mut pieces = vec![
        special("<s>", PieceKind::Control),
        special("<pad>", PieceKind::Control),
        special("</s>", PieceKind::Control),
        special("<unk>", PieceKind::Unknown),
    ];
    pieces.extend_from_slice(rest);
    pieces.push(special(MASK, PieceKind::Control));
    Vocabulary::new(FILE, pieces, vocabulary.byte_fallback())
}
