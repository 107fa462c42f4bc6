//! Text to token ids and back.
//!
//! One [`Tokenizer`] serves two kinds of file: `tokenizer.json`, and SentencePiece's `.model` (feature
//! `sentencepiece`). For a unigram vocabulary both give the same ids on every text; [`sentencepiece_to_json`]
//! makes the first out of the second.
//!
//! Plain text never becomes a special token, whatever it spells: special tokens have ids, not spellings, as far
//! as [`Tokenizer::encode_text`] is concerned, and only [`PromptPart::Special`] reaches them.

mod bpe;
mod charsmap;
mod convert;
mod decode;
mod error;
mod json;
mod normalizer;
mod numbering;
mod proto;
#[cfg(feature = "sentencepiece")]
mod sentencepiece;
mod trie;
mod unigram;
mod vocabulary;

pub use convert::sentencepiece_to_json;
pub use decode::DecodeStream;
pub(crate) use decode::TokenText;
pub use error::TokenizerError;

use multiway_model::{Checkpoint, Family, LoadError, ModelConfig};
use multiway_prompts::{Prompt, PromptPart};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use vocabulary::Vocabulary;

/// Names one entry of a vocabulary.
pub type TokenId = u32;

/// The special token that closes the encoder's text.
const END_OF_TEXT: &str = "</s>";

/// Turns text into token ids and back. Cheap to clone.
///
/// ```no_run
/// let tokenizer = multiway_runtime::Tokenizer::from_json(&std::fs::read("tokenizer.json")?)?;
/// let ids = tokenizer.encode_text("a photo of </s>");
/// assert!(ids.iter().all(|id| !tokenizer.is_special(*id)));
/// assert_eq!(tokenizer.decode(&ids), "a photo of </s>");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    /// Opens the encoder's text; most models have no such token.
    start: Option<TokenId>,
    /// Closes it.
    end: Option<TokenId>,
}

struct Inner {
    backend: Backend,
    vocabulary: Vocabulary,
    spelling: Spelling,
    leading_space: LeadingSpace,
}

enum Backend {
    Unigram(unigram::Unigram),
    Bpe(Box<bpe::Bpe>),
    /// Each byte of UTF-8 is a token.
    Bytes,
    #[cfg(feature = "sentencepiece")]
    SentencePiece(::sentencepiece::SentencePieceProcessor),
}

/// How the pieces of a vocabulary spell text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// U+2581 is a space.
    MetaSpace,
    /// Each character stands for a byte, as in GPT-2.
    ByteLevel,
}

