//! Text with grounded phrases: spans of the text that are tied to boxes.

use multiway_prompts::{GroundingDialect, LocationDialect};
use serde::Serialize;

use super::locations::{Form, LocatedObject, parse_locations};
use super::view::PictureView;

/// The side of the grid of Kosmos-2's patches.
///
/// Source: Peng et al. 2023, Kosmos-2, section 2: 32 x 32 bins.
const KOSMOS_SIDE: u32 = 32;

/// Holds text whose phrases are tied to boxes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GroundedAnswer {
    /// The text without tags and locations.
    pub plain: String,
    /// The phrases, in the order of the text.
    pub phrases: Vec<GroundedPhrase>,
}

/// Holds a phrase of a text and its boxes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GroundedPhrase {
    /// The phrase.
    pub text: String,
    /// Where it starts in the plain text, in bytes.
    pub start: usize,
    /// Where it ends, in bytes.
    pub end: usize,
    /// Where it starts in the plain text, in characters.
    pub start_char: usize,
    /// Where it ends, in characters.
    pub end_char: usize,
    /// Its boxes.
    pub boxes: Vec<LocatedObject>,
}

/// Reads text with grounded phrases. A phrase without boxes is text, and a wrong box is reported with its
/// phrase.
///
/// # Examples
///
/// ```
/// use multiway_prompts::GroundingDialect;
/// use multiway_tasks::parse::{PictureView, parse_grounded};
///
/// let text = "一只<phrase>猫</phrase><object><patch_index_0000><patch_index_1023></object>。";
/// let read = parse_grounded(text, GroundingDialect::Kosmos2, &PictureView::whole(320, 320));
/// assert_eq!(read.plain, "一只猫。");
/// assert_eq!((read.phrases[0].start, read.phrases[0].start_char), (6, 2));
/// assert_eq!(read.phrases[0].boxes[0].pixels, [5.0, 5.0, 315.0, 315.0]);
/// ```
pub fn parse_grounded(text: &str, dialect: GroundingDialect, view: &PictureView) -> GroundedAnswer {
    match dialect {
        GroundingDialect::Florence2 => without_tags(text, view),
        GroundingDialect::Kosmos2 => with_tags(text, |rest| patches(rest, view)),
        _ => with_tags(text, |rest| locations(rest, LocationDialect::Native, view)),
    }
}

impl GroundedAnswer {
    fn push(&mut self, phrase: &str, boxes: Vec<LocatedObject>) {
        let leading = phrase.len() - phrase.trim_start().len();
        let (start, before) = (self.plain.len() + leading, self.plain.chars().count());
        let text = phrase.trim().to_owned();
        let start_char = before + phrase.chars().take_while(|c| c.is_whitespace()).count();
        self.plain.push_str(phrase);
        if boxes.is_empty() {
            return;
        }
        let boxes = boxes
            .into_iter()
            .map(|found| LocatedObject {
                label: text.clone(),
                ..found
            })
            .collect();
        self.phrases.push(GroundedPhrase {
            start,
            end: start + text.len(),
            start_char,
            end_char: start_char + text.chars().count(),
            text,
            boxes,
        });
    }
}

/// Reads `<phrase>..</phrase>` and what follows each.
fn with_tags<'t>(text: &'t str, follow: impl Fn(&'t str) -> (Vec<LocatedObject>, &'t str)) -> GroundedAnswer {
    let mut answer = GroundedAnswer::default();
    let mut rest = text.strip_prefix("<grounding>").unwrap_or(text);
    while let Some((before, after)) = rest.split_once("<phrase>") {
        let Some((phrase, after)) = after.split_once("</phrase>") else {
            break;
        };
        answer.plain.push_str(before);
        let (boxes, after) = follow(after);
        answer.push(phrase, boxes);
        rest = after;
    }
    answer.plain.push_str(rest);
    answer
}

/// Reads the location tokens that a text starts with.
fn locations<'t>(
    text: &'t str,
    dialect: LocationDialect,
    view: &PictureView,
) -> (Vec<LocatedObject>, &'t str) {
    let mut end = 0;
    while let Some(rest) = text.get(end..).and_then(|rest| rest.strip_prefix("<loc_")) {
        match rest.find('>').filter(|close| (1..=5).contains(close)) {
            Some(close) => end += "<loc_".len() + close + 1,
            None => break,
        }
    }
    let (tokens, rest) = text.split_at_checked(end).unwrap_or(("", text));
    (parse_locations(tokens, Form::Box, dialect, view), rest)
}

