//! The text decoder: causal self-attention, and cross-attention to the encoder's rows.
//!
//! Source: an encoder-decoder that writes every answer as text, Chen et al. 2022, PaLI (arXiv 2209.06794).

mod graph;
pub(crate) mod host;

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use crate::attention::{cross_attention, self_attention};
use crate::batch::TargetBatch;
use crate::config::{ModelConfig, Positions, StackConfig};
use crate::error::ForwardError;
use crate::hook::{HookPoint, Observe};
use crate::kernels::access::is_cpu_f32;
use crate::kernels::bias::ScoreRule;
use crate::kernels::plan::AttentionPlan;
use crate::kernels::rotary::{Rotary, RotaryTable};
use crate::layers::Weights;
use crate::layers::attention::{CrossAttentionProjections, SelfAttentionProjections, scorings};
use crate::layers::embedding::Embedding;
use crate::layers::feed_forward::FeedForward;
use crate::layers::form::{Form, LinearLayer, NormLayer};
use crate::memory::KvCache;
use crate::output::EncoderOutput;
use crate::prefix::with_prefixes;
use crate::step::DecoderBatch;

#[derive(Debug)]
pub(crate) struct Decoder<F: Form> {
    text_embed: Embedding,
    text_scale: f64,
    layers: Vec<DecoderLayer<F>>,
    norm: F::Norm,
    output: F::Linear,
    output_scale: f64,
    rotary: Option<Arc<RotaryTable>>,
    pub(crate) max_length: usize,
    pub(crate) vocab_size: usize,
    /// Width of queries, keys and values: H times Dh.
    pub(crate) inner_size: usize,
    /// Number of attention heads, H.
    heads: usize,
    /// The element type of keys and values.
    pub(crate) cache: F::CacheType,
}

#[derive(Debug)]
struct DecoderLayer<F: Form> {
    self_norm: F::Norm,
    projections: SelfAttentionProjections<F>,
    self_inner_norm: Option<F::Norm>,
    cross_norm: F::Norm,
    cross: CrossAttentionProjections<F>,
    cross_inner_norm: Option<F::Norm>,
    ffn_norm: F::Norm,
    ffn: FeedForward<F>,
    scoring: ScoreRule,
    cross_scoring: ScoreRule,
}

/// The input of a decoder layer's cross-attention.
pub(crate) struct CrossInput<'a> {
    /// `[N, H Dh]`.
    pub(crate) queries: &'a Tensor,
    /// `[N + R, 2 H Dh]`.
    pub(crate) keys_values: &'a Tensor,
    pub(crate) plan: &'a Arc<AttentionPlan>,
    pub(crate) scoring: &'a ScoreRule,
}

/// Computes a layer's cross-attention, `[N, H Dh]`.
pub(crate) type AttendCross<'a> = &'a mut dyn FnMut(&CrossInput) -> Result<Tensor>;

/// The operations of a decoder that differ between forms.
pub(crate) trait DecoderForm: Form {
    /// Advances each row by one token, and writes the logits of the next into `logits`, `[B * V]`.
    fn step(
        decoder: &Decoder<Self>,
        batch: &DecoderBatch,
        cache: &mut KvCache,
        logits: &mut Vec<f32>,
    ) -> std::result::Result<(), ForwardError>;
}

impl<F: Form> Decoder<F> {
    pub(crate) fn load(config: &ModelConfig, layer_config: &StackConfig, weights: &Weights) -> Result<Self> {
        let text_embed = weights.table("text_embed.weight")?;
        let scorings = scorings(weights, layer_config, "decoder")?;
        let layers = scorings.into_iter().enumerate();
        let layers =
            layers.map(|(layer, scoring)| DecoderLayer::load(config, layer_config, weights, layer, scoring));
        let rotary = match layer_config.positions {
            Positions::Rotary { theta } => {
                let table = RotaryTable::new(config.max_target_length, layer_config.head_size, theta);
                Some(Arc::new(table))
            }
            Positions::Learned | Positions::Relative { .. } => None,
        };
        let output = config.output_weight().unwrap_or("text_embed.weight");
        Ok(Self {
            text_scale: config.embedding_scale(),
            layers: layers.collect::<Result<_>>()?,
            norm: F::Norm::load(weights, &["decoder.norm.weight".to_owned()], config.norm_eps)?,
            output: F::Linear::load(weights, &[output.to_owned()])?,
            output_scale: config.output_scale,
            rotary,
            max_length: config.max_target_length,
            vocab_size: config.vocab_size,
            inner_size: layer_config.inner_size(),
            heads: layer_config.heads,
            cache: F::CacheType::default(),
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
        Ok((self.text_embed.rows(tokens)? * self.text_scale)?) // [N, D]
    }

    fn rotate(&self, qkv: &Tensor, positions: &Arc<Vec<u32>>) -> Result<Tensor> {
        let Some(table) = &self.rotary else {
            return Ok(qkv.clone());
        };
        let columns = 2 * self.inner_size;
        let (table, positions) = (Arc::clone(table), Arc::clone(positions));
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
        observe: Observe,
    ) -> std::result::Result<Tensor, ForwardError> {
        let mut attend = |input: &CrossInput| {
            let CrossInput {
                queries,
                keys_values,
                plan,
                scoring,
            } = input;
            cross_attention(queries, keys_values, plan, scoring)
        };
        self.forward_with(encoded, batch, observe, &mut attend)
    }

    /// Runs whole targets as [`forward`](Self::forward) does, with an implementation of cross-attention that
    /// the caller chooses.
    pub(crate) fn forward_with(
        &self,
        encoded: &EncoderOutput,
        batch: &TargetBatch,
        observe: Observe,
        attend: AttendCross,
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
        observe(HookPoint::Embedded, &x)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let h = layer.self_norm.forward(&x, 0)?; // [N, D]
            let qkv = self.rotate(&layer.projections.qkv(&h, 0)?, &positions)?; // [N, 3D]
            let attended = self_attention(&qkv, &own, &layer.scoring)?; // [N, D]
            x = layer.after_self(&x, &attended)?; // [N, D]
            let attended = attend(&CrossInput {
                queries: &layer.cross_query(&x)?,                       // [N, D]
                keys_values: &layer.cross_keys_values(index, encoded)?, // [N + R, 2D]
                plan: &cross,
                scoring: &layer.cross_scoring,
            })?; // [N, D]
            x = layer.after_cross(&x, &attended)?; // [N, D]
            observe(HookPoint::Layer(index), &x)?;
        }
        let hidden = self.norm.forward(&x, 0)?; // [N, D]
        observe(HookPoint::Output, &hidden)?;
        Ok(hidden)
    }

    /// Projects rows `[N, D]` to logits `[N, V]`.
    pub(crate) fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        if (self.output_scale - 1.0).abs() < f64::EPSILON {
            return self.output.forward(hidden);
        }
        self.output.forward(&(hidden * self.output_scale)?)
    }

