//! `tokenizer.json`, run by the library that defines it: `tokenizers`, normalizers, pre-tokenizers, added
//! tokens and post-processing included.
//!
//! On top of it, a caller's text never becomes a special token. Inside of the library every special token has
//! a random spelling in place of its name, drawn when the process starts. A template's special tokens are put
//! into the text by that spelling, so the library finds them as it would by their names, and strips spaces
//! around them as the file says; a name in a caller's text is text.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::LazyLock;

use base64::Engine as _;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tokenizers::models::unigram::Unigram;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
};

use super::charsmap;
use super::error::{TokenizerError, malformed};
use super::files;
use super::token::{LeadingSpace, Spelling, TokenId};
use super::vocabulary::{MAX_TOKENS, Piece, PieceKind, Vocabulary, byte_of, place};

const FILE: &str = "tokenizer.json";

/// The random letters of a special token's spelling.
const SECRET_LETTERS: u32 = 24;

/// The file, its model still to be read.
#[derive(Deserialize)]
struct RawFile {
    #[serde(default)]
    added_tokens: Vec<NumberedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: RawModel,
}

#[derive(Deserialize)]
struct NumberedToken {
    id: u64,
    normalized: Option<bool>,
    #[serde(flatten)]
    token: files::AddedToken,
}

/// The model's part of the file.
#[derive(Default)]
struct RawModel {
    /// Missing in files that were written before the type was stored.
    kind: Option<String>,
    vocab: RawVocabulary,
    unk_id: Option<usize>,
    unk_token: Option<String>,
    byte_fallback: bool,
    others: Map<String, Value>,
}

enum RawVocabulary {
    /// A unigram model: pieces in the order of their ids, with their log-probabilities.
    Scored(Vec<(String, f64)>),
    Numbered(Map<String, Value>),
}

impl Default for RawVocabulary {
    fn default() -> Self {
        Self::Numbered(Map::new())
    }
}

// By hand, since what serde derives for a flattened or untagged part copies a whole vocabulary first.
impl<'de> Deserialize<'de> for RawModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ModelVisitor;

        impl<'de> Visitor<'de> for ModelVisitor {
            type Value = RawModel;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a model with a vocabulary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawModel, A::Error> {
                let mut model = RawModel::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "type" => model.kind = map.next_value()?,
                        "vocab" => model.vocab = map.next_value()?,
                        "unk_id" => model.unk_id = map.next_value()?,
                        "unk_token" => model.unk_token = map.next_value()?,
                        "byte_fallback" => {
                            model.byte_fallback = map.next_value::<Option<bool>>()?.unwrap_or_default();
                        }
                        _ => drop(model.others.insert(key, map.next_value()?)),
                    }
                }
                Ok(model)
            }
        }

        deserializer.deserialize_map(ModelVisitor)
    }
}

impl<'de> Deserialize<'de> for RawVocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct VocabularyVisitor;

        impl<'de> Visitor<'de> for VocabularyVisitor {
            type Value = RawVocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of pieces with scores, or an object from piece to id")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RawVocabulary, A::Error> {
                let mut pieces = Vec::new();
                while let Some(piece) = list.next_element()? {
                    pieces.push(piece);
                }
                Ok(RawVocabulary::Scored(pieces))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawVocabulary, A::Error> {
                let mut pieces = Map::new();
                while let Some((piece, id)) = map.next_entry()? {
                    pieces.insert(piece, id);
                }
                Ok(RawVocabulary::Numbered(pieces))
            }
        }

        deserializer.deserialize_any(VocabularyVisitor)
    }
}

/// A tokenizer as the library runs it.
pub(super) struct LibraryTokenizer {
    tokenizer: tokenizers::Tokenizer,
    /// How special tokens are spelled inside of the library.
    secrets: HashMap<TokenId, String>,
    unknown: Option<TokenId>,
}

/// What a file says.
pub(super) struct Parsed {
    pub(super) library: LibraryTokenizer,
    pub(super) vocabulary: Vocabulary,
    pub(super) spelling: Spelling,
    pub(super) leading_space: LeadingSpace,
}

