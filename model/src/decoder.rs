//! The text decoder: causal self-attention with rotary positions, cross-attention to what the encoder made.
//!
//! Source: an encoder-decoder that writes every answer as text, Chen et al. 2022, PaLI (arXiv 2209.06794).

use crate::attention::{AttentionPlan, cross_attention, self_attention};
use crate::config::MultiwayConfig;
use crate::encoder::EncoderOutput;
use crate::error::ForwardError;
use crate::kernels::access::is_cpu_f32;
use crate::kernels::rotary::{Rotary, RotaryTable};
use crate::layers::Weights;
use crate::layers::attention::{CrossAttentionProjections, SelfAttentionProjections};
use crate::layers::feed_forward::FeedForward;
use crate::layers::linear::Linear;
use crate::layers::norm::RmsNorm;
use crate::memory::{KvCache, MemoryLayer, PromptMemory};
use candle_core::{Device, Result, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// Whole target texts for training: each answers one sample of an encoded batch.
#[derive(Clone, Debug, Default)]
pub struct TargetBatch {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    targets: Vec<(usize, Range<usize>)>,
}

impl TargetBatch {
    /// Adds the decoder's input tokens (the start token first) for one sample; a sample may have several.
    pub fn push(&mut self, sample: usize, tokens: &[u32]) {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions
            .extend((0u32..).zip(tokens).map(|(position, _)| position));
        self.targets.push((sample, start..self.tokens.len()));
    }

    /// Counts the packed rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    fn check(&self, config_limit: usize, samples: usize) -> std::result::Result<(), ForwardError> {
        if self.tokens.is_empty() {
            return Err(ForwardError::EmptyBatch);
        }
        for (sample, range) in &self.targets {
            if *sample >= samples {
                return Err(ForwardError::EmptySample { sample: *sample });
            }
            if range.len() > config_limit {
                let (found, limit) = (range.len(), config_limit);
                return Err(ForwardError::TextTooLong {
                    sample: *sample,
                    found,
                    limit,
                });
            }
        }
        Ok(())
    }
}

/// One row of a decoding step: the next token of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct DecoderRow<'a> {
    /// The token that was written last, or the start token.
    pub token: u32,
    /// The cache slot of the sequence; its position is the slot's length.
    pub slot: usize,
    /// What encoding the sequence's prompt left behind.
    pub memory: &'a PromptMemory,
}

/// The rows of one decoding step, one per sequence.
#[derive(Clone, Copy, Debug)]
pub struct DecoderBatch<'a> {
    /// The rows; no two may name the same slot.
    pub rows: &'a [DecoderRow<'a>],
}

#[derive(Debug)]
pub(crate) struct Decoder {
    text_embed: Tensor,
    text_scale: f64,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    output: Linear,
    rotary: Arc<RotaryTable>,
    device: Device,
    pub(crate) max_length: usize,
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
}

#[derive(Debug)]
struct DecoderLayer {
    self_norm: RmsNorm,
    projections: SelfAttentionProjections,
    self_inner_norm: RmsNorm,
    cross_norm: RmsNorm,
    cross: CrossAttentionProjections,
    cross_inner_norm: RmsNorm,
    ffn_norm: RmsNorm,
    ffn: FeedForward,
    heads: usize,
}

impl Decoder {
    pub(crate) fn load(config: &MultiwayConfig, weights: &Weights) -> Result<Self> {
        let text_embed = weights.get("text_embed.weight")?;
        let head = config.hidden_size / config.decoder_heads;
        let layers = (0..config.decoder_layers).map(|layer| DecoderLayer::load(config, weights, layer));
        Ok(Self {
            text_scale: (config.hidden_size as f64).sqrt(),
            layers: layers.collect::<Result<_>>()?,
            norm: RmsNorm::load(weights, &["decoder.norm.weight".to_owned()], config.norm_eps)?,
            output: Linear::load(weights, &["text_embed.weight".to_owned()])?,
            rotary: Arc::new(RotaryTable::new(
                config.max_target_length,
                head,
                config.rope_theta,
            )),
            device: text_embed.device().clone(),
            max_length: config.max_target_length,
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            text_embed,
        })
    }

    pub(crate) fn layers(&self) -> usize {
        self.layers.len()
    }

    fn embed(&self, tokens: &[u32]) -> std::result::Result<Tensor, ForwardError> {
        if let Some(&found) = tokens.iter().find(|t| **t as usize >= self.vocab_size) {
            return Err(ForwardError::TokenId {
                found,
                limit: self.vocab_size,
            });
        }
        let ids = Tensor::from_slice(tokens, tokens.len(), &self.device)?;
        Ok((self.text_embed.index_select(&ids, 0)? * self.text_scale)?) // [N, D]
    }

    fn rotate(&self, qkv: &Tensor, positions: &Arc<Vec<u32>>) -> Result<Tensor> {
        let columns = 2 * self.hidden_size;
        let (table, positions) = (Arc::clone(&self.rotary), Arc::clone(positions));
        let rotary = Rotary {
            table,
            positions,
            columns,
            inverse: false,
        };
        if is_cpu_f32(qkv) {
            return qkv.contiguous()?.apply_op1(rotary);
        }
        rotary.composed(qkv)
    }

