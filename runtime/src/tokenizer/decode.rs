//! Detokenizing, whole or token by token.

use std::fmt;

use super::Tokenizer;
use super::token::{LeadingSpace, Spelling, TokenId};
use super::vocabulary::{META_SPACE, PieceKind, byte_of};

/// Detokenizes incrementally, and never returns an incomplete character.
///
/// All the texts that [`push`](Self::push) and [`finish`](Self::finish) return, joined, are what
/// [`Tokenizer::decode`] returns for the same ids.
///
/// ```no_run
/// # let tokenizer = multiway_runtime::Tokenizer::from_json(&[]).unwrap();
/// let mut stream = tokenizer.decode_stream();
/// let mut text = String::new();
/// for id in tokenizer.encode_text("naïve 🦜").unwrap() {
///     text += &stream.push(id);
/// }
/// text += &stream.finish();
/// assert_eq!(text, "naïve 🦜");
/// ```
pub struct DecodeStream {
    tokenizer: Tokenizer,
    show_special: bool,
    /// Bytes of a character that is not complete yet.
    pending: Vec<u8>,
    /// Whether a space at the start of the next piece is the one that encoding put there.
    at_start: bool,
    /// Whether a space comes before what follows, since it follows an added word.
    after_word: bool,
    /// Whether there is any text.
    has_begun: bool,
    /// Whether added words are shown with spaces around them.
    spaces_words: bool,
    /// White space that is held back until something follows it.
    held: String,
    /// Whether what followed the last added word had no text.
    is_blank: bool,
    /// What the library's decoder has joined so far.
    joined: Joined,
}

/// The last tokens of a text that only the library can spell, and the length of their text.
#[derive(Default)]
struct Joined {
    tokens: Vec<String>,
    /// How many of these tokens the last text had before the newest one.
    read: usize,
    prefix: String,
}

impl fmt::Debug for DecodeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecodeStream")
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

impl DecodeStream {
    pub(crate) fn new(tokenizer: Tokenizer, show_special: bool) -> Self {
        let at_start = tokenizer.leading_space() != LeadingSpace::Kept;
        Self {
            tokenizer,
            show_special,
            pending: Vec::new(),
            at_start,
            after_word: false,
            has_begun: false,
            spaces_words: true,
            held: String::new(),
            is_blank: false,
            joined: Joined::default(),
        }
    }

    /// Spells each token by its own bytes alone, as constraints do.
    pub(crate) fn without_spaced_words(mut self) -> Self {
        self.spaces_words = false;
        self
    }

