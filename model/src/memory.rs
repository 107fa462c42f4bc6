//! What decoding keeps between steps. Both belong to the caller: the model holds weights only.

mod blocks;
mod cache;
mod layers;
mod scratch;

use crate::attention::cpu::{Columns, attend};
use crate::attention::{AttentionPlan, Scoring, cross_attention};
use crate::decoder::DecoderRow;
use crate::kernels::access::{is_cpu_f32, with_slice};
use crate::kernels::pool;
pub use cache::KvCache;
use candle_core::{Result, Tensor, bail};
pub(crate) use scratch::Scratch;
use std::sync::Arc;

/// One decoder layer's cross-attention keys and values of one prompt.
#[derive(Clone, Debug)]
pub(crate) struct MemoryLayer {
    /// `[S, 2D]`: keys, then values.
    pub(crate) kv: Tensor,
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
        self.layers
            .iter()
            .map(|layer| layer.kv.elem_count() * layer.kv.dtype().size_in_bytes())
            .sum()
    }

    /// Attends from each row of `q` `[B, D]` to its own memory.
    pub(crate) fn attend(rows: &[DecoderRow], layer: usize, q: &Tensor, scoring: &Scoring) -> Result<Tensor> {
        let (b, d) = q.dims2()?;
        if is_cpu_f32(q) {
            let out = with_slice(q, |q| {
                let queries: Vec<&[f32]> = q.chunks_exact(d).collect();
                let one = |at: usize| rows[at].memory.attend_row(layer, queries[at], scoring);
                pool::map(queries.len().min(rows.len()), one)
                    .into_iter()
                    .collect::<Result<Vec<Vec<f32>>>>()
            })?;
            return Tensor::from_vec(out.concat(), (b, d), q.device()); // [B, D]
        }
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

    pub(crate) fn kv(&self, layer: usize) -> Result<&Tensor> {
        match self.layers.get(layer) {
            Some(layer) => Ok(&layer.kv),
            None => bail!(
                "the prompt memory has {} layers, asked for layer {layer}",
                self.layers.len()
            ),
        }
    }

    fn attend_row(&self, layer: usize, q: &[f32], scoring: &Scoring) -> Result<Vec<f32>> {
        let d = q.len();
        let mut plan = AttentionPlan::default();
        plan.push(vec![0..1], vec![0..self.length], false);
        with_slice(self.kv(layer)?, |kv| {
            let memory = |offset| Columns {
                values: kv,
                width: 2 * d,
                offset,
            };
            attend(
                [
                    Columns {
                        values: q,
                        width: d,
                        offset: 0,
                    },
                    memory(0),
                    memory(d),
                ],
                &plan,
                (1, d),
                scoring,
            )
        })
    }
}
