//! Checkpoints whose linear layers are packed: panels as the CPU's kernels read them, so that loading copies nothing.
//!
//! `model.safetensors` then holds
//!
//! - for each weight `NAME` that a linear layer multiplies with, `[out, in]` or a kernel `[out, ..]`, its panels as
//!   `NAME.packed`, U8 of shape `[ceil(out / 16), lines, 64]`, laid out as [`PackedLinear`] says, for
//!   little-endian machines;
//! - everything else, and embeddings that are also the projection to the vocabulary, under its name and as it was;
//! - in `__metadata__`, what is in this table.
//!
//! | key | value |
//! |---|---|
//! | `multiway.layout` | how panels are laid out, now `1`: a file with another is refused |
//! | `multiway.weights` | the weight type: `f32`, `bf16` or `int8` |
//! | `multiway.shapes` | the shape of each packed weight before it was packed: a JSON object by `NAME` |
//!
//! The panels come first, and the header is padded so that they begin at a multiple of 64 bytes: mapped, each line is a
//! cache line. Weights that a layer stacks follow one another and are one piece of memory. Neither is required of a file:
//! what lies otherwise is copied.

use std::collections::HashMap;

use candle_core::{DType, Device};
use serde::{Deserialize, de::Error as _};
use serde_json::{Map, Value, json};

use super::{
    Checkpoint, ConvertError, HeaderError, LoadError, TensorEntry,
    error::{shown, shown_list},
    save::Sink,
};
use crate::config::{ModelConfig, WeightSpec};
use crate::kernels::{LAYOUT, PackedLinear, WeightType};

/// What the names of packed weights end in.
pub(super) const SUFFIX: &str = ".packed";

/// Where panels begin, in bytes: the size of a line.
const ALIGNMENT: usize = 64;

/// What the metadata of a file says about it, not to be believed yet.
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
    /// Tells how a file of so many tensors is packed; none where it is not.
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
fn is_multiplied(weight: &WeightSpec, config: &ModelConfig) -> bool {
    const TABLES: [&str; 4] = ["text_embed", "position", "image_index", "position_bias"];
    let part = weight.name.strip_suffix(".weight");
    let part = part.and_then(|part| part.rsplit('.').next());
    let is_matrix = weight.shape.len() > 1 && part.is_some_and(|part| !TABLES.contains(&part));
    is_matrix || config.output_weight() == Some(&weight.name)
}

/// Says whether a weight is also read as it is: all that no layer multiplies with, and embeddings.
fn is_kept(weight: &WeightSpec, config: &ModelConfig) -> bool {
    weight.name == "text_embed.weight" || !is_multiplied(weight, config)
}

/// Counts the outputs and the inputs of a weight.
fn matrix(shape: &[usize]) -> (usize, usize) {
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

/// A tensor that is about to be written.
struct Part {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: usize,
}

/// Packs a checkpoint, and hands the bytes of the file to `write`, piece by piece: no more than a weight is in memory.
/// Returns how many tensors there are.
pub(super) fn write(
    checkpoint: &Checkpoint,
    weights: WeightType,
    write: &mut Sink,
) -> Result<usize, ConvertError> {
    let config = checkpoint.config();
    let all = config.weights();
    let multiplied: Vec<&WeightSpec> = all
        .iter()
        .filter(|weight| is_multiplied(weight, config))
        .collect();
    let mut kept = Vec::new();
    for weight in all.iter().filter(|weight| is_kept(weight, config)) {
        kept.push(checkpoint.stored(&weight.stored)?);
    }
    // The widest first, so that each number lies at a multiple of its size.
    kept.sort_by_key(|(entry, _)| std::cmp::Reverse(entry.dtype.size_in_bytes()));
    let panels = multiplied.iter().map(|weight| {
        let (outputs, inputs) = matrix(&weight.shape);
        let shape = weights.panel_shape(outputs, inputs);
        Part {
            name: format!("{}{SUFFIX}", weight.stored),
            dtype: "U8",
            shape: shape.to_vec(),
            bytes: shape.iter().product(),
        }
    });
    let parts: Vec<Part> = panels.chain(kept.iter().map(|(entry, _)| plain(entry))).collect();
    let shapes = multiplied
        .iter()
        .map(|weight| (weight.stored.clone(), json!(weight.shape)));
    write(&header(&parts, weights, shapes.collect()))?;
    for weight in multiplied {
        let tensor = checkpoint.load_tensor(&weight.stored, &Device::Cpu, DType::F32)?;
        let packed = PackedLinear::from_tensor(&tensor.flatten_from(1)?, weights) // [out, in]
            .map_err(|error| error.context(weight.stored.clone()))?;
        write(packed.panels())?;
        checkpoint.release();
    }
    for (_, bytes) in kept {
        write(bytes)?;
    }
    Ok(parts.len())
}

fn plain(entry: &TensorEntry) -> Part {
    Part {
        name: entry.name.clone(),
        dtype: match entry.dtype {
            DType::BF16 => "BF16",
            DType::F16 => "F16",
            _ => "F32",
        },
        shape: entry.shape.clone(),
        bytes: entry.bytes,
    }
}

/// Makes the header, with its length before it, as long as a multiple of [`ALIGNMENT`].
fn header(parts: &[Part], weights: WeightType, shapes: Map<String, Value>) -> Vec<u8> {
    let metadata = json!({
        "multiway.layout": LAYOUT.to_string(),
        "multiway.weights": weights.name(),
        "multiway.shapes": Value::Object(shapes).to_string(),
    });
    let mut table = Map::from_iter([("__metadata__".to_owned(), metadata)]);
    let mut start = 0;
    for part in parts {
        let end = start + part.bytes;
        let place = json!({ "dtype": part.dtype, "shape": part.shape, "data_offsets": [start, end] });
        table.insert(part.name.clone(), place);
        start = end;
    }
    let mut json = Value::Object(table).to_string();
    let length = size_of::<u64>() + json.len();
    json.extend(std::iter::repeat_n(
        ' ',
        length.next_multiple_of(ALIGNMENT) - length,
    ));
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat()
}

impl Checkpoint {
    /// Tells in which form the weights of linear layers are packed; none where they are stored as numbers.
    #[must_use]
    pub fn packed(&self) -> Option<WeightType> {
        self.opened.packing.as_ref().map(|packing| packing.weights)
    }

    /// Returns a packed weight where it lies in the file.
    pub(crate) fn packed_weight(&self, stored: &str) -> Result<PackedLinear, LoadError> {
        let name = format!("{stored}{SUFFIX}");
        let shape = self.opened.packing.as_ref().and_then(|packing| {
            let shape = packing.shapes.get(stored)?;
            Some((packing.weights, matrix(shape)))
        });
        let bytes = self.shared(&name);
        let (Some((weights, (outputs, inputs))), Some(bytes)) = (shape, bytes) else {
            return Err(self.no_such_tensor(&name));
        };
        Ok(PackedLinear::from_panels(bytes, outputs, inputs, weights)?)
    }
}
