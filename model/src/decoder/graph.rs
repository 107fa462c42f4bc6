//! A decoding step on tensors, on any device: the specification of the step on plain memory.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::{Decoder, DecoderForm};
use crate::attention::cross_attention;
use crate::error::ForwardError;
use crate::kernels::access::is_cpu_f32;
use crate::kernels::bias::ScoreRule;
use crate::kernels::plan::AttentionPlan;
use crate::layers::form::NormLayer;
use crate::layers::graph::Graph;
use crate::memory::KvCache;
use crate::step::{DecoderBatch, DecoderRow};

impl DecoderForm for Graph {
    fn step(
        decoder: &Decoder<Self>,
        batch: &DecoderBatch,
        cache: &mut KvCache,
        logits: &mut Vec<f32>,
    ) -> std::result::Result<(), ForwardError> {
        let slots: Vec<usize> = batch.slots().collect();
        let tokens: Vec<u32> = batch.rows.iter().map(|row| row.token).collect();
        let positions = Arc::new(cache.reserve(&slots)?);
        let mut x = decoder.embed(&tokens)?; // [B, D]
        for (index, layer) in decoder.layers.iter().enumerate() {
            let h = layer.self_norm.forward(&x, 0)?; // [B, D]
            let qkv = decoder.rotate(&layer.projections.qkv(&h, 0)?, &positions)?; // [B, 3D]
            let attended = attend_to_cache(cache, index, &qkv, &slots, &layer.scoring)?; // [B, D]
            x = layer.after_self(&x, &attended)?; // [B, D]
            let q = layer.cross_query(&x)?; // [B, D]
            let attended = attend_to_prompts(batch.rows, index, &q, &layer.cross_scoring)?; // [B, D]
            x = layer.after_cross(&x, &attended)?; // [B, D]
        }
        let all = decoder.logits(&decoder.norm.forward(&x, 0)?)?; // [B, V]
        *logits = all.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(())
    }
}

/// Stores the new keys and values of `qkv` `[B, 3D]` and attends from its queries to each slot's rows.
fn attend_to_cache(
    cache: &KvCache,
    layer: usize,
    qkv: &Tensor,
    slots: &[usize],
    scoring: &ScoreRule,
) -> std::result::Result<Tensor, ForwardError> {
    let d = qkv.dim(1)? / 3;
    let pool = cache.graph(layer)?;
    let mut keys = Vec::with_capacity(slots.len());
    for (row, &slot) in slots.iter().enumerate() {
        let kv = qkv.narrow(0, row, 1)?.narrow(1, d, 2 * d)?.contiguous()?; // [1, 2D]
        keys.push(cache.store(pool, &kv, slot)?);
    }
    let q = qkv.narrow(1, 0, d)?.contiguous()?; // [B, D]
    if is_cpu_f32(pool) {
        return Ok(cross_attention(&q, pool, &Arc::new(plan(keys)), scoring)?);
    }
    // The other kernels split keys from values, which copies all rows they are given: give them these slots'
    // alone.
    let (kv, keys) = gather(pool, &keys)?;
    Ok(cross_attention(&q, &kv, &Arc::new(plan(keys)), scoring)?)
}

/// Attends from each row of `q` `[B, D]` to the memory of its prompt.
fn attend_to_prompts(
    rows: &[DecoderRow],
    layer: usize,
    q: &Tensor,
    scoring: &ScoreRule,
) -> std::result::Result<Tensor, ForwardError> {
    let one = |(i, row): (usize, &DecoderRow)| -> std::result::Result<Tensor, ForwardError> {
        let mut plan = AttentionPlan::default();
        plan.push(vec![0..1], vec![0..row.memory.length()], false);
        let kv = row.memory.graph(layer)?; // [S, 2D]
        Ok(cross_attention(
            &q.narrow(0, i, 1)?,
            kv,
            &Arc::new(plan),
            scoring,
        )?) // [1, D]
    };
    let attended = rows.iter().enumerate().map(one);
    Ok(Tensor::cat(
        &attended.collect::<std::result::Result<Vec<_>, _>>()?,
        0,
    )?) // [B, D]
}

/// Lets query `i` see the `i`-th of the lists of rows.
fn plan(keys: Vec<Vec<Range<usize>>>) -> AttentionPlan {
    let mut plan = AttentionPlan::default();
    for (row, keys) in keys.into_iter().enumerate() {
        plan.push(vec![row..row + 1], keys, false);
    }
    plan
}

/// Gathers rows of the pool, `[rows, 2D]`, and returns the new range of each list of them.
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