/// Reads a file.
///
/// # Errors
/// [`TokenizerError::Malformed`] if the library would refuse it, or would not notice that it is damaged.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, TokenizerError> {
    let mut raw: RawFile =
        serde_json::from_slice(bytes).map_err(|e| malformed(FILE, "the file", e, "a tokenizer"))?;
    check_charsmaps(&raw.normalizer)?;
    let pieces = pieces(&raw)?;
    let vocabulary = Vocabulary::new(FILE, pieces)?;
    let secrets = secrets(&vocabulary);
    let unknown = unknown_id(&raw.model);
    let (spelling, leading_space) = spelling(&raw.decoder);
    let added = std::mem::take(&mut raw.added_tokens);
    let model = model(raw.model, &vocabulary, &secrets)?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let part = |name: &'static str, e: serde_json::Error| {
        malformed(FILE, name, e, "a part that the tokenizers library knows")
    };
    let normalizer: Option<NormalizerWrapper> =
        serde_json::from_value(raw.normalizer).map_err(|e| part("normalizer", e))?;
    let pre_tokenizer: Option<PreTokenizerWrapper> =
        serde_json::from_value(raw.pre_tokenizer).map_err(|e| part("pre_tokenizer", e))?;
    let post_processor: Option<PostProcessorWrapper> =
        serde_json::from_value(raw.post_processor).map_err(|e| part("post_processor", e))?;
    let decoder: Option<DecoderWrapper> =
        serde_json::from_value(raw.decoder).map_err(|e| part("decoder", e))?;
    let refused = |e: tokenizers::Error| malformed(FILE, "added_tokens", e, "tokens that the library takes");
    tokenizer.with_normalizer(normalizer).map_err(refused)?;
    tokenizer.with_pre_tokenizer(pre_tokenizer);
    tokenizer.with_post_processor(post_processor);
    tokenizer.with_decoder(decoder);
    // In the order of the file, as the library reads it: it numbers tokens that the model does not have by
    // that order.
    let tokens = added
        .iter()
        .map(|token| added_token(token, &vocabulary, &secrets));
    tokenizer.add_tokens(tokens).map_err(refused)?;
    check_numbers(&tokenizer, &added, &vocabulary, &secrets)?;
    Ok(Parsed {
        library: LibraryTokenizer {
            tokenizer,
            secrets,
            unknown,
        },
        vocabulary,
        spelling,
        leading_space,
    })
}

impl LibraryTokenizer {
    /// Tokenizes plain text, without the post-processor.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] where the library fails.
    pub(super) fn encode_text(&self, text: &str) -> Result<Vec<TokenId>, TokenizerError> {
        self.encode(text, false)
    }

    /// Tokenizes a text with [`secret`](Self::secret) spellings of special tokens; with `closed`, the
    /// post-processor adds BOS and EOS.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] where the library fails.
    pub(super) fn encode(&self, text: &str, closed: bool) -> Result<Vec<TokenId>, TokenizerError> {
        // The library may panic on hostile text; that is an error of this text.
        let encoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.tokenizer.encode_fast(text, closed)
        }));
        match encoded {
            Ok(Ok(encoding)) => Ok(encoding.get_ids().to_vec()),
            Ok(Err(error)) => Err(TokenizerError::Encode {
                problem: error.to_string(),
            }),
            Err(_) => Err(TokenizerError::Encode {
                problem: "the tokenizers library gave up on it".to_owned(),
            }),
        }
    }

    /// Spells a special token so that the library finds it.
    pub(super) fn secret(&self, id: TokenId) -> Option<&str> {
        self.secrets.get(&id).map(String::as_str)
    }

    /// Returns whether the file has a post-processor that adds BOS or EOS.
    pub(super) fn closes_texts(&self) -> bool {
        self.tokenizer.get_post_processor().is_some()
    }

    pub(super) fn unknown(&self) -> Option<TokenId> {
        self.unknown
    }

    /// Detokenizes with the file's decoder.
    pub(super) fn join(&self, tokens: Vec<String>) -> String {
        use tokenizers::Decoder as _;
        let plain = tokens.join(" ");
        match self.tokenizer.get_decoder() {
            Some(decoder) => decoder.decode(tokens).unwrap_or(plain),
            None => plain,
        }
    }
}

