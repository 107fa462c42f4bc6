//! The state of decoding: prompt memories and the KV cache. Both belong to the caller; the model holds
//! weights only.

mod blocks;
mod cache;
mod prompt;
mod scratch;
mod storage;

pub use cache::KvCache;
pub(crate) use cache::{CacheShape, RowForm};
pub use prompt::PromptMemory;
pub(crate) use scratch::{StepScratch, slot_rows};
pub(crate) use storage::KvLayers;
