//! A model folder: checked before use, read by memory map, written so that it is never half there.
//!
//! | file | what it holds |
//! |---|---|
//! | `config.json` | the [`ModelConfig`](crate::ModelConfig) |
//! | `model.safetensors` | every weight of [`ModelConfig::tensors`](crate::ModelConfig::tensors), as F32, BF16 or F16, and nothing else but what its family is known to carry unused |
//! | `model.safetensors.index.json` | instead, for weights in several files: which file holds which weight |
//! | `pytorch_model.bin`, or `pytorch_model.bin.index.json` with its parts, or the only `*.pth` | instead, weights as PyTorch saves them; those of BEiT-3 need no `config.json` |
//! | `tokenizer.json`, `tokenizer.model` | the tokenizer, read through [`Checkpoint::file`] |
//!
//! A checkpoint comes from a folder ([`Checkpoint::open`]) or from bytes inside the binary
//! ([`Checkpoint::from_static`]). Either way everything about it is checked when it is opened, except the
//! numbers themselves: after that, [`Checkpoint::load_tensor`] can only fail for want of memory or of a
//! device, or where a weight is packed.
//!
//! A checkpoint may be packed ([`Checkpoint::pack`]): its linear layers are then stored as the kernels of the
//! CPU read them, in one weight type, and are used where the file is mapped, so that loading copies little
//! more than norms. The rest of the folder is the same, and so are the numbers that the model gives. Such a
//! checkpoint is for inference on the CPU alone.
//!
//! Nothing in a hostile file can make loading panic or take more memory than a small multiple of the file's
//! size: lengths are compared with the file before anything is allocated, and shapes with the configuration.
//!
//! Source: the format is described in the README of `huggingface/safetensors`, section "Format".

mod adapted;
mod adapter;
mod entry;
mod error;
mod files;
#[cfg(test)]
mod foreign_tests;
mod header;
mod low_rank;
mod opened;
mod pack;
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

pub use adapter::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, Adapter, AdapterConfig, AdapterError};
pub use entry::TensorEntry;
pub use error::{ConvertError, HeaderError, LoadError, PthError, SaveError};
pub(crate) use files::{COMPANIONS, GENERATION_FILE};
pub use files::{CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE};
#[cfg(feature = "hub")]
pub(crate) use files::{PTH_FILE, PTH_INDEX_FILE};
pub use low_rank::compose;
pub use opened::Checkpoint;
pub(crate) use pack::write as write_packed;
pub(crate) use save::save;
pub use save::{write_atomically, write_atomically_with};
#[cfg(feature = "hub")]
pub(crate) use source::is_plain_file_name;