/// Lists the steps of a pipeline, sequences inside of sequences included: at most as deep as JSON may be
/// nested.
fn steps<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    match value.get(key).and_then(Value::as_array) {
        _ if value.is_null() => Vec::new(),
        Some(list) if kind(value) == "Sequence" => list.iter().flat_map(|step| steps(step, key)).collect(),
        _ => vec![value],
    }
}

fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn check_charsmaps(normalizer: &Value) -> Result<(), TokenizerError> {
    for step in steps(normalizer, "normalizers") {
        let Some(text) = step.get("precompiled_charsmap").and_then(Value::as_str) else {
            continue;
        };
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|e| malformed(FILE, "normalizer.precompiled_charsmap", e, "base64"))?;
        charsmap::check(FILE, &bytes)?;
        if bytes.is_empty() {
            let expected = "a character map; leave the step out where there is none";
            return Err(malformed(
                FILE,
                "normalizer.precompiled_charsmap",
                "nothing",
                expected,
            ));
        }
    }
    Ok(())
}

/// Tells whether a piece is a special token by its name: some converters forget to say so in `added_tokens`.
fn is_special_name(text: &str) -> bool {
    text == "<s>" || multiway_prompts::is_special_form(text)
}

/// Lists the model's tokens and those that were added, by id.
fn pieces(raw: &RawFile) -> Result<Vec<Piece>, TokenizerError> {
    let unknown = raw.model.unk_token.as_deref();
    // Without that step, the decoder shows the names of byte pieces.
    let has_bytes = steps(&raw.decoder, "decoders")
        .into_iter()
        .any(|step| kind(step) == "ByteFallback");
    let kind_of = |text: &str, is_unknown: bool| match byte_of(text) {
        _ if is_unknown => PieceKind::Unknown,
        Some(_) if has_bytes => PieceKind::Byte,
        _ if is_special_name(text) => PieceKind::Control,
        _ => PieceKind::Normal,
    };
    let mut pieces = Vec::new();
    match &raw.model.vocab {
        RawVocabulary::Scored(vocab) => {
            let numbered = vocab.iter().enumerate();
            let piece = |(id, (text, _)): (usize, &(String, f64))| {
                Piece::new(text, kind_of(text, Some(id) == raw.model.unk_id))
            };
            pieces.extend(numbered.take(MAX_TOKENS + 1).map(piece));
        }
        RawVocabulary::Numbered(vocab) => {
            for (text, id) in vocab {
                let id = id.as_u64().unwrap_or(u64::MAX);
                let kind = kind_of(text, Some(text.as_str()) == unknown);
                place(FILE, &mut pieces, id, Piece::new(text, kind))?;
            }
        }
    }
    let mut known: HashMap<&str, Option<u64>> = raw
        .added_tokens
        .iter()
        .map(|added| (added.token.content.as_str(), None))
        .collect();
    for (id, piece) in (0..).zip(&pieces) {
        if let Some(known) = known.get_mut(piece.text.as_str()) {
            *known = Some(id);
        }
    }
    for NumberedToken { id, token, .. } in &raw.added_tokens {
        let id = known
            .get(token.content.as_str())
            .copied()
            .flatten()
            .unwrap_or(*id);
        let place_of = usize::try_from(id).ok().and_then(|id| pieces.get(id));
        if place_of.is_some_and(|piece| piece.kind == PieceKind::Unknown) {
            continue;
        }
        if let Some(piece) = place_of.filter(|piece| !piece.text.is_empty() && piece.text != token.content) {
            let expected = format!("'{}', as in the vocabulary", piece.text);
            return Err(malformed(
                FILE,
                format!("added_tokens, id {id}"),
                &token.content,
                expected,
            ));
        }
        let kind = if token.special {
            PieceKind::Control
        } else {
            PieceKind::Added
        };
        place(FILE, &mut pieces, id, Piece::new(&token.content, kind))?;
    }
    Ok(pieces)
}

