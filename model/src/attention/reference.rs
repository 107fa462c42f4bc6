//! Attention composed of candle's differentiable operations: the specification.
//!
//! Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1, per head: softmax(Q K^T / sqrt(Dh)) V; with a
//! bias on the scores and without the root, Raffel et al. 2020 (arXiv 1910.10683), section 2.1.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::kernels::bias::ScoreRule;
use crate::kernels::plan::{AttentionPlan, Block};

/// Attends block by block; rows that no block names come out as zeros.
pub(crate) fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    plan: &AttentionPlan,
    scoring: &ScoreRule,
) -> Result<Tensor> {
    attend_observed(q, k, v, plan, scoring, &mut |_| ())
}

/// Attends as [`attend`] does, and shows the attention weights of each block, `[H, Lq, Lk]` in f32, to
/// `observe`.
pub(crate) fn attend_observed(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    plan: &AttentionPlan,
    scoring: &ScoreRule,
    observe: &mut dyn FnMut(&Tensor),
) -> Result<Tensor> {
    let (n, d) = q.dims2()?;
    let heads = scoring.heads;
    let device = q.device();
    let mut outputs = Vec::with_capacity(plan.blocks.len() + 1);
    let mut home = vec![0u32; n];
    let mut next = 1; // row 0 of the gathered outputs is the zero row
    outputs.push(Tensor::zeros((1, d), q.dtype(), device)?);
    for block in &plan.blocks {
        let (queries, keys) = (rows(&block.queries, n)?, rows(&block.keys, k.dim(0)?)?);
        for row in &queries {
            home[*row as usize] = next;
            next += 1;
        }
        let queries = Tensor::new(queries, device)?;
        let keys = Tensor::new(keys, device)?;
        let q = split_heads(&q.contiguous()?.index_select(&queries, 0)?, heads)?; // [H, Lq, Dh]
        let k = split_heads(&k.contiguous()?.index_select(&keys, 0)?, heads)?; // [H, Lk, Dh]
        let v = split_heads(&v.contiguous()?.index_select(&keys, 0)?, heads)?; // [H, Lk, Dh]
        let weights = softmax_weights(&q, &k, block, scoring)?; // [H, Lq, Lk]
        observe(&weights);
        let attended = weights.to_dtype(v.dtype())?.matmul(&v)?; // [H, Lq, Dh]
        outputs.push(attended.transpose(0, 1)?.reshape((block.query_rows(), d))?); // [Lq, D]
    }
    Tensor::cat(&outputs, 0)?.index_select(&Tensor::new(home, device)?, 0) // [N, D]
}

/// Computes attention weights in f32; each row sums to 1.
fn softmax_weights(q: &Tensor, k: &Tensor, block: &Block, scoring: &ScoreRule) -> Result<Tensor> {
    let device = q.device();
    let mut scores = (q.matmul(&k.t()?)? * f64::from(scoring.scale))?; // [H, Lq, Lk]
    if let Some(bias) = &scoring.bias {
        let bias = bias.block(scoring.heads, block.query_rows(), block.key_rows(), device)?;
        scores = (scores + bias.to_dtype(q.dtype())?)?; // [H, Lq, Lk]
    }
    if block.causal {
        let mask = causal_mask(block.query_rows(), block.key_rows(), device)?.to_dtype(scores.dtype())?;
        scores = scores.broadcast_add(&mask)?; // [H, Lq, Lk]
    }
    candle_nn::ops::softmax(&scores.to_dtype(DType::F32)?, 2) // [H, Lq, Lk]
}

fn causal_mask(queries: usize, keys: usize, device: &Device) -> Result<Tensor> {
    let hidden = |i: usize| i % keys + queries > i / keys + keys;
    let mask: Vec<f32> = (0..queries * keys)
        .map(|i| if hidden(i) { f32::NEG_INFINITY } else { 0.0 })
        .collect();
    Tensor::from_vec(mask, (queries, keys), device) // [Lq, Lk]
}

fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (n, d) = x.dims2()?;
    x.reshape((n, heads, d / heads))?.transpose(0, 1)?.contiguous() // [H, N, Dh]
}

/// Lists the rows of several ranges, checked against the number of rows that exist.
pub(crate) fn rows(ranges: &[Range<usize>], total: usize) -> Result<Vec<u32>> {
    if let Some(range) = ranges.iter().find(|r| r.end > total) {
        bail!("attention: rows {range:?} of {total}");
    }
    let all = ranges.iter().flat_map(Clone::clone);
    all.map(|row| u32::try_from(row).map_err(candle_core::Error::wrap))
        .collect()
}
