//! What decoding keeps between steps. Both belong to the caller: the model holds weights only.

use crate::attention::cpu::{Columns, attend};
use crate::attention::{AttentionPlan, Scoring, cross_attention};
use crate::decoder::{DecoderBatch, DecoderRow};
use crate::error::ForwardError;
use crate::kernels::access::{is_cpu_f32, with_slice};
use crate::model::Model;
use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;
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
                let one = |(row, q): (&DecoderRow, &[f32])| row.memory.attend_row(layer, q, scoring);
                let parts: Vec<_> = if b > 4 {
                    rows.par_iter().zip(q.par_chunks_exact(d)).map(one).collect()
                } else {
                    rows.iter().zip(q.chunks_exact(d)).map(one).collect()
                };
                parts.into_iter().collect::<Result<Vec<Vec<f32>>>>()
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

    fn kv(&self, layer: usize) -> Result<&Tensor> {
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

/// Keys and values of the tokens decoded so far, in slots, one per running sequence.
#[derive(Debug)]
pub struct KvCache {
    /// One tensor per decoder layer, `[slots * max_length, 2D]`: keys, then values.
    layers: Vec<Tensor>,
    lengths: Vec<usize>,
    max_length: usize,
}

impl KvCache {
    /// Makes room for `slots` sequences of at most `max_length` tokens.
    ///
    /// # Errors
    /// Where `max_length` is zero or above the model's limit, or there is no memory.
    pub fn new(model: &Model, slots: usize, max_length: usize) -> std::result::Result<Self, ForwardError> {
        let (layers, width, limit) = model.cache_shape()?;
        if max_length == 0 || max_length > limit {
            let found = max_length;
            return Err(ForwardError::TextTooLong {
                sample: 0,
                found,
                limit,
            });
        }
        let shape = (slots * max_length, 2 * width);
        let zeros = || Tensor::zeros(shape, model.dtype(), model.device());
        let layers = (0..layers).map(|_| zeros()).collect::<Result<_>>()?;
        Ok(Self {
            layers,
            lengths: vec![0; slots],
            max_length,
        })
    }

    /// Counts the tokens that a slot holds; zero for a slot that does not exist.
    #[must_use]
    pub fn length(&self, slot: usize) -> usize {
        self.lengths.get(slot).copied().unwrap_or(0)
    }

    /// Counts the slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.lengths.len()
    }

    /// Tells how many tokens a slot can hold.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Forgets what a slot holds.
    pub fn clear(&mut self, slot: usize) {
        if let Some(length) = self.lengths.get_mut(slot) {
            *length = 0;
        }
    }

    /// Makes slot `to` continue from what slot `from` holds.
    ///
    /// # Errors
    /// Where a slot does not exist.
    pub fn copy(&mut self, from: usize, to: usize) -> std::result::Result<(), ForwardError> {
        for slot in [from, to] {
            if slot >= self.lengths.len() {
                return Err(ForwardError::Slot {
                    slot,
                    problem: "does not exist",
                });
            }
        }
        let length = self.lengths[from];
        if from != to && length > 0 {
            for layer in &self.layers {
                let rows = layer.narrow(0, from * self.max_length, length)?.copy()?; // [length, 2D]
                layer.slice_set(&rows, 0, to * self.max_length)?;
            }
        }
        self.lengths[to] = length;
        Ok(())
    }

    /// Checks that each slot can take one more token and returns their positions.
    pub(crate) fn reserve(&self, slots: &[usize]) -> std::result::Result<Vec<u32>, ForwardError> {
        if slots.is_empty() {
            return Err(ForwardError::EmptyBatch);
        }
        let mut seen = vec![false; self.lengths.len()];
        let mut positions = Vec::with_capacity(slots.len());
        for &slot in slots {
            let problem = match (self.lengths.get(slot), seen.get(slot)) {
                (Some(length), Some(false)) if *length < self.max_length => {
                    seen[slot] = true;
                    positions.push(u32::try_from(*length).unwrap_or(u32::MAX));
                    continue;
                }
                (Some(_), Some(false)) => "is full",
                (Some(_), _) => "is named twice in one step",
                (None, _) => "does not exist",
            };
            return Err(ForwardError::Slot { slot, problem });
        }
        Ok(positions)
    }

    /// Counts the new token of each slot, after a step went through.
    pub(crate) fn commit(&mut self, batch: &DecoderBatch) {
        for row in batch.rows {
            if let Some(length) = self.lengths.get_mut(row.slot) {
                *length += 1;
            }
        }
    }

    fn layer(&self, layer: usize) -> Result<&Tensor> {
        match self.layers.get(layer) {
            Some(cache) => Ok(cache),
            None => bail!(
                "the cache has {} layers, asked for layer {layer}",
                self.layers.len()
            ),
        }
    }

    /// Stores the new keys and values of `qkv` `[B, 3D]` and attends from its queries to each slot's rows.
    pub(crate) fn attend(
        &mut self,
        layer: usize,
        qkv: &Tensor,
        slots: &[usize],
        scoring: &Scoring,
    ) -> Result<Tensor> {
        let d = qkv.dim(1)? / 3;
        let cache = self.layer(layer)?;
        let mut plan = AttentionPlan::default();
        for (row, &slot) in slots.iter().enumerate() {
            let (start, length) = (slot * self.max_length, self.lengths[slot]);
            let kv = qkv.narrow(0, row, 1)?.narrow(1, d, 2 * d)?.contiguous()?; // [1, 2D]
            cache.slice_set(&kv, 0, start + length)?;
            plan.push(vec![row..row + 1], vec![start..start + length + 1], false);
        }
        let q = qkv.narrow(1, 0, d)?.contiguous()?; // [B, D]
        cross_attention(&q, cache, &Arc::new(plan), scoring)
    }

    /// Stores the first of each two rows of `qkv` `[2B, 3D]`, a token and the mask behind it, and attends from both: to
    /// the prompt, to what was written, and causally to each other. The mask is forgotten.
    pub(crate) fn attend_masked(
        &mut self,
        layer: usize,
        qkv: &Tensor,
        rows: &[DecoderRow],
        scoring: &Scoring,
    ) -> Result<Tensor> {
        let d = qkv.dim(1)? / 3;
        let cache = self.layer(layer)?;
        let mut attended = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            let (start, length) = (row.slot * self.max_length, self.lengths[row.slot]);
            let own = qkv.narrow(0, 2 * index, 2)?; // [2, 3D]
            let kv = own.narrow(1, d, 2 * d)?.contiguous()?; // [2, 2D]
            cache.slice_set(&kv.narrow(0, 0, 1)?, 0, start + length)?;
            let written = cache.narrow(0, start, length + 1)?; // [L, 2D]
            let kv = Tensor::cat(&[row.memory.kv(layer)?, &written, &kv.narrow(0, 1, 1)?], 0)?; // [S + L + 1, 2D]
            let mut plan = AttentionPlan::default();
            plan.push(vec![0..2], vec![0..row.memory.length + length + 2], true);
            let q = own.narrow(1, 0, d)?.contiguous()?; // [2, D]
            attended.push(cross_attention(&q, &kv, &Arc::new(plan), scoring)?); // [2, D]
        }
        Tensor::cat(&attended, 0) // [2B, D]
    }
}