    /// Runs whole targets at once, differentiably: `[N, D]` after the last norm.
    pub(crate) fn forward(
        &self,
        encoded: &EncoderOutput,
        batch: &TargetBatch,
    ) -> std::result::Result<Tensor, ForwardError> {
        batch.check(self.max_length, encoded.segments.samples.len())?;
        let (mut own, mut cross) = (AttentionPlan::default(), AttentionPlan::default());
        for (sample, range) in &batch.targets {
            own.push(vec![range.clone()], vec![range.clone()], true);
            cross.push(
                vec![range.clone()],
                encoded.segments.samples[*sample].all(),
                false,
            );
        }
        let (own, cross) = (Arc::new(own), Arc::new(cross));
        let positions = Arc::new(batch.positions.clone());
        let mut x = self.embed(&batch.tokens)?; // [N, D]
        for layer in &self.layers {
            let h = layer.self_norm.forward(&x, 0)?; // [N, D]
            let qkv = self.rotate(&layer.projections.qkv(&h, 0)?, &positions)?; // [N, 3D]
            let attended = self_attention(&qkv, &own, layer.heads)?; // [N, D]
            x = layer.after_self(&x, &attended)?; // [N, D]
            let q = layer.cross_query(&x)?; // [N, D]
            let kv = layer.cross.kv.forward(&encoded.hidden)?; // [S, 2D]
            x = layer.after_cross(&x, &cross_attention(&q, &kv, &cross, layer.heads)?)?; // [N, D]
        }
        Ok(self.norm.forward(&x, 0)?)
    }

    /// Projects rows `[N, D]` to logits `[N, V]`.
    pub(crate) fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.output.forward(hidden)
    }

    pub(crate) fn prompt_memory(
        &self,
        encoded: &EncoderOutput,
    ) -> std::result::Result<Vec<PromptMemory>, ForwardError> {
        let samples = &encoded.segments.samples;
        let mut layers: Vec<Vec<MemoryLayer>> = samples.iter().map(|_| Vec::new()).collect();
        for layer in &self.layers {
            let kv = layer.cross.kv.forward(&encoded.hidden)?; // [N, 2D]
            for (sample, memory) in samples.iter().zip(&mut layers) {
                let parts = sample.all().into_iter().map(|r| kv.narrow(0, r.start, r.len()));
                let own = Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?; // [S, 2D]
                memory.push(MemoryLayer {
                    kv: own.contiguous()?.copy()?,
                });
            }
        }
        let finished = layers.into_iter().zip(samples);
        Ok(finished
            .map(|(layers, sample)| PromptMemory::new(layers, sample.rows()))
            .collect())
    }

    pub(crate) fn step(
        &self,
        batch: &DecoderBatch,
        cache: &mut KvCache,
    ) -> std::result::Result<Tensor, ForwardError> {
        let slots: Vec<usize> = batch.rows.iter().map(|row| row.slot).collect();
        let tokens: Vec<u32> = batch.rows.iter().map(|row| row.token).collect();
        let positions = Arc::new(cache.reserve(&slots)?);
        let mut x = self.embed(&tokens)?; // [B, D]
        for (index, layer) in self.layers.iter().enumerate() {
            let h = layer.self_norm.forward(&x, 0)?; // [B, D]
            let qkv = self.rotate(&layer.projections.qkv(&h, 0)?, &positions)?; // [B, 3D]
            let attended = cache.attend(index, &qkv, &slots, layer.heads)?; // [B, D]
            x = layer.after_self(&x, &attended)?; // [B, D]
            let q = layer.cross_query(&x)?; // [B, D]
            let attended = PromptMemory::attend(batch.rows, index, &q, layer.heads)?; // [B, D]
            x = layer.after_cross(&x, &attended)?; // [B, D]
        }
        let logits = self.logits(&self.norm.forward(&x, 0)?)?; // [B, V]
        cache.commit(&slots);
        Ok(logits.to_dtype(candle_core::DType::F32)?)
    }
}

impl DecoderLayer {
    fn load(config: &MultiwayConfig, weights: &Weights, layer: usize) -> Result<Self> {
        let p = format!("decoder.layers.{layer}");
        let norm = |name: &str| RmsNorm::load(weights, &[format!("{p}.{name}.weight")], config.norm_eps);
        Ok(Self {
            self_norm: norm("self_attn_norm")?,
            projections: SelfAttentionProjections::load(weights, &[format!("{p}.self_attn")])?,
            self_inner_norm: norm("self_attn.inner_norm")?,
            cross_norm: norm("cross_attn_norm")?,
            cross: CrossAttentionProjections::load(weights, &format!("{p}.cross_attn"))?,
            cross_inner_norm: norm("cross_attn.inner_norm")?,
            ffn_norm: norm("ffn_norm")?,
            ffn: FeedForward::load(weights, &format!("{p}.ffn"), config.norm_eps)?,
            heads: config.decoder_heads,
        })
    }

    fn after_self(&self, x: &Tensor, attended: &Tensor) -> Result<Tensor> {
        x + self
            .projections
            .out(&self.self_inner_norm.forward(attended, 0)?, 0)? // [N, D]
    }

    fn cross_query(&self, x: &Tensor) -> Result<Tensor> {
        self.cross.q.forward(&self.cross_norm.forward(x, 0)?) // [N, D]
    }

    fn after_cross(&self, x: &Tensor, attended: &Tensor) -> Result<Tensor> {
        let x = (x + self
            .cross
            .out
            .forward(&self.cross_inner_norm.forward(attended, 0)?)?)?; // [N, D]
        &x + self.ffn.forward(&self.ffn_norm.forward(&x, 0)?)? // [N, D]
    }
}
