//! Ragged attention on the CPU in f32, forward and backward, reading fused projections where they lie.
//!
//! Each block's queries are taken in tiles, gathered, attended head by head with single-threaded matrix products, and
//! scattered. What a tile gives depends on its block's rows alone, so results do not change with what else is in the batch,
//! nor with how many tiles are done at a time.

use super::{AttentionPlan, Block, Scoring, Tile};
use crate::kernels::access::{slice, with_slice};
use crate::kernels::gemm::{Matrix, MatrixMut, multiply};
use crate::kernels::pool;
use crate::kernels::simd::{exp, multiversion};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Self-attention on a fused projection `[N, 3D]`.
pub(crate) struct SelfAttention {
    pub(crate) plan: Arc<AttentionPlan>,
    pub(crate) scoring: Scoring,
}

/// Cross-attention from queries `[Nq, D]` to fused keys and values `[Nk, 2D]`.
pub(crate) struct CrossAttention {
    pub(crate) plan: Arc<AttentionPlan>,
    pub(crate) scoring: Scoring,
}

/// Columns `offset..offset + D` of a row-major matrix whose rows are `width` long.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) width: usize,
    pub(crate) offset: usize,
}

impl Columns<'_> {
    fn gather(&self, ranges: &[Range<usize>], d: usize) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(ranges.iter().map(ExactSizeIterator::len).sum::<usize>() * d);
        for row in ranges.iter().flat_map(Clone::clone) {
            let start = row * self.width + self.offset;
            match self.values.get(start..start + d) {
                Some(part) => out.extend_from_slice(part),
                None => bail!(
                    "attention: row {row} of {}",
                    self.values.len() / self.width.max(1)
                ),
            }
        }
        Ok(out)
    }
}

fn scatter(
    from: &[f32],
    to: &mut [f32],
    ranges: &[Range<usize>],
    d: usize,
    width: usize,
    offset: usize,
    add: bool,
) {
    for (row, part) in ranges.iter().flat_map(Clone::clone).zip(from.chunks_exact(d)) {
        let start = row * width + offset;
        let target = &mut to[start..start + d];
        if add {
            target.iter_mut().zip(part).for_each(|(t, p)| *t += p);
        } else {
            target.copy_from_slice(part);
        }
    }
}

multiversion! {
    /// Turns scores `[Lq, Lk]` into weights in place; under a causal mask query i sees keys up to Lk - Lq + i.
    fn softmax_rows(scores: &mut [f32], keys: usize, scale: f32, first_visible: usize, causal: bool) {
        for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
            let visible = if causal { (first_visible + i).min(keys) } else { keys };
            let (seen, hidden) = row.split_at_mut(visible);
            hidden.fill(0.0);
            let max = seen.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0f32;
            for x in seen.iter_mut() {
                *x = exp((*x - max) * scale);
            }
            for x in seen.iter() {
                sum += *x;
            }
            let inverse = 1.0 / sum;
            for x in seen.iter_mut() {
                *x *= inverse;
            }
        }
    }
}

multiversion! {
    /// Turns the gradient of the weights into that of the scores in place: dS = P (dP - rowsum(dP P)) scale.
    fn softmax_gradient(weights: &[f32], gradient: &mut [f32], keys: usize, scale: f32) {
        for (p, g) in weights.chunks_exact(keys).zip(gradient.chunks_exact_mut(keys)) {
            let mut sum = 0.0f32;
            for (p, g) in p.iter().zip(g.iter()) {
                sum += p * g;
            }
            for (p, g) in p.iter().zip(g.iter_mut()) {
                *g = p * (*g - sum) * scale;
            }
        }
    }
}

/// The gathered keys and values of the block that a tile was of last.
#[derive(Debug, Default)]
pub(crate) struct BlockMemory(Option<(usize, KeyRows)>);

/// The keys and values of one block, gathered, `[Lk, D]` each.
#[derive(Debug)]
struct KeyRows {
    k: Vec<f32>,
    v: Vec<f32>,
    rows: usize,
}

