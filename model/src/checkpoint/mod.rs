//! A model folder: checked before use, read by memory map, written so that it is never half there.
//!
//! | file | what it holds |
//! |---|---|
//! | `config.json` | the [`ModelConfig`] |
//! | `model.safetensors` | every weight of [`ModelConfig::tensors`], as F32, BF16 or F16, and nothing else but what its family is known to carry unused |
//! | `model.safetensors.index.json` | instead, for weights in several files: which file holds which weight |
//! | `pytorch_model.bin`, or `pytorch_model.bin.index.json` with its parts, or the only `*.pth` | instead, weights as PyTorch saves them; those of BEiT-3 need no `config.json` |
//! | `tokenizer.json`, `tokenizer.model` | the tokenizer, read by whoever tokenizes through [`Checkpoint::file`] |
//!
//! A checkpoint comes from a folder ([`Checkpoint::open`]) or from bytes inside the binary
//! ([`Checkpoint::from_static`]). Either way everything about it is checked when it is opened, except the numbers
//! themselves: after that, [`Checkpoint::load_tensor`] can only fail for want of memory or of a device, or where a weight is packed.
//!
//! A checkpoint may be packed ([`Checkpoint::pack`]): its linear layers are then stored as the kernels of the CPU read
//! them, in one weight type, and are used where the file is mapped, so that loading copies little more than norms. The rest of
//! the folder is the same, and so are the numbers that the model gives. Such a checkpoint is for inference on the CPU alone.
//!
//! Nothing in a hostile file can make loading panic or take more memory than a small multiple of the file's size:
//! lengths are compared with the file before anything is allocated, and shapes with the configuration.
//!
//! Source: the format is described in the README of `huggingface/safetensors`, section "Format".

mod convert;
mod error;
#[cfg(test)]
mod foreign_tests;
mod header;
mod packed;
#[cfg(test)]
mod packed_tests;
mod pickle;
mod pth;
#[cfg(test)]
mod pth_tests;
mod save;
mod shards;
mod source;
mod tensors;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::HashMap, fmt, path::Path, sync::Arc};

use candle_core::DType;

use crate::config::ModelConfig;
use crate::families::beit3;
pub use convert::{Conversion, ConvertError};
pub use error::{HeaderError, LoadError, PthError, SaveError};
use packed::Packing;
pub use save::write_atomically;
use shards::{Stored, unwrap_names};
use source::Source;
#[cfg(feature = "hub")]
pub(crate) use source::is_plain_file_name;

/// The name of the configuration file.
pub const CONFIG_FILE: &str = "config.json";

/// The name of the file in which PyTorch's weights are, where they are not called after the model.
pub(crate) const PTH_FILE: &str = "pytorch_model.bin";

/// The name of the file that says in which of PyTorch's files the weights are, where they are in several.
pub(crate) const PTH_INDEX_FILE: &str = "pytorch_model.bin.index.json";

/// The name of the weights file.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// The name of the file that says in which files the weights are, where they are in several.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The file that says how answers are written where nobody says otherwise.
pub(crate) const GENERATION_FILE: &str = "generation_config.json";

/// Files that go with the weights, where a checkpoint has them.
pub(crate) const COMPANIONS: [&str; 11] = [
    GENERATION_FILE,
    "tokenizer.json",
    "tokenizer.model",
    "sentencepiece.model",
    "spiece.model",
    "beit3.spm",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "labels.txt",
    "answer2label.txt",
];

/// The most files that weights may be in.
const MAX_SHARDS: usize = 1024;

/// The largest `config.json` that is read, in bytes.
const CONFIG_LIMIT: u64 = 1 << 20;

/// The largest file that [`Checkpoint::file`] reads, in bytes.
const FILE_LIMIT: u64 = 64 << 20;

/// One tensor of a checkpoint, as the file stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorEntry {
    /// The name, as in [`ModelConfig::tensors`].
    pub name: String,
    /// The size of each dimension.
    pub shape: Vec<usize>,
    /// The type of number that is stored: F32, BF16 or F16; of packed weights U8.
    pub dtype: DType,
    /// How many bytes it takes in the file.
    pub bytes: usize,
    /// Where it starts, counted from the first byte after the header.
    start: usize,
    /// Which of the files with weights it is in.
    shard: usize,
}

/// A model's configuration, weights and tokenizer files; cheap to clone.
#[derive(Clone)]
pub struct Checkpoint {
    opened: Arc<Opened>,
}

struct Opened {
    name: String,
    config: ModelConfig,
    source: Source,
    shards: Vec<Shard>,
    tensors: Vec<TensorEntry>,
    index: HashMap<String, usize>,
    packing: Option<Packing>,
}

/// One file with weights.
struct Shard {
    file: String,
    weights: Arc<source::Weights>,
    /// Where the tensors' bytes begin.
    data: usize,
    /// Where the packed weights end, which are used in their place.
    keep: usize,
}

