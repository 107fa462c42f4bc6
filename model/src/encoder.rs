//! The Multiway encoder: shared self-attention, one expert per modality.
//!
//! Source: Wang et al. 2022, BEiT-3 (arXiv 2208.10442), section 2.1; sub-norms as in arXiv 2210.06423.

use crate::attention::{AttentionPlan, self_attention};
use crate::batch::{EncoderBatch, Segments};
use crate::config::{AttentionPattern, MultiwayConfig};
use crate::error::ForwardError;
use crate::layers::attention::SelfAttentionProjections;
use crate::layers::feed_forward::FeedForward;
use crate::layers::linear::Linear;
use crate::layers::norm::RmsNorm;
use crate::layers::{Weights, by_expert};
use candle_core::{Device, Result, Tensor};
use std::sync::Arc;

/// What the encoder makes of a batch.
#[derive(Clone, Debug)]
pub struct EncoderOutput {
    /// The rows, `[N, D]`, vision first.
    pub hidden: Tensor,
    /// Which rows belong to which sample.
    pub segments: Segments,
}

#[derive(Debug)]
pub(crate) struct Encoder {
    patch: Linear,
    class_token: Tensor,
    mask_token: Tensor,
    vision_position: Tensor,
    image_index: Tensor,
    text_embed: Tensor,
    text_position: Tensor,
    text_scale: f64,
    layers: Vec<EncoderLayer>,
    norm: RmsNorm,
    pattern: AttentionPattern,
    device: Device,
}

#[derive(Debug)]
struct EncoderLayer {
    attention_norm: RmsNorm,
    projections: SelfAttentionProjections,
    inner_norm: RmsNorm,
    ffn_norm: RmsNorm,
    experts: Vec<FeedForward>,
    heads: usize,
}

impl Encoder {
    pub(crate) fn load(config: &MultiwayConfig, weights: &Weights) -> Result<Self> {
        let text_embed = weights.get("text_embed.weight")?;
        let norms = ["vision", "language"].map(|e| format!("encoder.{e}.norm.weight"));
        let layers = (0..config.encoder_layers).map(|layer| EncoderLayer::load(config, weights, layer));
        Ok(Self {
            patch: Linear::load(weights, &["vision_embed.patch.weight".to_owned()])?,
            class_token: weights.get("vision_embed.class_token")?,
            mask_token: weights.get("vision_embed.mask_token")?,
            vision_position: weights.get("vision_embed.position.weight")?,
            image_index: weights.get("vision_embed.image_index.weight")?,
            text_position: weights.get("language_embed.position.weight")?,
            text_scale: (config.hidden_size as f64).sqrt(),
            layers: layers.collect::<Result<_>>()?,
            norm: RmsNorm::load(weights, &norms, config.norm_eps)?,
            pattern: config.attention_pattern,
            device: text_embed.device().clone(),
            text_embed,
        })
    }

    pub(crate) fn forward(&self, batch: &EncoderBatch) -> std::result::Result<EncoderOutput, ForwardError> {
        if batch.segments.rows() == 0 {
            return Err(ForwardError::EmptyBatch);
        }
        let split = batch.segments.vision_rows;
        let plan = Arc::new(batch.segments.plan(self.pattern));
        let mut x = self.embed(batch)?; // [N, D]
        for layer in &self.layers {
            x = layer.forward(&x, split, &plan)?; // [N, D]
        }
        let hidden = self.norm.forward(&x, split)?; // [N, D]
        Ok(EncoderOutput {
            hidden,
            segments: batch.segments.clone(),
        })
    }

    fn embed(&self, batch: &EncoderBatch) -> Result<Tensor> {
        let mut parts = Vec::with_capacity(2);
        if !batch.sources.is_empty() {
            parts.push(self.embed_vision(batch)?); // [Nv, D]
        }
        if !batch.tokens.is_empty() {
            let tokens = self.rows(&self.text_embed, &batch.tokens)?; // [Nt, D]
            let positions = self.rows(&self.text_position, &batch.token_positions)?; // [Nt, D]
            parts.push(((tokens * self.text_scale)? + positions)?); // [Nt, D]
        }
        Tensor::cat(&parts, 0)
    }

    fn embed_vision(&self, batch: &EncoderBatch) -> Result<Tensor> {
        let width = self.patch_width()?;
        let mut table = vec![self.class_token.clone(), self.mask_token.clone()];
        if !batch.pixels.is_empty() {
            let count = batch.pixels.len() / width;
            let pixels = Tensor::from_slice(&batch.pixels, (count, width), &self.device)?; // [patches, 3pp]
            table.push(self.patch.forward(&pixels.to_dtype(self.text_embed.dtype())?)?); // [patches, D]
        }
        let content = self.rows(&Tensor::cat(&table, 0)?, &batch.sources)?; // [Nv, D]
        let positions = self.rows(&self.vision_position, &batch.positions)?; // [Nv, D]
        let images = self.rows(&self.image_index, &batch.image_indices)?; // [Nv, D]
        (content + positions)? + images
    }

    fn patch_width(&self) -> Result<usize> {
        match &self.patch {
            Linear::Plain(parts) => parts.first().map_or(Ok(1), |w| w.dim(1)),
            Linear::Packed(packed) => Ok(packed.inputs()),
        }
    }

    fn rows(&self, table: &Tensor, rows: &[u32]) -> Result<Tensor> {
        table.index_select(&Tensor::from_slice(rows, rows.len(), &self.device)?, 0)
    }
}

impl EncoderLayer {
    fn load(config: &MultiwayConfig, weights: &Weights, layer: usize) -> Result<Self> {
        let p = format!("encoder.layers.{layer}");
        let experts = config.experts(layer);
        let norm = |name: &str| {
            let names: Vec<String> = experts.iter().map(|e| format!("{p}.{e}.{name}.weight")).collect();
            RmsNorm::load(weights, &names, config.norm_eps)
        };
        let attention = config
            .attention_experts(layer)
            .iter()
            .map(|e| format!("{p}.self_attn.{e}"));
        let ffn = experts
            .iter()
            .map(|e| FeedForward::load(weights, &format!("{p}.{e}.ffn"), config.norm_eps));
        Ok(Self {
            attention_norm: norm("self_attn_norm")?,
            projections: SelfAttentionProjections::load(weights, &attention.collect::<Vec<_>>())?,
            inner_norm: norm("inner_attn_norm")?,
            ffn_norm: norm("ffn_norm")?,
            experts: ffn.collect::<Result<_>>()?,
            heads: config.encoder_heads,
        })
    }

    fn forward(&self, x: &Tensor, split: usize, plan: &Arc<AttentionPlan>) -> Result<Tensor> {
        let h = self.attention_norm.forward(x, split)?; // [N, D]
        let qkv = self.projections.qkv(&h, split)?; // [N, 3D]
        let attended = self_attention(&qkv, plan, self.heads)?; // [N, D]
        let h = self.inner_norm.forward(&attended, split)?; // [N, D]
        let x = (x + self.projections.out(&h, split)?)?; // [N, D]
        let h = self.ffn_norm.forward(&x, split)?; // [N, D]
        &x + by_expert(&h, split, &self.experts, FeedForward::forward)? // [N, D]
    }
}
