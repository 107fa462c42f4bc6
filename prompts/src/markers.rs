//! Marks pictures and special tokens in rendered text, in a way that no caller can imitate.
//!
//! While a template renders, each picture and each special token is *one* private-use character that occurs
//! neither in the template nor in any text of the caller. So wherever it goes, through captured blocks,
//! macros, concatenation, filters, slices, it stays whole, and no text of the caller can contain it, name it,
//! or be turned into it. Rendered text is cut at these characters afterwards.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use crate::infill::MAX_GAPS;
use crate::prompt::{Prompt, PromptPart};
use crate::special::mask_token;

/// The supplementary private use areas. With their 131,068 characters, and four bytes each in a text, the
/// limits on the sizes of templates and inputs leave more than enough that occur in neither.
const CANDIDATES: [RangeInclusive<char>; 2] = ['\u{F0000}'..='\u{FFFFD}', '\u{100000}'..='\u{10FFFD}'];

/// Tells whether a character may be chosen to mark with.
pub(crate) fn is_candidate(c: char) -> bool {
    CANDIDATES.iter().any(|area| area.contains(&c))
}

/// Says that no character is left to mark with.
#[derive(Debug)]
pub(crate) struct NoMarkerLeft;

/// Knows which character stands for which part, for one rendering.
#[derive(Debug)]
pub(crate) struct Markers {
    parts: HashMap<char, PromptPart>,
    characters: HashMap<PromptPart, char>,
    /// The characters of `<extra_id_0>` to `<extra_id_99>`.
    masks: Vec<char>,
}

impl Markers {
    /// Chooses characters for `images`, `specials` and all masks, none of which occurs in `texts`.
    pub(crate) fn choose<'a>(
        texts: impl Iterator<Item = &'a str>,
        images: impl Iterator<Item = usize>,
        specials: impl Iterator<Item = &'a str>,
    ) -> Result<Self, NoMarkerLeft> {
        let taken: HashSet<char> = texts.flat_map(str::chars).filter(|c| is_candidate(*c)).collect();
        let mut free = CANDIDATES.into_iter().flatten().filter(|c| !taken.contains(c));
        let mut markers = Self::none();
        for index in 0..MAX_GAPS {
            let mask = markers.mark(PromptPart::Special(mask_token(index)), &mut free)?;
            markers.masks.push(mask);
        }
        for index in images {
            markers.mark(PromptPart::Image(index), &mut free)?;
        }
        for token in specials {
            markers.mark(PromptPart::Special(token.to_owned()), &mut free)?;
        }
        Ok(markers)
    }

    /// Chooses no characters: for templates that are compiled and not rendered.
    pub(crate) fn none() -> Self {
        Self {
            parts: HashMap::new(),
            characters: HashMap::new(),
            masks: Vec::new(),
        }
    }

    fn mark(
        &mut self,
        part: PromptPart,
        free: &mut impl Iterator<Item = char>,
    ) -> Result<char, NoMarkerLeft> {
        if let Some(character) = self.characters.get(&part) {
            return Ok(*character);
        }
        let character = free.next().ok_or(NoMarkerLeft)?;
        self.parts.insert(character, part.clone());
        self.characters.insert(part, character);
        Ok(character)
    }

    /// Returns the character that stands for a part, if it was chosen one.
    pub(crate) fn character(&self, part: &PromptPart) -> Option<char> {
        self.characters.get(part).copied()
    }

    /// Returns the character that stands for `<extra_id_N>`, for N below [`MAX_GAPS`].
    pub(crate) fn mask(&self, index: usize) -> Option<char> {
        self.masks.get(index).copied()
    }

    /// Tells whether a text has a special token or a picture in it.
    pub(crate) fn marks(&self, text: &str) -> bool {
        text.chars().any(|c| self.parts.contains_key(&c))
    }

    /// Cuts rendered text into parts.
    pub(crate) fn cut(&self, rendered: &str) -> Prompt {
        let mut prompt = Prompt::default();
        let mut rest = rendered;
        while let Some((offset, marker, part)) = rest
            .char_indices()
            .find_map(|(offset, c)| self.parts.get(&c).map(|part| (offset, c, part)))
        {
            prompt.push(PromptPart::Text(
                rest.get(..offset).unwrap_or_default().to_owned(),
            ));
            prompt.push(part.clone());
            rest = rest.get(offset + marker.len_utf8()..).unwrap_or_default();
        }
        prompt.push(PromptPart::Text(rest.to_owned()));
        prompt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_marker_is_a_character_of_the_texts() {
        let text: String = ('\u{F0000}'..='\u{F0100}').chain(['\u{100001}']).collect();
        let markers = Markers::choose([text.as_str()].into_iter(), 0..3, ["</s>"].into_iter()).unwrap();
        assert!(markers.parts.keys().all(|c| !text.contains(*c)));
        assert_eq!(markers.parts.len(), MAX_GAPS + 4);
    }

    #[test]
    fn equal_parts_share_a_marker() {
        let markers = Markers::choose(
            [].into_iter(),
            [5, 5].into_iter(),
            ["<extra_id_0>", "</s>"].into_iter(),
        )
        .unwrap();
        assert_eq!(markers.parts.len(), MAX_GAPS + 2);
        assert_eq!(
            markers.character(&PromptPart::Special("<extra_id_0>".into())),
            markers.mask(0)
        );
        assert_eq!(markers.character(&PromptPart::Image(4)), None);
    }

    #[test]
    fn when_every_candidate_is_taken_choosing_fails() {
        let all: String = CANDIDATES.into_iter().flatten().collect();
        assert!(Markers::choose([all.as_str()].into_iter(), [].into_iter(), [].into_iter()).is_err());
    }
}
