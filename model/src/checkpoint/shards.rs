//! The files that weights are in: which there are, and what their tensors are called.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use candle_core::DType;

use super::entry::TensorEntry;
use super::error::{self, LoadError};
use super::files::{INDEX_FILE, MAX_SHARDS, PTH_FILE, PTH_INDEX_FILE, WEIGHTS_FILE};
use super::header::{self, Header};
use super::packed::Packing;
use super::pth;
use super::source::{self, Source, Weights};
use crate::config::ModelConfig;

/// What training scripts put in front of every weight's name: the modules that they wrap a model in.
const WRAPPERS: [&str; 5] = ["module.", "model.", "_orig_mod.", "_forward_module.", "net."];

/// The largest index that is read, in bytes.
const INDEX_LIMIT: u64 = 16 << 20;

/// One file with weights.
pub(super) struct Shard {
    pub(super) file: String,
    pub(super) weights: Arc<Weights>,
    /// Where the tensors' bytes begin.
    pub(super) data: usize,
    /// Where the packed weights end, which are used in their place.
    pub(super) keep: usize,
}

impl Shard {
    /// Borrows the bytes of a tensor that is in this file.
    pub(super) fn numbers(&self, tensor: &TensorEntry) -> Option<&[u8]> {
        let start = self.data + tensor.start;
        self.weights.bytes().get(start..start + tensor.bytes)
    }
}

/// What files with weights hold.
pub(super) struct Stored {
    /// The file that decides which files there are.
    pub(super) file: String,
    pub(super) shards: Vec<Shard>,
    pub(super) tensors: Vec<TensorEntry>,
    pub(super) packing: Option<Packing>,
    /// Whether PyTorch wrote it.
    pub(super) is_pth: bool,
}

/// The index as it stands.
#[derive(serde::Deserialize)]
struct RawIndex {
    weight_map: BTreeMap<String, String>,
}

/// Takes from the names what every one of them begins with and no model calls its weights.
pub(super) fn unwrap_names(tensors: &mut [TensorEntry]) {
    let wrapper = |tensors: &[TensorEntry]| {
        let mut wrappers = WRAPPERS.into_iter();
        wrappers.find(|wrapper| tensors.iter().all(|tensor| tensor.name.starts_with(wrapper)))
    };
    // A name has an end, and each round takes something from it.
    while !tensors.is_empty()
        && let Some(wrapper) = wrapper(tensors)
    {
        tensors
            .iter_mut()
            .for_each(|tensor| drop(tensor.name.drain(..wrapper.len())));
    }
}

/// Opens the files with weights.
pub(super) fn open(name: &str, source: &Source) -> Result<Stored, LoadError> {
    if let Some(weights) = source.named_weights() {
        let stored = shard(name, source, weights)?;
        return stored.ok_or_else(|| source.missing(name, weights));
    }
    for (whole, index) in [(WEIGHTS_FILE, INDEX_FILE), (PTH_FILE, PTH_INDEX_FILE)] {
        // One file wins over several, as in `transformers`: what `save` writes is what is read.
        if let Some(stored) = shard(name, source, whole)? {
            return Ok(stored);
        }
        if let Some(json) = source.file(name, index, INDEX_LIMIT)? {
            return indexed(name, source, index, &json);
        }
    }
    for (stem, ending) in [("model", ".safetensors"), ("pytorch_model", ".bin")] {
        if let Some(parts) = source.numbered_parts(stem, ending)? {
            let file = source.shown(name, &format!("{stem}-*{ending}"));
            return joined(name, source, file, &parts, None);
        }
    }
    if let Some(file) = source.only_pth()?
        && let Some(stored) = shard(name, source, &file)?
    {
        return Ok(stored);
    }
    Err(source
        .unpacked()
        .unwrap_or_else(|| source.missing(name, WEIGHTS_FILE)))
}

/// Opens the files that an index names.
fn indexed(name: &str, source: &Source, index: &str, json: &[u8]) -> Result<Stored, LoadError> {
    let file = source.shown(name, index);
    let index: RawIndex = serde_json::from_slice(json).map_err(|problem| LoadError::Index {
        file: file.clone(),
        source: problem,
    })?;
    let parts: BTreeSet<&String> = index.weight_map.values().collect();
    if parts.is_empty() || parts.len() > MAX_SHARDS {
        return Err(LoadError::Shards {
            file,
            found: parts.len(),
            limit: MAX_SHARDS,
        });
    }
    let parts: Vec<String> = parts.into_iter().cloned().collect();
    joined(name, source, file, &parts, Some(&index))
}

