//! What a task file declares besides its inputs and its answer: decoding, metrics, examples.

use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::input::{InputValue, Inputs};
use crate::sampling::SamplingOptions;

/// Says how answers are decoded.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DecodeSpec {
    /// Special tokens that every answer starts with, and that are never shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefix: Vec<String>,
    /// How tokens are chosen.
    #[serde(flatten)]
    pub sampling: SamplingOptions,
    /// What text must match as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// The Lark grammar that text is derived from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lark: Option<String>,
}

/// Names a metric that a task is scored with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Metric {
    /// The share of answers that equal a reference.
    ExactMatch,
    /// The share of choices that are right.
    Accuracy,
    /// The mean accuracy against the answers of several people, as VQA counts it.
    VqaAccuracy,
    /// The share of answers that equal a reference, numbers within 5 %.
    RelaxedAccuracy,
    /// The mean normalised Levenshtein similarity.
    Anls,
    /// The mean F1 of shared words.
    F1,
    /// BLEU of a corpus of translations, 0 to 100.
    Bleu,
    /// BLEU with n-grams of up to four words, of a corpus of captions, 0 to 1.
    #[serde(rename = "bleu_4")]
    Bleu4,
    /// The mean ROUGE-L.
    RougeL,
    /// chrF of a corpus of translations, 0 to 100.
    Chrf,
    /// The mean CIDEr-D.
    Cider,
    /// The share of queries whose match ranks first.
    #[serde(rename = "recall_at_1")]
    RecallAt1,
    /// The share of queries whose match ranks among the first five.
    #[serde(rename = "recall_at_5")]
    RecallAt5,
}

impl Metric {
    /// Lists all metrics.
    pub const ALL: [Self; 13] = [
        Self::ExactMatch,
        Self::Accuracy,
        Self::VqaAccuracy,
        Self::RelaxedAccuracy,
        Self::Anls,
        Self::F1,
        Self::Bleu,
        Self::Bleu4,
        Self::RougeL,
        Self::Chrf,
        Self::Cider,
        Self::RecallAt1,
        Self::RecallAt5,
    ];

    /// Names the metric, as task files write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExactMatch => "exact_match",
            Self::Accuracy => "accuracy",
            Self::VqaAccuracy => "vqa_accuracy",
            Self::RelaxedAccuracy => "relaxed_accuracy",
            Self::Anls => "anls",
            Self::F1 => "f1",
            Self::Bleu => "bleu",
            Self::Bleu4 => "bleu_4",
            Self::RougeL => "rouge_l",
            Self::Chrf => "chrf",
            Self::Cider => "cider",
            Self::RecallAt1 => "recall_at_1",
            Self::RecallAt5 => "recall_at_5",
        }
    }

    /// Finds a metric by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Shows a task at work: inputs, and the answer that they should get.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Example {
    /// The inputs that the example gives, checked against the task's.
    pub inputs: IndexMap<String, ExampleInput>,
    /// The answer, unless the task gives an embedding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// Shows the model what to write: inputs, and what the target is made of.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FewShot {
    /// The inputs that the shot gives, checked against the task's.
    pub inputs: IndexMap<String, ExampleInput>,
    /// The values of the fields of the target.
    pub target: Inputs,
}

/// Holds an input of an example. Pictures are paths, relative to the task file.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum ExampleInput {
    /// A value that is no picture.
    Value(InputValue),
    /// The path of a picture.
    Picture(String),
    /// The paths of pictures.
    Pictures(Vec<String>),
}

/// Holds what metadata has for one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum MetadataValue {
    /// One text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
}

/// Says how pictures are prepared for the models of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Preprocessing {
    /// How a picture is fitted into the square that the model takes.
    pub fit: ImageFit,
}

/// Says how a picture is fitted into the square that a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFit {
    /// The whole picture, resized to a square.
    Squash,
    /// The square in the middle.
    Crop,
}
