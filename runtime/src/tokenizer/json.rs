//! Reading `tokenizer.json`: pipelines of SentencePiece's kind are recognised and run exactly as SentencePiece
//! runs them; byte-pair encoding goes to the `tokenizers` crate.

use super::charsmap::CharsMap;
use super::error::{TokenizerError, malformed};
use super::normalizer::Normalizer;
use super::trie::Trie;
use super::unigram::Unigram;
use super::vocabulary::{MAX_PIECES, META_SPACE, Piece, PieceKind, Vocabulary, byte_of};
use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;

pub(crate) const FILE: &str = "tokenizer.json";
const SUPPORTED: &str =
    "Unigram with SentencePiece's pipeline, and BPE with a byte-level or metaspace decoder";

/// The parts of the file that decide about ids; post-processing, padding and truncation are the engine's matter.
#[derive(Deserialize)]
pub(crate) struct RawTokenizer {
    #[serde(default)]
    pub(crate) added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub(crate) normalizer: Value,
    #[serde(default)]
    pub(crate) pre_tokenizer: Value,
    #[serde(default)]
    pub(crate) decoder: Value,
    pub(crate) model: Value,
}

/// A token beside the model's own.
#[derive(Deserialize)]
pub(crate) struct AddedToken {
    pub(crate) id: u32,
    pub(crate) content: String,
    #[serde(default)]
    pub(crate) special: bool,
}

#[derive(Deserialize)]
struct RawUnigram {
    unk_id: Option<u32>,
    vocab: Vec<(String, f64)>,
    #[serde(default)]
    byte_fallback: bool,
}

impl RawTokenizer {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TokenizerError> {
        serde_json::from_slice(bytes).map_err(|e| malformed(FILE, "the file", e, "a tokenizer"))
    }

    pub(crate) fn model_type(&self) -> &str {
        // Files written before the type was stored hold byte-pair encodings.
        self.model.get("type").and_then(Value::as_str).unwrap_or("BPE")
    }
}

/// Says that the file asks for more than there is.
pub(crate) fn unsupported(found: impl Into<String>) -> TokenizerError {
    TokenizerError::Unsupported {
        file: FILE,
        found: found.into(),
        supported: SUPPORTED,
    }
}

/// Builds the exact SentencePiece model that a file describes.
pub(crate) fn unigram(raw: &RawTokenizer) -> Result<(Vocabulary, Unigram), TokenizerError> {
    let model = RawUnigram::deserialize(&raw.model)
        .map_err(|e| malformed(FILE, "model", e, "a Unigram model with unk_id and vocab"))?;
    let normalizer = pipeline(raw)?;
    let vocabulary = vocabulary(raw, model)?;
    vocabulary.require_unknown(FILE)?;
    let unigram = Unigram::new(&vocabulary, normalizer);
    Ok((vocabulary, unigram))
}

/// Recognises a pipeline that means what SentencePiece does.
fn pipeline(raw: &RawTokenizer) -> Result<Normalizer, TokenizerError> {
    let mut normalizer = Normalizer {
        charsmap: CharsMap::default(),
        verbatim: Trie::new([]),
        add_dummy_prefix: false,
        remove_extra_whitespaces: false,
    };
    for step in steps(&raw.normalizer, "normalizers") {
        match kind(step) {
            "Precompiled" => normalizer.charsmap = charsmap(step)?,
            "Strip" => normalizer.remove_extra_whitespaces = true,
            "Replace" if step.pointer("/pattern/Regex").and_then(Value::as_str) == Some(" {2,}") => {
                normalizer.remove_extra_whitespaces = true;
            }
            found => {
                return Err(unsupported(format!(
                    "the normalizer '{found}' before a Unigram model"
                )));
            }
        }
    }
    let mut metaspace = false;
    for step in steps(&raw.pre_tokenizer, "pretokenizers") {
        match kind(step) {
            "WhitespaceSplit" => normalizer.remove_extra_whitespaces = true,
            "Metaspace" if step.get("replacement").and_then(Value::as_str) == Some("\u{2581}") => {
                metaspace = true;
                let never = step.get("prepend_scheme").and_then(Value::as_str) == Some("never")
                    || step.get("add_prefix_space").and_then(Value::as_bool) == Some(false);
                normalizer.add_dummy_prefix = !never;
            }
            found => {
                return Err(unsupported(format!(
                    "the pre-tokenizer '{found}' before a Unigram model"
                )));
            }
        }
    }
    if metaspace {
        Ok(normalizer)
    } else {
        Err(unsupported("a Unigram model without a Metaspace pre-tokenizer"))
    }
}

