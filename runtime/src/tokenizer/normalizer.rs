//! Normalising text as SentencePiece does, to the byte.
//!
//! Source: <https://github.com/google/sentencepiece>, `Normalizer::Normalize` in `src/normalizer.cc`.

use super::charsmap::CharsMap;
use super::trie::Trie;
use super::vocabulary::META_SPACE;

/// Brings text into the form that the pieces of a vocabulary are cut from.
#[derive(Debug)]
pub(crate) struct Normalizer {
    pub(crate) charsmap: CharsMap,
    /// User-defined pieces, which are left as they are.
    pub(crate) verbatim: Trie,
    pub(crate) add_dummy_prefix: bool,
    pub(crate) remove_extra_whitespaces: bool,
}

impl Normalizer {
    /// Maps characters, writes spaces as U+2581, and trims them where the model says so.
    pub(crate) fn normalize(&self, text: &str) -> String {
        let mut rest = text;
        if self.remove_extra_whitespaces {
            while let (" ", length) = self.prefix(rest) {
                rest = rest.get(length..).unwrap_or_default();
            }
        }
        let mut out = String::with_capacity(rest.len() + rest.len() / 2);
        if rest.is_empty() {
            return out;
        }
        if self.add_dummy_prefix {
            out.push(META_SPACE);
        }
        let mut after_space = self.remove_extra_whitespaces;
        while !rest.is_empty() {
            let (form, length) = self.prefix(rest);
            let form = if after_space {
                form.trim_start_matches(' ')
            } else {
                form
            };
            out.extend(form.chars().map(|c| if c == ' ' { META_SPACE } else { c }));
            if !form.is_empty() {
                after_space = form.ends_with(' ');
            }
            after_space &= self.remove_extra_whitespaces;
            rest = rest.get(length..).unwrap_or_default();
        }
        if self.remove_extra_whitespaces {
            out.truncate(out.trim_end_matches(META_SPACE).len());
        }
        out
    }

    /// Returns the normal form of the start of `text`, and the length of that start in bytes.
    fn prefix<'a>(&'a self, text: &'a str) -> (&'a str, usize) {
        if let Some(verbatim) = self
            .verbatim
            .longest(text.as_bytes())
            .and_then(|length| text.get(..length))
        {
            return (verbatim, verbatim.len());
        }
        if let Some((length, form)) = self.charsmap.longest(text) {
            return (form, length);
        }
        let first = text.chars().next().map_or(0, char::len_utf8);
        (text.get(..first).unwrap_or_default(), first)
    }
}