fn unknown_id(model: &RawModel) -> Option<TokenId> {
    match &model.vocab {
        RawVocabulary::Scored(_) => model.unk_id.and_then(|id| TokenId::try_from(id).ok()),
        RawVocabulary::Numbered(vocab) => {
            let id = vocab.get(model.unk_token.as_ref()?)?.as_u64()?;
            TokenId::try_from(id).ok()
        }
    }
}

/// Random letters, unknown outside of this process.
static SECRET: LazyLock<String> = LazyLock::new(|| {
    let random = RandomState::new();
    let bits = u128::from(random.hash_one(1_u8)) << 64 | u128::from(random.hash_one(2_u8));
    letters(bits, SECRET_LETTERS)
});

/// Spells a number in lower-case letters.
fn letters(mut number: u128, count: u32) -> String {
    let mut text = String::new();
    for _ in 0..count {
        let letter = u8::try_from(number % 26).unwrap_or_default();
        text.push(char::from(b'a' + letter));
        number /= 26;
    }
    text
}

/// Draws a random spelling for each special token. It begins and ends like the name, with a letter or a sign,
/// since added tokens of whole words look at their neighbours.
fn secrets(vocabulary: &Vocabulary) -> HashMap<TokenId, String> {
    let edge = |c: Option<char>, sign| {
        if c.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            'x'
        } else {
            sign
        }
    };
    let secret = |(name, id): (&String, &TokenId)| {
        let (first, last) = (
            edge(name.chars().next(), '<'),
            edge(name.chars().next_back(), '>'),
        );
        let spelling = format!("{first}{}{}{last}", *SECRET, letters(u128::from(*id), 5));
        (*id, spelling)
    };
    vocabulary.specials().iter().map(secret).collect()
}

/// Builds the library's model, special tokens by their secret spellings.
fn model(
    raw: RawModel,
    vocabulary: &Vocabulary,
    secrets: &HashMap<TokenId, String>,
) -> Result<ModelWrapper, TokenizerError> {
    let refused = |e: String| malformed(FILE, "model", e, "a model that the tokenizers library runs");
    let spelled = |text: String| {
        let id = vocabulary.special(&text);
        id.and_then(|id| secrets.get(&id).cloned()).unwrap_or(text)
    };
    let kind = raw.kind.clone().unwrap_or_else(|| "BPE".to_owned());
    let vocab = match raw.vocab {
        RawVocabulary::Scored(vocab) => {
            if let Some((id, (text, score))) = vocab
                .iter()
                .enumerate()
                .find(|(_, (text, score))| text.is_empty() || !score.is_finite())
            {
                let expected = "a piece that is not empty and has a finite score";
                return Err(malformed(
                    FILE,
                    format!("piece {id}"),
                    format!("'{text}', {score}"),
                    expected,
                ));
            }
            let vocab = vocab
                .into_iter()
                .map(|(text, score)| (spelled(text), score))
                .collect();
            let model = Unigram::from(vocab, raw.unk_id, raw.byte_fallback);
            return Ok(model.map_err(|e| refused(e.to_string()))?.into());
        }
        RawVocabulary::Numbered(vocab) => vocab,
    };
    let mut file = raw.others;
    // Merges at random are for training.
    if file
        .insert("dropout".to_owned(), Value::Null)
        .is_some_and(|dropout| !dropout.is_null())
    {
        tracing::warn!("{FILE} has dropout in its merges, which is left out");
    }
    if kind != "BPE" {
        file.remove("dropout");
    }
    if let Some(Value::Array(merges)) = file.get_mut("merges") {
        merges.retain(|merge| vocabulary.special(&merged(merge)).is_none());
    }
    let vocab: Map<String, Value> = vocab.into_iter().map(|(text, id)| (spelled(text), id)).collect();
    file.insert("vocab".to_owned(), Value::Object(vocab));
    if let Some(unknown) = raw.unk_token {
        file.insert("unk_token".to_owned(), Value::String(spelled(unknown)));
    }
    if kind == "BPE" {
        file.insert("byte_fallback".to_owned(), Value::Bool(raw.byte_fallback));
    }
    file.insert("type".to_owned(), Value::String(kind));
    serde_json::from_value(Value::Object(file)).map_err(|e| refused(e.to_string()))
}

