//! The projection of encoded rows to what a decoder's cross-attention reads, layer after layer.

use crate::decoder::Decoder;
use crate::error::ForwardError;
use crate::kernels::access::with_slice;
use crate::kernels::pool;
use crate::kernels::rows::{Layout, Rows};
use crate::layers::linear::Linear;
use crate::layers::own_rows;
use crate::memory::{KvLayers, PromptMemory};
use crate::output::EncoderOutput;
use crate::prefix::{ImagePrefix, with_prefixes};
use candle_core::{Device, Result, Tensor, bail};
use std::ops::Range;

/// Rows that are projected together where it is done on slices: of several samples, so that threads share the keeping, too.
const ROWS: usize = 512;

/// Cross-attention keys and values under way.
#[derive(Debug)]
pub(crate) struct Cross {
    output: EncoderOutput,
    /// Those who want some of each layer: memories, then prefixes.
    takers: Vec<Taker>,
    /// How many rows of the present layer are done.
    done: usize,
    layer: usize,
    /// Projected rows, `[n, 2D]`.
    projected: Vec<f32>,
}

/// Wants some rows of each layer.
#[derive(Debug)]
struct Taker {
    sample: usize,
    /// Which rows, `[S]`: packed ones, or those of prefixes behind them.
    rows: Vec<Range<usize>>,
    taken: Taken,
}

/// The layers that are done, and what is known of the present one.
#[derive(Debug)]
enum Taken {
    Memory {
        layers: KvLayers,
        present: Option<Rows>,
    },
    Prefix {
        /// `[S, 2D]` each.
        layers: Vec<Tensor>,
        /// `[S, 2D]`.
        present: Vec<f32>,
    },
}

impl Taker {
    fn count(&self) -> usize {
        self.rows.iter().map(ExactSizeIterator::len).sum()
    }

    /// Keeps the present layer's rows, which are all known.
    fn finish_layer(&mut self, layout: Layout, device: &Device) -> Result<()> {
        let count = self.count();
        match &mut self.taken {
            Taken::Memory { layers, present } => {
                let rows = present.take().unwrap_or_else(|| Rows::zeros(layout, count, 1));
                layers.push_rows(rows);
            }
            Taken::Prefix { layers, present } => {
                let own = std::mem::take(present);
                let shape = (own.len() / layout.width(), layout.width());
                layers.push(Tensor::from_vec(own, shape, device)?); // [S, 2D]
            }
        }
        Ok(())
    }

    /// Takes what it wants of the rows from `first` on, `[n, 2D]`.
    fn take(&mut self, first: usize, rows: &[f32], layout: Layout) -> Result<()> {
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
                self.taken.keep(at, rows, count, layout)?;
            }
            before += range.len();
        }
        Ok(())
    }
}

impl Taken {
    /// Keeps rows `[n, 2D]` as those from `at` on of `count`.
    fn keep(&mut self, at: usize, rows: &[f32], count: usize, layout: Layout) -> Result<()> {
        let width = layout.width().max(1);
        match self {
            Self::Memory { present, .. } => {
                let kept = present.get_or_insert_with(|| Rows::zeros(layout, count, 1));
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

impl Cross {
    /// Begins for the memories of some samples, and the image prefixes of some that have pictures.
    pub(crate) fn new(output: EncoderOutput, memories: &[usize], prefixes: &[usize]) -> Self {
        let taker = |sample: usize, rows, taken| Taker { sample, rows, taken };
        let samples = &output.segments.samples;
        let all = memories.iter().map(|sample| {
            let taken = Taken::Memory {
                layers: KvLayers::Host(Vec::new()),
                present: None,
            };
            taker(*sample, samples[*sample].all(), taken)
        });
        let images = |sample: usize| samples[sample].image_rows().into_iter().collect();
        let images = prefixes.iter().map(|sample| {
            let taken = Taken::Prefix {
                layers: Vec::new(),
                present: Vec::new(),
            };
            taker(*sample, images(*sample), taken)
        });
        Self {
            takers: all.chain(images).collect(),
            output,
            done: 0,
            layer: 0,
            projected: Vec::new(),
        }
    }

    /// Projects at most `rows` rows for a layer, where it can be done on slices, else all; tells whether all layers are done.
    pub(crate) fn advance(
        &mut self,
        decoder: Option<&Decoder>,
        rows: usize,
    ) -> std::result::Result<bool, ForwardError> {
        let decoder = decoder.filter(|decoder| !self.takers.is_empty() && self.layer < decoder.layers());
        let Some(decoder) = decoder else {
            return Ok(true);
        };
        let projection = decoder.cross_projection(self.layer)?;
        match decoder.layout() {
            Some(layout) => self.project_slices(projection, rows, layout)?,
            None => self.project(projection)?,
        }
        Ok(self.layer == decoder.layers())
    }

    /// Gives the rows back, with the memories and the prefixes that were wanted.
    pub(crate) fn finish(
        self,
    ) -> std::result::Result<(EncoderOutput, Vec<PromptMemory>, Vec<ImagePrefix>), ForwardError> {
        let (mut memories, mut prefixes) = (Vec::new(), Vec::new());
        for taker in self.takers {
            let rows = taker.count();
            match taker.taken {
                Taken::Memory { layers, .. } => memories.push(PromptMemory::new(layers, rows)),
                Taken::Prefix { layers, .. } => {
                    prefixes.push(self.output.image_prefix(taker.sample, |_| Ok(layers))?);
                }
            }
        }
        Ok((self.output, memories, prefixes))
    }

    fn project_slices(&mut self, projection: &Linear, rows: usize, layout: Layout) -> Result<()> {
        let (own, takers, projected) = (self.output.segments.rows(), &mut self.takers, &mut self.projected);
        let end = self.done.saturating_add(rows.max(1)).min(own);
        let done = &mut self.done;
        with_slice(&self.output.hidden, |hidden| {
            let inputs = projection.inputs()?;
            while *done < end {
                let range = *done..end.min(*done + ROWS);
                let x = &hidden[range.start * inputs..range.end * inputs]; // [n, D]
                projection.forward_into(x, range.len(), projected)?; // [n, 2D]
                let failure = pool::Failure::default();
                pool::for_each_item(takers, &|_, taker| {
                    failure.note(taker.take(range.start, projected, layout));
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
                let mut takers = self.takers.iter_mut();
                takers.try_for_each(|taker| taker.take(first, known, layout))
            })?;
            first += prefix.rows();
        }
        for taker in &mut self.takers {
            taker.finish_layer(layout, self.output.hidden.device())?;
        }
        self.next();
        Ok(())
    }

    /// Projects all rows for a layer.
    fn project(&mut self, projection: &Linear) -> Result<()> {
        let own = self.output.packed()?.map(|rows| projection.forward(&rows)); // [N, 2D]
        let kv = with_prefixes(own.transpose()?, &self.output.prefixes, |prefix| {
            prefix.cross(self.layer)
        })?; // [N + R, 2D]
        for taker in &mut self.takers {
            let own = own_rows(&kv, &taker.rows)?; // [S, 2D]
            match &mut taker.taken {
                Taken::Memory { layers, .. } => layers.push_tensor(own),
                Taken::Prefix { layers, .. } => layers.push(own),
            }
        }
        self.next();
        Ok(())
    }

    fn next(&mut self) {
        self.layer += 1;
        self.done = 0;
    }
}
