//! The keys and values of an encoded prompt.

use std::sync::Arc;

use candle_core::Tensor;

use super::storage::KvLayers;
use crate::error::ForwardError;
use crate::kernels::rows::KvRows;

/// The keys and values of one encoded prompt, which decoding attends to; cheap to clone and shared by beams
/// and samples.
#[derive(Clone, Debug)]
pub struct PromptMemory {
    layers: Arc<KvLayers>,
    length: usize,
}

impl PromptMemory {
    pub(crate) fn new(layers: KvLayers, length: usize) -> Self {
        Self {
            layers: Arc::new(layers),
            length,
        }
    }

    /// Counts the encoder rows that it holds, S.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Tells whether a clone of it is held elsewhere.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.layers) > 1
    }

    /// Counts the bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.layers.bytes()
    }

    /// Returns a layer's keys and values as rows of plain memory.
    pub(crate) fn host(&self, layer: usize) -> Result<&KvRows, ForwardError> {
        self.layers.host("prompt memory", layer)
    }

    /// Returns a layer's keys and values as a tensor, `[S, 2D]`.
    pub(crate) fn graph(&self, layer: usize) -> Result<&Tensor, ForwardError> {
        self.layers.graph("prompt memory", layer)
    }
}
