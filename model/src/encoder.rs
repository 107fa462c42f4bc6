//! The Multiway encoder: shared self-attention, one expert per modality.
//!
//! Source: Wang et al. 2022, BEiT-3 (arXiv 2208.10442), section 2.1; sub-norms as in arXiv 2210.06423.

mod graph;
mod host;

use std::fmt::Debug;
use std::ops::Range;

use candle_core::{Device, Result, Tensor, bail};

use crate::batch::{EncoderBatch, SampleSegments};
use crate::config::{AttentionPattern, ModelConfig, Positions, StackConfig, VisionConfig};
use crate::error::ForwardError;
use crate::hook::Observe;
use crate::kernels::bias::ScoreRule;
use crate::layers::Weights;
use crate::layers::attention::{SelfAttentionProjections, scorings};
use crate::layers::embedding::Embedding;
use crate::layers::feed_forward::FeedForward;
use crate::layers::form::{Form, LinearLayer, NormLayer};
use crate::layers::positions::resize_grid;
use crate::memory::{KvCache, KvLayers, PromptMemory};
use crate::output::EncoderOutput;
use crate::prefix::with_prefixes;
use crate::step::DecoderBatch;

#[derive(Debug)]
pub(crate) struct Encoder<F: Form> {
    vision: Option<VisionEmbedding<F>>,
    text_embed: Embedding,
    text_position: Option<Tensor>,
    text_scale: f64,
    layers: Vec<EncoderLayer<F>>,
    /// None where the heads have norms of their own.
    norm: Option<F::Norm>,
    pattern: AttentionPattern,
    /// Width of queries, keys and values, H times Dh.
    inner_size: usize,
    device: Device,
}

/// The embedding of pictures.
#[derive(Debug)]
struct VisionEmbedding<F: Form> {
    patch: F::Linear,
    class_token: Tensor,
    mask_token: Tensor,
    position: Tensor,
    /// None where a prompt has one picture at most.
    image_index: Option<Tensor>,
}

#[derive(Debug)]
struct EncoderLayer<F: Form> {
    attention_norm: F::Norm,
    projections: SelfAttentionProjections<F>,
    inner_norm: Option<F::Norm>,
    ffn_norm: F::Norm,
    experts: Vec<FeedForward<F>>,
    scoring: ScoreRule,
}

/// The operations of an encoder that differ between forms.
pub(crate) trait EncoderForm: Form {
    /// Packed rows on their way through the layers.
    type Pass: Debug;

    /// Begins a pass; `keep` says that the keys and values of every layer are kept.
    fn begin(encoder: &Encoder<Self>, batch: &EncoderBatch, keep: bool) -> Result<Self::Pass>;

    /// Advances a pass by a slice of at most about `rows` rows; returns the final rows, `[N, D]`, with the
    /// last slice.
    fn advance(
        encoder: &Encoder<Self>,
        pass: &mut Self::Pass,
        batch: &EncoderBatch,
        rows: usize,
        observe: Option<Observe>,
    ) -> Result<Option<Tensor>>;

    /// Returns the keys and values of each layer, `[N, 2D]`; empty where they were not kept.
    fn into_keys_values(pass: Self::Pass) -> Vec<Tensor>;

    /// Copies the keys and values of a sample, of each layer `[N, 2D]`, for writing through the encoder.
    fn keep(encoder: &Encoder<Self>, keys_values: &[Tensor], sample: &[Range<usize>]) -> Result<KvLayers>;

    /// Writes through the encoder: reads each sequence's last token with a mask behind it, and writes the
    /// logits of `words` at the masks, `[B * V]`.
    ///
    /// Source: `CaptioningHandler` of `microsoft/unilm`, `beit3/engine_for_finetuning.py`.
    fn write(
        encoder: &Encoder<Self>,
        words: &Self::Linear,
        step: &WritingStep,
        cache: &mut KvCache,
        logits: &mut Vec<f32>,
    ) -> std::result::Result<(), ForwardError>;
}

/// A step of sequences that are written through the encoder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WritingStep<'a> {
    pub(crate) batch: &'a DecoderBatch<'a>,
    /// Id of the mask behind which the next word is written.
    pub(crate) mask: u32,
}