/// What becomes of the spaces that decoded text starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeadingSpace {
    Kept,
    OneDropped,
    AllDropped,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backend = match self.inner.backend {
            Backend::Unigram(_) => "unigram",
            Backend::Bpe(_) => "bpe",
            Backend::Bytes => "bytes",
            #[cfg(feature = "sentencepiece")]
            Backend::SentencePiece(_) => "sentencepiece",
        };
        let mut debug = f.debug_struct("Tokenizer");
        debug
            .field("backend", &backend)
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads a checkpoint's tokenizer: its `tokenizer.json`; else what its family has, `spiece.model`, `beit3.spm`, or ByT5's
    /// `tokenizer_config.json`; else its `tokenizer.model` where this build can.
    ///
    /// # Errors
    /// [`TokenizerError`] where there is none, a file is malformed, or it does not fit the model's `config.json`.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self, TokenizerError> {
        Self::from_files(checkpoint.name(), checkpoint.config(), |file| {
            checkpoint.file(file)
        })
    }

    fn from_files<'a>(
        checkpoint: &str,
        config: &ModelConfig,
        open: impl Fn(&str) -> Result<Option<Cow<'a, [u8]>>, LoadError>,
    ) -> Result<Self, TokenizerError> {
        let tokenizer = Self::first_of(checkpoint, config, open)?;
        if tokenizer.vocab_size() > config.vocab_size {
            let found = tokenizer.vocab_size().to_string();
            let expected = format!("at most {}", config.vocab_size);
            return Err(TokenizerError::Mismatch {
                what: "the vocabulary size",
                found,
                expected,
            });
        }
        if !tokenizer.is_special(config.eos_token_id) {
            let expected = format!("a special token with the id {}", config.eos_token_id);
            let found = format!("'{}'", tokenizer.piece(config.eos_token_id).unwrap_or_default());
            return Err(TokenizerError::Mismatch {
                what: "the end-of-text token",
                found,
                expected,
            });
        }
        if let Some(mask) = config.writing_mask().or(config.word_mask())
            && tokenizer.special(numbering::MASK) != Some(mask)
        {
            let found = tokenizer.special(numbering::MASK);
            return Err(TokenizerError::Mismatch {
                what: "the id of <mask>",
                found: found.map_or_else(|| "missing".to_owned(), |id| id.to_string()),
                expected: format!("{mask}, the mask_token_id of config.json"),
            });
        }
        tracing::debug!(checkpoint, ?tokenizer, "tokenizer loaded");
        Ok(tokenizer.for_model(config))
    }

    fn first_of<'a>(
        checkpoint: &str,
        config: &ModelConfig,
        open: impl Fn(&str) -> Result<Option<Cow<'a, [u8]>>, LoadError>,
    ) -> Result<Self, TokenizerError> {
        if let Some(bytes) = open("tokenizer.json")? {
            return Self::from_json(&bytes);
        }
        if matches!(config.family, Family::Beit3(_)) {
            return match open("beit3.spm")? {
                Some(bytes) => Self::from_xlmr_sentencepiece(&bytes),
                None => Err(TokenizerError::Missing {
                    checkpoint: checkpoint.to_owned(),
                    expected: "beit3.spm, tokenizer.json",
                }),
            };
        }
        if matches!(config.family, Family::T5(_)) {
            if let Some(bytes) = open("spiece.model")? {
                return Self::from_t5_sentencepiece(&bytes);
            }
            if let Some(bytes) = open("tokenizer_config.json")?
                && numbering::names_byt5(&bytes)
            {
                return Self::byt5();
            }
        }
        #[cfg(feature = "sentencepiece")]
        for name in ["tokenizer.model", "sentencepiece.model", "spiece.model"] {
            if let Some(bytes) = open(name)? {
                return Self::from_sentencepiece(&bytes);
            }
        }
        let expected = if matches!(config.family, Family::T5(_)) {
            "tokenizer.json, spiece.model, or a tokenizer_config.json that names ByT5Tokenizer"
        } else if cfg!(feature = "sentencepiece") {
            "tokenizer.json, tokenizer.model, sentencepiece.model, spiece.model"
        } else {
            "tokenizer.json (SentencePiece models need the feature 'sentencepiece')"
        };
        Err(TokenizerError::Missing {
            checkpoint: checkpoint.to_owned(),
            expected,
        })
    }

    /// Reads the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError`] where it is malformed, or neither SentencePiece's unigram pipeline nor a byte-pair encoding.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let raw = json::RawTokenizer::parse(bytes)?;
        match raw.model_type() {
            "Unigram" => {
                let (vocabulary, unigram) = json::unigram(&raw)?;
                let space = unigram.leading_space();
                Ok(Self::new(
                    Backend::Unigram(unigram),
                    vocabulary,
                    Spelling::MetaSpace,
                    space,
                ))
            }
            "BPE" => {
                let (vocabulary, spelling, space) = bpe::vocabulary(&raw)?;
                let bpe = Box::new(bpe::Bpe::new(bytes, &vocabulary)?);
                Ok(Self::new(Backend::Bpe(bpe), vocabulary, spelling, space))
            }
            found => Err(json::unsupported(format!("a {found} model"))),
        }
    }

    /// Reads the bytes of a SentencePiece model (`.model`, `.spm`), to be run by the SentencePiece library.
    ///
    /// # Errors
    /// [`TokenizerError`] where the file is malformed or uses white space in a way that is not supported.
    #[cfg(feature = "sentencepiece")]
    pub fn from_sentencepiece(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let model = proto::SentencePieceModel::parse(bytes)?;
        let processor = sentencepiece::open(bytes, &model)?;
        let space = leading_space(model.remove_extra_whitespaces, model.add_dummy_prefix);
        Ok(Self::new(
            Backend::SentencePiece(processor),
            model.vocabulary,
            Spelling::MetaSpace,
            space,
        ))
    }

    fn new(
        backend: Backend,
        vocabulary: Vocabulary,
        spelling: Spelling,
        leading_space: LeadingSpace,
    ) -> Self {
        let end = vocabulary.special(END_OF_TEXT);
        Self {
            inner: Arc::new(Inner {
                backend,
                vocabulary,
                spelling,
                leading_space,
            }),
            start: None,
            end,
        }
    }

    /// Begins and ends prompts as a model wants it.
    pub(crate) fn for_model(mut self, config: &ModelConfig) -> Self {
        self.start = config.text_start();
        self.end = Some(config.eos_token_id);
        self
    }

    fn vocabulary(&self) -> &Vocabulary {
        &self.inner.vocabulary
    }

    fn spelling(&self) -> Spelling {
        self.inner.spelling
    }

    fn leading_space(&self) -> LeadingSpace {
        self.inner.leading_space
    }

    /// Cuts plain text into ids: never a special token, whatever the text says.
    ///
    /// The one exception is `<unk>`, in vocabularies without byte pieces, for characters that they do not know.
    #[must_use]
    pub fn encode_text(&self, text: &str) -> Vec<TokenId> {
        let vocabulary = &self.inner.vocabulary;
        match &self.inner.backend {
            Backend::Unigram(unigram) => unigram.encode(vocabulary, text),
            Backend::Bpe(bpe) => bpe.encode(vocabulary, text),
            Backend::Bytes => {
                let mut ids = Vec::with_capacity(text.len());
                vocabulary.push_unknown(text.as_bytes(), false, &mut ids);
                ids
            }
            #[cfg(feature = "sentencepiece")]
            Backend::SentencePiece(processor) => sentencepiece::encode(processor, vocabulary, text),
        }
    }

    /// Turns a prompt into what the encoder reads: the ids of its parts, then `</s>`, once. Where the model opens a text
    /// with a token of its own, that comes first, and a prompt without text has no ids.
    ///
    /// Texts with only pictures between them are joined and cut as one, so that a picture leaves no trace in the
    /// text. A special token does part the texts around it: each is cut on its own, so its first word gets the space
    /// in front that a first word gets and spaces at its ends vanish, as T5 does around its sentinels.
    ///
    /// # Errors
    /// [`TokenizerError::UnknownSpecial`] where a part names a special token that the vocabulary does not have.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<TokenId>, TokenizerError> {
        let mut ids = Vec::new();
        let mut text = String::new();
        for part in &prompt.parts {
            match part {
                PromptPart::Text(part) => text.push_str(part),
                PromptPart::Image(_) => {}
                PromptPart::Special(name) => {
                    let id = self.require_special(name)?;
                    ids.append(&mut self.encode_text(&text));
                    text.clear();
                    ids.push(id);
                }
            }
        }
        ids.append(&mut self.encode_text(&text));
        if let Some(start) = self.start {
            if ids.is_empty() {
                return Ok(ids);
            }
            ids.insert(0, start);
        }
        ids.push(self.end.map_or_else(|| self.require_special(END_OF_TEXT), Ok)?);
        Ok(ids)
    }

    /// Finds the id of a special token by its name. Where a vocabulary has one `<mask>` for all gaps, every `<extra_id_N>`
    /// is that.
    #[must_use]
    pub fn special(&self, name: &str) -> Option<TokenId> {
        let vocabulary = &self.inner.vocabulary;
        let is_gap = name.starts_with("<extra_id_") && multiway_prompts::is_special_form(name);
        let mask = || is_gap.then(|| vocabulary.special(numbering::MASK)).flatten();
        vocabulary.special(name).or_else(mask)
    }

    /// Finds the id of a special token that must exist.
    ///
    /// # Errors
    /// [`TokenizerError::UnknownSpecial`], naming some that do.
    pub fn require_special(&self, name: &str) -> Result<TokenId, TokenizerError> {
        self.special(name).ok_or_else(|| {
            let mut known: Vec<(&String, &TokenId)> = self.inner.vocabulary.specials().iter().collect();
            known.sort_by_key(|(_, id)| **id);
            let count = known.len();
            let mut names: Vec<&str> = known.iter().take(6).map(|(name, _)| name.as_str()).collect();
            if count > names.len() {
                names.push("...");
            }
            TokenizerError::UnknownSpecial {
                token: name.to_owned(),
                known: names.join(", "),
            }
        })
    }

    /// Tells whether an id is a special token.
    #[must_use]
    pub fn is_special(&self, id: TokenId) -> bool {
        self.inner
            .vocabulary
            .get(id)
            .is_some_and(|piece| piece.kind.is_special())
    }

    /// Turns ids into text. Special tokens and ids outside the vocabulary leave nothing.
    #[must_use]
    pub fn decode(&self, ids: &[TokenId]) -> String {
        self.join(self.decode_stream(), ids)
    }

    /// Turns ids into text in which special tokens are shown by their names.
    #[must_use]
    pub fn decode_with_special(&self, ids: &[TokenId]) -> String {
        self.join(self.decode_stream_with_special(), ids)
    }

    fn join(&self, mut stream: DecodeStream, ids: &[TokenId]) -> String {
        let mut text: String = ids.iter().map(|id| stream.push(*id)).collect();
        text.push_str(&stream.finish());
        text
    }

    /// Starts decoding token by token; special tokens are left out.
    #[must_use]
    pub fn decode_stream(&self) -> DecodeStream {
        DecodeStream::new(self.clone(), false)
    }

    /// Starts decoding token by token; special tokens are shown by their names.
    #[must_use]
    pub fn decode_stream_with_special(&self) -> DecodeStream {
        DecodeStream::new(self.clone(), true)
    }

    /// Shows how the vocabulary spells an id, U+2581 standing for a space.
    #[must_use]
    pub fn piece(&self, id: TokenId) -> Option<&str> {
        self.inner.vocabulary.get(id).map(|piece| piece.text.as_str())
    }

    /// Counts the ids.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.vocabulary.len()
    }
}