/// Says which piece a merge makes.
fn merged(merge: &Value) -> String {
    match merge {
        Value::Array(parts) => parts.iter().filter_map(Value::as_str).collect(),
        Value::String(parts) => parts.splitn(2, ' ').collect(),
        _ => String::new(),
    }
}

fn added_token(
    NumberedToken {
        token, normalized, ..
    }: &NumberedToken,
    vocabulary: &Vocabulary,
    secrets: &HashMap<TokenId, String>,
) -> AddedToken {
    let id = vocabulary.special(&token.content);
    let secret = id.and_then(|id| secrets.get(&id)).cloned();
    let is_special = secret.is_some();
    let content = secret.unwrap_or_else(|| token.content.clone());
    AddedToken::from(content, token.special)
        // Where a template writes a special token, it is one, inside of a word too.
        .single_word(token.single_word && !is_special)
        .lstrip(token.lstrip)
        .rstrip(token.rstrip)
        .normalized(normalized.unwrap_or(!token.special))
}

/// Checks that the library numbers the added tokens as the file does.
fn check_numbers(
    tokenizer: &tokenizers::Tokenizer,
    added: &[NumberedToken],
    vocabulary: &Vocabulary,
    secrets: &HashMap<TokenId, String>,
) -> Result<(), TokenizerError> {
    let added = added.iter().filter(|added| !added.token.content.is_empty());
    for NumberedToken { id, token, .. } in added {
        let special = vocabulary.special(&token.content).and_then(|id| secrets.get(&id));
        let found = tokenizer.token_to_id(special.unwrap_or(&token.content));
        let is_there = |id: TokenId| {
            vocabulary
                .get(id)
                .is_some_and(|piece| piece.text == token.content)
        };
        if !found.is_some_and(is_there) {
            let expected = found.map_or_else(|| "a token".to_owned(), |found| format!("id {found}"));
            let place = format!("added_tokens, '{}'", token.content);
            return Err(malformed(FILE, place, format!("id {id}"), expected));
        }
    }
    Ok(())
}

/// Reads how tokens spell text from the decoder.
fn spelling(decoder: &Value) -> (Spelling, LeadingSpace) {
    let (mut spelling, mut space) = (None, LeadingSpace::Kept);
    for step in steps(decoder, "decoders") {
        match kind(step) {
            "ByteLevel" => spelling = Some(Spelling::ByteLevel),
            "Metaspace" if is_metaspace(step.get("replacement")) => {
                spelling = Some(Spelling::MetaSpace);
                let never = step.get("prepend_scheme").and_then(Value::as_str) == Some("never")
                    || step.get("add_prefix_space").and_then(Value::as_bool) == Some(false);
                if !never {
                    space = LeadingSpace::OfFirstToken;
                }
            }
            "Replace"
                if is_metaspace(step.pointer("/pattern/String"))
                    && step.get("content").and_then(Value::as_str) == Some(" ") =>
            {
                spelling = Some(Spelling::MetaSpace);
            }
            "Strip"
                if step.get("content").and_then(Value::as_str) == Some(" ")
                    && step.get("start").and_then(Value::as_u64) == Some(1)
                    && step.get("stop").and_then(Value::as_u64) == Some(0) =>
            {
                space = LeadingSpace::OneDropped;
            }
            "ByteFallback" | "Fuse" => {}
            _ => return (Spelling::Library, LeadingSpace::Kept),
        }
    }
    (spelling.unwrap_or(Spelling::Library), space)
}

fn is_metaspace(value: Option<&Value>) -> bool {
    value.and_then(Value::as_str) == Some("\u{2581}")
}
