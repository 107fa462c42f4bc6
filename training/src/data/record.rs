//! The records of prepared data: one JSON object a line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Split;

/// Side of a prepared picture, in pixels.
pub const PICTURE_SIDE: usize = 96;
/// Bytes of a prepared picture: RGBA, one byte each, straight alpha, row-major.
pub const PICTURE_BYTES: usize = PICTURE_SIDE * PICTURE_SIDE * 4;
/// Languages whose names and keywords are prepared, by their CLDR codes.
pub const LANGUAGES: [&str; 9] = ["en", "de", "fr", "es", "pt", "it", "ru", "ja", "zh"];

/// Names who drew a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Source {
    /// Noto emoji as 64-pixel PNG (Apache-2.0).
    #[serde(rename = "noto-png")]
    NotoPng,
    /// Noto emoji as SVG (Apache-2.0).
    #[serde(rename = "noto")]
    Noto,
    /// The first generation of Noto emoji, another style, as SVG (Apache-2.0).
    #[serde(rename = "noto-v1")]
    NotoV1,
    /// Fluent emoji rendered in 3D (MIT).
    #[serde(rename = "fluent-3d")]
    Fluent3d,
    /// Fluent emoji, flat, as SVG (MIT).
    #[serde(rename = "fluent-flat")]
    FluentFlat,
    /// Twemoji as 64-pixel PNG (CC-BY-4.0).
    #[serde(rename = "twemoji")]
    Twemoji,
    /// Flags of countries as SVG (MIT).
    #[serde(rename = "flags")]
    Flags,
    /// Coloured shapes of the easy-VQA data set (MIT).
    #[serde(rename = "easy-vqa")]
    EasyVqa,
    /// Handwritten digits of MNIST (MIT).
    #[serde(rename = "mnist")]
    Mnist,
}

impl Source {
    /// Names the source as the prepared files do.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotoPng => "noto-png",
            Self::Noto => "noto",
            Self::NotoV1 => "noto-v1",
            Self::Fluent3d => "fluent-3d",
            Self::FluentFlat => "fluent-flat",
            Self::Twemoji => "twemoji",
            Self::Flags => "flags",
            Self::EasyVqa => "easy-vqa",
            Self::Mnist => "mnist",
        }
    }
}

/// Describes the picture at the same line of `pictures.jsonl` as its place in `pictures.bin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureRecord {
    /// Who drew it.
    pub source: Source,
    /// Key of the concept that it shows, where it shows one.
    pub concept: Option<String>,
    /// The digit that it shows, where it shows one.
    pub label: Option<String>,
    /// What it may be used for.
    pub split: Split,
}

/// A thing that vendors draw and languages name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConceptRecord {
    /// Its key: code points in lowercase hexadecimal, joined with `-`, without variation selectors.
    pub concept: String,
    /// Whether it is trained on or held out.
    pub split: Split,
    /// Its short name by language.
    pub names: BTreeMap<String, String>,
    /// Words that go with it, by language.
    pub keywords: BTreeMap<String, Vec<String>>,
}

impl ConceptRecord {
    /// Returns its name in a language, where it has one.
    pub fn name(&self, language: &str) -> Option<&str> {
        self.names.get(language).map(String::as_str)
    }

    /// Returns its keywords in a language; none where the language has none.
    pub fn keywords(&self, language: &str) -> &[String] {
        self.keywords.get(language).map_or(&[], Vec::as_slice)
    }
}

/// A question about a picture, with its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuestionRecord {
    /// Index of the picture.
    pub picture: usize,
    /// The question.
    pub question: String,
    /// Its only right answer.
    pub answer: String,
    /// What it may be used for: always the split of its picture.
    pub split: Split,
}

/// A line of training text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextRecord {
    /// Its language.
    pub lang: String,
    /// The text.
    pub text: String,
}
