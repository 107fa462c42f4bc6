//! The Multiway encoder: shared self-attention, one expert per modality.
//!
//! Source: Wang et al. 2022, BEiT-3 (arXiv 2208.10442), section 2.1; sub-norms as in arXiv 2210.06423.

mod graph;
mod host;
mod pass;

use crate::attention::{cross_attention, self_attention};
use crate::batch::{EncoderBatch, SampleSegments};
use crate::config::{AttentionPattern, ModelConfig, Positions, StackConfig, VisionConfig};
use crate::error::ForwardError;
use crate::hook::Observe;
use crate::kernels::bias::Scoring;
use crate::kernels::plan::AttentionPlan;
use crate::layers::attention::{SelfAttentionProjections, scorings};
use crate::layers::embedding::Embedding;
use crate::layers::feed_forward::FeedForward;
use crate::layers::linear::Linear;
use crate::layers::norm::Norm;
use crate::layers::positions::resize_grid;
use crate::layers::{Weights, by_expert, own_rows};
use crate::memory::{KvLayers, PromptMemory};
use crate::output::EncoderOutput;
use crate::prefix::{ImagePrefix, with_prefixes};
use candle_core::{Device, Result, Tensor, bail};
pub(crate) use pass::Pass;
use std::ops::Range;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Encoder {
    vision: Option<VisionEmbedding>,
    text_embed: Embedding,
    text_position: Option<Tensor>,
    text_scale: f64,
    layers: Vec<EncoderLayer>,
    /// None where the heads have norms of their own.
    norm: Option<Norm>,
    pattern: AttentionPattern,
    writes: bool,
    spare: host::Spare,
    device: Device,
}

/// What makes rows of pictures.
#[derive(Debug)]
struct VisionEmbedding {
    patch: Linear,
    class_token: Tensor,
    mask_token: Tensor,
    position: Tensor,
    /// None where a prompt has one picture at most.
    image_index: Option<Tensor>,
}

#[derive(Debug)]
struct EncoderLayer {
    attention_norm: Norm,
    projections: SelfAttentionProjections,
    inner_norm: Option<Norm>,
    ffn_norm: Norm,
    experts: Vec<FeedForward>,
    scoring: Scoring,
}

impl Encoder {
    pub(crate) fn load(config: &ModelConfig, weights: &Weights) -> Result<Self> {
        let text_embed = weights.table("text_embed.weight")?;
        let experts: &[&str] = if config.vision.is_some() {
            &["vision", "language"]
        } else {
            &["language"]
        };
        let norms = experts.iter().map(|e| format!("encoder.{e}.norm.weight"));
        let norms: Vec<_> = norms.collect();
        let norm = config
            .encoder_norm
            .then(|| Norm::load(weights, &norms, config.norm_eps));
        let layer_config = &config.encoder;
        let scorings = scorings(weights, layer_config, "encoder")?;
        let layers = scorings.into_iter().enumerate();
        let layers =
            layers.map(|(layer, scoring)| EncoderLayer::load(config, layer_config, weights, layer, scoring));
        let learned = layer_config.positions == Positions::Learned;
        let text_position = learned.then(|| last_rows(weights, "language_embed", config.max_text_length));
        let vision = config
            .vision
            .map(|vision| VisionEmbedding::load(&vision, config.hidden_size, weights));
        Ok(Self {
            vision: vision.transpose()?,
            text_position: text_position.transpose()?,
            text_scale: config.embedding_scale(),
            layers: layers.collect::<Result<_>>()?,
            norm: norm.transpose()?,
            pattern: config.attention_pattern,
            writes: config.writing_mask().is_some(),
            spare: host::Spare::default(),
            device: text_embed.device().clone(),
            text_embed,
        })
    }

    /// Encodes a batch; `keep` says that the keys and values of every layer are to be kept.
    pub(crate) fn forward(
        &self,
        batch: &EncoderBatch,
        keep: bool,
        mut observe: Option<Observe>,
    ) -> std::result::Result<EncoderOutput, ForwardError> {
        let mut pass = self.begin(batch, keep)?;
        loop {
            let observe = observe.as_mut().map(|observe| -> Observe { observe });
            if let Some(output) = self.advance(&mut pass, batch, usize::MAX, observe)? {
                return Ok(output);
            }
        }
    }

    /// Begins a batch's way through the layers; there is none where all its rows are known.
    pub(crate) fn begin(
        &self,
        batch: &EncoderBatch,
        keep: bool,
    ) -> std::result::Result<Option<Pass>, ForwardError> {
        if batch.segments.samples.is_empty() {
            return Err(ForwardError::EmptyBatch);
        }
        let pass = (batch.segments.rows() > 0).then(|| Pass::begin(self, batch, keep || self.writes));
        Ok(pass.transpose()?)
    }

