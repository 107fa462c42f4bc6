//! Where a cache's keys and values lie.

use candle_core::{Result, Tensor, bail};

/// The rows of a pool for each layer, `[rows, 2D]`: keys, then values.
#[derive(Debug)]
pub(super) enum Layers {
    /// Plain memory, which steps on slices read and write.
    Host { width: usize, rows: Vec<Vec<f32>> },
    /// Tensors, on whatever device.
    Device(Vec<Tensor>),
}

/// Rows that were copied out of every layer.
pub(super) enum Copied {
    Host(Vec<Vec<f32>>),
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

    /// Returns a layer's rows, and how long each is.
    pub(super) fn host(&mut self, layer: usize) -> Result<(&mut [f32], usize)> {
        let Self::Host { width, rows } = self else {
            bail!("the cache is laid out for steps on tensors")
        };
        let count = rows.len();
        match rows.get_mut(layer) {
            Some(rows) => Ok((rows, *width)),
            None => bail!("the cache has {count} layers, asked for layer {layer}"),
        }
    }

    /// Copies some rows out of every layer.
    pub(super) fn copy_out(&self, start: usize, count: usize) -> Result<Copied> {
        match self {
            Self::Host { width, rows } => {
                let part = start * width..(start + count) * width;
                let layer = |rows: &Vec<f32>| match rows.get(part.clone()) {
                    Some(rows) => Ok(rows.to_vec()),
                    None => bail!("the cache has no rows {start}..{}", start + count),
                };
                rows.iter().map(layer).collect::<Result<_>>().map(Copied::Host)
            }
            Self::Device(layers) => {
                // Not `copy`, which on the CPU copies the whole pool under the rows.
                let layer = |layer: &Tensor| layer.narrow(0, start, count)?.force_contiguous(); // [rows, 2D]
                layers
                    .iter()
                    .map(layer)
                    .collect::<Result<_>>()
                    .map(Copied::Device)
            }
        }
    }

    /// Puts rows that were copied out to another place.
    pub(super) fn copy_in(&mut self, copied: &Copied, start: usize) -> Result<()> {
        match (self, copied) {
            (Self::Host { width, rows }, Copied::Host(copied)) => {
                for (rows, copied) in rows.iter_mut().zip(copied) {
                    let at = start * *width;
                    match rows.get_mut(at..at + copied.len()) {
                        Some(place) => place.copy_from_slice(copied),
                        None => bail!("the cache has no row {start}"),
                    }
                }
                Ok(())
            }
            (Self::Device(layers), Copied::Device(copied)) => {
                let mut layers = layers.iter().zip(copied);
                layers.try_for_each(|(layer, rows)| layer.slice_set(rows, 0, start))
            }
            _ => bail!("rows of another cache"),
        }
    }
}
