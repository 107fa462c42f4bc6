//! What decoding keeps between steps. Both belong to the caller: the model holds weights only.

mod blocks;
mod cache;
mod layers;
mod scratch;

use crate::attention::{AttentionPlan, Scoring, cross_attention};
use crate::decoder::DecoderRow;
use crate::kernels::attend::{Queries, Seen};
use crate::kernels::rows::{Layout, Rows};
pub use cache::KvCache;
use candle_core::{Result, Tensor, bail};
pub(crate) use scratch::Scratch;
use std::sync::Arc;

/// One decoder layer's cross-attention keys and values of one prompt.
#[derive(Clone, Debug)]
pub(crate) enum MemoryLayer {
    /// For steps on tensors, `[S, 2D]`: keys, then values.
    Tensor(Tensor),
    /// For steps on slices, a block of S rows.
    Rows(Rows),
}

impl MemoryLayer {
    /// Keeps rows `[S, 2D]` for steps on slices.
    pub(crate) fn of_rows(kv: &[f32], layout: Layout) -> Result<Self> {
        let width = layout.width().max(1);
        let mut rows = Rows::zeros(layout, kv.len() / width, 1);
        for (row, kv) in kv.chunks_exact(width).enumerate() {
            rows.write(row, kv)?;
        }
        Ok(Self::Rows(rows))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Tensor(kv) => kv.elem_count() * kv.dtype().size_in_bytes(),
            Self::Rows(rows) => rows.bytes(),
        }
    }
}

/// What encoding one prompt leaves behind for decoding; cheap to clone and shared by beams and samples.
#[derive(Clone, Debug)]
pub struct PromptMemory {
    layers: Arc<Vec<MemoryLayer>>,
    length: usize,
}

impl PromptMemory {
    pub(crate) fn new(layers: Vec<MemoryLayer>, length: usize) -> Self {
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

    /// Counts the bytes that it keeps.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(MemoryLayer::bytes).sum()
    }

    /// Attends from each row of `q` `[B, D]` to its own memory, and writes `[B, D]`; `scores` is scratch. On a CPU in f32.
    pub(crate) fn attend_into(
        rows: &[DecoderRow],
        layer: usize,
        q: &[f32],
        scoring: &Scoring,
        (scores, out): (&mut Vec<f32>, &mut [f32]),
    ) -> Result<()> {
        let d = q.len() / rows.len().max(1);
        let longest = rows.iter().map(|row| row.memory.length).max().unwrap_or_default();
        let look = |row: usize, see: &mut dyn FnMut(Seen) -> Result<()>| match rows.get(row) {
            Some(DecoderRow { memory, .. }) => memory.show(layer, see),
            None => bail!("a step of {} rows has no row {row}", rows.len()),
        };
        Queries::new(q, d, d, scoring).attend(longest, scores, out, &look, None)
    }

    /// Shows a layer's keys and values, all of which a query sees.
    fn show(&self, layer: usize, see: &mut dyn FnMut(Seen) -> Result<()>) -> Result<()> {
        match self.layer(layer)? {
            MemoryLayer::Rows(rows) => {
                let all = 0..self.length;
                let ranges = std::slice::from_ref(&all);
                see(Seen { rows, ranges })
            }
            MemoryLayer::Tensor(_) => bail!("the prompt memory is kept for steps on tensors"),
        }
    }

    /// Attends from each row of `q` `[B, D]` to its own memory.
    pub(crate) fn attend(rows: &[DecoderRow], layer: usize, q: &Tensor, scoring: &Scoring) -> Result<Tensor> {
        let one = |(i, row): (usize, &DecoderRow)| {
            let mut plan = AttentionPlan::default();
            plan.push(vec![0..1], vec![0..row.memory.length], false);
            cross_attention(
                &q.narrow(0, i, 1)?,
                row.memory.kv(layer)?,
                &Arc::new(plan),
                scoring,
            ) // [1, D]
        };
        Tensor::cat(&rows.iter().enumerate().map(one).collect::<Result<Vec<_>>>()?, 0)
    }

    fn kv(&self, layer: usize) -> Result<&Tensor> {
        match self.layer(layer)? {
            MemoryLayer::Tensor(kv) => Ok(kv),
            MemoryLayer::Rows(_) => bail!("the prompt memory is kept for steps on slices"),
        }
    }

    fn layer(&self, layer: usize) -> Result<&MemoryLayer> {
        match self.layers.get(layer) {
            Some(layer) => Ok(layer),
            None => bail!(
                "the prompt memory has {} layers, asked for layer {layer}",
                self.layers.len()
            ),
        }
    }
}
