//! The front matter of one file as it is written.

use indexmap::IndexMap;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::about::RawPreprocessing;
use super::answer::RawOutput;
use super::decode::RawDecode;
use super::examples::RawExample;
use super::inputs::RawInput;
use super::problem::line;
use super::shots::RawShot;
use super::yaml;
use crate::error::PromptError;

/// The front matter of one file, read and not yet checked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFrontMatter {
    pub(super) name: Option<Spanned<String>>,
    pub(super) description: Option<Spanned<String>>,
    pub(super) version: Option<Spanned<serde_json::Value>>,
    pub(super) extends: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) inputs: IndexMap<Spanned<String>, Option<RawInput>>,
    pub(super) output: Option<RawOutput>,
    pub(super) decode: Option<Spanned<RawDecode>>,
    pub(super) target: Option<Spanned<String>>,
    pub(super) few_shot: Option<Vec<Spanned<RawShot>>>,
    pub(super) separator: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) preprocessing: IndexMap<Spanned<String>, RawPreprocessing>,
    pub(super) metrics: Option<Vec<Spanned<String>>>,
    pub(super) languages: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) metadata: IndexMap<Spanned<String>, Spanned<serde_json::Value>>,
    #[serde(default)]
    pub(super) examples: Vec<Spanned<RawExample>>,
}

impl RawFrontMatter {
    /// Reads front matter that starts on the second line of a file.
    pub(crate) fn parse(origin: &str, text: &str) -> Result<Self, PromptError> {
        // Without a key there would be no mapping to miss keys in.
        let text = if text.trim().is_empty() { "{}" } else { text };
        yaml::read(origin, text)
    }

    /// Returns the name of the task that this one extends, and the line of the file where it stands.
    pub(crate) fn extends(&self) -> Option<(String, Option<usize>)> {
        let extends = self.extends.as_ref()?;
        Some((extends.value.clone(), line(extends).map(|line| line + 1)))
    }
}
