//! Text as Python's `str` sees it: white space, digits, letters and numbers.
//!
//! The reference implementations of most metrics are Python programs, and a metric equals its reference only
//! if both split a text at the same characters. The crate `regex-syntax` brings the Unicode tables.

use std::sync::LazyLock;

/// Marks the characters of a Unicode class, as sorted ranges.
struct CharClass(Vec<(char, char)>);

impl CharClass {
    /// Reads a class of regular expressions, `[\p{L}\p{N}]`.
    fn parse(pattern: &str) -> Self {
        let ranges = match regex_syntax::parse(pattern).map(regex_syntax::hir::Hir::into_kind) {
            Ok(regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class))) => {
                class.iter().map(|range| (range.start(), range.end())).collect()
            }
            other => unreachable!("{pattern} is a class of Unicode characters, found {other:?}"),
        };
        Self(ranges)
    }

    /// Returns the range that holds a character.
    fn range_of(&self, character: char) -> Option<(char, char)> {
        let after = self.0.partition_point(|(start, _)| *start <= character);
        let range = *self.0.get(after.checked_sub(1)?)?;
        (character <= range.1).then_some(range)
    }
}

static DIGITS: LazyLock<CharClass> = LazyLock::new(|| CharClass::parse(r"\p{Nd}"));
static WORDS: LazyLock<CharClass> = LazyLock::new(|| CharClass::parse(r"[\p{L}\p{N}_]"));

/// Returns whether `str.isspace` holds: Unicode white space and the four ASCII separators.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Splits as `str.split()` does.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// Trims as `str.strip()` does.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Joins the words of a text with single spaces.
pub(super) fn join_words(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    for word in split(text) {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(word);
    }
    joined
}

/// Returns whether `\d` of a regular expression over `str` matches.
pub(super) fn is_digit(character: char) -> bool {
    character.is_ascii_digit() || (!character.is_ascii() && DIGITS.range_of(character).is_some())
}

/// Returns whether `\w` of a regular expression over `str` matches.
pub(super) fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || character == '_'
        || (!character.is_ascii() && WORDS.range_of(character).is_some())
}

/// Reads a number as `float()` does: digits of any script, `_` between digits, white space around.
pub(super) fn float(text: &str) -> Option<f64> {
    let mut ascii = String::with_capacity(text.len());
    let mut characters = strip(text).chars().peekable();
    while let Some(character) = characters.next() {
        if character == '_' {
            let between = ascii.ends_with(|before: char| before.is_ascii_digit())
                && characters.peek().is_some_and(|after| is_digit(*after));
            if !between {
                return None;
            }
        } else {
            ascii.push(ascii_digit(character).unwrap_or(character));
        }
    }
    ascii.parse().ok()
}

/// Returns the ASCII digit of the same value. Every range of decimal digits starts at a zero.
fn ascii_digit(character: char) -> Option<char> {
    let (start, _) = DIGITS.range_of(character)?;
    char::from_digit((u32::from(character) - u32::from(start)) % 10, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_python_reads_them() {
        assert_eq!(float(" 1_000.5\u{1f}"), Some(1000.5));
        assert_eq!(float("١٢"), Some(12.0));
        assert_eq!(float("𝟜𝟚"), Some(42.0));
        assert_eq!(float("1__0"), None);
        assert_eq!(float("_1"), None);
        assert_eq!(float(""), None);
        assert!(float("-Infinity").is_some_and(f64::is_infinite));
    }

    #[test]
    fn combining_marks_are_no_word_characters() {
        assert!(is_word('न') && is_word('½') && is_word('一'));
        assert!(!is_word('ा') && !is_word('-'));
        assert!(is_digit('९') && !is_digit('½'));
    }
}