impl KeyRows {
    fn gather(block: &Block, k: Columns, v: Columns, d: usize) -> Result<Self> {
        let (queries, rows) = (block.query_rows(), block.key_rows());
        if rows == 0 || (block.causal && queries > rows) {
            bail!("attention: {queries} causal query rows and {rows} key rows");
        }
        Ok(Self {
            k: k.gather(&block.keys, d)?,
            v: v.gather(&block.keys, d)?,
            rows,
        })
    }
}

/// Some query rows of a block, gathered, `[Lq, D]`, beside all its keys and values.
struct Gathered<'a> {
    q: Vec<f32>,
    k: &'a [f32],
    v: &'a [f32],
    queries: usize,
    keys: usize,
    /// The key beside which the first of the queries stands: the block's last query stands at its last key.
    at: usize,
    d: usize,
    scoring: &'a Scoring,
    causal: bool,
}

impl<'a> Gathered<'a> {
    fn new(
        block: &Block,
        tile: &Tile,
        q: Columns,
        memory: &'a KeyRows,
        d: usize,
        scoring: &'a Scoring,
    ) -> Result<Self> {
        Ok(Self {
            q: q.gather(&tile.queries, d)?,
            k: &memory.k,
            v: &memory.v,
            queries: tile.rows(),
            keys: memory.rows,
            at: memory.rows.saturating_sub(block.query_rows()) + tile.first,
            d,
            scoring,
            causal: block.causal,
        })
    }

    fn head(&self) -> usize {
        self.d / self.scoring.heads
    }

    fn weights(&self, head: usize, weights: &mut [f32]) {
        let dh = self.head();
        let q = Matrix::columns(&self.q, self.queries, self.d, head * dh, dh);
        let k = Matrix::columns(self.k, self.keys, self.d, head * dh, dh);
        multiply(
            &mut MatrixMut::whole(weights, self.queries, self.keys),
            q,
            k.transposed(),
            false,
        );
        let first = if self.causal { self.at + 1 } else { self.keys };
        let mut scale = self.scoring.scale;
        if let Some(bias) = &self.scoring.bias {
            for (query, row) in weights.chunks_exact_mut(self.keys).enumerate() {
                for (score, bias) in row.iter_mut().zip(bias.row(head, self.at + query, self.keys)) {
                    *score = score.mul_add(scale, bias);
                }
            }
            scale = 1.0;
        }
        softmax_rows(weights, self.keys, scale, first, self.causal);
    }

    fn forward(&self) -> Vec<f32> {
        let dh = self.head();
        let mut out = vec![0.0; self.queries * self.d]; // [Lq, D]
        let mut weights = vec![0.0; self.queries * self.keys]; // [Lq, Lk]
        for head in 0..self.scoring.heads {
            self.weights(head, &mut weights);
            let p = Matrix::whole(&weights, self.queries, self.keys);
            let v = Matrix::columns(self.v, self.keys, self.d, head * dh, dh);
            multiply(
                &mut MatrixMut::columns(&mut out, self.queries, self.d, head * dh, dh),
                p,
                v,
                false,
            );
        }
        out
    }