    /// Appends an id and returns the text that is complete by now; empty for a special token.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_runtime::Tokenizer;
    /// # let tokenizer = Tokenizer::byt5()?;
    /// let mut stream = tokenizer.decode_stream();
    /// let pieces: Vec<String> = tokenizer.encode_text("é!")?.into_iter().map(|id| stream.push(id)).collect();
    /// assert_eq!(pieces, ["", "é", "!"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn push(&mut self, id: TokenId) -> String {
        let mut out = String::new();
        let tokenizer = self.tokenizer.clone();
        let Some(piece) = tokenizer.vocabulary().get(id) else {
            self.flush(&mut out);
            return out;
        };
        match (piece.kind, tokenizer.spelling()) {
            (PieceKind::Byte, _) => {
                self.pending.extend(byte_of(&piece.text));
                self.drain(&mut out);
            }
            (PieceKind::Normal, Spelling::ByteLevel) => {
                self.pending.extend(piece.text.chars().filter_map(byte_level));
                self.drain(&mut out);
            }
            (kind, _) if kind.is_special() => {
                self.flush(&mut out);
                if self.show_special {
                    out.push_str(&piece.text);
                }
            }
            (PieceKind::Unused, _) => self.flush(&mut out),
            (_, Spelling::Library) => self.join(&piece.text, &mut out),
            (PieceKind::Word, _) if self.spaces_words => {
                self.flush(&mut out);
                // The text before it was stripped.
                self.held.clear();
                if self.has_begun {
                    out.push(' ');
                }
                out.push_str(&piece.text);
            }
            _ => {
                self.flush(&mut out);
                let text = self.without_leading_space(&piece.text);
                out.extend(text.chars().map(|c| if c == META_SPACE { ' ' } else { c }));
            }
        }
        if !piece.kind.is_special() && tokenizer.leading_space() == LeadingSpace::OfFirstToken {
            self.at_start = false;
        }
        self.at_start &= out.is_empty();
        if piece.kind == PieceKind::Word && self.spaces_words {
            // What follows begins as a text does, a space apart.
            (self.at_start, self.after_word) = (tokenizer.leading_space() != LeadingSpace::Kept, true);
            self.is_blank = false;
        } else if self.after_word && !piece.kind.is_special() {
            self.is_blank = out.is_empty();
            if !out.is_empty() {
                out.insert(0, ' ');
                self.after_word = false;
            }
        }
        self.has_begun |= !out.is_empty();
        if tokenizer.strips_end() && self.spaces_words && !out.is_empty() {
            out.insert_str(0, &std::mem::take(&mut self.held));
            if piece.kind != PieceKind::Word {
                self.held = out.split_off(out.trim_end().len());
            }
        }
        out
    }

    /// Ends the text; incomplete characters become U+FFFD.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_runtime::Tokenizer;
    /// # let tokenizer = Tokenizer::byt5()?;
    /// let mut stream = tokenizer.decode_stream();
    /// let first_byte = tokenizer.encode_text("é")?[0];
    /// assert_eq!(stream.push(first_byte), "");
    /// assert_eq!(stream.finish(), "\u{fffd}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn finish(mut self) -> String {
        self.take_rest()
    }

    /// Returns what [`finish`](Self::finish) would, without consuming the stream.
    pub(crate) fn take_rest(&mut self) -> String {
        let mut out = String::new();
        self.flush(&mut out);
        // `transformers` joins it all the same.
        if std::mem::take(&mut self.is_blank) {
            out.push(' ');
        }
        out
    }

    fn without_leading_space<'a>(&mut self, piece: &'a str) -> &'a str {
        if !self.at_start {
            return piece;
        }
        if matches!(
            self.tokenizer.leading_space(),
            LeadingSpace::AllDropped | LeadingSpace::OfFirstToken
        ) {
            return piece.trim_start_matches(META_SPACE);
        }
        self.at_start = false;
        piece.strip_prefix(META_SPACE).unwrap_or(piece)
    }

    /// Returns the complete characters, and U+FFFD for invalid bytes.
    fn drain(&mut self, out: &mut String) {
        let pending = std::mem::take(&mut self.pending);
        let mut chunks = pending.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.push_str(chunk.valid());
            if chunk.invalid().is_empty() {
                continue;
            }
            let last = chunks.peek().is_none();
            if last && is_incomplete(chunk.invalid()) {
                self.pending = chunk.invalid().to_vec();
            } else {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }

    /// Appends a token with the library's decoder: returns what the text of the last tokens has grown by,
    /// once it does not end in an incomplete character.
    ///
    /// Source: `tokenizers`, `step_decode_stream`.
    fn join(&mut self, token: &str, out: &mut String) {
        let tokenizer = self.tokenizer.clone();
        let Some(library) = tokenizer.library() else {
            return;
        };
        let joined = &mut self.joined;
        joined.tokens.push(token.to_owned());
        let text = library.join(joined.tokens.clone());
        if text.len() <= joined.prefix.len() || text.ends_with(char::REPLACEMENT_CHARACTER) {
            return;
        }
        out.push_str(text.strip_prefix(joined.prefix.as_str()).unwrap_or_default());
        let kept = joined.tokens.split_off(joined.read);
        joined.read = kept.len();
        joined.prefix = library.join(kept.clone());
        joined.tokens = kept;
    }

    fn flush(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            self.pending.clear();
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// What one token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenText {
    /// A special token, by its name.
    Special(String),
    /// What it adds to a text that has begun; no bytes where it adds nothing.
    Bytes(Vec<u8>),
}

impl Tokenizer {
    /// Returns the bytes that a token adds to a text; `None` for an id outside of the vocabulary.
    pub(crate) fn token_text(&self, id: TokenId) -> Option<TokenText> {
        let piece = self.vocabulary().get(id)?;
        let bytes = match (piece.kind, self.spelling()) {
            (kind, _) if kind.is_special() => return Some(TokenText::Special(piece.text.clone())),
            (PieceKind::Unused, _) | (_, Spelling::Library) => Vec::new(),
            (PieceKind::Byte, _) => byte_of(&piece.text).into_iter().collect(),
            (PieceKind::Normal, Spelling::ByteLevel) => piece.text.chars().filter_map(byte_level).collect(),
            _ => piece.text.replace(META_SPACE, " ").into_bytes(),
        };
        Some(TokenText::Bytes(bytes))
    }

    /// Returns whether a token is a byte-fallback token.
    pub(crate) fn is_byte(&self, id: TokenId) -> bool {
        let piece = self.vocabulary().get(id);
        piece.is_some_and(|piece| piece.kind == PieceKind::Byte)
    }

    /// Returns whether trailing white space is dropped, as the slow classes of `transformers` do.
    #[cfg(feature = "sentencepiece")]
    fn strips_end(&self) -> bool {
        matches!(&self.inner.backend, super::Backend::SentencePiece(slow) if slow.strips_end())
    }

    /// Returns whether trailing white space is dropped.
    #[cfg(not(feature = "sentencepiece"))]
    fn strips_end(&self) -> bool {
        false
    }

    /// Returns whether each token spells its bytes independently of its neighbours.
    pub(crate) fn spells_bytes(&self) -> bool {
        self.spelling() != Spelling::Library
    }

    /// Returns whether a leading space is dropped.
    pub(crate) fn drops_leading_space(&self) -> bool {
        self.leading_space() != LeadingSpace::Kept
    }
}

/// Returns whether these bytes are a prefix of a character.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// Finds the byte that a character of GPT-2's byte alphabet stands for.
///
/// Source: <https://github.com/openai/gpt-2>, `bytes_to_unicode` in `src/encoder.py`: printable Latin-1
/// stands for itself, and the other bytes, in order, for the characters from U+0100.
fn byte_level(c: char) -> Option<u8> {
    let code = u32::from(c);
    if matches!(code, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) {
        return u8::try_from(code).ok();
    }
    match code.checked_sub(0x100)? {
        n @ 0..=0x20 => u8::try_from(n).ok(),
        n @ 0x21..=0x42 => u8::try_from(n + 0x5e).ok(),
        0x43 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_has_each_byte_once() {
        let mut bytes: Vec<u8> = (0..0x200)
            .filter_map(char::from_u32)
            .filter_map(byte_level)
            .collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_level('\u{120}'), Some(b' '));
        assert_eq!(byte_level('\u{10a}'), Some(b'\n'));
    }
}
