//! Packing the linear layers of a checkpoint, and borrowing packed ones from the mapped file.

use candle_core::{DType, Device};
use serde_json::{Map, Value, json};

use super::entry::TensorEntry;
use super::error::{ConvertError, LoadError};
use super::opened::Checkpoint;
use super::packed::{SUFFIX, is_kept, is_multiplied, matrix};
use super::save::Sink;
use crate::config::WeightSpec;
use crate::kernels::{LAYOUT, PackedLinear, WeightType};

/// Where panels begin, in bytes: the size of a line.
const ALIGNMENT: usize = 64;

/// A tensor that is about to be written.
struct Part {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: usize,
}

/// Packs a checkpoint, and hands the bytes of the file to `write`, piece by piece: no more than a weight is
/// in memory. Returns how many tensors there are.
pub(crate) fn write(
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