    /// Returns the gradients of q, k and v for the gradient `g` `[Lq, D]` of the output.
    fn backward(&self, g: &[f32]) -> [Vec<f32>; 3] {
        let (dh, d) = (self.head(), self.d);
        let mut dq = vec![0.0; self.queries * d]; // [Lq, D]
        let (mut dk, mut dv) = (vec![0.0; self.keys * d], vec![0.0; self.keys * d]); // [Lk, D]
        let mut weights = vec![0.0; self.queries * self.keys]; // [Lq, Lk]
        let mut ds = vec![0.0; self.queries * self.keys]; // [Lq, Lk]
        for head in 0..self.scoring.heads {
            let at = head * dh;
            self.weights(head, &mut weights);
            let q = Matrix::columns(&self.q, self.queries, d, at, dh);
            let k = Matrix::columns(self.k, self.keys, d, at, dh);
            let v = Matrix::columns(self.v, self.keys, d, at, dh);
            let go = Matrix::columns(g, self.queries, d, at, dh);
            multiply(
                &mut MatrixMut::whole(&mut ds, self.queries, self.keys),
                go,
                v.transposed(),
                false,
            );
            let p = Matrix::whole(&weights, self.queries, self.keys);
            multiply(
                &mut MatrixMut::columns(&mut dv, self.keys, d, at, dh),
                p.transposed(),
                go,
                false,
            );
            softmax_gradient(&weights, &mut ds, self.keys, self.scoring.scale);
            let s = Matrix::whole(&ds, self.queries, self.keys);
            multiply(
                &mut MatrixMut::columns(&mut dq, self.queries, d, at, dh),
                s,
                k,
                false,
            );
            multiply(
                &mut MatrixMut::columns(&mut dk, self.keys, d, at, dh),
                s.transposed(),
                q,
                false,
            );
        }
        [dq, dk, dv]
    }
}

/// Attends from `q` to `k` and `v`, giving `[n, D]`.
pub(crate) fn attend(
    qkv: [Columns; 3],
    plan: &AttentionPlan,
    (n, d): (usize, usize),
    scoring: &Scoring,
) -> Result<Vec<f32>> {
    let tiles = plan.tiles();
    let mut out = vec![0.0; n * d]; // [N, D]
    let parts = attend_tiles(qkv, plan, &tiles, (d, scoring), &mut BlockMemory::default())?;
    for (tile, part) in tiles.iter().zip(parts) {
        scatter(&part, &mut out, &tile.queries, d, d, 0, false);
    }
    Ok(out)
}

/// Attends from the queries of some tiles of a plan, giving `[Lq, D]` for each.
pub(crate) fn attend_tiles(
    [q, k, v]: [Columns; 3],
    plan: &AttentionPlan,
    tiles: &[Tile],
    (d, scoring): (usize, &Scoring),
    memory: &mut BlockMemory,
) -> Result<Vec<Vec<f32>>> {
    let heads = scoring.heads;
    if heads == 0 || !d.is_multiple_of(heads) {
        bail!("attention: width {d} does not divide into {heads} heads");
    }
    let mut blocks: Vec<usize> = tiles.iter().map(|tile| tile.block).collect();
    blocks.dedup();
    let known = memory.0.take().filter(|(block, _)| blocks.contains(block));
    let new: Vec<usize> = match &known {
        Some((known, _)) => blocks.iter().copied().filter(|block| block != known).collect(),
        None => blocks,
    };
    let gather = |at: usize| {
        let block = new[at];
        Ok((block, KeyRows::gather(&plan.blocks[block], k, v, d)?))
    };
    let gathered = pool::map(new.len(), gather)
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let mut memories: HashMap<usize, KeyRows> = gathered.into_iter().chain(known).collect();
    let run = |at: usize| {
        let tile = &tiles[at];
        let block = &plan.blocks[tile.block];
        Ok(Gathered::new(block, tile, q, &memories[&tile.block], d, scoring)?.forward())
    };
    let parts = pool::map(tiles.len(), run).into_iter().collect();
    memory.0 = tiles.last().and_then(|tile| memories.remove_entry(&tile.block));
    parts
}

/// Returns each block's gradients of q, k and v for the gradient `g` of the output.
fn backward(
    [q, k, v]: [Columns; 3],
    plan: &AttentionPlan,
    d: usize,
    scoring: &Scoring,
    g: Columns,
) -> Result<Vec<[Vec<f32>; 3]>> {
    let run = |(index, block): (usize, &Block)| {
        let g = g.gather(&block.queries, d)?;
        let memory = KeyRows::gather(block, k, v, d)?;
        let whole = Tile {
            block: index,
            first: 0,
            queries: block.queries.clone(),
        };
        Ok(Gathered::new(block, &whole, q, &memory, d, scoring)?.backward(&g))
    };
    plan.blocks.par_iter().enumerate().map(run).collect()
}

