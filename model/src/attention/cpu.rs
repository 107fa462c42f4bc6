//! Ragged attention on the CPU in f32, forward and backward, reading fused projections where they lie.
//!
//! Forward, queries are attended in tiles by the kernel of `kernels::tile`. Backward, each block's rows are
//! gathered, weighed again head by head with single-threaded matrix products, and the gradients scattered.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::kernels::access::{slice, with_slice};
use crate::kernels::bias::ScoreRule;
use crate::kernels::gemm::{Matrix, MatrixMut, multiply};
use crate::kernels::plan::{AttentionPlan, Block};
use crate::kernels::simd::{exp, multiversion};
use crate::kernels::tile::{Attention, Columns, KvSource};

/// Self-attention on a fused projection `[N, 3D]`.
pub(crate) struct SelfAttention {
    pub(crate) plan: Arc<AttentionPlan>,
    pub(crate) scoring: ScoreRule,
}

/// Cross-attention from queries `[Nq, D]` to fused keys and values `[Nk, 2D]`.
pub(crate) struct CrossAttention {
    pub(crate) plan: Arc<AttentionPlan>,
    pub(crate) scoring: ScoreRule,
}

fn gather(from: Columns, ranges: &[Range<usize>], d: usize) -> Result<Vec<f32>> {
    let mut out = Vec::with_capacity(ranges.iter().map(ExactSizeIterator::len).sum::<usize>() * d);
    for row in ranges.iter().flat_map(Clone::clone) {
        let start = row * from.width + from.offset;
        match from.values.get(start..start + d) {
            Some(part) => out.extend_from_slice(part),
            None => bail!(
                "attention: row {row} of {}",
                from.values.len() / from.width.max(1)
            ),
        }
    }
    Ok(out)
}

fn scatter(from: &[f32], to: &mut [f32], ranges: &[Range<usize>], d: usize, width: usize, offset: usize) {
    for (row, part) in ranges.iter().flat_map(Clone::clone).zip(from.chunks_exact(d)) {
        let start = row * width + offset;
        let target = &mut to[start..start + d];
        target.iter_mut().zip(part).for_each(|(t, p)| *t += p);
    }
}

multiversion! {
    /// Turns scores `[Lq, Lk]` into weights in place; under a causal mask query i sees keys up to Lk - Lq +
    /// i.
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

/// The rows of a block, gathered: queries `[Lq, D]`, keys and values `[Lk, D]`.
struct Gathered<'a> {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    queries: usize,
    keys: usize,
    /// The key beside which the first of the queries stands: the last stands at the last key.
    at: usize,
    d: usize,
    scoring: &'a ScoreRule,
    causal: bool,
}

impl<'a> Gathered<'a> {
    fn new(block: &Block, [q, k, v]: [Columns; 3], d: usize, scoring: &'a ScoreRule) -> Result<Self> {
        let (queries, keys) = (block.query_rows(), block.key_rows());
        if keys == 0 || (block.causal && queries > keys) {
            bail!("attention: {queries} causal query rows and {keys} key rows");
        }
        Ok(Self {
            q: gather(q, &block.queries, d)?,
            k: gather(k, &block.keys, d)?,
            v: gather(v, &block.keys, d)?,
            queries,
            keys,
            at: keys.saturating_sub(queries),
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
        let k = Matrix::columns(&self.k, self.keys, self.d, head * dh, dh);
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
            let k = Matrix::columns(&self.k, self.keys, d, at, dh);
            let v = Matrix::columns(&self.v, self.keys, d, at, dh);
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
fn attend(
    [queries, keys, values]: [Columns; 3],
    plan: &AttentionPlan,
    (n, width): (usize, usize),
    scoring: &ScoreRule,
) -> Result<Vec<f32>> {
    let mut out = vec![0.0; n * width]; // [N, D]
    let first = 0;
    let attention = Attention {
        queries,
        sources: &[KvSource { first, keys, values }],
        scoring,
        width,
    };
    attention.attend(plan, &plan.tiles(), &mut out)?;
    Ok(out)
}

/// Returns each block's gradients of q, k and v for the gradient `g` of the output.
fn backward(
    qkv: [Columns; 3],
    plan: &AttentionPlan,
    d: usize,
    scoring: &ScoreRule,
    g: Columns,
) -> Result<Vec<[Vec<f32>; 3]>> {
    let run = |block: &Block| {
        let g = gather(g, &block.queries, d)?;
        Ok(Gathered::new(block, qkv, d, scoring)?.backward(&g))
    };
    plan.blocks.par_iter().map(run).collect()
}

/// Attends within a fused projection `[N, 3D]`, giving `[n, D]`.
pub(crate) fn attend_rows(
    qkv: &[f32],
    plan: &AttentionPlan,
    (n, d): (usize, usize),
    scoring: &ScoreRule,
) -> Result<Vec<f32>> {
    attend(split_qkv(qkv, d), plan, (n, d), scoring)
}

/// Returns the gradient of a fused projection, `[N, 3D]`, for the gradient `g` `[N, D]` of what was attended.
pub(crate) fn attention_gradient(
    qkv: &[f32],
    g: &[f32],
    plan: &AttentionPlan,
    d: usize,
    scoring: &ScoreRule,
) -> Result<Vec<f32>> {
    let g = Columns {
        values: g,
        width: d,
        offset: 0,
    };
    let parts = backward(split_qkv(qkv, d), plan, d, scoring, g)?;
    let (mut gradient, width) = (vec![0.0; qkv.len()], 3 * d); // [N, 3D]
    for (block, [dq, dk, dv]) in plan.blocks.iter().zip(&parts) {
        scatter(dq, &mut gradient, &block.queries, d, width, 0);
        scatter(dk, &mut gradient, &block.keys, d, width, d);
        scatter(dv, &mut gradient, &block.keys, d, width, 2 * d);
    }
    Ok(gradient)
}

/// Splits a fused projection, `[N, 3D]`, into column views of queries, keys and values.
pub(crate) fn split_qkv(values: &[f32], d: usize) -> [Columns<'_>; 3] {
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
        let out = attend_rows(slice(x, layout)?, &self.plan, (n, d), &self.scoring)?;
        Ok((CpuStorage::F32(out), Shape::from((n, d))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let (n, width) = x.dims2()?;
        let d = width / 3;
        let dx = with_slice(x, |x| {
            with_slice(g, |g| attention_gradient(x, g, &self.plan, d, &self.scoring))
        })?; // [N, 3D]
        Ok(Some(Tensor::from_vec(dx, (n, width), x.device())?))
    }
}

/// Splits fused keys and values, `[N, 2D]`, into column views.
pub(crate) fn split_kv(kv: &[f32], d: usize) -> [Columns<'_>; 2] {
    [0, 1].map(|i| Columns {
        values: kv,
        width: 2 * d,
        offset: i * d,
    })
}

fn query_and_memory<'a>(q: &'a [f32], kv: &'a [f32], d: usize) -> [Columns<'a>; 3] {
    let [k, v] = split_kv(kv, d);
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
            scatter(part_q, &mut dq, &block.queries, d, d, 0);
            scatter(part_k, &mut dkv, &block.keys, d, 2 * d, 0);
            scatter(part_v, &mut dkv, &block.keys, d, 2 * d, d);
        }
        let dq = Tensor::from_vec(dq, (n, d), q.device())?;
        let dkv = Tensor::from_vec(dkv, (rows, 2 * d), q.device())?;
        Ok((Some(dq), Some(dkv)))
    }
}
