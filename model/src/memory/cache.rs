//! The cache of written tokens: slots that hold blocks of a common pool.

use super::blocks::{Blocks, Slot};
use super::layers::Layers;
use super::scratch::Scratch;
use crate::attention::{AttentionPlan, Scoring, cross_attention};
use crate::decoder::{DecoderBatch, DecoderRow};
use crate::error::ForwardError;
use crate::kernels::access::is_cpu_f32;
use crate::kernels::rows::Rows;
use crate::model::Model;
use candle_core::{Result, Tensor, bail};
use std::ops::Range;
use std::sync::Arc;

/// Keys and values of the tokens decoded so far, in slots, one per running sequence.
///
/// A slot holds blocks of a common pool and takes another when a step writes the first token into it, so it occupies what
/// it has written and not what it could. Slots that continue from the same tokens share their full blocks: only the last
/// block of a slot is written, and no other slot holds it unless it is full.
///
/// Source: the paging of Kwon et al. 2023 (arXiv 2309.06180), section 4.
#[derive(Debug)]
pub struct KvCache {
    /// Of each decoder layer, `blocks * BLOCK` rows of keys and values.
    layers: Layers,
    slots: Vec<Slot>,
    /// Slots that are named in the step that is being reserved.
    named: Vec<bool>,
    blocks: Blocks,
    max_length: usize,
    token_bytes: usize,
    /// What a step on slices works in, so that later ones need not ask for memory.
    scratch: Scratch,
}

impl KvCache {
    /// How many tokens a block holds.
    pub const BLOCK: usize = 16;

