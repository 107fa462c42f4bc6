//! Writing through the encoder on tensors, as BEiT-3 captions.

use std::sync::Arc;

use candle_core::Tensor;

use super::Encoder;
use crate::attention::cross_attention;
use crate::error::ForwardError;
use crate::kernels::bias::Scoring;
use crate::kernels::plan::AttentionPlan;
use crate::memory::KvCache;
use crate::step::{DecoderBatch, DecoderRow};

impl Encoder {
    /// Reads each sequence's last token with a mask behind it, and returns the masks' rows, `[B, D]`.
    ///
    /// Source: `CaptioningHandler` of `microsoft/unilm`, `beit3/engine_for_finetuning.py`.
    pub(crate) fn step(
        &self,
        batch: &DecoderBatch,
        cache: &mut KvCache,
        mask: u32,
    ) -> Result<Tensor, ForwardError> {
        let slots: Vec<usize> = batch.rows.iter().map(|row| row.slot).collect();
        let positions = cache.reserve(&slots)?;
        let limit = self.text_embed.count()?;
        let tokens: Vec<u32> = batch.rows.iter().flat_map(|row| [row.token, mask]).collect();
        if let Some(&found) = tokens.iter().find(|token| **token as usize >= limit) {
            return Err(ForwardError::TokenId { found, limit });
        }
        let positions: Vec<u32> = positions.into_iter().flat_map(|p| [p, p + 1]).collect();
        let mut x = self.embed_text(&tokens, &positions)?; // [2B, D]
        for (index, layer) in self.layers.iter().enumerate() {
            let qkv = layer.project(&x, 0)?; // [2B, 3D]
            let attended = attend(cache, index, &qkv, batch.rows, &layer.scoring)?; // [2B, D]
            x = layer.finish(&x, &attended, 0)?; // [2B, D]
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(&x, 0)?; // [2B, D]
        }
        let (rows, width) = x.dims2()?;
        Ok(x.reshape((rows / 2, 2, width))?
            .narrow(1, 1, 1)?
            .squeeze(1)?
            .contiguous()?) // [B, D]
    }
}

/// Stores the first of each two rows of `qkv` `[2B, 3D]`, a token and the mask behind it, and attends from both: to the prompt, to
/// what was written, and causally to each other. The mask is forgotten.
fn attend(
    cache: &KvCache,
    layer: usize,
    qkv: &Tensor,
    rows: &[DecoderRow],
    scoring: &Scoring,
) -> Result<Tensor, ForwardError> {
    let d = qkv.dim(1)? / 3;
    let pool = cache.graph(layer)?;
    let mut attended = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let own = qkv.narrow(0, 2 * index, 2)?; // [2, 3D]
        let kv = own.narrow(1, d, 2 * d)?.contiguous()?; // [2, 2D]
        let written = cache.store(pool, &kv.narrow(0, 0, 1)?, row.slot)?;
        let mut parts = vec![row.memory.graph(layer)?.clone()]; // [S, 2D]
        for range in written {
            parts.push(pool.narrow(0, range.start, range.len())?); // [rows, 2D]
        }
        parts.push(kv.narrow(0, 1, 1)?); // [1, 2D]
        let kv = Tensor::cat(&parts, 0)?; // [S + L + 1, 2D]
        let mut plan = AttentionPlan::default();
        plan.push(vec![0..2], vec![0..kv.dim(0)?], true);
        let q = own.narrow(1, 0, d)?.contiguous()?; // [2, D]
        attended.push(cross_attention(&q, &kv, &Arc::new(plan), scoring)?); // [2, D]
    }
    Ok(Tensor::cat(&attended, 0)?) // [2B, D]
}
