//! BLEU of translations, as `sacrebleu` computes it.

use super::bleu::BleuCounts;
use super::numbers::count;
use super::python_text::{is_space, split, strip};

/// Names how a text is split before BLEU counts its words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BleuTokenizer {
    /// The rules of `mteval-v13a`, for languages that write spaces.
    #[default]
    Thirteen,
    /// The same rules, with each Chinese character a word.
    Chinese,
    /// Each character is a word.
    Character,
}

impl BleuTokenizer {
    /// Splits a text into words.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::metrics::BleuTokenizer;
    ///
    /// assert_eq!(BleuTokenizer::Thirteen.words("It's 1,000.5, no?"), ["It's", "1,000.5", ",", "no", "?"]);
    /// assert_eq!(BleuTokenizer::Chinese.words("我有2只"), ["我", "有", "2", "只"]);
    /// assert_eq!(BleuTokenizer::Character.words("a b"), ["a", "b"]);
    /// ```
    pub fn words(self, text: &str) -> Vec<String> {
        let text = text.trim_end_matches(is_space);
        let spaced = match self {
            Self::Thirteen => part_punctuation(&format!(" {} ", plain_entities(text))),
            Self::Chinese => part_punctuation(&surround(strip(text), is_chinese)),
            Self::Character => surround(text, |_| true),
        };
        split(&spaced).map(str::to_owned).collect()
    }
}

impl BleuCounts {
    /// Counts over the words of a tokenizer.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::metrics::{BleuCounts, BleuTokenizer};
    ///
    /// let counts = BleuCounts::of_translation("Ein Haus.", &["Ein Haus!"], BleuTokenizer::Thirteen);
    /// assert_eq!((counts.correct[0], counts.total[0]), (2, 3));
    /// ```
    pub fn of_translation<S: AsRef<str>>(answer: &str, references: &[S], tokenizer: BleuTokenizer) -> Self {
        let answer = tokenizer.words(answer);
        let references: Vec<Vec<String>> = references
            .iter()
            .map(|reference| tokenizer.words(reference.as_ref()))
            .collect();
        Self::of_words(
            &borrow(&answer),
            &references.iter().map(|words| borrow(words)).collect::<Vec<_>>(),
        )
    }

    /// Returns BLEU from 0 to 100, with exponential smoothing: the first order without a match counts half a
    /// match, the next a quarter.
    ///
    /// Source: <https://aclanthology.org/W18-6319>; `sacrebleu` 2.6, `corpus_bleu`.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::metrics::{BleuCounts, BleuTokenizer};
    ///
    /// let text = "The house is small.";
    /// let counts = BleuCounts::of_translation(text, &[text], BleuTokenizer::Thirteen);
    /// assert!((counts.translation_score() - 100.0).abs() < 1e-9);
    /// ```
    pub fn translation_score(&self) -> f64 {
        if self.correct.iter().all(|correct| *correct == 0) || self.total.contains(&0) {
            return 0.0;
        }
        let mut missing = 1.0;
        let mut logarithms = 0.0;
        for (correct, total) in self.correct.into_iter().zip(self.total) {
            let precision = if correct == 0 {
                missing *= 2.0;
                1.0 / (missing * count(total))
            } else {
                count(correct) / count(total)
            };
            logarithms += precision.ln() / 4.0;
        }
        let shortness = (1.0 - count(self.reference_length) / count(self.length)).min(0.0);
        100.0 * (shortness + logarithms).exp()
    }
}

fn borrow(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn plain_entities(text: &str) -> String {
    text.replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
}

/// Puts spaces around punctuation, but not around periods, commas and dashes within numbers.
fn part_punctuation(text: &str) -> String {
    let is_digit = |character: char| character.is_ascii_digit();
    let is_stop = |character: char| matches!(character, '.' | ',');
    let text = surround(
        text,
        |character| matches!(character, ' '..='&' | '('..='+' | '/' | ':'..='@' | '['..='`' | '{'..='~'),
    );
    let text = part_pairs(&text, |first| !is_digit(first), is_stop, [" ", " "], "");
    let text = part_pairs(&text, is_stop, |second| !is_digit(second), [" ", ""], " ");
    part_pairs(&text, is_digit, |second| second == '-', [" ", " "], "")
}

/// Writes `between[0]` between two neighbours that fit, `between[1]` after them and `before` before them; a
/// character belongs to one pair at most, the first.
fn part_pairs(
    text: &str,
    first: impl Fn(char) -> bool,
    second: impl Fn(char) -> bool,
    [between, after]: [&str; 2],
    before: &str,
) -> String {
    let mut parted = String::with_capacity(text.len() * 2);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match characters.next_if(|next| first(character) && second(*next)) {
            Some(next) => {
                parted.push_str(before);
                parted.push(character);
                parted.push_str(between);
                parted.push(next);
                parted.push_str(after);
            }
            None => parted.push(character),
        }
    }
    parted
}

fn surround(text: &str, is_word: impl Fn(char) -> bool) -> String {
    let mut parted = String::with_capacity(text.len() * 2);
    for character in text.chars() {
        if is_word(character) {
            parted.extend([' ', character, ' ']);
        } else {
            parted.push(character);
        }
    }
    parted
}

/// The ranges of `sacrebleu`. Two of its ranges name code points above U+FFFF with four digits, and so cover
/// other characters: U+2001 to U+2A6D and U+2F81 to U+2FA1, and no ideographs beyond the basic plane.
fn is_chinese(character: char) -> bool {
    matches!(character,
        '\u{2001}'..='\u{2a6d}'
        | '\u{2e80}'..='\u{2fdf}'
        | '\u{2ff0}'..='\u{303f}'
        | '\u{3100}'..='\u{312f}'
        | '\u{31a0}'..='\u{31bf}'
        | '\u{31c0}'..='\u{31ef}'
        | '\u{3200}'..='\u{4db5}'
        | '\u{4e00}'..='\u{9fbb}'
        | '\u{f900}'..='\u{fa2d}'
        | '\u{fa30}'..='\u{fa6a}'
        | '\u{fa70}'..='\u{fad9}'
        | '\u{fe10}'..='\u{fe1f}'
        | '\u{fe30}'..='\u{fe4f}'
        | '\u{ff00}'..='\u{ffef}')
}