/// Opens several files with weights, and compares where their tensors are with the index, if there is one.
fn joined(
    name: &str,
    source: &Source,
    file: String,
    parts: &[String],
    index: Option<&RawIndex>,
) -> Result<Stored, LoadError> {
    let (mut shards, mut all, mut is_pth) = (Vec::new(), Vec::new(), false);
    let mut known = HashSet::new();
    for (number, part) in parts.iter().enumerate() {
        let Some(stored) = shard(name, source, part)? else {
            return Err(source.missing_shard(part, parts.len()));
        };
        if stored.packing.is_some() {
            return Err(LoadError::PackedShard { file: stored.file });
        }
        for tensor in stored.tensors {
            // Tensors that the index places elsewhere, or not at all, are refused.
            if index.is_some_and(|index| index.weight_map.get(&tensor.name) != Some(part)) {
                return Err(LoadError::Misplaced {
                    file,
                    tensor: error::shown(&tensor.name),
                    found: error::shown(part),
                });
            }
            if !known.insert(tensor.name.clone()) {
                return Err(LoadError::Repeated {
                    file: stored.file,
                    tensor: error::shown(&tensor.name),
                });
            }
            all.push(TensorEntry {
                shard: number,
                ..tensor
            });
        }
        is_pth |= stored.is_pth;
        shards.extend(stored.shards);
    }
    Ok(Stored {
        file,
        shards,
        tensors: all,
        packing: None,
        is_pth,
    })
}

/// Calls a table of embeddings that is stored under the name of a part of the model as the model calls it.
pub(super) fn rename_embeddings(
    config: &ModelConfig,
    tensors: &mut [TensorEntry],
    shards: &[Shard],
    file: &str,
) -> Result<(), LoadError> {
    let Some((shared, aliases)) = config.embedding_aliases() else {
        return Ok(());
    };
    let place = |name: &str| tensors.iter().position(|tensor| tensor.name == name);
    let found: Vec<usize> = aliases.iter().filter_map(|alias| place(alias)).collect();
    let &[first, ..] = found.as_slice() else {
        return Ok(());
    };
    if place(shared).is_some() {
        return Ok(());
    }
    let numbers = |place: usize| {
        let tensor = tensors.get(place)?;
        Some((tensor.dtype, shards.get(tensor.shard)?.numbers(tensor)?))
    };
    if let Some(other) = found.iter().find(|other| numbers(**other) != numbers(first)) {
        let named = |place: usize| tensors.get(place).map(|tensor| error::shown(&tensor.name));
        return Err(LoadError::Embeddings {
            file: file.to_owned(),
            first: named(first).unwrap_or_default(),
            second: named(*other).unwrap_or_default(),
            shared: shared.to_owned(),
        });
    }
    if let Some(tensor) = tensors.get_mut(first) {
        shared.clone_into(&mut tensor.name);
    }
    Ok(())
}

/// Opens one file with weights, if it is there.
fn shard(name: &str, source: &Source, file: &str) -> Result<Option<Stored>, LoadError> {
    let Some(weights) = source.weights(name, file)? else {
        return Ok(None);
    };
    let shown = source.shown(name, file);
    // By what it holds first: files lose their names on the way.
    let is_pth = pth::is_archive(weights.bytes())
        || source::is_pth(file) && !header::begins_as_safetensors(weights.bytes());
    let Header {
        tensors,
        data,
        packing,
    } = if is_pth {
        let tensors = pth::parse(weights.bytes()).map_err(|problem| LoadError::Pth {
            file: shown.clone(),
            source: problem,
        })?;
        // Its tensors' places are counted from the start of the file.
        Header {
            tensors,
            data: 0,
            packing: None,
        }
    } else {
        header::parse(weights.bytes()).map_err(|problem| LoadError::Header {
            file: shown.clone(),
            source: problem,
        })?
    };
    let packed = tensors.iter().filter(|tensor| tensor.dtype == DType::U8);
    let keep = packed.map(|tensor| data + tensor.start + tensor.bytes).max();
    let shard = Shard {
        file: shown.clone(),
        weights: Arc::new(weights),
        data,
        keep: keep.unwrap_or(0),
    };
    Ok(Some(Stored {
        file: shown,
        shards: vec![shard],
        tensors,
        packing,
        is_pth,
    }))
}