/// Sees queries, keys and values side by side, `[N, 3D]`, apart.
pub(crate) fn thirds(values: &[f32], d: usize) -> [Columns<'_>; 3] {
    [0, 1, 2].map(|i| Columns {
        values,
        width: 3 * d,
        offset: i * d,
    })
}

impl CustomOp1 for SelfAttention {
    fn name(&self) -> &'static str {
        "self-attention"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, width) = layout.shape().dims2()?;
        let d = width / 3;
        let out = attend(thirds(slice(x, layout)?, d), &self.plan, (n, d), &self.scoring)?;
        Ok((CpuStorage::F32(out), Shape::from((n, d))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let (n, width) = x.dims2()?;
        let d = width / 3;
        let parts = with_slice(x, |xs| {
            with_slice(g, |gs| {
                let g = Columns {
                    values: gs,
                    width: d,
                    offset: 0,
                };
                backward(thirds(xs, d), &self.plan, d, &self.scoring, g)
            })
        })?;
        let mut dx = vec![0.0; n * width]; // [N, 3D]
        for (block, [dq, dk, dv]) in self.plan.blocks.iter().zip(&parts) {
            scatter(dq, &mut dx, &block.queries, d, width, 0, true);
            scatter(dk, &mut dx, &block.keys, d, width, d, true);
            scatter(dv, &mut dx, &block.keys, d, width, 2 * d, true);
        }
        Ok(Some(Tensor::from_vec(dx, (n, width), x.device())?))
    }
}

/// Sees keys and values side by side, `[N, 2D]`, apart.
pub(crate) fn halves(kv: &[f32], d: usize) -> [Columns<'_>; 2] {
    [0, 1].map(|i| Columns {
        values: kv,
        width: 2 * d,
        offset: i * d,
    })
}

fn query_and_memory<'a>(q: &'a [f32], kv: &'a [f32], d: usize) -> [Columns<'a>; 3] {
    let [k, v] = halves(kv, d);
    let q = Columns {
        values: q,
        width: d,
        offset: 0,
    };
    [q, k, v]
}

impl CustomOp2 for CrossAttention {
    fn name(&self) -> &'static str {
        "cross-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        lq: &Layout,
        kv: &CpuStorage,
        lkv: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, d) = lq.shape().dims2()?;
        let columns = query_and_memory(slice(q, lq)?, slice(kv, lkv)?, d);
        let out = attend(columns, &self.plan, (n, d), &self.scoring)?;
        Ok((CpuStorage::F32(out), Shape::from((n, d))))
    }

    fn bwd(
        &self,
        q: &Tensor,
        kv: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (n, d) = q.dims2()?;
        let rows = kv.dim(0)?;
        let parts = with_slice(q, |qs| {
            with_slice(kv, |kvs| {
                with_slice(g, |gs| {
                    let g = Columns {
                        values: gs,
                        width: d,
                        offset: 0,
                    };
                    backward(query_and_memory(qs, kvs, d), &self.plan, d, &self.scoring, g)
                })
            })
        })?;
        let (mut dq, mut dkv) = (vec![0.0; n * d], vec![0.0; rows * 2 * d]); // [Nq, D], [Nk, 2D]
        for (block, [part_q, part_k, part_v]) in self.plan.blocks.iter().zip(&parts) {
            scatter(part_q, &mut dq, &block.queries, d, d, 0, true);
            scatter(part_k, &mut dkv, &block.keys, d, 2 * d, 0, true);
            scatter(part_v, &mut dkv, &block.keys, d, 2 * d, d, true);
        }
        let dq = Tensor::from_vec(dq, (n, d), q.device())?;
        let dkv = Tensor::from_vec(dkv, (rows, 2 * d), q.device())?;
        Ok((Some(dq), Some(dkv)))
    }
}
