//! Tokens grouped into words.

use std::ops::Range;

use super::Tokenizer;
use super::token::{TokenId, TokenWord};

impl Tokenizer {
    /// Groups tokens into words: what white space separates, and in scripts that are written without it, what
    /// a token spells. A special token is a word by its name; tokens that spell white space alone belong to
    /// the word behind them.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_runtime::Tokenizer;
    /// let tokenizer = Tokenizer::byt5()?;
    /// let words = tokenizer.words(&tokenizer.encode_text("un été")?);
    /// assert_eq!((words[0].text.as_str(), words[0].tokens.clone()), ("un", 0..2));
    /// assert_eq!((words[1].text.as_str(), words[1].tokens.clone()), ("été", 2..8));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn words(&self, ids: &[TokenId]) -> Vec<TokenWord> {
        let mut words = Words::default();
        let mut stream = self.decode_stream();
        for (index, id) in ids.iter().enumerate() {
            words.spell(&stream.push(*id), index + 1);
            if self.is_special(*id) {
                words.close(index);
                words.special(self.piece(*id).unwrap_or_default(), index);
            }
        }
        words.spell(&stream.finish(), ids.len());
        words.close(ids.len());
        words.all
    }
}

/// Words on their way.
#[derive(Default)]
struct Words {
    all: Vec<TokenWord>,
    /// The text of the word that may go on, with the white space around it.
    text: String,
    /// Its first token, and its end.
    tokens: Range<usize>,
    /// The first token whose text is not complete yet.
    next: usize,
}

impl Words {
    /// Takes the text that the tokens before `end` complete.
    fn spell(&mut self, text: &str, end: usize) {
        if text.is_empty() {
            return;
        }
        if is_boundary(&self.text, text) {
            self.end_word();
        }
        if self.text.is_empty() {
            self.tokens.start = self.next;
        }
        self.text.push_str(text);
        self.tokens.end = end;
        self.next = end;
    }

    /// Ends the word before token `end`; tokens without text belong to it.
    fn close(&mut self, end: usize) {
        self.tokens.end = end;
        self.end_word();
        self.next = end;
    }

    fn end_word(&mut self) {
        let text = std::mem::take(&mut self.text);
        if !text.trim().is_empty() {
            self.all.push(TokenWord {
                text: text.trim().to_owned(),
                tokens: self.tokens.clone(),
                is_special: false,
            });
        }
    }

    fn special(&mut self, name: &str, index: usize) {
        self.all.push(TokenWord {
            text: name.to_owned(),
            tokens: index..index + 1,
            is_special: true,
        });
        self.next = index + 1;
    }
}

/// Tells whether a new word begins between two texts.
fn is_boundary(before: &str, after: &str) -> bool {
    let (Some(last), Some(first)) = (before.chars().last(), after.chars().next()) else {
        return false;
    };
    if before.trim().is_empty() {
        return false;
    }
    let is_space = last.is_whitespace() || first.is_whitespace();
    is_space || (first.is_alphanumeric() && (is_unspaced(first) || is_unspaced(last)))
}

/// Tells whether a character is of a script that is written without spaces between words: Thai, Lao, Tibetan,
/// Burmese, Khmer, and those of China and Japan.
fn is_unspaced(c: char) -> bool {
    matches!(
        u32::from(c),
        0x0e00..=0x109f | 0x1780..=0x17ff | 0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff
            | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::sentencepiece_to_json;

    fn words(tokenizer: &Tokenizer, ids: &[TokenId]) -> Vec<(String, Range<usize>)> {
        let words = tokenizer.words(ids).into_iter();
        words.map(|word| (word.text, word.tokens)).collect()
    }

    #[test]
    fn pieces_of_a_word_are_grouped_and_special_tokens_stand_alone() {
        let json = sentencepiece_to_json(include_bytes!("../../tests/fixtures/tokenizer.model")).unwrap();
        let tokenizer = Tokenizer::from_json(&json).unwrap();
        let mut ids = tokenizer.encode_text("a xylophonist, twice").unwrap();
        let count = ids.len();
        ids.push(tokenizer.special("</s>").unwrap());
        let found = words(&tokenizer, &ids);
        let texts: Vec<&str> = found.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(texts, ["a", "xylophonist,", "twice", "</s>"]);
        assert!(found[1].1.len() > 2, "several pieces: {found:?}");
        assert_eq!(found[3].1, count..count + 1);
        assert!(found.windows(2).all(|pair| pair[0].1.end == pair[1].1.start));
    }

    #[test]
    fn scripts_without_spaces_are_cut_at_tokens() {
        let tokenizer = Tokenizer::byt5().unwrap();
        let ids = tokenizer.encode_text("猫です。 ok").unwrap();
        let expected = [("猫", 0..3), ("で", 3..6), ("す。", 6..12), ("ok", 12..15)];
        let expected = expected.map(|(text, tokens)| (text.to_owned(), tokens));
        assert_eq!(words(&tokenizer, &ids), expected);
    }

    #[test]
    fn half_a_character_at_the_end_is_part_of_the_last_word() {
        let tokenizer = Tokenizer::byt5().unwrap();
        let ids = tokenizer.encode_text("cat é").unwrap();
        let expected = [("cat".to_owned(), 0..3), ("\u{fffd}".to_owned(), 3..5)];
        assert_eq!(words(&tokenizer, &ids[..5]), expected);
        assert!(words(&tokenizer, &[]).is_empty());
    }
}
