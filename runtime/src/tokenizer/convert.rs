//! Writing a SentencePiece model as a `tokenizer.json`.

use std::collections::HashSet;

use base64::Engine as _;
use serde_json::{Value, json};

use super::error::{TokenizerError, malformed};
use super::proto::{FILE, ModelType, ScoredPiece, SentencePieceModel};
use super::vocabulary::PieceKind;

/// Converts a SentencePiece unigram model (the bytes of a `.model` or `.spm` file) into a `tokenizer.json`.
///
/// [`Tokenizer::from_json`](super::Tokenizer::from_json) reads the result to the same ids on ordinary text.
/// The libraries differ where several cuts are equally likely (`aaaaaa`), since `tokenizers` sums scores word
/// by word and in 64 bits, on some clusters of combining characters, which it normalises together, and on the
/// name of a byte piece, `<0x41>`, which it takes for that piece.
///
/// # Errors
/// [`TokenizerError`] where the file is malformed, is not a unigram model, or has unused pieces.
///
/// # Examples
///
/// ```no_run
/// use multiway_runtime::{Tokenizer, sentencepiece_to_json};
///
/// let json = sentencepiece_to_json(&std::fs::read("spiece.model")?)?;
/// let tokenizer = Tokenizer::from_json(&json)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sentencepiece_to_json(model: &[u8]) -> Result<Vec<u8>, TokenizerError> {
    let model = SentencePieceModel::parse(model)?;
    check(&model)?;
    let vocab: Vec<Value> = model
        .pieces
        .iter()
        .map(|p| json!([p.text, f64::from(p.score)]))
        .collect();
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&model.pieces),
        "normalizer": normalizer(&model),
        "pre_tokenizer": metaspace(&model),
        "post_processor": post_processor(&model),
        "decoder": {
            "type": "Sequence",
            "decoders": [{ "type": "ByteFallback" }, metaspace(&model)],
        },
        "model": {
            "type": "Unigram",
            "unk_id": model.pieces.iter().position(|p| p.kind == PieceKind::Unknown),
            "vocab": vocab,
            "byte_fallback": model.byte_fallback,
        },
    });
    let mut bytes =
        serde_json::to_vec(&file).map_err(|e| malformed(FILE, "the pieces", e, "text that JSON can hold"))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn check(model: &SentencePieceModel) -> Result<(), TokenizerError> {
    let unsupported = |found: String| TokenizerError::Unsupported {
        file: FILE,
        found,
        supported: "conversion of unigram models without unused pieces and with each spelling used once",
    };
    if model.model_type != ModelType::Unigram {
        return Err(unsupported(format!("a {:?} model", model.model_type)));
    }
    let mut spellings = HashSet::new();
    for piece in &model.pieces {
        if piece.kind == PieceKind::Unused || !spellings.insert(&piece.text) {
            return Err(unsupported(format!("{:?} piece '{}'", piece.kind, piece.text)));
        }
    }
    Ok(())
}

fn added_tokens(pieces: &[ScoredPiece]) -> Vec<Value> {
    let added = (0..)
        .zip(pieces)
        .filter(|(_, p)| p.kind.is_special() || p.kind == PieceKind::Added);
    let token = |(id, piece): (u32, &ScoredPiece)| {
        json!({
            "id": id,
            "content": piece.text,
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": false,
            "special": piece.kind.is_special(),
        })
    };
    added.map(token).collect()
}

fn normalizer(model: &SentencePieceModel) -> Value {
    let mut steps = Vec::new();
    if !model.charsmap.is_empty() {
        let map = base64::engine::general_purpose::STANDARD.encode(&model.charsmap);
        steps.push(json!({ "type": "Precompiled", "precompiled_charsmap": map }));
    }
    if model.remove_extra_whitespaces {
        steps.push(json!({ "type": "Strip", "strip_left": true, "strip_right": true }));
        steps.push(json!({ "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " }));
    }
    if steps.is_empty() {
        Value::Null
    } else {
        json!({ "type": "Sequence", "normalizers": steps })
    }
}

fn metaspace(model: &SentencePieceModel) -> Value {
    let scheme = if model.add_dummy_prefix { "always" } else { "never" };
    json!({ "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": true })
}

/// Closes a text with `</s>`, as T5's files do, for readers that let the file decide.
fn post_processor(model: &SentencePieceModel) -> Value {
    let end = |piece: &ScoredPiece| piece.kind.is_special() && piece.text == "</s>";
    let Some(id) = model.pieces.iter().position(end) else {
        return Value::Null;
    };
    let eos = json!({ "SpecialToken": { "id": "</s>", "type_id": 0 } });
    let sequence = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    json!({
        "type": "TemplateProcessing",
        "single": [sequence("A"), eos],
        "pair": [sequence("A"), eos, sequence("B"), eos],
        "special_tokens": { "</s>": { "id": "</s>", "ids": [id], "tokens": ["</s>"] } },
    })
}