    /// Projects final rows `[R, D]` of the encoder to the cross-attention keys and values of each layer,
    /// `[R, 2D]`.
    pub(crate) fn cross_keys_values(&self, hidden: &Tensor) -> Result<Vec<Tensor>> {
        let layers = self.layers.iter();
        layers.map(|layer| layer.cross.kv.forward(hidden)).collect()
    }

    /// Returns the projection of final rows `[R, D]` of the encoder to the cross-attention keys and values of
    /// a layer, `[R, 2D]`.
    pub(crate) fn cross_projection(&self, layer: usize) -> Result<&F::Linear> {
        match self.layers.get(layer) {
            Some(layer) => Ok(&layer.cross.kv),
            None => bail!(
                "the decoder has {} layers, asked for layer {layer}",
                self.layers.len()
            ),
        }
    }
}

impl<F: Form> DecoderLayer<F> {
    fn load(
        config: &ModelConfig,
        layer_config: &StackConfig,
        weights: &Weights,
        layer: usize,
        scoring: ScoreRule,
    ) -> Result<Self> {
        let p = format!("decoder.layers.{layer}");
        let norm = |name: &str| F::Norm::load(weights, &[format!("{p}.{name}.weight")], config.norm_eps);
        Ok(Self {
            self_norm: norm("self_attn_norm")?,
            projections: SelfAttentionProjections::load(weights, &[format!("{p}.self_attn")])?,
            self_inner_norm: layer_config
                .sub_norm
                .then(|| norm("self_attn.inner_norm"))
                .transpose()?,
            cross_norm: norm("cross_attn_norm")?,
            cross: CrossAttentionProjections::load(weights, &format!("{p}.cross_attn"))?,
            cross_inner_norm: layer_config
                .sub_norm
                .then(|| norm("cross_attn.inner_norm"))
                .transpose()?,
            ffn_norm: norm("ffn_norm")?,
            ffn: FeedForward::load(weights, &format!("{p}.ffn"), layer_config, config.norm_eps)?,
            cross_scoring: ScoreRule {
                bias: None,
                ..scoring.clone()
            },
            scoring,
        })
    }

    fn after_self(&self, x: &Tensor, attended: &Tensor) -> Result<Tensor> {
        x + self
            .projections
            .out(&normed(self.self_inner_norm.as_ref(), attended)?, 0)? // [N, D]
    }

    /// Projects an encoded batch's own rows to keys and values, and puts those that its prefixes keep behind,
    /// `[N + R, 2D]`.
    fn cross_keys_values(&self, layer: usize, encoded: &EncoderOutput) -> Result<Tensor> {
        let own = encoded.packed()?.map(|rows| self.cross.kv.forward(&rows)); // [N, 2D]
        with_prefixes(own.transpose()?, &encoded.prefixes, |prefix| prefix.cross(layer))
    }

    fn cross_query(&self, x: &Tensor) -> Result<Tensor> {
        self.cross.q.forward(&self.cross_norm.forward(x, 0)?) // [N, D]
    }

    fn after_cross(&self, x: &Tensor, attended: &Tensor) -> Result<Tensor> {
        let attended = normed(self.cross_inner_norm.as_ref(), attended)?; // [N, H Dh]
        let x = (x + self.cross.out.forward(&attended)?)?; // [N, D]
        &x + self.ffn.forward(&self.ffn_norm.forward(&x, 0)?)? // [N, D]
    }
}

fn normed<N: NormLayer>(norm: Option<&N>, x: &Tensor) -> Result<Tensor> {
    norm.map_or_else(|| Ok(x.clone()), |norm| norm.forward(x, 0))
}
