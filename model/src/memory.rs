//! What decoding keeps between steps. Both belong to the caller: the model holds weights only.

use crate::attention::cpu::{Columns, attend};
use crate::attention::{AttentionPlan, Scoring, cross_attention};
use crate::decoder::{DecoderBatch, DecoderRow};
use crate::error::ForwardError;
use crate::kernels::access::{is_cpu_f32, with_slice};
use crate::model::Model;
use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;
use std::ops::Range;
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
///
/// A slot holds blocks of a common pool, and takes one more when it writes the first token into it, so that it occupies what
/// it has written and not what it could. Full blocks are shared by slots that continue from the same tokens: only the
/// block that a slot writes into is its own.
#[derive(Debug)]
pub struct KvCache {
    /// One tensor per decoder layer, `[blocks * BLOCK, 2D]`: keys, then values.
    layers: Vec<Tensor>,
    slots: Vec<Slot>,
    blocks: Blocks,
    max_length: usize,
    token_bytes: usize,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    blocks: Vec<usize>,
    /// Tokens that were written; the blocks have room for at least as many.
    length: usize,
}

impl Slot {
    /// Returns the row of the pool where the token at a place lies.
    fn row(&self, place: usize) -> Option<usize> {
        let block = self.blocks.get(place / KvCache::BLOCK)?;
        Some(block * KvCache::BLOCK + place % KvCache::BLOCK)
    }

    /// Lists the rows of the first `length` tokens, a range for each block.
    fn rows(&self, length: usize) -> Vec<Range<usize>> {
        let blocks = self.blocks.iter().zip((0..length).step_by(KvCache::BLOCK));
        let range = |(block, first): (&usize, usize)| {
            let start = block * KvCache::BLOCK;
            start..start + (length - first).min(KvCache::BLOCK)
        };
        blocks.map(range).collect()
    }
}

/// The account of a pool's blocks.
#[derive(Debug)]
struct Blocks {
    /// How many slots hold each block.
    holders: Vec<usize>,
    free: Vec<usize>,
}

impl Blocks {
    fn new(count: usize) -> Self {
        Self {
            holders: vec![0; count],
            free: (0..count).rev().collect(),
        }
    }

    fn take(&mut self) -> Option<usize> {
        let block = self.free.pop()?;
        self.holders[block] = 1;
        Some(block)
    }

    fn share(&mut self, blocks: &[usize]) {
        blocks.iter().for_each(|block| self.holders[*block] += 1);
    }

    fn give(&mut self, blocks: &[usize]) {
        for &block in blocks {
            self.holders[block] -= 1;
            if self.holders[block] == 0 {
                self.free.push(block);
            }
        }
    }
}

impl KvCache {
    /// How many tokens a block holds.
    pub const BLOCK: usize = 16;

    /// Makes room for `slots` sequences of at most `max_length` tokens.
    ///
    /// # Errors
    /// Where `max_length` is zero or above the model's limit, or there is no memory.
    pub fn new(model: &Model, slots: usize, max_length: usize) -> std::result::Result<Self, ForwardError> {
        let (_, _, limit) = model.cache_shape()?;
        if max_length == 0 || max_length > limit {
            let found = max_length;
            return Err(ForwardError::TextTooLong {
                sample: 0,
                found,
                limit,
            });
        }
        let tokens = slots * max_length.div_ceil(Self::BLOCK) * Self::BLOCK;
        let mut cache = Self::with_capacity(model, slots, tokens)?;
        cache.max_length = max_length;
        Ok(cache)
    }

    /// Makes room for `tokens` tokens, rounded down to whole blocks, in up to `slots` sequences of any length that the model
    /// writes.
    ///
    /// # Errors
    /// Where the model writes no text, or there is no memory.
    pub fn with_capacity(
        model: &Model,
        slots: usize,
        tokens: usize,
    ) -> std::result::Result<Self, ForwardError> {
        let (layers, width, max_length) = model.cache_shape()?;
        let blocks = tokens / Self::BLOCK;
        let shape = (blocks * Self::BLOCK, 2 * width);
        let zeros = || Tensor::zeros(shape, model.dtype(), model.device());
        Ok(Self {
            layers: (0..layers).map(|_| zeros()).collect::<Result<_>>()?,
            slots: vec![Slot::default(); slots],
            blocks: Blocks::new(blocks),
            max_length,
            token_bytes: model.cache_token_bytes(),
        })
    }

    /// Counts the tokens that a slot holds; zero for a slot that does not exist.
    #[must_use]
    pub fn length(&self, slot: usize) -> usize {
        self.slots.get(slot).map_or(0, |slot| slot.length)
    }

    /// Counts the slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Tells how many tokens a slot can hold.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Counts the tokens for which there is room in blocks that no slot holds.
    #[must_use]
    pub fn free_tokens(&self) -> usize {
        self.blocks.free.len() * Self::BLOCK
    }

    /// Counts the bytes of the blocks that slots hold.
    #[must_use]
    pub fn bytes_in_use(&self) -> usize {
        (self.blocks.holders.len() - self.blocks.free.len()) * Self::BLOCK * self.token_bytes
    }

