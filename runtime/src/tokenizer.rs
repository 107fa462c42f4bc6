//! Text to token ids and back.
//!
//! Each kind of file is run by the library that defines it: `tokenizer.json` by `tokenizers`, SentencePiece's
//! `.model` and `.spm` by `sentencepiece` (feature `sentencepiece`) with the tokens that the slow classes of
//! `transformers` add. [`sentencepiece_to_json`] converts the second into the first.
//!
//! Plain text never becomes a special token, whatever it spells: special tokens have ids, not spellings, as
//! far as [`Tokenizer::encode_text`] is concerned, and only [`PromptPart::Special`] reaches them. Tokens that
//! were added and are not special are matched in text.

mod byt5;
mod charsmap;
mod convert;
mod decode;
mod error;
mod files;
mod json;
mod proto;
#[cfg(feature = "sentencepiece")]
mod slow;
mod token;
mod vocabulary;
mod words;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use multiway_model::{Checkpoint, LoadError, ModelConfig, TokenizerKind};
use multiway_prompts::{Prompt, PromptPart};

pub use convert::sentencepiece_to_json;
pub use decode::DecodeStream;
pub(crate) use decode::TokenText;
pub use error::TokenizerError;
use files::{SlowFiles, SlowSettings};
use json::LibraryTokenizer;
pub(crate) use token::MASK;
use token::{LeadingSpace, Spelling};
pub use token::{TokenId, TokenWord};
use vocabulary::Vocabulary;

/// The EOS token of the encoder's text.
const END_OF_TEXT: &str = "</s>";

/// Turns text into token ids and back. Cheap to clone.
///
/// ```no_run
/// let tokenizer = multiway_runtime::Tokenizer::from_json(&std::fs::read("tokenizer.json")?)?;
/// let ids = tokenizer.encode_text("a photo of </s>")?;
/// assert!(ids.iter().all(|id| !tokenizer.is_special(*id)));
/// assert_eq!(tokenizer.decode(&ids), "a photo of </s>");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    /// The BOS token of the encoder's text; most models have none.
    start: Option<TokenId>,
    /// Its EOS token.
    end: Option<TokenId>,
}

struct Inner {
    backend: Backend,
    vocabulary: Vocabulary,
    spelling: Spelling,
    leading_space: LeadingSpace,
}

enum Backend {
    Library(Box<LibraryTokenizer>),
    /// Each byte of UTF-8 is a token.
    Bytes(byt5::ByteTokenizer),
    #[cfg(feature = "sentencepiece")]
    SentencePiece(Box<slow::SlowTokenizer>),
}

