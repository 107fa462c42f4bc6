//! Which query rows attend to which key rows, and how the queries are cut into tiles.

use std::ops::Range;

/// Query rows that all see the same key rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) queries: Vec<Range<usize>>,
    pub(crate) keys: Vec<Range<usize>>,
    /// The last query sees every key, the one before it all but the last key, and so on.
    pub(crate) causal: bool,
}

impl Block {
    pub(crate) fn query_rows(&self) -> usize {
        self.queries.iter().map(ExactSizeIterator::len).sum()
    }

    pub(crate) fn key_rows(&self) -> usize {
        self.keys.iter().map(ExactSizeIterator::len).sum()
    }
}

/// How many query rows of a block are attended at a time: their scores stay in the cache.
pub(crate) const TILE_ROWS: usize = 128;

/// Neighbouring query rows of a block. Where tiles begin depends on the block alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueryTile {
    /// Which block of the plan.
    pub(crate) block: usize,
    /// How many of the block's query rows come before.
    pub(crate) first: usize,
    pub(crate) queries: Vec<Range<usize>>,
}

impl QueryTile {
    pub(crate) fn rows(&self) -> usize {
        self.queries.iter().map(ExactSizeIterator::len).sum()
    }
}

/// Says which rows attend to which: each query row stands in exactly one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttentionPlan {
    pub(crate) blocks: Vec<Block>,
}

impl AttentionPlan {
    pub(crate) fn push(&mut self, queries: Vec<Range<usize>>, keys: Vec<Range<usize>>, causal: bool) {
        if queries.iter().any(|r| !r.is_empty()) {
            self.blocks.push(Block {
                queries,
                keys,
                causal,
            });
        }
    }

    /// Cuts the queries of every block into tiles, in the order of the blocks.
    pub(crate) fn tiles(&self) -> Vec<QueryTile> {
        let blocks = self.blocks.iter().enumerate();
        blocks.flat_map(|(index, block)| tiles(index, block)).collect()
    }
}

/// Cuts a block's queries into tiles.
fn tiles(index: usize, block: &Block) -> Vec<QueryTile> {
    let tile = |first| QueryTile {
        block: index,
        first,
        queries: part(&block.queries, first..first + TILE_ROWS),
    };
    (0..block.query_rows()).step_by(TILE_ROWS).map(tile).collect()
}

/// Returns the parts of ranges that lie in `wanted` when the ranges are laid end to end.
pub(crate) fn part(ranges: &[Range<usize>], wanted: Range<usize>) -> Vec<Range<usize>> {
    let mut before = 0;
    let mut parts = Vec::with_capacity(1);
    for range in ranges {
        let (start, end) = (before, before + range.len());
        let (from, to) = (wanted.start.max(start), wanted.end.min(end));
        if from < to {
            parts.push(range.start + from - start..range.start + to - start);
        }
        before = end;
    }
    parts
}
