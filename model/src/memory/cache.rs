//! The cache of written tokens: slots that hold blocks of a common pool.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor, bail};

use super::blocks::{BLOCK, Blocks, Slot};
use super::scratch::StepScratch;
use super::storage::KvLayers;
use crate::error::ForwardError;
use crate::kernels::rows::{KvLayout, KvRows};

/// The shape of a model's cache.
#[derive(Clone, Debug)]
pub(crate) struct CacheShape {
    /// How many layers have keys and values.
    pub(crate) layers: usize,
    /// The most tokens of a sequence.
    pub(crate) max_length: usize,
    pub(crate) form: RowForm,
}

/// The form of a row of keys and values.
#[derive(Clone, Debug)]
pub(crate) enum RowForm {
    Host(KvLayout),
    Graph {
        /// Width of keys, and of values.
        width: usize,
        dtype: DType,
        device: Device,
    },
}

impl CacheShape {
    /// Counts the bytes that a token takes over all layers.
    pub(crate) fn token_bytes(&self) -> usize {
        self.layers
            * match &self.form {
                RowForm::Host(layout) => layout.row_bytes(),
                RowForm::Graph { width, dtype, .. } => 2 * width * dtype.size_in_bytes(),
            }
    }

    /// Makes `blocks` blocks of zeros for each layer.
    fn zeros(&self, blocks: usize) -> Result<KvLayers> {
        let layers = 0..self.layers;
        Ok(match &self.form {
            RowForm::Host(layout) => {
                KvLayers::Host(layers.map(|_| KvRows::zeros(*layout, BLOCK, blocks)).collect())
            }
            RowForm::Graph { width, dtype, device } => {
                let shape = (blocks * BLOCK, 2 * width);
                let zeros = layers.map(|_| Tensor::zeros(shape, *dtype, device));
                KvLayers::Graph(zeros.collect::<Result<_>>()?)
            }
        })
    }
}

/// Keys and values of the tokens decoded so far, in slots, one per running sequence.
///
/// A slot holds blocks of a common pool and allocates another when a step writes its first token, so that its
/// size is that of its tokens and not that of the longest sequence. Slots that continue from the same tokens
/// share their full blocks: only the last block of a slot is written, and no other slot holds it unless it is
/// full.
///
/// Source: the paging of Kwon et al. 2023 (arXiv 2309.06180), section 4.
#[derive(Debug)]
pub struct KvCache {
    /// Of each decoder layer, `blocks * BLOCK` rows of keys and values.
    layers: KvLayers,
    slots: Vec<Slot>,
    /// Slots that are named in the step that is being reserved.
    named: Vec<bool>,
    blocks: Blocks,
    max_length: usize,
    token_bytes: usize,
    /// The scratch buffers of steps on the host, so that warm ones need no allocation.
    scratch: StepScratch,
}

impl KvCache {
    /// How many tokens a block holds.
    pub const BLOCK: usize = BLOCK;

    /// Makes room for `slots` sequences of at most `max_length` tokens, all of which may be that long at
    /// once.
    pub(crate) fn new(
        shape: &CacheShape,
        slots: usize,
        max_length: usize,
    ) -> std::result::Result<Self, ForwardError> {
        if max_length == 0 || max_length > shape.max_length {
            return Err(ForwardError::TextTooLong {
                sample: 0,
                found: max_length,
                limit: shape.max_length,
            });
        }
        let tokens = slots * max_length.next_multiple_of(BLOCK);
        let cache = Self::with_capacity(shape, slots, tokens)?;
        Ok(Self { max_length, ..cache })
    }