/// Whose tokens are added to a SentencePiece model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlowKind {
    Plain,
    T5,
    XlmRoberta,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backend = match self.inner.backend {
            Backend::Library(_) => "tokenizers",
            Backend::Bytes(_) => "bytes",
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
    /// Reads a checkpoint's tokenizer: its `tokenizer.json`; else what its family has, `spiece.model`,
    /// `beit3.spm`, or ByT5's `tokenizer_config.json`; else its `tokenizer.model`. SentencePiece models need
    /// the feature `sentencepiece`; with them, `tokenizer_config.json`, `added_tokens.json` and
    /// `special_tokens_map.json` say which tokens were added.
    ///
    /// # Errors
    /// [`TokenizerError`] where there is none, a file is malformed, or it does not fit the model's
    /// `config.json`.
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
            && tokenizer.special(MASK) != Some(mask)
        {
            let found = tokenizer.special(MASK);
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
        let (kind, models, expected): (_, &[&str], _) = match config.tokenizer {
            TokenizerKind::XlmRoberta => (SlowKind::XlmRoberta, &["beit3.spm"], "beit3.spm, tokenizer.json"),
            TokenizerKind::T5 => (
                SlowKind::T5,
                &["spiece.model"],
                "tokenizer.json, spiece.model, or a tokenizer_config.json that names ByT5Tokenizer",
            ),
            _ => (
                SlowKind::Plain,
                &["tokenizer.model", "sentencepiece.model", "spiece.model"],
                "tokenizer.json, tokenizer.model, sentencepiece.model, spiece.model",
            ),
        };
        let settings = SlowFiles {
            config: open(files::CONFIG)?,
            added: open(files::ADDED)?,
            special: open(files::SPECIAL)?,
        };
        for name in models {
            if let Some(bytes) = open(name)? {
                return Self::from_model(name, &bytes, kind, &settings.read()?);
            }
        }
        if config.tokenizer == TokenizerKind::T5 {
            let settings = settings.read()?;
            if settings.class.as_deref() == Some("ByT5Tokenizer") {
                return Self::byt5_with(&settings);
            }
        }
        Err(TokenizerError::Missing {
            checkpoint: checkpoint.to_owned(),
            expected,
        })
    }

    /// Reads the tokenizer of a folder that need not hold a model: its `tokenizer.json`; else `spiece.model`,
    /// as T5 reads it, `beit3.spm` or `sentencepiece.bpe.model`, as XLM-R does, or `tokenizer.model`; else
    /// ByT5's `tokenizer_config.json`. Prompts are closed with `</s>` where the file says nothing else.
    ///
    /// # Errors
    /// [`TokenizerError`] where there is none, or a file is malformed.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let folder = folder.as_ref();
        let open = |name: &str| match std::fs::read(folder.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TokenizerError::File {
                path: folder.join(name),
                source,
            }),
        };
        if let Some(bytes) = open("tokenizer.json")? {
            return Self::from_json(&bytes);
        }
        let files = SlowFiles {
            config: open(files::CONFIG)?,
            added: open(files::ADDED)?,
            special: open(files::SPECIAL)?,
        };
        let settings = files.read()?;
        let models = [
            ("spiece.model", SlowKind::T5),
            ("beit3.spm", SlowKind::XlmRoberta),
            ("sentencepiece.bpe.model", SlowKind::XlmRoberta),
            ("tokenizer.model", SlowKind::Plain),
        ];
        for (name, kind) in models {
            if let Some(bytes) = open(name)? {
                return Self::from_model(name, &bytes, kind, &settings);
            }
        }
        if settings.class.as_deref() == Some("ByT5Tokenizer") {
            return Self::byt5_with(&settings);
        }
        Err(TokenizerError::Missing {
            checkpoint: folder.display().to_string(),
            expected: "tokenizer.json, spiece.model, beit3.spm, tokenizer.model",
        })
    }

    #[cfg(feature = "sentencepiece")]
    fn from_model(
        _name: &str,
        bytes: &[u8],
        kind: SlowKind,
        settings: &SlowSettings,
    ) -> Result<Self, TokenizerError> {
        Ok(Self::from_slow(match kind {
            SlowKind::XlmRoberta => slow::SlowTokenizer::xlm_roberta(bytes, settings)?,
            SlowKind::T5 => slow::SlowTokenizer::t5(bytes, settings)?,
            SlowKind::Plain => slow::SlowTokenizer::plain(bytes)?,
        }))
    }

    #[cfg(not(feature = "sentencepiece"))]
    fn from_model(
        name: &str,
        _bytes: &[u8],
        _kind: SlowKind,
        _settings: &SlowSettings,
    ) -> Result<Self, TokenizerError> {
        Err(TokenizerError::NeedsFeature {
            file: name.to_owned(),
        })
    }

    /// Reads the bytes of a `tokenizer.json`, to be run by the `tokenizers` library.
    ///
    /// # Errors
    /// [`TokenizerError`] where it is malformed.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let parsed = json::parse(bytes)?;
        let backend = Backend::Library(Box::new(parsed.library));
        Ok(Self::new(
            backend,
            parsed.vocabulary,
            parsed.spelling,
            parsed.leading_space,
        ))
    }

    /// Makes the tokenizer of ByT5: `<pad>`, `</s>`, `<unk>`, the 256 bytes, and `<extra_id_0>` to
    /// `<extra_id_124>`.
    ///
    /// Source: `transformers`, `ByT5Tokenizer`.
    ///
    /// # Errors
    /// None in practice: the table is checked like any other.
    ///
    /// # Examples
    ///
    /// ```
    /// let tokenizer = multiway_runtime::Tokenizer::byt5()?;
    /// assert_eq!(tokenizer.encode_text("abc")?, [100, 101, 102]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn byt5() -> Result<Self, TokenizerError> {
        Self::byt5_with(&SlowSettings::default())
    }

    fn byt5_with(settings: &SlowSettings) -> Result<Self, TokenizerError> {
        let (tokenizer, vocabulary) = byt5::ByteTokenizer::new(settings)?;
        let backend = Backend::Bytes(tokenizer);
        Ok(Self::new(
            backend,
            vocabulary,
            Spelling::MetaSpace,
            LeadingSpace::Kept,
        ))
    }

    /// Reads the bytes of a SentencePiece model (`.model`, `.spm`), to be run by the SentencePiece library.
    ///
    /// # Errors
    /// [`TokenizerError`] where the file is malformed or uses white space in a way that is not supported.
    #[cfg(feature = "sentencepiece")]
    pub fn from_sentencepiece(bytes: &[u8]) -> Result<Self, TokenizerError> {
        slow::SlowTokenizer::plain(bytes).map(Self::from_slow)
    }

    /// Reads the bytes of a SentencePiece model for T5: where the file has no `<extra_id_N>`, as T5's own,
    /// the last hundred ids are these, counted down; where it has them, as mT5's, they are special tokens.
    ///
    /// # Errors
    /// [`TokenizerError`] where the file is malformed.
    #[cfg(feature = "sentencepiece")]
    pub fn from_t5_sentencepiece(bytes: &[u8]) -> Result<Self, TokenizerError> {
        slow::SlowTokenizer::t5(bytes, &SlowSettings::default()).map(Self::from_slow)
    }

    /// Reads the bytes of a SentencePiece model whose pieces are numbered as XLM-R numbers them.
    ///
    /// # Errors
    /// [`TokenizerError`] where the file is malformed, or does not begin with `<unk>`, `<s>` and `</s>`.
    #[cfg(feature = "sentencepiece")]
    pub fn from_xlmr_sentencepiece(bytes: &[u8]) -> Result<Self, TokenizerError> {
        slow::SlowTokenizer::xlm_roberta(bytes, &SlowSettings::default()).map(Self::from_slow)
    }

    #[cfg(feature = "sentencepiece")]
    fn from_slow((tokenizer, vocabulary, space): slow::Opened) -> Self {
        let backend = Backend::SentencePiece(Box::new(tokenizer));
        Self::new(backend, vocabulary, Spelling::MetaSpace, space)
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

    fn library(&self) -> Option<&LibraryTokenizer> {
        match &self.inner.backend {
            Backend::Library(library) => Some(library),
            _ => None,
        }
    }

    /// Tokenizes plain text: never a special token, whatever the text says. Added tokens that are not special
    /// are matched.
    ///
    /// The one exception is `<unk>`, in vocabularies without byte pieces, for characters that they do not
    /// know.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] where the library that runs the file fails.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_runtime::Tokenizer;
    /// # let tokenizer = Tokenizer::byt5()?;
    /// let ids = tokenizer.encode_text("</s>")?;
    /// assert!(ids.iter().all(|id| !tokenizer.is_special(*id)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn encode_text(&self, text: &str) -> Result<Vec<TokenId>, TokenizerError> {
        self.checked(match &self.inner.backend {
            Backend::Library(library) => library.encode_text(text)?,
            Backend::Bytes(bytes) => bytes.encode_text(text),
            #[cfg(feature = "sentencepiece")]
            Backend::SentencePiece(slow) => slow.encode_text(text)?,
        })
    }

    /// Checks that text produced no special token.
    fn checked(&self, ids: Vec<TokenId>) -> Result<Vec<TokenId>, TokenizerError> {
        match ids
            .iter()
            .find(|id| self.is_special(**id) && Some(**id) != self.unknown())
        {
            None => Ok(ids),
            Some(id) => Err(TokenizerError::Encode {
                problem: format!(
                    "the text became the special token '{}'",
                    self.piece(*id).unwrap_or_default()
                ),
            }),
        }
    }

    fn unknown(&self) -> Option<TokenId> {
        match &self.inner.backend {
            Backend::Library(library) => library.unknown(),
            Backend::Bytes(_) => None,
            #[cfg(feature = "sentencepiece")]
            Backend::SentencePiece(slow) => Some(slow.unknown()),
        }
    }

    /// Tokenizes a prompt for the encoder: the ids of its parts, with BOS and EOS as the post-processor of
    /// `tokenizer.json` says. Without one, `</s>` is appended, and the model's BOS token prepended if it has
    /// one; then a prompt without text has no ids.
    ///
    /// Texts with only pictures between them are joined and tokenized as one, so that a picture leaves no
    /// trace in the text. The file decides about spaces beside a special token.
    ///
    /// # Errors
    /// [`TokenizerError::UnknownSpecial`] where a part names a special token that the vocabulary does not
    /// have, and [`TokenizerError::Encode`] where the library that runs the file fails.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_runtime::Tokenizer;
    /// # let tokenizer = Tokenizer::byt5()?;
    /// use multiway_prompts::Prompt;
    ///
    /// let ids = tokenizer.encode_prompt(&Prompt::from_text("a"))?;
    /// assert_eq!(ids, [100, 1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<TokenId>, TokenizerError> {
        tracing::debug!(parts = prompt.parts.len(), "tokenizing a prompt");
        let is_empty = !prompt.parts.iter().any(|part| match part {
            PromptPart::Text(text) => !text.is_empty(),
            PromptPart::Special(_) => true,
            PromptPart::Image(_) => false,
        });
        if is_empty && self.start.is_some() {
            return Ok(Vec::new());
        }
        let mut ids = match &self.inner.backend {
            Backend::Library(library) => {
                let text = self.secret_text(library, prompt)?;
                let ids = library.encode(&text, library.closes_texts())?;
                if library.closes_texts() {
                    return Ok(ids);
                }
                ids
            }
            Backend::Bytes(bytes) => {
                let mut ids = Vec::new();
                for part in &prompt.parts {
                    match part {
                        PromptPart::Text(text) => ids.append(&mut bytes.encode_text(text)),
                        PromptPart::Special(name) => ids.push(self.require_special(name)?),
                        PromptPart::Image(_) => {}
                    }
                }
                ids
            }
            #[cfg(feature = "sentencepiece")]
            Backend::SentencePiece(slow) => {
                let mut parts = Vec::with_capacity(prompt.parts.len());
                for part in &prompt.parts {
                    match part {
                        PromptPart::Text(text) => parts.push(slow::SlowPart::Text(text)),
                        PromptPart::Special(name) => {
                            parts.push(slow::SlowPart::Special(self.require_special(name)?));
                        }
                        PromptPart::Image(_) => {}
                    }
                }
                slow.encode_parts(&parts)?
            }
        };
        if let Some(start) = self.start {
            if ids.is_empty() {
                return Ok(ids);
            }
            ids.insert(0, start);
        }
        let end = self.end.map_or_else(|| self.require_special(END_OF_TEXT), Ok)?;
        if ids.last() != Some(&end) {
            ids.push(end);
        }
        Ok(ids)
    }

    /// Writes a prompt as one text, with special tokens spelled as the library knows them.
    fn secret_text(&self, library: &LibraryTokenizer, prompt: &Prompt) -> Result<String, TokenizerError> {
        let mut text = String::new();
        for part in &prompt.parts {
            match part {
                PromptPart::Text(part) => text.push_str(part),
                PromptPart::Image(_) => {}
                PromptPart::Special(name) => {
                    let id = self.require_special(name)?;
                    text.push_str(library.secret(id).unwrap_or_default());
                }
            }
        }
        Ok(text)
    }

    /// Lists the names of the special tokens, in the order of their ids.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_runtime::Tokenizer;
    /// # let tokenizer = Tokenizer::byt5()?;
    /// assert!(tokenizer.special_names().contains(&"</s>"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn special_names(&self) -> Vec<&str> {
        let mut named: Vec<(&String, &TokenId)> = self.inner.vocabulary.specials().iter().collect();
        named.sort_by_key(|(_, id)| **id);
        named.into_iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Returns the id of a special token by its name. In a vocabulary with one `<mask>` for all gaps, every
    /// `<extra_id_N>` is that.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_runtime::Tokenizer;
    /// # let tokenizer = Tokenizer::byt5()?;
    /// assert_eq!(tokenizer.special("</s>"), Some(1));
    /// assert_eq!(tokenizer.special("cat"), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn special(&self, name: &str) -> Option<TokenId> {
        let vocabulary = &self.inner.vocabulary;
        let is_gap = name.starts_with("<extra_id_") && multiway_prompts::is_special_form(name);
        let mask = || is_gap.then(|| vocabulary.special(MASK)).flatten();
        vocabulary.special(name).or_else(mask)
    }

    /// Returns the id of a special token that must exist.
    ///
    /// # Errors
    /// [`TokenizerError::UnknownSpecial`], naming some that do.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_runtime::Tokenizer;
    /// # let tokenizer = Tokenizer::byt5()?;
    /// let error = tokenizer.require_special("<cat>").unwrap_err();
    /// assert!(error.to_string().starts_with("unknown special token '<cat>'"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn require_special(&self, name: &str) -> Result<TokenId, TokenizerError> {
        self.special(name).ok_or_else(|| {
            let mut names = self.special_names();
            if names.len() > 6 {
                names.truncate(6);
                names.push("...");
            }
            TokenizerError::UnknownSpecial {
                token: name.to_owned(),
                known: names.join(", "),
            }
        })
    }

    /// Encodes the forced first tokens of a decoder: special tokens by name, and texts.
    ///
    /// # Errors
    /// [`TokenizerError::UnknownSpecial`] where an entry has the form of a special token that does not exist.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_runtime::Tokenizer;
    /// # let tokenizer = Tokenizer::byt5()?;
    /// let ids = tokenizer.encode_prefix(&["<extra_id_0>".to_owned(), "a".to_owned()])?;
    /// assert_eq!(ids.first(), Some(&tokenizer.require_special("<extra_id_0>")?));
    /// assert_eq!(ids.get(1..), Some(&tokenizer.encode_text("a")?[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn encode_prefix(&self, entries: &[String]) -> Result<Vec<TokenId>, TokenizerError> {
        let mut ids = Vec::with_capacity(entries.len());
        for entry in entries {
            if multiway_prompts::is_special_form(entry) || self.special(entry).is_some() {
                ids.push(self.require_special(entry)?);
            } else {
                ids.append(&mut self.encode_text(entry)?);
            }
        }
        Ok(ids)
    }

    /// Returns whether an id is a special token.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_runtime::Tokenizer;
    /// # let tokenizer = Tokenizer::byt5()?;
    /// assert!(tokenizer.is_special(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_special(&self, id: TokenId) -> bool {
        self.inner
            .vocabulary
            .get(id)
            .is_some_and(|piece| piece.kind.is_special())
    }

    /// Detokenizes ids. Special tokens and ids outside the vocabulary are skipped.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_runtime::Tokenizer;
    /// # let tokenizer = Tokenizer::byt5()?;
    /// assert_eq!(tokenizer.decode(&[100, 101, 1]), "ab");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn decode(&self, ids: &[TokenId]) -> String {
        self.join(self.decode_stream(), ids)
    }

    /// Detokenizes ids, with special tokens by their names.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_runtime::Tokenizer;
    /// # let tokenizer = Tokenizer::byt5()?;
    /// assert!(tokenizer.decode_with_special(&[100, 101, 1]).ends_with("</s>"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn decode_with_special(&self, ids: &[TokenId]) -> String {
        self.join(self.decode_stream_with_special(), ids)
    }

    /// Detokenizes ids as in a constrained answer.
    pub(crate) fn decode_without_spaced_words(&self, ids: &[TokenId]) -> String {
        self.join(self.decode_stream().without_spaced_words(), ids)
    }

    fn join(&self, mut stream: DecodeStream, ids: &[TokenId]) -> String {
        let mut text: String = ids.iter().map(|id| stream.push(*id)).collect();
        text.push_str(&stream.finish());
        text
    }

    /// Starts detokenizing incrementally, without special tokens.
    #[must_use]
    pub fn decode_stream(&self) -> DecodeStream {
        DecodeStream::new(self.clone(), false)
    }

    /// Starts detokenizing incrementally, with special tokens by their names.
    #[must_use]
    pub fn decode_stream_with_special(&self) -> DecodeStream {
        DecodeStream::new(self.clone(), true)
    }

    /// Returns the vocabulary's piece of an id, with U+2581 for a space.
    #[must_use]
    pub fn piece(&self, id: TokenId) -> Option<&str> {
        self.inner.vocabulary.get(id).map(|piece| piece.text.as_str())
    }

    /// Returns the size of the vocabulary.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_runtime::Tokenizer;
    /// # let tokenizer = Tokenizer::byt5()?;
    /// assert_eq!(tokenizer.vocab_size(), 384);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.vocabulary.len()
    }
}

#[cfg(test)]
mod tests {
    use multiway_model::testing::tiny_config;

    use super::*;

    const MODEL: &[u8] = include_bytes!("../tests/fixtures/tokenizer.model");

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
        // The file closes prompts itself.
        assert_eq!(tokenizer.encode_prompt(&Prompt::default()).unwrap(), [1]);
        let mut open: serde_json::Value = serde_json::from_slice(&json).unwrap();
        open["post_processor"] = serde_json::Value::Null;
        let tokenizer = read(&config, &[("tokenizer.json", open.to_string().as_bytes())]).unwrap();
        assert_eq!(tokenizer.encode_prompt(&Prompt::default()).unwrap(), [2]);
    }
}
