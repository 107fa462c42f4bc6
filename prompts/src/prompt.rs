//! What a template renders to: a list of parts.

use serde::Serialize;

/// Names one piece of a prompt, in reading order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptPart {
    /// Plain text. It is tokenized as text whatever it contains, never as a special token.
    Text(String),
    /// A special token such as `<extra_id_0>` or `</s>`. Only the template itself can make one.
    Special(String),
    /// The place of a picture: an index into the request's images.
    Image(usize),
}

/// Holds a rendered prompt.
///
/// Neighbouring texts are merged and empty texts are dropped, so that two prompts that read the same compare
/// equal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Prompt {
    /// The parts, in reading order.
    pub parts: Vec<PromptPart>,
}

impl Prompt {
    /// Builds a prompt from plain text alone.
    pub fn from_text(text: impl Into<String>) -> Self {
        let mut prompt = Self::default();
        prompt.push(PromptPart::Text(text.into()));
        prompt
    }

    /// Adds a part at the end, merging text with a text before it.
    pub fn push(&mut self, part: PromptPart) {
        match part {
            PromptPart::Text(text) => self.push_text(&text),
            other => self.parts.push(other),
        }
    }

    /// Adds the parts of another prompt at the end.
    pub(crate) fn append(&mut self, other: Self) {
        other.parts.into_iter().for_each(|part| self.push(part));
    }

    /// Counts the bytes of text and of the names of special tokens.
    pub(crate) fn text_bytes(&self) -> usize {
        let bytes = |part: &PromptPart| match part {
            PromptPart::Text(text) | PromptPart::Special(text) => text.len(),
            PromptPart::Image(_) => 0,
        };
        self.parts.iter().map(bytes).sum()
    }

    fn push_text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        match self.parts.last_mut() {
            Some(PromptPart::Text(last)) => last.push_str(text),
            _ => self.parts.push(PromptPart::Text(text.to_owned())),
        }
    }

    /// Lists the image indices in the order in which the prompt names them.
    pub fn images(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().filter_map(|part| match part {
            PromptPart::Image(index) => Some(*index),
            PromptPart::Text(_) | PromptPart::Special(_) => None,
        })
    }

    /// Joins the plain text parts, leaving out special tokens and pictures.
    pub fn text(&self) -> String {
        self.parts
            .iter()
            .filter_map(|part| match part {
                PromptPart::Text(text) => Some(text.as_str()),
                PromptPart::Special(_) | PromptPart::Image(_) => None,
            })
            .collect()
    }
}

impl FromIterator<PromptPart> for Prompt {
    fn from_iter<I: IntoIterator<Item = PromptPart>>(parts: I) -> Self {
        let mut prompt = Self::default();
        for part in parts {
            prompt.push(part);
        }
        prompt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_texts_merge_and_empty_ones_vanish() {
        let text = |s: &str| PromptPart::Text(s.to_owned());
        let prompt: Prompt = [
            text(""),
            text("a"),
            text("b"),
            PromptPart::Image(0),
            text(""),
            text("c"),
        ]
        .into_iter()
        .collect();
        assert_eq!(prompt.parts, [text("ab"), PromptPart::Image(0), text("c")]);
        assert_eq!(prompt.text(), "abc");
        assert_eq!(prompt.images().collect::<Vec<_>>(), [0]);
        assert_eq!(Prompt::from_text("").parts, []);
    }
}