    /// Forgets what a slot holds.
    pub fn clear(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            self.blocks.give(&slot.blocks);
            *slot = Slot::default();
        }
    }

    /// Makes slot `to` continue from what slot `from` holds: full blocks are shared, the last one is copied.
    ///
    /// # Errors
    /// Where a slot does not exist, or no block is free; `to` is then as it was.
    pub fn copy(&mut self, from: usize, to: usize) -> std::result::Result<(), ForwardError> {
        for slot in [from, to] {
            if slot >= self.slots.len() {
                let problem = "does not exist";
                return Err(ForwardError::Slot { slot, problem });
            }
        }
        if from == to {
            return Ok(());
        }
        let source = &self.slots[from];
        let (length, full) = (source.length, source.length / Self::BLOCK);
        let mut blocks = source.blocks[..full].to_vec();
        let partial = (length % Self::BLOCK > 0).then(|| source.blocks[full]);
        if let Some(partial) = partial {
            let own = self.blocks.take().ok_or_else(|| self.full())?;
            if let Err(error) = self.copy_block(partial, own, length % Self::BLOCK) {
                self.blocks.give(&[own]);
                return Err(error.into());
            }
            self.blocks.share(&blocks);
            blocks.push(own);
        } else {
            self.blocks.share(&blocks);
        }
        let old = std::mem::replace(&mut self.slots[to], Slot { blocks, length });
        self.blocks.give(&old.blocks);
        Ok(())
    }

    fn copy_block(&self, from: usize, to: usize, rows: usize) -> Result<()> {
        for layer in &self.layers {
            let rows = layer.narrow(0, from * Self::BLOCK, rows)?.copy()?; // [rows, 2D]
            layer.slice_set(&rows, 0, to * Self::BLOCK)?;
        }
        Ok(())
    }

    fn full(&self) -> ForwardError {
        ForwardError::CacheFull {
            tokens: self.blocks.holders.len() * Self::BLOCK,
        }
    }

    /// Checks that each slot can take one more token, gives it a block where it needs one, and returns the positions.
    pub(crate) fn reserve(&mut self, slots: &[usize]) -> std::result::Result<Vec<u32>, ForwardError> {
        if slots.is_empty() {
            return Err(ForwardError::EmptyBatch);
        }
        let mut seen = vec![false; self.slots.len()];
        let mut positions = Vec::with_capacity(slots.len());
        let mut wanting = Vec::new();
        for &index in slots {
            let problem = match (self.slots.get(index), seen.get(index)) {
                (Some(slot), Some(false)) if slot.length < self.max_length => {
                    seen[index] = true;
                    positions.push(u32::try_from(slot.length).unwrap_or(u32::MAX));
                    if slot.row(slot.length).is_none() {
                        wanting.push(index);
                    }
                    continue;
                }
                (Some(_), Some(false)) => "is full",
                (Some(_), _) => "is named twice in one step",
                (None, _) => "does not exist",
            };
            return Err(ForwardError::Slot { slot: index, problem });
        }
        if wanting.len() > self.blocks.free.len() {
            return Err(self.full());
        }
        for index in wanting {
            let block = self.blocks.take();
            self.slots[index].blocks.extend(block);
        }
        Ok(positions)
    }

    /// Counts the new token of each slot, after a step went through.
    pub(crate) fn commit(&mut self, batch: &DecoderBatch) {
        for row in batch.rows {
            if let Some(slot) = self.slots.get_mut(row.slot) {
                slot.length += 1;
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

    /// Returns where a slot's next token goes, and the rows of all its tokens with that one.
    fn next(&self, slot: usize) -> Result<(usize, Vec<Range<usize>>)> {
        let slot = &self.slots[slot];
        match slot.row(slot.length) {
            Some(row) => Ok((row, slot.rows(slot.length + 1))),
            None => bail!("the slot has no block for its next token"),
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
            let (next, rows) = self.next(slot)?;
            let kv = qkv.narrow(0, row, 1)?.narrow(1, d, 2 * d)?.contiguous()?; // [1, 2D]
            cache.slice_set(&kv, 0, next)?;
            plan.push(vec![row..row + 1], rows, false);
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
            let (next, written) = self.next(row.slot)?;
            let own = qkv.narrow(0, 2 * index, 2)?; // [2, 3D]
            let kv = own.narrow(1, d, 2 * d)?.contiguous()?; // [2, 2D]
            cache.slice_set(&kv.narrow(0, 0, 1)?, 0, next)?;
            let length: usize = written.iter().map(ExactSizeIterator::len).sum();
            let mut parts = vec![row.memory.kv(layer)?.clone()]; // [S, 2D]
            for range in written {
                parts.push(cache.narrow(0, range.start, range.len())?); // [rows, 2D]
            }
            parts.push(kv.narrow(0, 1, 1)?); // [1, 2D]
            let kv = Tensor::cat(&parts, 0)?; // [S + L + 1, 2D]
            let mut plan = AttentionPlan::default();
            plan.push(vec![0..2], vec![0..row.memory.length + length + 1], true);
            let q = own.narrow(1, 0, d)?.contiguous()?; // [2, D]
            attended.push(cross_attention(&q, &kv, &Arc::new(plan), scoring)?); // [2, D]
        }
        Tensor::cat(&attended, 0) // [2B, D]
    }
}

#[cfg(test)]
mod tests;