    /// Makes room for `slots` sequences of at most `max_length` tokens, all of which may be that long at once.
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
        let tokens = slots * max_length.next_multiple_of(Self::BLOCK);
        let cache = Self::with_capacity(model, slots, tokens)?;
        Ok(Self { max_length, ..cache })
    }

    /// Makes room for `tokens` tokens in all, rounded up to whole blocks, in `slots` sequences, each as long as the model
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
        let blocks = tokens.div_ceil(Self::BLOCK);
        let shape = (blocks * Self::BLOCK, 2 * width);
        let zeros = || Tensor::zeros(shape, model.dtype(), model.device());
        let layers = match model.kept_on_slices() {
            Some(layout) => Layers::Host(
                (0..layers)
                    .map(|_| Rows::zeros(layout, Self::BLOCK, blocks))
                    .collect(),
            ),
            None => Layers::Device((0..layers).map(|_| zeros()).collect::<Result<_>>()?),
        };
        Ok(Self {
            layers,
            slots: vec![Slot::default(); slots],
            named: vec![false; slots],
            blocks: Blocks::new(blocks),
            max_length,
            token_bytes: model.cache_token_bytes(),
            scratch: Scratch::default(),
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

    /// Tells how many bytes a token takes over all layers.
    #[must_use]
    pub fn token_bytes(&self) -> usize {
        self.token_bytes
    }

    /// Counts the bytes of the blocks that slots hold, each once however many hold it.
    #[must_use]
    pub fn bytes_in_use(&self) -> usize {
        (self.blocks.count() - self.blocks.free()) * Self::BLOCK * self.token_bytes
    }

    /// Counts the tokens for which there is room in blocks that no slot holds.
    ///
    /// A slot may still write into the rest of its last block where this is zero.
    #[must_use]
    pub fn free_tokens(&self) -> usize {
        self.blocks.free() * Self::BLOCK
    }

    /// Forgets what a slot holds and gives back its blocks.
    pub fn clear(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            self.blocks.give(&slot.blocks);
            // Its memory stays for the next sequence.
            slot.blocks.clear();
            slot.length = 0;
        }
    }

    /// Makes slot `to` continue from what slot `from` holds: they share the full blocks, and the last one is copied.
    ///
    /// # Errors
    /// Where a slot does not exist, or no block is free even without what `to` held. The cache is unchanged then; where
    /// the device itself fails in the middle, `to` is empty.
    pub fn copy(&mut self, from: usize, to: usize) -> std::result::Result<(), ForwardError> {
        let source = self.slot(from)?;
        let target = self.slot(to)?;
        if from == to {
            return Ok(());
        }
        let (length, full) = (source.length, source.length / Self::BLOCK);
        let rest = length % Self::BLOCK;
        let tail = source.blocks.get(full).copied().filter(|_| rest > 0);
        if tail.is_some() && self.blocks.free() + self.blocks.freed_by(&target.blocks) == 0 {
            return Err(self.full());
        }
        let mut blocks = source.blocks[..full].to_vec();
        self.blocks.share(&blocks);
        self.clear(to);
        let own = tail.and_then(|_| self.blocks.take());
        blocks.extend(own);
        self.slots[to] = Slot { blocks, length: 0 };
        if let (Some(tail), Some(own)) = (tail, own) {
            let copied = self.layers.copy(tail, rest, own);
            copied.inspect_err(|_| self.clear(to))?;
        }
        self.slots[to].length = length;
        Ok(())
    }

    fn slot(&self, slot: usize) -> std::result::Result<&Slot, ForwardError> {
        let problem = "does not exist";
        self.slots.get(slot).ok_or(ForwardError::Slot { slot, problem })
    }

    fn full(&self) -> ForwardError {
        ForwardError::CacheFull {
            tokens: self.blocks.count() * Self::BLOCK,
        }
    }

    /// Checks that each slot can take one more token, then gives a block to those that need one, and returns the tokens'
    /// positions. Where an error is returned, nothing was given.
    pub(crate) fn reserve(&mut self, slots: &[usize]) -> std::result::Result<Vec<u32>, ForwardError> {
        let mut positions = Vec::with_capacity(slots.len());
        self.reserve_into(slots.iter().copied(), &mut positions)?;
        Ok(positions)
    }

    /// Reserves as [`KvCache::reserve`] does, and writes the positions into a buffer.
    pub(crate) fn reserve_into(
        &mut self,
        slots: impl Iterator<Item = usize> + Clone,
        positions: &mut Vec<u32>,
    ) -> std::result::Result<(), ForwardError> {
        positions.clear();
        let named = slots.clone().try_for_each(|slot| self.name(slot, positions));
        // Those that were named: after an error, the first ones.
        for slot in slots.clone().take(positions.len()) {
            self.named[slot] = false;
        }
        named?;
        if positions.is_empty() {
            return Err(ForwardError::EmptyBatch);
        }
        let wants = |held: &Slot| held.row(held.length).is_none();
        let wanting = slots.clone().filter(|slot| wants(&self.slots[*slot]));
        if wanting.count() > self.blocks.free() {
            return Err(self.full());
        }
        for slot in slots {
            if wants(&self.slots[slot]) {
                let block = self.blocks.take();
                self.slots[slot].blocks.extend(block);
            }
        }
        Ok(())
    }

    /// Notes that a slot is part of a step, and its next token's position.
    fn name(&mut self, index: usize, positions: &mut Vec<u32>) -> std::result::Result<(), ForwardError> {
        let length = self.slot(index)?.length;
        let problem = match self.named[index] {
            true => "is named twice in one step",
            false if length >= self.max_length => "is full",
            false => {
                self.named[index] = true;
                positions.push(u32::try_from(length).unwrap_or(u32::MAX));
                return Ok(());
            }
        };
        Err(ForwardError::Slot { slot: index, problem })
    }

    /// Counts the new token of each slot, after a step went through.
    pub(crate) fn commit(&mut self, batch: &DecoderBatch) {
        for row in batch.rows {
            if let Some(slot) = self.slots.get_mut(row.slot) {
                slot.length += 1;
            }
        }
    }

    /// Gives back the blocks that were taken for a step's tokens, after it failed.
    pub(crate) fn retract(&mut self, batch: &DecoderBatch) {
        batch.rows.iter().for_each(|row| self.retract_slot(row.slot));
    }

    fn retract_slot(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            let held = slot.length.div_ceil(Self::BLOCK).min(slot.blocks.len());
            self.blocks.give(&slot.blocks.split_off(held));
        }
    }

    /// Lends what steps on slices work in; it is to be given back by [`KvCache::return_scratch`].
    pub(crate) fn take_scratch(&mut self) -> Scratch {
        std::mem::take(&mut self.scratch)
    }

    pub(crate) fn return_scratch(&mut self, scratch: Scratch) {
        self.scratch = scratch;
    }

    /// Lists the rows of each slot's tokens, one more than it holds included, and where each one's lie in the list.
    pub(crate) fn list_rows(
        &self,
        slots: impl Iterator<Item = usize>,
        (rows, ends): (&mut Vec<Range<usize>>, &mut Vec<usize>),
    ) -> Result<()> {
        rows.clear();
        ends.clear();
        for slot in slots {
            match self
                .slots
                .get(slot)
                .filter(|held| held.row(held.length).is_some())
            {
                Some(held) => held.list_rows(held.length + 1, rows),
                None => bail!("cache slot {slot} has no block for its next token"),
            }
            ends.push(rows.len());
        }
        Ok(())
    }

    /// Returns a layer's rows, of a cache for steps on slices.
    pub(crate) fn host(&mut self, layer: usize) -> Result<&mut Rows> {
        self.layers.host(layer)
    }

    /// Stores keys and values `[1, 2D]` of a slot's next token and returns the rows of all its tokens, that one included.
    fn store(&self, cache: &Tensor, kv: &Tensor, slot: usize) -> Result<Vec<Range<usize>>> {
        let held = self.slots.get(slot);
        match held.and_then(|held| Some((held.row(held.length)?, held.rows(held.length + 1)))) {
            Some((row, rows)) => cache.slice_set(kv, 0, row).map(|()| rows),
            None => bail!("cache slot {slot} has no block for its next token"),
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
        let cache = self.layers.tensor(layer)?;
        let mut keys = Vec::with_capacity(slots.len());
        for (row, &slot) in slots.iter().enumerate() {
            let kv = qkv.narrow(0, row, 1)?.narrow(1, d, 2 * d)?.contiguous()?; // [1, 2D]
            keys.push(self.store(cache, &kv, slot)?);
        }
        let q = qkv.narrow(1, 0, d)?.contiguous()?; // [B, D]
        if is_cpu_f32(cache) {
            return cross_attention(&q, cache, &Arc::new(plan(keys)), scoring);
        }
        // The other kernels split keys from values, which copies all rows they are given: give them these slots' alone.
        let (kv, keys) = gather(cache, &keys)?;
        cross_attention(&q, &kv, &Arc::new(plan(keys)), scoring)
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
        let cache = self.layers.tensor(layer)?;
        let mut attended = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            let own = qkv.narrow(0, 2 * index, 2)?; // [2, 3D]
            let kv = own.narrow(1, d, 2 * d)?.contiguous()?; // [2, 2D]
            let written = self.store(cache, &kv.narrow(0, 0, 1)?, row.slot)?;
            let mut parts = vec![row.memory.kv(layer)?.clone()]; // [S, 2D]
            for range in written {
                parts.push(cache.narrow(0, range.start, range.len())?); // [rows, 2D]
            }
            parts.push(kv.narrow(0, 1, 1)?); // [1, 2D]
            let kv = Tensor::cat(&parts, 0)?; // [S + L + 1, 2D]
            let mut plan = AttentionPlan::default();
            plan.push(vec![0..2], vec![0..kv.dim(0)?], true);
            let q = own.narrow(1, 0, d)?.contiguous()?; // [2, D]
            attended.push(cross_attention(&q, &kv, &Arc::new(plan), scoring)?); // [2, D]
        }
        Tensor::cat(&attended, 0) // [2B, D]
    }
}

/// Lets query `i` see the `i`-th of the lists of rows.
fn plan(keys: Vec<Vec<Range<usize>>>) -> AttentionPlan {
    let mut plan = AttentionPlan::default();
    for (row, keys) in keys.into_iter().enumerate() {
        plan.push(vec![row..row + 1], keys, false);
    }
    plan
}

/// Copies rows of the pool behind one another, `[rows, 2D]`, and tells where each list of them lies now.
fn gather(cache: &Tensor, keys: &[Vec<Range<usize>>]) -> Result<(Tensor, Vec<Vec<Range<usize>>>)> {
    let mut parts = Vec::new();
    let mut places = Vec::with_capacity(keys.len());
    let mut next = 0;
    for ranges in keys {
        let start = next;
        for range in ranges {
            parts.push(cache.narrow(0, range.start, range.len())?); // [rows, 2D]
            next += range.len();
        }
        places.push(vec![start..next]);
    }
    Ok((Tensor::cat(&parts, 0)?, places))
}

#[cfg(test)]
mod tests;
