//! The header of a safetensors file: eight bytes of length, then a JSON table of names, types, shapes and
//! offsets.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use candle_core::DType;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::{
    entry::TensorEntry,
    error::{HeaderError, LoadError, shown, shown_list},
    packed::{Metadata, Packing, SUFFIX},
};

/// The bytes of the header's length, a little-endian u64.
const LENGTH_BYTES: usize = 8;

/// The longest header that is read, in bytes: enough for a hundred thousand tensors.
const HEADER_LIMIT: u64 = 16 << 20;

/// A checked header: every tensor lies inside the file, and no two overlap.
pub(super) struct Header {
    /// In the order of their offsets.
    pub(super) tensors: Vec<TensorEntry>,
    /// Where the tensors' bytes begin in the file.
    pub(super) data: usize,
    /// How its linear layers are packed, where they are.
    pub(super) packing: Option<Packing>,
}

/// A tensor as the JSON describes it, not checked yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The JSON as it stands, in file order.
struct RawHeader {
    tensors: Vec<(String, RawTensor)>,
    metadata: Option<Metadata>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawHeaderVisitor)
    }
}

struct RawHeaderVisitor;

impl<'de> Visitor<'de> for RawHeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let (mut tensors, mut metadata) = (Vec::new(), None);
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                let found: Option<Metadata> = map.next_value()?;
                if metadata.replace(found.unwrap_or_default()).is_some() {
                    return Err(serde::de::Error::custom("__metadata__ is there twice"));
                }
            } else {
                let tensor = map.next_value::<RawTensor>()?;
                tensors.push((name, tensor));
            }
        }
        // JSON readers differ in which of two equal keys they keep, so a file with both means two things.
        let mut names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(serde::de::Error::custom(format!(
                "tensor '{}' is there twice",
                shown(pair[0])
            ))),
            None => Ok(RawHeader { tensors, metadata }),
        }
    }
}

/// Tells whether a file begins as one of safetensors, whatever it is called: with a length and an object of
/// JSON.
pub(super) fn begins_as_safetensors(file: &[u8]) -> bool {
    file.split_first_chunk::<LENGTH_BYTES>()
        .is_some_and(|(length, json)| u64::from_le_bytes(*length) <= HEADER_LIMIT && json.starts_with(b"{"))
}

/// Reads the header of a whole file.
pub(super) fn parse(file: &[u8]) -> Result<Header, HeaderError> {
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(HeaderError::TooShort { found: file.len() });
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_LIMIT {
        return Err(HeaderError::TooLong {
            found: length,
            limit: HEADER_LIMIT,
        });
    }
    let truncated = HeaderError::Truncated {
        expected: length,
        found: rest.len(),
    };
    let Some((json, data)) = usize::try_from(length)
        .ok()
        .and_then(|length| rest.split_at_checked(length))
    else {
        return Err(truncated);
    };
    let RawHeader {
        tensors: mut raw,
        metadata,
    } = serde_json::from_slice(json)?;
    let packing = metadata.unwrap_or_default().packing(raw.len())?;
    raw.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let mut end = 0;
    let mut tensors = Vec::with_capacity(raw.len());
    for (name, tensor) in raw {
        tensors.push(check_place(name, &tensor, packing.is_some(), &mut end)?);
    }
    if end != data.len() as u64 {
        return Err(HeaderError::DataSize {
            expected: end,
            found: data.len(),
        });
    }
    Ok(Header {
        tensors,
        data: file.len() - data.len(),
        packing,
    })
}

/// Checks that a tensor begins at `end`, where the one before it ends, and is as long as it says; moves
/// `end`.
fn check_place(
    name: String,
    tensor: &RawTensor,
    packs: bool,
    end: &mut u64,
) -> Result<TensorEntry, HeaderError> {
    let (dtype, width) = match tensor.dtype.as_str() {
        "U8" if packs && name.ends_with(SUFFIX) => (DType::U8, 1),
        other if packs && name.ends_with(SUFFIX) => {
            return Err(HeaderError::PackedDtype {
                tensor: shown(&name),
                found: shown(other),
            });
        }
        "F32" => (DType::F32, 4),
        "BF16" => (DType::BF16, 2),
        "F16" => (DType::F16, 2),
        other => {
            return Err(HeaderError::Dtype {
                tensor: shown(&name),
                found: shown(other),
            });
        }
    };
    let overflow = || HeaderError::ShapeOverflow {
        tensor: shown(&name),
        shape: format!("[{}]", shown_list(tensor.shape.iter())),
    };
    // A dimension is checked by itself too: a zero elsewhere would hide one that does not fit.
    let shape: Option<Vec<usize>> = tensor
        .shape
        .iter()
        .map(|&size| {
            usize::try_from(size)
                .ok()
                .filter(|&size| size <= isize::MAX as usize)
        })
        .collect();
    let shape = shape.ok_or_else(overflow)?;
    let expected = tensor
        .shape
        .iter()
        .try_fold(width, |product: u64, &size| product.checked_mul(size));
    let expected = expected.ok_or_else(overflow)?;
    let [start, stop] = tensor.data_offsets;
    if stop.checked_sub(start) != Some(expected) {
        return Err(HeaderError::Size {
            tensor: shown(&name),
            expected,
            start,
            end: stop,
        });
    }
    if start != *end {
        return Err(HeaderError::Offset {
            tensor: shown(&name),
            expected: *end,
            found: start,
        });
    }
    *end = stop;
    let (Ok(start), Ok(bytes)) = (usize::try_from(start), usize::try_from(expected)) else {
        return Err(overflow());
    };
    Ok(TensorEntry {
        name,
        shape,
        dtype,
        bytes,
        start,
        shard: 0,
    })
}

/// Compares what a file holds with what the model is made of.
pub(super) fn check(
    found: &[&TensorEntry],
    expected: &[(String, Vec<usize>)],
    file: &str,
) -> Result<(), LoadError> {
    let in_file: HashMap<&str, &TensorEntry> =
        found.iter().map(|entry| (entry.name.as_str(), *entry)).collect();
    let missing: Vec<_> = expected
        .iter()
        .filter(|(name, _)| !in_file.contains_key(name.as_str()))
        .collect();
    if !missing.is_empty() {
        let tensors = shown_list(
            missing
                .iter()
                .map(|(name, shape)| format!("tensor '{name}' of shape {shape:?}")),
        );
        return Err(LoadError::MissingTensors {
            file: file.to_owned(),
            tensors,
        });
    }
    for (name, shape) in expected {
        if let Some(entry) = in_file.get(name.as_str())
            && entry.shape != *shape
        {
            return Err(LoadError::Shape {
                file: file.to_owned(),
                tensor: name.clone(),
                expected: shape.clone(),
                found: entry.shape.clone(),
            });
        }
    }
    let known: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let unexpected: Vec<_> = found
        .iter()
        .filter(|entry| !known.contains(entry.name.as_str()))
        .collect();
    if !unexpected.is_empty() {
        let tensors = shown_list(
            unexpected
                .iter()
                .map(|entry| format!("tensor '{}'", shown(&entry.name))),
        );
        return Err(LoadError::UnexpectedTensors {
            file: file.to_owned(),
            tensors,
        });
    }
    Ok(())
}
