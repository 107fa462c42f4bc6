//! The blocks of a pool: reference counts, and the free list.

use std::ops::Range;

/// How many tokens a block holds.
pub(super) const BLOCK: usize = 16;

/// The reference count of each block, and the free blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    holders: Vec<usize>,
    free: Vec<usize>,
}

impl Blocks {
    pub(super) fn new(count: usize) -> Self {
        Self {
            holders: vec![0; count],
            // The lowest is allocated first, so that a slot's blocks are contiguous where nothing was
            // released.
            free: (0..count).rev().collect(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.holders.len()
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Counts the blocks that releasing these would free.
    pub(super) fn freed_by(&self, blocks: &[usize]) -> usize {
        blocks.iter().filter(|block| self.holders[**block] == 1).count()
    }

    pub(super) fn allocate(&mut self) -> Option<usize> {
        let block = self.free.pop()?;
        self.holders[block] = 1;
        Some(block)
    }

    pub(super) fn share(&mut self, blocks: &[usize]) {
        blocks.iter().for_each(|block| self.holders[*block] += 1);
    }

    pub(super) fn release(&mut self, blocks: &[usize]) {
        for &block in blocks {
            self.holders[block] -= 1;
            if self.holders[block] == 0 {
                self.free.push(block);
            }
        }
    }
}

/// The blocks of one sequence.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    pub(super) blocks: Vec<usize>,
    /// Number of tokens; while a step runs, the blocks may have room for one more.
    pub(super) length: usize,
}

impl Slot {
    /// Returns the row of the pool where the token at a place lies, if the slot holds a block for it.
    pub(super) fn row(&self, place: usize) -> Option<usize> {
        let block = self.blocks.get(place / BLOCK)?;
        Some(block * BLOCK + place % BLOCK)
    }

    /// Lists the rows of the first `length` tokens in order; blocks side by side make one range.
    pub(super) fn rows(&self, length: usize) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        self.list_rows(length, &mut ranges);
        ranges
    }

    /// Adds the rows of the first `length` tokens to a list of ranges.
    pub(super) fn list_rows(&self, length: usize, ranges: &mut Vec<Range<usize>>) {
        let before = ranges.len();
        for (block, first) in self.blocks.iter().zip((0..length).step_by(BLOCK)) {
            let start = block * BLOCK;
            let end = start + (length - first).min(BLOCK);
            match ranges.get_mut(before..).and_then(<[_]>::last_mut) {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
    }
}