/// Lists the steps of a pipeline: none, one, or a sequence.
pub(crate) fn steps<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    match (value, value.get(key).and_then(Value::as_array)) {
        (Value::Null, _) => Vec::new(),
        (_, Some(list)) if kind(value) == "Sequence" => list.iter().collect(),
        _ => vec![value],
    }
}

pub(crate) fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or("(nameless)")
}

/// Reads and checks the map of a `Precompiled` normaliser.
pub(crate) fn charsmap(step: &Value) -> Result<CharsMap, TokenizerError> {
    let place = "normalizer.precompiled_charsmap";
    let text = step
        .get("precompiled_charsmap")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|e| malformed(FILE, place, e, "base64"))?;
    CharsMap::parse(FILE, &bytes)
}

/// Tells whether a piece is a control token by its name: some converters forget to say so in `added_tokens`.
fn is_special_name(text: &str) -> bool {
    text == "<s>" || multiway_prompts::is_special_form(text)
}

fn vocabulary(raw: &RawTokenizer, model: RawUnigram) -> Result<Vocabulary, TokenizerError> {
    let byte_fallback = model.byte_fallback;
    let mut pieces: Vec<Piece> = Vec::with_capacity(model.vocab.len().min(MAX_PIECES));
    for (id, (text, score)) in (0..).zip(model.vocab) {
        let kind = match byte_of(&text) {
            _ if Some(id) == model.unk_id => PieceKind::Unknown,
            Some(_) if byte_fallback => PieceKind::Byte,
            _ if is_special_name(&text) => PieceKind::Control,
            _ => PieceKind::Normal,
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "SentencePiece's scores are 32-bit"
        )]
        pieces.push(Piece {
            text,
            score: score as f32,
            kind,
        });
    }
    let mut added: Vec<&AddedToken> = raw.added_tokens.iter().collect();
    added.sort_by_key(|token| token.id);
    for token in added {
        let kind = if token.special {
            PieceKind::Control
        } else {
            PieceKind::UserDefined
        };
        let index = usize::try_from(token.id).unwrap_or(usize::MAX);
        let next = pieces.len();
        match pieces.get_mut(index) {
            Some(piece) if piece.text != token.content => {
                let expected = format!("'{}', as in the vocabulary", piece.text);
                return Err(malformed(
                    FILE,
                    format!("added_tokens, id {index}"),
                    &token.content,
                    expected,
                ));
            }
            Some(piece) if piece.kind == PieceKind::Unknown => {}
            Some(piece) => piece.kind = kind,
            None if index == next => pieces.push(Piece {
                text: token.content.clone(),
                score: 0.0,
                kind,
            }),
            None => {
                return Err(malformed(
                    FILE,
                    "added_tokens",
                    format!("id {index}"),
                    format!("id {next}"),
                ));
            }
        }
    }
    Vocabulary::new(FILE, pieces, byte_fallback)
}

/// Tells whether U+2581 stands for a space in a step that replaces it.
pub(crate) fn replaces_metaspace(step: &Value) -> bool {
    kind(step) == "Replace"
        && step.pointer("/pattern/String").and_then(Value::as_str) == Some(&META_SPACE.to_string())
}