impl Shard {
    /// Borrows the bytes of a tensor that is in this file.
    fn numbers(&self, tensor: &TensorEntry) -> Option<&[u8]> {
        let start = self.data + tensor.start;
        self.weights.bytes().get(start..start + tensor.bytes)
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Opened { name, tensors, .. } = &*self.opened;
        f.debug_struct("Checkpoint")
            .field("name", name)
            .field("tensors", &tensors.len())
            .finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Opens a model folder, or a file of weights by PyTorch, and checks it; the weights are mapped, not read.
    ///
    /// The files must not be changed in place while the checkpoint is in use, or a model that was loaded from a packed one. [`Checkpoint::save`] does not do
    /// so: it puts new files in the place of old ones, which stay as they are for whoever has them open.
    ///
    /// # Errors
    /// [`LoadError`] names the file, and the tensor or key in it, with what was expected and what was found.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let (name, source) = Source::folder(path.as_ref())?;
        Self::read(name, source)
    }

    /// Opens a checkpoint that is part of the binary, given as file names with their contents.
    ///
    /// # Errors
    /// As for [`Checkpoint::open`].
    pub fn from_static(
        name: impl Into<String>,
        files: &'static [(&'static str, &'static [u8])],
    ) -> Result<Self, LoadError> {
        Self::read(name.into(), Source::Static(files))
    }

    fn read(name: String, source: Source) -> Result<Self, LoadError> {
        let json = source.file(&name, CONFIG_FILE, CONFIG_LIMIT)?;
        let config = json.map(|json| {
            ModelConfig::from_json(&json).map_err(|error| LoadError::Config {
                file: source.shown(&name, CONFIG_FILE),
                source: error,
            })
        });
        let config = config.transpose()?;
        // A folder without either is told first that it lacks a configuration.
        let Stored {
            file,
            shards,
            mut tensors,
            packing,
            is_pth,
        } = match Self::shards(&name, &source) {
            Err(LoadError::MissingFile { .. }) if config.is_none() => {
                return Err(source.missing(&name, CONFIG_FILE));
            }
            shards => shards?,
        };
        unwrap_names(&mut tensors);
        if let Some(config) = &config {
            Self::rename_embeddings(config, &mut tensors, &shards, &file)?;
        }
        let shape = |name: &str| {
            let tensor = tensors.iter().find(|tensor| tensor.name == name);
            let packed = || packing.as_ref()?.shapes.get(name);
            tensor.map(|tensor| &tensor.shape).or_else(packed).cloned()
        };
        let mut config = match config {
            Some(config) => config,
            None if !is_pth => return Err(source.missing(&name, CONFIG_FILE)),
            None => Self::inferred(&file, shape)?,
        };
        config.adapt(shape);
        let used = |entry: &&TensorEntry| !config.is_unused(&entry.name);
        let stored: Vec<&TensorEntry> = tensors.iter().filter(used).collect();
        let expected = match &packing {
            Some(packing) => packed::tensors(&config, packing.weights),
            None => config.tensors(),
        };
        header::check(&stored, &expected, &file)?;
        if let Some(packing) = &packing {
            packed::check(packing, &config, &file)?;
        }
        let names = tensors.iter().enumerate();
        let index = names.map(|(i, entry)| (entry.name.clone(), i)).collect();
        tracing::debug!(
            checkpoint = name,
            files = shards.len(),
            tensors = tensors.len(),
            "checkpoint opened"
        );
        Ok(Self {
            opened: Arc::new(Opened {
                name,
                config,
                source,
                shards,
                tensors,
                index,
                packing,
            }),
        })
    }

    /// Tells what model weights without a configuration belong to.
    fn inferred(file: &str, shape: impl Fn(&str) -> Option<Vec<usize>>) -> Result<ModelConfig, LoadError> {
        let json = beit3::infer(shape).map_err(|problem| LoadError::NoConfig {
            file: file.to_owned(),
            problem,
        })?;
        ModelConfig::from_json(json.as_bytes()).map_err(|source| LoadError::Config {
            file: file.to_owned(),
            source,
        })
    }

    /// Lists the files with weights: their names, without folders, and their bytes.
    pub fn weights_files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.opened.shards.iter().map(|shard| {
            let name = shard.file.rsplit(['/', '\\']).next().unwrap_or(&shard.file);
            (name, shard.weights.bytes())
        })
    }

    /// Returns the name: the folder's, or the one given for embedded bytes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.opened.name
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.opened.config
    }

    /// Lists the tensors in the order in which the files store them.
    #[must_use]
    pub fn tensors(&self) -> &[TensorEntry] {
        &self.opened.tensors
    }

    /// Reads another file of the checkpoint, such as `tokenizer.json`, if it is there.
    ///
    /// # Errors
    /// [`LoadError::FileName`] where `name` is not a plain file name, [`LoadError::FileTooLarge`] above 64 MiB, and
    /// [`LoadError::Io`] where the file cannot be read.
    pub fn file(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>, LoadError> {
        self.opened.source.file(&self.opened.name, name, FILE_LIMIT)
    }
}
