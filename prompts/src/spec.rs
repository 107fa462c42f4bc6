//! What a task file declares besides its inputs, its answer and its metrics: decoding, examples.

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
