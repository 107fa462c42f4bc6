//! The records of prepared data: one JSON object a line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Sketch, Split};

/// Languages whose names and keywords are prepared, by their CLDR codes.
pub const LANGUAGES: [&str; 12] = [
    "en", "de", "fr", "es", "pt", "it", "ru", "ja", "zh", "nl", "pl", "tr",
];

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
    /// EmojiOne 2 as SVG (CC-BY-4.0).
    #[serde(rename = "emojione")]
    EmojiOne,
    /// FxEmoji as SVG (Apache-2.0).
    #[serde(rename = "fxemoji")]
    FxEmoji,
    /// Streamline emoji as SVG: outlined, near to a child's drawing (CC-BY-4.0).
    #[serde(rename = "streamline")]
    Streamline,
    /// Tabler line icons (MIT).
    #[serde(rename = "tabler")]
    Tabler,
    /// Lucide line icons (ISC).
    #[serde(rename = "lucide")]
    Lucide,
    /// Phosphor line icons (MIT).
    #[serde(rename = "phosphor")]
    Phosphor,
    /// Game-icons silhouettes (CC-BY-3.0).
    #[serde(rename = "silhouettes")]
    Silhouettes,
    /// The outlined Noto emoji font, light (OFL-1.1).
    #[serde(rename = "noto-light")]
    NotoLight,
    /// The outlined Noto emoji font, bold (OFL-1.1).
    #[serde(rename = "noto-bold")]
    NotoBold,
    /// The font Symbola: fine line art (free for any use).
    #[serde(rename = "symbola")]
    Symbola,
    /// Strokes of Quick, Draw! players (CC-BY-4.0).
    #[serde(rename = "sketches")]
    Sketches,
    /// Three boxes of shapes with a sentence by a person: NLVR (CC-BY-4.0).
    #[serde(rename = "nlvr")]
    Nlvr,
    /// Shapes with generated sentences: ShapeWorld (MIT).
    #[serde(rename = "shapeworld")]
    ShapeWorld,
    /// Photographs of Caltech-101 (CC-BY-4.0).
    #[serde(rename = "caltech")]
    Caltech,
    /// Photographs of the Grocery Store data set (MIT).
    #[serde(rename = "groceries")]
    Groceries,
    /// Photographs of clothes (CC0-1.0).
    #[serde(rename = "clothes")]
    Clothes,
    /// Photographs of flowers (CC-BY-2.0).
    #[serde(rename = "flowers")]
    Flowers,
    /// Photographs of waste by material: TrashNet (MIT).
    #[serde(rename = "materials")]
    Materials,
    /// Photographs of hand signs for digits (Apache-2.0).
    #[serde(rename = "hand-signs")]
    HandSigns,
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
            Self::EmojiOne => "emojione",
            Self::FxEmoji => "fxemoji",
            Self::Streamline => "streamline",
            Self::Tabler => "tabler",
            Self::Lucide => "lucide",
            Self::Phosphor => "phosphor",
            Self::Silhouettes => "silhouettes",
            Self::NotoLight => "noto-light",
            Self::NotoBold => "noto-bold",
            Self::Symbola => "symbola",
            Self::Sketches => "sketches",
            Self::Nlvr => "nlvr",
            Self::ShapeWorld => "shapeworld",
            Self::Caltech => "caltech",
            Self::Groceries => "groceries",
            Self::Clothes => "clothes",
            Self::Flowers => "flowers",
            Self::Materials => "materials",
            Self::HandSigns => "hand-signs",
        }
    }

    /// Tells whether it is photographs, whose colours and backgrounds are their own.
    pub const fn is_photographs(self) -> bool {
        matches!(
            self,
            Self::Caltech
                | Self::Groceries
                | Self::Clothes
                | Self::Flowers
                | Self::Materials
                | Self::HandSigns
        )
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
    /// What it shows, in English, where it shows no concept of the table: its name, and other names that are
    /// true of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// What it may be used for.
    pub split: Split,
}

/// A sentence about pictures, true or false; all of it is training data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatementRecord {
    /// Indices of the pictures, from left to right.
    pub pictures: Vec<usize>,
    /// The sentence.
    pub sentence: String,
    /// Its language.
    pub lang: String,
    /// Whether it is true.
    pub label: bool,
}

/// The strokes of a picture that is a sketch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SketchRecord {
    /// Index of the picture.
    pub picture: usize,
    /// Its strokes.
    pub strokes: Sketch,
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
