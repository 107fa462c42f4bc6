//! Where keys and values lie: in rows of plain memory, or in tensors.

use candle_core::{Result, Tensor};

use super::blocks::BLOCK;
use crate::error::ForwardError;
use crate::kernels::rows::KvRows;

/// Keys and values of each layer, in the form in which the model that made them reads them.
#[derive(Clone, Debug)]
pub(crate) enum KvLayers {
    /// Rows of plain memory.
    Host(Vec<KvRows>),
    /// Tensors on any device, `[rows, 2D]`: keys, then values.
    Graph(Vec<Tensor>),
}

impl KvLayers {
    /// Returns the rows of a layer; `owner` names what they belong to.
    pub(super) fn host(
        &self,
        owner: &'static str,
        layer: usize,
    ) -> std::result::Result<&KvRows, ForwardError> {
        match self {
            Self::Host(layers) => layers.get(layer).ok_or_else(|| self.no_layer(owner, layer)),
            Self::Graph(_) => Err(ForwardError::OtherExecution(owner)),
        }
    }

    /// Returns the rows of all layers to write to; `owner` names what they belong to.
    pub(super) fn host_mut(
        &mut self,
        owner: &'static str,
    ) -> std::result::Result<&mut [KvRows], ForwardError> {
        match self {
            Self::Host(layers) => Ok(layers),
            Self::Graph(_) => Err(ForwardError::OtherExecution(owner)),
        }
    }

    /// Returns the tensor of a layer, `[rows, 2D]`; `owner` names what it belongs to.
    pub(super) fn graph(
        &self,
        owner: &'static str,
        layer: usize,
    ) -> std::result::Result<&Tensor, ForwardError> {
        match self {
            Self::Graph(layers) => layers.get(layer).ok_or_else(|| self.no_layer(owner, layer)),
            Self::Host(_) => Err(ForwardError::OtherExecution(owner)),
        }
    }

    fn no_layer(&self, owner: &str, layer: usize) -> ForwardError {
        let count = match self {
            Self::Host(layers) => layers.len(),
            Self::Graph(layers) => layers.len(),
        };
        let message = format!("the {owner} has {count} layers, asked for layer {layer}");
        candle_core::Error::msg(message).into()
    }

    /// Counts the bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Host(layers) => layers.iter().map(KvRows::bytes).sum(),
            Self::Graph(layers) => layers
                .iter()
                .map(|kv| kv.elem_count() * kv.dtype().size_in_bytes())
                .sum(),
        }
    }

    /// Copies the first rows of a block of every layer to another block.
    pub(super) fn copy(&mut self, from: usize, count: usize, to: usize) -> Result<()> {
        match self {
            Self::Host(layers) => layers.iter_mut().try_for_each(|rows| rows.copy(from, count, to)),
            Self::Graph(layers) => layers.iter().try_for_each(|layer| {
                // Not `copy`, which on the CPU copies the whole pool under the rows.
                let rows = layer.narrow(0, from * BLOCK, count)?.force_contiguous()?; // [rows, 2D]
                layer.slice_set(&rows, 0, to * BLOCK)
            }),
        }
    }
}
