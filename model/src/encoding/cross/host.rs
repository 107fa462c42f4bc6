//! The projection on slices of a CPU's memory, some rows at a time.

use std::ops::Range;

use candle_core::{Device, Result, Tensor, bail};

use super::CrossForm;
use crate::decoder::Decoder;
use crate::encoding::encoded::{Encoded, EncodingTargets};
use crate::error::ForwardError;
use crate::kernels::access::with_slice;
use crate::kernels::pool;
use crate::kernels::rows::{KvLayout, KvRows};
use crate::layers::form::LinearLayer;
use crate::layers::host::{Host, HostLinear};
use crate::memory::{KvLayers, PromptMemory};
use crate::output::EncoderOutput;

/// Rows that are projected together: of several samples, so that threads share the copying, too.
const ROWS: usize = 512;

/// Cross-attention keys and values under way.
#[derive(Debug)]
pub(crate) struct HostCross {
    output: EncoderOutput,
    /// Memories, then prefixes.
    targets: Vec<Target>,
    /// How many rows of the present layer are done.
    done: usize,
    layer: usize,
    /// Projected rows, `[n, 2D]`.
    projected: Vec<f32>,
}

/// The rows of a sample, and their keys and values.
#[derive(Debug)]
struct Target {
    sample: usize,
    /// Which rows, `[S]`: packed ones, or those of prefixes behind them.
    rows: Vec<Range<usize>>,
    layers: TargetLayers,
}

/// The layers that are done, and the rows of the present one so far.
#[derive(Debug)]
enum TargetLayers {
    Memory {
        layers: Vec<KvRows>,
        present: Option<KvRows>,
    },
    Prefix {
        /// `[S, 2D]` each.
        layers: Vec<Tensor>,
        /// `[S, 2D]`.
        present: Vec<f32>,
    },
}

impl Target {
    fn count(&self) -> usize {
        self.rows.iter().map(ExactSizeIterator::len).sum()
    }

    /// Finishes the present layer, all of whose rows were copied.
    fn finish_layer(&mut self, layout: KvLayout, device: &Device) -> Result<()> {
        let count = self.count();
        match &mut self.layers {
            TargetLayers::Memory { layers, present } => {
                let rows = present.take().unwrap_or_else(|| KvRows::zeros(layout, count, 1));
                layers.push(rows);
            }
            TargetLayers::Prefix { layers, present } => {
                let own = std::mem::take(present);
                let shape = (own.len() / layout.width(), layout.width());
                layers.push(Tensor::from_vec(own, shape, device)?); // [S, 2D]
            }
        }
        Ok(())
    }

    /// Copies those of its rows that are among the projected ones from `first` on, `[n, 2D]`.
    fn copy(&mut self, first: usize, rows: &[f32], layout: KvLayout) -> Result<()> {
        let width = layout.width().max(1);
        let end = first + rows.len() / width;
        let mut before = 0;
        let count = self.count();
        for range in &self.rows {
            let (start, stop) = (range.start.max(first), range.end.min(end));
            if start < stop {
                let at = before + start - range.start;
                let Some(rows) = rows.get((start - first) * width..(stop - first) * width) else {
                    bail!("cross-attention has no rows {start}..{stop}")
                };
                self.layers.write(at, rows, count, layout)?;
            }
            before += range.len();
        }
        Ok(())
    }
}

impl TargetLayers {
    /// Writes rows `[n, 2D]` as those from `at` on of `count`.
    fn write(&mut self, at: usize, rows: &[f32], count: usize, layout: KvLayout) -> Result<()> {
        let width = layout.width().max(1);
        match self {
            Self::Memory { present, .. } => {
                let kept = present.get_or_insert_with(|| KvRows::zeros(layout, count, 1));
                (at..)
                    .zip(rows.chunks_exact(width))
                    .try_for_each(|(row, x)| kept.write(row, x))
            }
            Self::Prefix { present, .. } => {
                present.resize(count * width, 0.0); // [S, 2D]
                match present.get_mut(at * width..at * width + rows.len()) {
                    Some(place) => place.copy_from_slice(rows),
                    None => bail!("row {at} does not fit into {count}"),
                }
                Ok(())
            }
        }
    }
}

impl CrossForm for Host {
    type Cross = Box<HostCross>;

    fn start(output: EncoderOutput, targets: &EncodingTargets) -> Box<HostCross> {
        let samples = &output.segments.samples;
        let memories = targets.memories.iter().map(|sample| Target {
            sample: *sample,
            rows: samples[*sample].all(),
            layers: TargetLayers::Memory {
                layers: Vec::new(),
                present: None,
            },
        });
        let prefixes = targets.prefixes.iter().map(|sample| Target {
            sample: *sample,
            rows: samples[*sample].image_rows().into_iter().collect(),
            layers: TargetLayers::Prefix {
                layers: Vec::new(),
                present: Vec::new(),
            },
        });
        Box::new(HostCross {
            targets: memories.chain(prefixes).collect(),
            output,
            done: 0,
            layer: 0,
            projected: Vec::new(),
        })
    }

    fn project(
        cross: &mut Box<HostCross>,
        decoder: &Decoder<Self>,
        rows: usize,
    ) -> std::result::Result<bool, ForwardError> {
        let projection = decoder.cross_projection(cross.layer)?;
        cross.project_rows(projection, rows, decoder.layout())?;
        Ok(cross.layer == decoder.layers())
    }

    fn finish(cross: Box<HostCross>) -> std::result::Result<Encoded, ForwardError> {
        let HostCross { output, targets, .. } = *cross;
        let (mut memories, mut prefixes) = (Vec::new(), Vec::new());
        for target in targets {
            let rows = target.count();
            match target.layers {
                TargetLayers::Memory { layers, .. } => {
                    memories.push(PromptMemory::new(KvLayers::Host(layers), rows));
                }
                TargetLayers::Prefix { layers, .. } => {
                    prefixes.push(output.image_prefix(target.sample, |_| Ok(layers))?);
                }
            }
        }
        Ok(Encoded {
            output,
            memories,
            prefixes,
        })
    }
}

impl HostCross {
    /// Projects at most `rows` rows for a layer, and goes on to the next layer where these are the last.
    fn project_rows(&mut self, projection: &HostLinear, rows: usize, layout: KvLayout) -> Result<()> {
        let (own, targets, projected) = (
            self.output.segments.rows(),
            &mut self.targets,
            &mut self.projected,
        );
        let end = self.done.saturating_add(rows.max(1)).min(own);
        let done = &mut self.done;
        with_slice(&self.output.hidden, |hidden| {
            let inputs = projection.inputs()?;
            while *done < end {
                let range = *done..end.min(*done + ROWS);
                let x = &hidden[range.start * inputs..range.end * inputs]; // [n, D]
                projection.forward_into(x, range.len(), projected)?; // [n, 2D]
                let failure = pool::Failure::default();
                pool::for_each_item(targets, &|_, target| {
                    failure.note(target.copy(range.start, projected, layout));
                });
                failure.result()?;
                *done = range.end;
            }
            Ok(())
        })?;
        if self.done < own {
            return Ok(());
        }
        let mut first = own;
        for prefix in &self.output.prefixes {
            let known = prefix.cross(self.layer)?; // [R, 2D]
            with_slice(known, |known| {
                let mut targets = self.targets.iter_mut();
                targets.try_for_each(|target| target.copy(first, known, layout))
            })?;
            first += prefix.rows();
        }
        for target in &mut self.targets {
            target.finish_layer(layout, self.output.hidden.device())?;
        }
        self.layer += 1;
        self.done = 0;
        Ok(())
    }
}
