//! The accuracy of visual question answering: an answer counts by how many people gave it.
//!
//! Source: the evaluation of VQA v2, as `lmms-eval` 0.7.3 runs it (`tasks/vqav2/utils.py`).

use std::collections::HashMap;
use std::sync::LazyLock;

use super::numbers::count;
use super::python_text::{is_digit, split, strip};

/// What punctuation is taken out, or becomes a space. The apostrophe, the colon and the period stay.
const PUNCTUATION: [char; 21] = [
    ';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',', '?', '!',
];

/// The reference passes a flag where a count belongs, so it takes out that many periods and no more.
const MOST_PERIODS: usize = 32;

const NUMBERS: [(&str, &str); 12] = [
    ("none", "0"),
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
];

/// Contractions with their apostrophes. Written without one, or without any, a word becomes the contraction.
const CONTRACTIONS: &str = include_str!("vqa_contractions.txt");

static CONTRACTION_TABLE: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
    CONTRACTIONS
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect()
});

/// Returns the share of the people that an answer satisfies, from 0 to 1: an answer that three others gave is
/// right, averaged over leaving out each person in turn. 0 without references.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::vqa_accuracy;
///
/// let people = ["two", "2", "2.", "three", "3", "3", "3", "3", "3", "3"];
/// assert!((vqa_accuracy("Two", &people) - 0.9).abs() < 1e-9);
/// assert_eq!(vqa_accuracy("three", &people), 1.0);
/// ```
pub fn vqa_accuracy<S: AsRef<str>>(answer: &str, references: &[S]) -> f64 {
    if references.is_empty() {
        return 0.0;
    }
    let answer = normalise_vqa_answer(answer);
    let matching = references
        .iter()
        .filter(|reference| normalise_vqa_answer(reference.as_ref()) == answer)
        .count();
    let people = count(references.len());
    let right = |others: usize| (count(others) / 3.0).min(1.0);
    let gave_it = count(matching) * right(matching.saturating_sub(1));
    let gave_another = (people - count(matching)) * right(matching);
    (gave_it + gave_another) / people
}

/// Writes an answer as the evaluation of VQA compares it: lower case, without articles and most punctuation,
/// number words as digits, contractions with their apostrophes.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::normalise_vqa_answer;
///
/// assert_eq!(normalise_vqa_answer("The  two cats."), "2 cats");
/// assert_eq!(normalise_vqa_answer("dont know"), "don't know");
/// assert_eq!(normalise_vqa_answer("1,000.5"), "1000.5");
/// ```
pub fn normalise_vqa_answer(answer: &str) -> String {
    let lines = answer.replace(['\n', '\t'], " ");
    let plain = without_periods(&without_punctuation(strip(&lines)));
    let mut words = Vec::new();
    for word in split(&plain.to_lowercase()) {
        let word = number(word);
        if !matches!(word, "a" | "an" | "the") {
            words.push(CONTRACTION_TABLE.get(word).copied().unwrap_or(word).to_owned());
        }
    }
    words.join(" ")
}

/// Takes out punctuation next to a space, and all of it where a comma parts digits; otherwise it becomes a
/// space.
fn without_punctuation(text: &str) -> String {
    let parts_digits = comma_parts_digits(text);
    let drops: Vec<char> = PUNCTUATION
        .into_iter()
        .filter(|mark| parts_digits || touches_space(text, *mark))
        .collect();
    text.chars()
        .filter(|character| !drops.contains(character))
        .map(|character| {
            if PUNCTUATION.contains(&character) {
                ' '
            } else {
                character
            }
        })
        .collect()
}

fn touches_space(text: &str, mark: char) -> bool {
    let mut before = None;
    text.chars().any(|character| {
        let touches =
            (before == Some(mark) && character == ' ') || (before == Some(' ') && character == mark);
        before = Some(character);
        touches
    })
}

fn comma_parts_digits(text: &str) -> bool {
    text.match_indices(',').any(|(at, _)| {
        let (before, after) = text.split_at(at);
        before.ends_with(is_digit) && after.trim_start_matches(',').starts_with(is_digit)
    })
}

/// Takes out the periods that no digit follows.
fn without_periods(text: &str) -> String {
    let mut left = MOST_PERIODS;
    let mut kept = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let ends = character == '.' && !characters.peek().is_some_and(|after| is_digit(*after));
        if ends && left > 0 {
            left -= 1;
        } else {
            kept.push(character);
        }
    }
    kept
}

fn number(word: &str) -> &str {
    NUMBERS
        .iter()
        .find(|(name, _)| *name == word)
        .map_or(word, |(_, digits)| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_of_normalisation_holds() {
        let rules = [
            ("article", "The cat and a dog", "cat and dog"),
            ("number word", "none ten eleven", "0 10 eleven"),
            ("contraction", "couldnt've dont HES", "couldn't've don't he's"),
            ("white space", " red\n\tapple ", "red apple"),
            ("mark between letters becomes a space", "red/green", "red green"),
            ("mark next to a space goes", "red/ green/blue", "red greenblue"),
            (
                "comma between digits takes all marks out",
                "1,000 (a-b)",
                "1000 ab",
            ),
            ("comma between letters becomes a space", "a,b", "b"),
            ("period before a digit stays", "3.5 v.2 yes.", "3.5 v.2 yes"),
            ("apostrophe and colon stay", "it's 10:30", "it's 10:30"),
            ("nothing stays nothing", "", ""),
        ];
        for (rule, given, expected) in rules {
            assert_eq!(normalise_vqa_answer(given), expected, "{rule}");
        }
        assert_eq!(normalise_vqa_answer(&".".repeat(40)), ".".repeat(8));
    }

    #[test]
    fn an_answer_without_references_is_wrong() {
        assert!(vqa_accuracy::<&str>("yes", &[]).abs() < f64::EPSILON);
        assert!(
            (vqa_accuracy("yes", &["yes", "yes", "no"]) - (1.0 / 3.0 * 2.0 + 2.0 / 3.0) / 3.0).abs() < 1e-9
        );
    }
}
