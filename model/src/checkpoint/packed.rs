//! Checkpoints whose linear layers are packed: panels as the CPU's kernels read them, so that loading copies
//! nothing.
//!
//! `model.safetensors` then holds
//!
//! - for each weight `NAME` that a linear layer multiplies with, `[out, in]` or a kernel `[out, ..]`, its
//!   panels as `NAME.packed`, U8 of shape `[ceil(out / 16), lines, 64]`, laid out as
//!   [`PackedLinear`](crate::kernels::PackedLinear) says, for little-endian machines;
//! - everything else, and embeddings that are also the projection to the vocabulary, under its name and as it
//!   was;
//! - in `__metadata__`, what is in this table.
//!
//! | key | value |
//! |---|---|
//! | `multiway.layout` | how panels are laid out, now `1`: a file with another is refused |
//! | `multiway.weights` | the weight type: `f32`, `bf16` or `int8` |
//! | `multiway.shapes` | the shape of each packed weight before it was packed: a JSON object by `NAME` |
//!
//! The panels come first, and the header is padded so that they begin at a multiple of 64 bytes: mapped, each
//! line is a cache line. Weights that a layer stacks follow one another and are one piece of memory. Neither
//! is required of a file: what lies otherwise is copied.

use std::collections::HashMap;

use serde::{Deserialize, de::Error as _};

use super::error::{HeaderError, LoadError, shown, shown_list};
use crate::config::{ModelConfig, WeightSpec};
use crate::kernels::{LAYOUT, WeightType};

/// What the names of packed weights end in.
pub(super) const SUFFIX: &str = ".packed";

/// The metadata of a file, not checked yet.
#[derive(Default, Deserialize)]
pub(super) struct Metadata {
    #[serde(rename = "multiway.layout")]
    layout: Option<String>,
    #[serde(rename = "multiway.weights", default)]
    weights: String,
    #[serde(rename = "multiway.shapes", default)]
    shapes: String,
}

/// How the linear layers of a file are packed.
#[derive(Debug)]
pub(super) struct Packing {
    pub(super) weights: WeightType,
    /// The shapes of the packed weights, by their names without [`SUFFIX`].
    pub(super) shapes: HashMap<String, Vec<usize>>,
}

impl Metadata {
    /// Checks how a file of `tensors` tensors is packed; none where it is not.
    pub(super) fn packing(&self, tensors: usize) -> Result<Option<Packing>, HeaderError> {
        let Some(layout) = &self.layout else {
            return Ok(None);
        };
        if *layout != LAYOUT.to_string() {
            return Err(HeaderError::Layout {
                found: shown(layout),
                expected: LAYOUT,
            });
        }
        let weights = WeightType::named(&self.weights).ok_or_else(|| HeaderError::PackedWeights {
            found: shown(&self.weights),
        })?;
        // Each shape begins with a bracket: a file cannot make more of them than it has tensors.
        if self.shapes.matches('[').count() > tensors {
            let more = serde_json::Error::custom(format!("more shapes than the file has tensors, {tensors}"));
            return Err(HeaderError::PackedShapes(more));
        }
        let shapes = serde_json::from_str(&self.shapes).map_err(HeaderError::PackedShapes)?;
        Ok(Some(Packing { weights, shapes }))
    }
}

/// Says whether a linear layer multiplies with a weight, rather than looking rows up in it or scaling by it.
pub(super) fn is_multiplied(weight: &WeightSpec, config: &ModelConfig) -> bool {
    const TABLES: [&str; 4] = ["text_embed", "position", "image_index", "position_bias"];
    let part = weight.name.strip_suffix(".weight");
    let part = part.and_then(|part| part.rsplit('.').next());
    let is_matrix = weight.shape.len() > 1 && part.is_some_and(|part| !TABLES.contains(&part));
    is_matrix || config.output_weight() == Some(&weight.name)
}

/// Says whether a weight is also read as it is: all that no layer multiplies with, and embeddings.
pub(super) fn is_kept(weight: &WeightSpec, config: &ModelConfig) -> bool {
    weight.name == "text_embed.weight" || !is_multiplied(weight, config)
}

/// Counts the outputs and the inputs of a weight.
pub(super) fn matrix(shape: &[usize]) -> (usize, usize) {
    shape
        .split_first()
        .map_or((0, 0), |(outputs, inputs)| (*outputs, inputs.iter().product()))
}

/// Lists what a packed file of a model holds: names and shapes.
pub(super) fn tensors(config: &ModelConfig, weights: WeightType) -> Vec<(String, Vec<usize>)> {
    let mut all = Vec::new();
    for weight in config.weights() {
        if is_multiplied(&weight, config) {
            let (outputs, inputs) = matrix(&weight.shape);
            let panels = weights.panel_shape(outputs, inputs);
            all.push((format!("{}{SUFFIX}", weight.stored), panels.to_vec()));
        }
        if is_kept(&weight, config) {
            all.push((weight.stored, weight.shape));
        }
    }
    all
}

/// Compares the shapes that a file states for its packed weights with those of the model.
pub(super) fn check(packing: &Packing, config: &ModelConfig, file: &str) -> Result<(), LoadError> {
    let packed = config.weights().into_iter();
    for weight in packed.filter(|weight| is_multiplied(weight, config)) {
        let found = packing.shapes.get(&weight.stored);
        if found != Some(&weight.shape) {
            return Err(LoadError::PackedShape {
                file: file.to_owned(),
                tensor: weight.stored,
                expected: weight.shape,
                found: found.map_or_else(|| "none".to_owned(), |shape| shown_list(shape.iter())),
            });
        }
    }
    Ok(())
}