    /// Does a slice of at most `rows` rows; gives the output with the last.
    pub(crate) fn advance(
        &self,
        pass: &mut Option<Pass>,
        batch: &EncoderBatch,
        rows: usize,
        observe: Option<Observe>,
    ) -> std::result::Result<Option<EncoderOutput>, ForwardError> {
        let mut packed = None;
        if let Some(pass) = pass {
            packed = pass.advance(self, batch, rows, observe)?; // [N, D]
            if packed.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(EncoderOutput {
            hidden: with_prefixes(packed, &batch.prefixes, |prefix| Ok(prefix.hidden()))?, // [N + R, D]
            segments: batch.segments.clone(),
            keys_values: pass.take().map_or_else(Vec::new, Pass::into_kept),
            prefixes: batch.prefixes.clone(),
        }))
    }

    /// Keeps what writing behind each sample needs of it: its keys and values.
    pub(crate) fn prompt_memory(
        &self,
        encoded: &EncoderOutput,
    ) -> std::result::Result<Vec<PromptMemory>, ForwardError> {
        let one = |sample: &SampleSegments| {
            let layer = |kv: &Tensor| own_rows(kv, &sample.all()); // [S, 2D]
            let layers = encoded.keys_values.iter().map(layer).collect::<Result<_>>()?;
            Ok(PromptMemory::new(KvLayers::Graph(layers), sample.rows()))
        };
        encoded.segments.samples.iter().map(one).collect()
    }

    /// Embeds some of a batch's packed rows, vision first, `[n, D]`.
    fn embed(&self, batch: &EncoderBatch, rows: &Range<usize>) -> Result<Tensor> {
        let pictures = batch.sources.len();
        let mut parts = Vec::with_capacity(2);
        let vision = rows.start.min(pictures)..rows.end.min(pictures);
        if !vision.is_empty() {
            parts.push(self.embed_vision(batch, vision)?); // [nv, D]
        }
        let text = rows.start.max(pictures) - pictures..rows.end.max(pictures) - pictures;
        if !text.is_empty() {
            let (tokens, positions) = (&batch.tokens[text.clone()], &batch.token_positions[text]);
            parts.push(self.embed_text(tokens, positions)?); // [nt, D]
        }
        Tensor::cat(&parts, 0)
    }

    fn embed_text(&self, tokens: &[u32], positions: &[u32]) -> Result<Tensor> {
        let rows = (self.text_embed.rows(tokens)? * self.text_scale)?; // [Nt, D]
        match &self.text_position {
            Some(table) => rows + self.rows(table, positions)?, // [Nt, D]
            None => Ok(rows),
        }
    }

    fn embed_vision(&self, batch: &EncoderBatch, rows: Range<usize>) -> Result<Tensor> {
        let Some(vision) = &self.vision else {
            bail!("the model takes no pictures")
        };
        let width = vision.patch.inputs()?;
        let mut table = vec![vision.class_token.clone(), vision.mask_token.clone()];
        // Sources from 2 on are patches: those of the rows, which stand side by side.
        let mut sources = batch.sources[rows.clone()].to_vec();
        let patches = || sources.iter().filter(|source| **source >= 2);
        if let (Some(&first), Some(&last)) = (patches().min(), patches().max()) {
            let count = (last - first) as usize + 1;
            let start = (first - 2) as usize * width;
            let Some(pixels) = batch.pixels.get(start..start + count * width) else {
                bail!("the batch has no patch {}", last - 2)
            };
            let pixels = Tensor::from_slice(pixels, (count, width), &self.device)?; // [patches, 3pp]
            table.push(vision.patch.forward(&pixels.to_dtype(self.text_embed.dtype())?)?); // [patches, D]
            let patches = sources.iter_mut().filter(|source| **source >= 2);
            patches.for_each(|source| *source -= first - 2);
        }
        let content = self.rows(&Tensor::cat(&table, 0)?, &sources)?; // [nv, D]
        let positions = self.rows(&vision.position, &batch.positions[rows.clone()])?; // [nv, D]
        let x = (content + positions)?; // [nv, D]
        match &vision.image_index {
            Some(table) => x + self.rows(table, &batch.image_indices[rows])?, // [nv, D]
            None => Ok(x),
        }
    }

    fn rows(&self, table: &Tensor, rows: &[u32]) -> Result<Tensor> {
        table.index_select(&Tensor::from_slice(rows, rows.len(), &self.device)?, 0)
    }
}

/// Returns the keys and values `[N, 2D]` of a fused projection `[N, 3D]`.
fn keys_values(qkv: &Tensor) -> Result<Tensor> {
    let d = qkv.dim(1)? / 3;
    qkv.narrow(1, d, 2 * d)
}