    /// Makes room for `tokens` tokens in all, rounded up to whole blocks, in `slots` sequences.
    pub(crate) fn with_capacity(
        shape: &CacheShape,
        slots: usize,
        tokens: usize,
    ) -> std::result::Result<Self, ForwardError> {
        let blocks = tokens.div_ceil(BLOCK);
        Ok(Self {
            layers: shape.zeros(blocks)?,
            slots: vec![Slot::default(); slots],
            named: vec![false; slots],
            blocks: Blocks::new(blocks),
            max_length: shape.max_length,
            token_bytes: shape.token_bytes(),
            scratch: StepScratch::default(),
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
        (self.blocks.count() - self.blocks.free()) * BLOCK * self.token_bytes
    }

    /// Counts the tokens for which there is room in blocks that no slot holds.
    ///
    /// A slot may still write into the rest of its last block where this is zero.
    #[must_use]
    pub fn free_tokens(&self) -> usize {
        self.blocks.free() * BLOCK
    }

    /// Clears a slot and releases its blocks.
    pub fn clear(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            self.blocks.release(&slot.blocks);
            // Its memory stays for the next sequence.
            slot.blocks.clear();
            slot.length = 0;
        }
    }

    /// Makes slot `to` continue from what slot `from` holds: they share the full blocks, and the last one is
    /// copied.
    ///
    /// # Errors
    /// Where a slot does not exist, or no block is free even without what `to` held. The cache is unchanged
    /// then; where the device itself fails in the middle, `to` is empty.
    pub fn copy(&mut self, from: usize, to: usize) -> std::result::Result<(), ForwardError> {
        let source = self.slot(from)?;
        let target = self.slot(to)?;
        if from == to {
            return Ok(());
        }
        let (length, full) = (source.length, source.length / BLOCK);
        let rest = length % BLOCK;
        let tail = source.blocks.get(full).copied().filter(|_| rest > 0);
        if tail.is_some() && self.blocks.free() + self.blocks.freed_by(&target.blocks) == 0 {
            return Err(self.full());
        }
        let mut blocks = source.blocks[..full].to_vec();
        self.blocks.share(&blocks);
        self.clear(to);
        let own = tail.and_then(|_| self.blocks.allocate());
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
            tokens: self.blocks.count() * BLOCK,
        }
    }

    /// Checks that each slot has room for one more token, then allocates a block for those that need one, and
    /// returns the tokens' positions. Where an error is returned, nothing was allocated.
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
                let block = self.blocks.allocate();
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

    /// Counts the new token of each slot after a step.
    pub(crate) fn commit(&mut self, slots: impl Iterator<Item = usize>) {
        for slot in slots {
            if let Some(slot) = self.slots.get_mut(slot) {
                slot.length += 1;
            }
        }
    }

    /// Releases the blocks that were reserved for a step's tokens, after the step failed.
    pub(crate) fn retract(&mut self, slots: impl Iterator<Item = usize>) {
        slots.for_each(|slot| self.retract_slot(slot));
    }

    fn retract_slot(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            let held = slot.length.div_ceil(BLOCK).min(slot.blocks.len());
            self.blocks.release(&slot.blocks.split_off(held));
        }
    }

    /// Takes the scratch buffers for a step, until [`KvCache::return_scratch`].
    pub(crate) fn take_scratch(&mut self) -> StepScratch {
        std::mem::take(&mut self.scratch)
    }

    pub(crate) fn return_scratch(&mut self, scratch: StepScratch) {
        self.scratch = scratch;
    }

    /// Lists the rows of each slot's tokens, one more than it holds included, in the scratch of a step.
    pub(crate) fn list_rows(
        &self,
        slots: impl Iterator<Item = usize>,
        scratch: &mut StepScratch,
    ) -> Result<()> {
        let StepScratch { ranges, ends, .. } = scratch;
        ranges.clear();
        ends.clear();
        for slot in slots {
            match self
                .slots
                .get(slot)
                .filter(|held| held.row(held.length).is_some())
            {
                Some(held) => held.list_rows(held.length + 1, ranges),
                None => bail!("cache slot {slot} has no block for its next token"),
            }
            ends.push(ranges.len());
        }
        Ok(())
    }

    /// Returns each layer's rows of plain memory.
    pub(crate) fn host(&mut self) -> std::result::Result<&mut [KvRows], ForwardError> {
        self.layers.host_mut("cache")
    }

    /// Returns a layer's tensor, `[rows, 2D]`.
    pub(crate) fn graph(&self, layer: usize) -> std::result::Result<&Tensor, ForwardError> {
        self.layers.graph("cache", layer)
    }

    /// Stores keys and values `[1, 2D]` of a slot's next token in a layer's tensor, and returns the rows of
    /// all its tokens, that one included.
    pub(crate) fn store(&self, cache: &Tensor, kv: &Tensor, slot: usize) -> Result<Vec<Range<usize>>> {
        let held = self.slots.get(slot);
        match held.and_then(|held| Some((held.row(held.length)?, held.rows(held.length + 1)))) {
            Some((row, rows)) => cache.slice_set(kv, 0, row).map(|()| rows),
            None => bail!("cache slot {slot} has no block for its next token"),
        }
    }
}

#[cfg(test)]
mod tests;
