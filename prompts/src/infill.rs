//! Gaps in a text: finding them, and putting answers into them.

use std::ops::Range;

/// The most gaps one text may have: T5 vocabularies have `<extra_id_0>` to `<extra_id_99>`.
pub const MAX_GAPS: usize = 100;

/// The fewest underscores in a row that make a gap.
const GAP_WIDTH: usize = 3;

/// Finds the gaps of a text: every run of three or more underscores.
pub(crate) fn gap_ranges(text: &str) -> impl Iterator<Item = Range<usize>> {
    let bytes = text.as_bytes();
    let mut position = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = bytes.get(position..)?;
            let start = position + rest.iter().position(|byte| *byte == b'_')?;
            let width = bytes
                .get(start..)?
                .iter()
                .take_while(|byte| **byte == b'_')
                .count();
            position = start + width;
            if width >= GAP_WIDTH {
                return Some(start..position);
            }
        }
    })
}

/// Counts the gaps of a text: runs of three or more underscores.
///
/// # Examples
///
/// ```
/// assert_eq!(multiway_prompts::count_gaps("A ___ sat on a ______. Not_this__one."), 2);
/// ```
pub fn count_gaps(text: &str) -> usize {
    gap_ranges(text).count()
}

/// Puts the answers into the gaps of a text, in order.
///
/// A gap without an answer stays as it is, and answers beyond the last gap are left out: the caller can tell
/// by comparing [`count_gaps`] with the number of answers.
///
/// # Examples
///
/// ```
/// let spans = ["cat".to_string(), "mat".to_string()];
/// assert_eq!(multiway_prompts::fill_gaps("The ___ sat on the ___.", &spans), "The cat sat on the mat.");
/// ```
pub fn fill_gaps(original: &str, spans: &[String]) -> String {
    let mut filled = String::with_capacity(original.len());
    let mut position = 0;
    for (gap, span) in gap_ranges(original).zip(spans) {
        filled.push_str(original.get(position..gap.start).unwrap_or_default());
        filled.push_str(span.trim());
        position = gap.end;
    }
    filled.push_str(original.get(position..).unwrap_or_default());
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_underscores_are_no_gap_and_five_are_one() {
        assert_eq!(gap_ranges("a__b___c_____").collect::<Vec<_>>(), [4..7, 8..13]);
        assert_eq!(count_gaps(""), 0);
        assert_eq!(count_gaps("___"), 1);
    }

    #[test]
    fn a_gap_without_an_answer_stays_and_spare_answers_are_left_out() {
        assert_eq!(fill_gaps("___ and ___", &["one".into()]), "one and ___");
        assert_eq!(fill_gaps("___", &["one".into(), "two".into()]), "one");
        assert_eq!(fill_gaps("né ___", &[" ü ".into()]), "né ü");
    }

    proptest! {
        #[test]
        fn filling_gaps_keeps_all_text_outside_of_them(text in "[a-c_é ]{0,40}") {
            let spans = vec!["X".to_string(); count_gaps(&text)];
            let filled = fill_gaps(&text, &spans);
            prop_assert_eq!(count_gaps(&filled), 0);
            prop_assert_eq!(filled.replace('X', "___").len() , text.len() - gap_ranges(&text).map(|gap| gap.len() - 3).sum::<usize>());
        }
    }
}
