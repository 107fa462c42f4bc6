//! Attention over packed rows: one interface, several implementations.
//!
//! Rows of many samples lie in one `[N, D]` tensor; an [`AttentionPlan`] says which rows see which. The
//! implementations are chosen by device and number type:
//!
//! | implementation | where | differentiable |
//! |---|---|---|
//! | `reference` | anywhere | yes: composed of candle's operations; the specification |
//! | `cpu` | f32 on a CPU | yes: ragged, no padding, no copies of the projections |
//! | `flash` | f16 and bf16 on CUDA, with the feature `flash-attn` | no |

pub(crate) mod bias;
pub(crate) mod cpu;
#[cfg(feature = "flash-attn")]
pub(crate) mod flash;
pub(crate) mod reference;

use crate::kernels::access::is_cpu_f32;
pub(crate) use bias::RelativeBias;
use candle_core::{Result, Tensor};
use std::ops::Range;
use std::sync::Arc;

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
pub(crate) struct Tile {
    /// Which block of the plan.
    pub(crate) block: usize,
    /// How many of the block's query rows come before.
    pub(crate) first: usize,
    pub(crate) queries: Vec<Range<usize>>,
}

impl Tile {
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
    pub(crate) fn tiles(&self) -> Vec<Tile> {
        let blocks = self.blocks.iter().enumerate();
        blocks.flat_map(|(index, block)| tiles(index, block)).collect()
    }
}

/// Cuts a block's queries into tiles.
fn tiles(index: usize, block: &Block) -> Vec<Tile> {
    let tile = |first| Tile {
        block: index,
        first,
        queries: part(&block.queries, first..first + TILE_ROWS),
    };
    (0..block.query_rows()).step_by(TILE_ROWS).map(tile).collect()
}

/// Returns what of ranges lies in `wanted` when they are laid end to end.
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

/// How queries score keys.
#[derive(Clone, Debug)]
pub(crate) struct Scoring {
    pub(crate) heads: usize,
    /// Factor on the products of queries and keys.
    pub(crate) scale: f32,
    /// Added to the scaled products; a constant, also where the rest is differentiated.
    pub(crate) bias: Option<Arc<RelativeBias>>,
}

impl Scoring {
    /// Scores by the scaled products alone, as Vaswani et al. 2017 do.
    pub(crate) fn scaled(heads: usize, head_size: usize) -> Self {
        Self {
            heads,
            scale: 1.0 / (head_size as f32).sqrt(),
            bias: None,
        }
    }
}

/// Attends within one fused projection `[N, 3D]` (query, key, value), giving `[N, D]`.
pub(crate) fn self_attention(qkv: &Tensor, plan: &Arc<AttentionPlan>, scoring: &Scoring) -> Result<Tensor> {
    if is_cpu_f32(qkv) {
        return qkv.contiguous()?.apply_op1(cpu::SelfAttention {
            plan: Arc::clone(plan),
            scoring: scoring.clone(),
        });
    }
    let d = qkv.dim(1)? / 3;
    let (q, k, v) = (
        qkv.narrow(1, 0, d)?,
        qkv.narrow(1, d, d)?,
        qkv.narrow(1, 2 * d, d)?,
    ); // each [N, D]
    composed(&q, &k, &v, plan, scoring)
}

/// Attends from queries `[Nq, D]` to fused keys and values `[Nk, 2D]`, giving `[Nq, D]`.
pub(crate) fn cross_attention(
    q: &Tensor,
    kv: &Tensor,
    plan: &Arc<AttentionPlan>,
    scoring: &Scoring,
) -> Result<Tensor> {
    if is_cpu_f32(q) && is_cpu_f32(kv) {
        let operation = cpu::CrossAttention {
            plan: Arc::clone(plan),
            scoring: scoring.clone(),
        };
        return q.contiguous()?.apply_op2(&kv.contiguous()?, operation);
    }
    let d = kv.dim(1)? / 2;
    composed(q, &kv.narrow(1, 0, d)?, &kv.narrow(1, d, d)?, plan, scoring)
}

fn composed(q: &Tensor, k: &Tensor, v: &Tensor, plan: &AttentionPlan, scoring: &Scoring) -> Result<Tensor> {
    #[cfg(feature = "flash-attn")]
    if scoring.bias.is_none() && flash::takes(q, scoring.heads) {
        return flash::attend(q, k, v, plan, scoring);
    }
    reference::attend(q, k, v, plan, scoring)
}

#[cfg(test)]
mod tests;