/// Reads phrases that are marked by nothing but the locations behind them.
fn without_tags(text: &str, view: &PictureView) -> GroundedAnswer {
    let mut answer = GroundedAnswer::default();
    let mut rest = text;
    while let Some(at) = rest.find("<loc_") {
        let (phrase, tokens) = rest.split_at_checked(at).unwrap_or((rest, ""));
        let (boxes, after) = locations(tokens, LocationDialect::Florence2, view);
        if after.len() == tokens.len() {
            break;
        }
        answer.push(phrase, boxes);
        rest = after;
    }
    answer.plain.push_str(rest);
    answer
}

/// Reads `<object>..</object>`: pairs of patches, top left and bottom right.
fn patches<'t>(text: &'t str, view: &PictureView) -> (Vec<LocatedObject>, &'t str) {
    let inner = text
        .strip_prefix("<object>")
        .and_then(|text| text.split_once("</object>"));
    let Some((inner, rest)) = inner else {
        return (Vec::new(), text);
    };
    let boxes = inner.split("</delimiter_of_multi_objects/>").map(|raw| {
        let (seen, problem) = match patch_box(raw) {
            Ok(seen) => (seen, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        LocatedObject {
            label: String::new(),
            pixels: view.pixels(&seen),
            fractions: view.fractions(&seen),
            segments: Vec::new(),
            raw: raw.to_owned(),
            problem,
        }
    });
    (boxes.collect(), rest)
}

/// Reads two patches. A corner is the middle of its patch; a box that is one row or column of patches is as
/// wide as they are.
///
/// Source: `transformers`, `processing_kosmos2.py`, `patch_index_to_coordinate`.
fn patch_box(raw: &str) -> Result<Vec<f64>, String> {
    let tokens = raw.split_inclusive('>').map(|token| {
        let digits = token.strip_prefix("<patch_index_")?.strip_suffix('>')?;
        let index = digits.parse::<u32>().ok()?;
        (index < KOSMOS_SIDE * KOSMOS_SIDE).then_some(index)
    });
    let found: Option<Vec<u32>> = tokens.collect();
    let [first, last] = found.as_deref().unwrap_or_default() else {
        return Err(format!("expected two patches from 0 to 1023, found {raw:?}"));
    };
    let place = |index: u32| (index % KOSMOS_SIDE, index / KOSMOS_SIDE);
    let ((left, top), (right, bottom)) = (place(*first), place(*last));
    if left > right || top > bottom {
        return Err("its first corner is not to the top left of its last one".to_owned());
    }
    let is_thin = left == right || top == bottom;
    let inset = if is_thin { 0.0 } else { 0.5 };
    let at = |patch: u32, shift: f64| (f64::from(patch) + shift) / f64::from(KOSMOS_SIDE);
    Ok(vec![
        at(left, inset),
        at(top, inset),
        at(right, 1.0 - inset),
        at(bottom, 1.0 - inset),
    ])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn phrases_are_tied_to_their_boxes_in_every_dialect() {
        let view = PictureView::whole(1000, 1000);
        let native = "See <phrase>the قطة</phrase><loc_0><loc_0><loc_9><loc_9> sit.";
        let read = parse_grounded(native, GroundingDialect::Native, &view);
        assert_eq!(read.plain, "See the قطة sit.");
        assert_eq!(&read.plain[read.phrases[0].start..read.phrases[0].end], "the قطة");
        let florence = "a car<loc_1><loc_2><loc_3><loc_4> near two dogs<loc_0><loc_0><loc_5><loc_5><loc_7><loc_7><loc_9><loc_9>";
        let read = parse_grounded(florence, GroundingDialect::Florence2, &view);
        assert_eq!(read.plain, "a car near two dogs");
        assert_eq!(
            read.phrases
                .iter()
                .map(|phrase| phrase.boxes.len())
                .collect::<Vec<_>>(),
            [1, 2]
        );
    }

    #[test]
    fn wrong_boxes_are_reported_with_their_phrase() {
        let text = "<grounding><phrase>a</phrase><object><patch_index_0033><patch_index_0000></delimiter_of_multi_objects/><patch_index_2000></object>";
        let read = parse_grounded(text, GroundingDialect::Kosmos2, &PictureView::whole(9, 9));
        assert_eq!(read.plain, "a");
        assert!(read.phrases[0].boxes.iter().all(|found| found.problem.is_some()));
    }

    proptest! {
        #[test]
        fn spans_are_those_of_the_plain_text(text in "(<phrase>|</phrase>|<object>|</object>|<loc_1>|<patch_index_0001>|猫| |a|<){0,24}") {
            for (_, dialect) in GroundingDialect::ALL {
                let read = parse_grounded(&text, dialect, &PictureView::whole(9, 9));
                for phrase in &read.phrases {
                    prop_assert_eq!(read.plain.get(phrase.start..phrase.end), Some(phrase.text.as_str()));
                    let chars: String = read.plain.chars().skip(phrase.start_char).take(phrase.end_char - phrase.start_char).collect();
                    prop_assert_eq!(&chars, &phrase.text);
                }
            }
        }
    }
}