/// Attends from the rows of `qkv` `[N, 3D]` to themselves and, where the batch has any, to those of its prefixes, `[N, D]`.
fn attend(
    qkv: &Tensor,
    layer: usize,
    prefixes: &[ImagePrefix],
    plan: &Arc<AttentionPlan>,
    scoring: &Scoring,
) -> Result<Tensor> {
    if prefixes.is_empty() {
        return self_attention(qkv, plan, scoring);
    }
    let q = qkv.narrow(1, 0, qkv.dim(1)? / 3)?; // [N, D]
    let kv = with_prefixes(Some(keys_values(qkv)?), prefixes, |prefix| prefix.layer(layer))?; // [N + R, 2D]
    cross_attention(&q, &kv, plan, scoring)
}

impl VisionEmbedding {
    fn load(config: &VisionConfig, width: usize, weights: &Weights) -> Result<Self> {
        let row = |name: &str| weights.get(name)?.reshape((1, width)); // [1, D]
        let index = "vision_embed.image_index.weight";
        Ok(Self {
            patch: Linear::load(weights, &["vision_embed.patch.weight".to_owned()])?,
            class_token: row("vision_embed.class_token")?,
            mask_token: row("vision_embed.mask_token")?,
            position: positions(config, weights)?,
            image_index: weights.has(index).then(|| weights.get(index)).transpose()?,
        })
    }
}

/// Loads the positions of a picture's rows, `[P + 1, D]`, resized where pictures have another size than in training.
fn positions(config: &VisionConfig, weights: &Weights) -> Result<Tensor> {
    let to = config.grid();
    let from = config.stored_grid.unwrap_or(to);
    let table = last_rows(weights, "vision_embed", from * from + 1)?; // [stored P + 1, D]
    if from == to {
        return Ok(table);
    }
    let patches = resize_grid(&table.narrow(0, 1, from * from)?, from, to)?; // [P, D]
    Tensor::cat(&[table.narrow(0, 0, 1)?, patches], 0)
}

/// Loads a table of positions without what may stand before the first.
fn last_rows(weights: &Weights, prefix: &str, rows: usize) -> Result<Tensor> {
    let table = weights.get(&format!("{prefix}.position.weight"))?; // [rows or more, D]
    match table.dim(0)?.checked_sub(rows) {
        Some(0) => Ok(table),
        Some(skipped) => table.narrow(0, skipped, rows),
        None => bail!(
            "'{prefix}.position.weight' has {} rows, expected {rows}",
            table.dim(0)?
        ),
    }
}

impl EncoderLayer {
    fn load(
        config: &ModelConfig,
        layer_config: &StackConfig,
        weights: &Weights,
        layer: usize,
        scoring: Scoring,
    ) -> Result<Self> {
        let p = format!("encoder.layers.{layer}");
        let experts = config.experts(layer);
        let norm = |name: &str| {
            let names: Vec<String> = experts.iter().map(|e| format!("{p}.{e}.{name}.weight")).collect();
            Norm::load(weights, &names, config.norm_eps)
        };
        let attention = config
            .attention_experts(layer)
            .iter()
            .map(|e| format!("{p}.self_attn.{e}"));
        let ffn = experts
            .iter()
            .map(|e| FeedForward::load(weights, &format!("{p}.{e}.ffn"), layer_config, config.norm_eps));
        Ok(Self {
            attention_norm: norm("self_attn_norm")?,
            projections: SelfAttentionProjections::load(weights, &attention.collect::<Vec<_>>())?,
            inner_norm: layer_config
                .sub_norm
                .then(|| norm("inner_attn_norm"))
                .transpose()?,
            ffn_norm: norm("ffn_norm")?,
            experts: ffn.collect::<Result<_>>()?,
            scoring,
        })
    }

    /// Runs the layer; `attend` is given queries, keys and values side by side, `[N, 3D]`.
    fn forward(
        &self,
        x: &Tensor,
        split: usize,
        attend: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let qkv = self.project(x, split)?; // [N, 3D]
        self.finish(x, &attend(&qkv)?, split) // [N, D]
    }

    /// Makes queries, keys and values, side by side, `[N, 3D]`.
    fn project(&self, x: &Tensor, split: usize) -> Result<Tensor> {
        let h = self.attention_norm.forward(x, split)?; // [N, D]
        self.projections.qkv(&h, split) // [N, 3D]
    }

    /// Does what comes behind attention, which gave `[N, H Dh]` for the rows `x`.
    fn finish(&self, x: &Tensor, attended: &Tensor, split: usize) -> Result<Tensor> {
        let h = match &self.inner_norm {
            Some(norm) => norm.forward(attended, split)?, // [N, H Dh]
            None => attended.clone(),
        };
        let x = (x + self.projections.out(&h, split)?)?; // [N, D]
        let h = self.ffn_norm.forward(&x, split)?; // [N, D]
        &x + by_expert(&h, split, &self.experts, FeedForward::forward)? // [N, D]
    }
}