impl WritingStep<'_> {
    /// Lists the tokens, each with a mask behind it, `[2B]`; all are below `limit`.
    fn tokens(&self, limit: usize) -> std::result::Result<Vec<u32>, ForwardError> {
        let rows = self.batch.rows.iter();
        let tokens: Vec<u32> = rows.flat_map(|row| [row.token, self.mask]).collect();
        match tokens.iter().find(|token| **token as usize >= limit) {
            Some(&found) => Err(ForwardError::TokenId { found, limit }),
            None => Ok(tokens),
        }
    }
}

impl<F: Form> Encoder<F> {
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
            .then(|| F::Norm::load(weights, &norms, config.norm_eps));
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
            inner_size: layer_config.inner_size(),
            device: text_embed.device().clone(),
            text_embed,
        })
    }

    pub(crate) fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Returns the width of queries, keys and values, H times Dh.
    pub(crate) fn inner_size(&self) -> usize {
        self.inner_size
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

impl<F: EncoderForm> Encoder<F> {
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
    ) -> std::result::Result<Option<F::Pass>, ForwardError> {
        if batch.segments.samples.is_empty() {
            return Err(ForwardError::EmptyBatch);
        }
        let pass = (batch.segments.rows() > 0).then(|| F::begin(self, batch, keep));
        Ok(pass.transpose()?)
    }

    /// Does a slice of at most `rows` rows; gives the output with the last.
    pub(crate) fn advance(
        &self,
        pass: &mut Option<F::Pass>,
        batch: &EncoderBatch,
        rows: usize,
        observe: Option<Observe>,
    ) -> std::result::Result<Option<EncoderOutput>, ForwardError> {
        let mut packed = None;
        if let Some(pass) = pass {
            packed = F::advance(self, pass, batch, rows, observe)?; // [N, D]
            if packed.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(EncoderOutput {
            hidden: with_prefixes(packed, &batch.prefixes, |prefix| Ok(prefix.hidden()))?, // [N + R, D]
            segments: batch.segments.clone(),
            keys_values: pass.take().map_or_else(Vec::new, F::into_keys_values),
            prefixes: batch.prefixes.clone(),
        }))
    }

    /// Copies the keys and values of each sample, for writing through the encoder.
    pub(crate) fn prompt_memory(
        &self,
        encoded: &EncoderOutput,
    ) -> std::result::Result<Vec<PromptMemory>, ForwardError> {
        let one = |sample: &SampleSegments| {
            let layers = F::keep(self, &encoded.keys_values, &sample.all())?;
            Ok(PromptMemory::new(layers, sample.rows()))
        };
        encoded.segments.samples.iter().map(one).collect()
    }
}

impl<F: Form> VisionEmbedding<F> {
    fn load(config: &VisionConfig, width: usize, weights: &Weights) -> Result<Self> {
        let row = |name: &str| weights.get(name)?.reshape((1, width)); // [1, D]
        let index = "vision_embed.image_index.weight";
        Ok(Self {
            patch: F::Linear::load(weights, &["vision_embed.patch.weight".to_owned()])?,
            class_token: row("vision_embed.class_token")?,
            mask_token: row("vision_embed.mask_token")?,
            position: positions(config, weights)?,
            image_index: weights.has(index).then(|| weights.get(index)).transpose()?,
        })
    }
}

/// Loads the positions of a picture's rows, `[P + 1, D]`, resized where pictures have another size than in
/// training.
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

/// Loads a table of positions without padding rows before the first.
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

impl<F: Form> EncoderLayer<F> {
    fn load(
        config: &ModelConfig,
        layer_config: &StackConfig,
        weights: &Weights,
        layer: usize,
        scoring: ScoreRule,
    ) -> Result<Self> {
        let p = format!("encoder.layers.{layer}");
        let experts = config.experts(layer);
        let norm = |name: &str| {
            let names: Vec<String> = experts.iter().map(|e| format!("{p}.{e}.{name}.weight")).collect();
            F::Norm::load(weights, &names, config.norm_eps)
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
}
