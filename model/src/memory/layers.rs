//! Where a cache's keys and values lie.

use super::KvCache;
use crate::kernels::rows::Rows;
use candle_core::{Result, Tensor, bail};

/// The rows of a pool for each layer.
#[derive(Debug)]
pub(super) enum Layers {
    /// Plain memory, which steps on slices read and write.
    Host(Vec<Rows>),
    /// Tensors on whatever device, `[rows, 2D]`: keys, then values.
    Device(Vec<Tensor>),
}

impl Layers {
    /// Returns a layer's tensor.
    pub(super) fn tensor(&self, layer: usize) -> Result<&Tensor> {
        let Self::Device(layers) = self else {
            bail!("the cache is laid out for steps on slices")
        };
        match layers.get(layer) {
            Some(cache) => Ok(cache),
            None => bail!("the cache has {} layers, asked for layer {layer}", layers.len()),
        }
    }

    /// Returns a layer's rows.
    pub(super) fn host(&mut self, layer: usize) -> Result<&mut Rows> {
        let Self::Host(layers) = self else {
            bail!("the cache is laid out for steps on tensors")
        };
        let count = layers.len();
        match layers.get_mut(layer) {
            Some(rows) => Ok(rows),
            None => bail!("the cache has {count} layers, asked for layer {layer}"),
        }
    }

    /// Copies the first rows of a block of every layer to another block.
    pub(super) fn copy(&mut self, from: usize, count: usize, to: usize) -> Result<()> {
        match self {
            Self::Host(layers) => layers.iter_mut().try_for_each(|rows| rows.copy(from, count, to)),
            Self::Device(layers) => layers.iter().try_for_each(|layer| {
                // Not `copy`, which on the CPU copies the whole pool under the rows.
                let rows = layer
                    .narrow(0, from * KvCache::BLOCK, count)?
                    .force_contiguous()?; // [rows, 2D]
                layer.slice_set(&rows, 0, to * KvCache::BLOCK)
            }),
        }
    }
}