fn leading_space(remove_extra_whitespaces: bool, add_dummy_prefix: bool) -> LeadingSpace {
    match (remove_extra_whitespaces, add_dummy_prefix) {
        (true, _) => LeadingSpace::AllDropped,
        (false, true) => LeadingSpace::OneDropped,
        (false, false) => LeadingSpace::Kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use multiway_model::testing::tiny_config;

    const MODEL: &[u8] = include_bytes!("../../tests/fixtures/tokenizer.model");

    fn read(config: &ModelConfig, files: &[(&str, &[u8])]) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::from_files("test", config, |name| {
            Ok(files
                .iter()
                .find(|(file, _)| *file == name)
                .map(|(_, bytes)| Cow::Borrowed(*bytes)))
        })
    }

    fn config() -> ModelConfig {
        let mut config = tiny_config();
        config.vocab_size = 5400;
        config
    }

    #[test]
    fn a_tokenizer_that_does_not_fit_its_model_is_refused() {
        let json = sentencepiece_to_json(MODEL).unwrap();
        let files: &[(&str, &[u8])] = &[("tokenizer.json", &json), ("tokenizer.model", b"never looked at")];
        let mut config = config();
        assert!(read(&config, files).is_ok());
        config.eos_token_id = 300;
        insta::assert_snapshot!(read(&config, files).unwrap_err(), @"tokenizer and config.json disagree: the end-of-text token is 'é' in the tokenizer, expected a special token with the id 300");
        config.vocab_size = 120;
        insta::assert_snapshot!(read(&config, files).unwrap_err(), @"tokenizer and config.json disagree: the vocabulary size is 5400 in the tokenizer, expected at most 120");
    }

    #[cfg(feature = "sentencepiece")]
    #[test]
    fn a_sentencepiece_model_serves_where_there_is_no_json() {
        let tokenizer = read(&config(), &[("spiece.model", MODEL)]).unwrap();
        assert_eq!(tokenizer.vocab_size(), 5400);
        insta::assert_snapshot!(read(&config(), &[]).unwrap_err(), @"checkpoint 'test' has no tokenizer: expected one of tokenizer.json, tokenizer.model, sentencepiece.model, spiece.model");
    }

    #[test]
    fn the_end_of_a_prompt_is_what_the_model_says() {
        let json = sentencepiece_to_json(MODEL).unwrap();
        let mut config = config();
        config.eos_token_id = 2;
        let tokenizer = read(&config, &[("tokenizer.json", &json)]).unwrap();
        assert_eq!(tokenizer.encode_prompt(&Prompt::default()).unwrap(), [2]);
    }
}
