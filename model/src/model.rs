//! The model: an encoder, a decoder, and the heads that embed and name patches.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use crate::batch::{EncoderBatch, TargetBatch, check_shareable};
use crate::checkpoint::{Checkpoint, LoadError};
use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::error::ForwardError;
use crate::heads::Heads;
use crate::hook::HookPoint;
use crate::kernels::rows::Layout;
use crate::kernels::{CacheType, WeightType};
use crate::layers::Weights;
use crate::memory::{CacheShape, KvCache, RowForm};
use crate::output::EncoderOutput;
use crate::prefix::ImagePrefix;
use crate::step::DecoderBatch;

/// From how many numbers on a tensor's pages in the file are given back as soon as it is read.
const LARGE: usize = 1 << 20;

/// How a checkpoint's weights are kept, and what decoding remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// The number type of all weights but those of [`weights`](Self::weights), and of what is computed; else f32.
    pub dtype: DType,
    /// How the weights of linear layers are stored; else as a packed checkpoint has them, and of others as f32. Packed ones,
    /// and all forms but f32, need the CPU, and f32 for the rest.
    pub weights: Option<WeightType>,
    /// How keys and values are kept between decoding steps; else as f32. The others need a text decoder on the CPU, and f32
    /// for the rest.
    pub cache: CacheType,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            dtype: DType::F32,
            weights: None,
            cache: CacheType::F32,
        }
    }
}

/// Decides in which form linear layers are packed: as they were asked for, or as they are stored; none where this is for
/// another device or number type.
fn packed_form(
    checkpoint: &Checkpoint,
    device: &Device,
    options: &LoadOptions,
) -> Result<Option<WeightType>, LoadError> {
    let (asked, dtype) = (options.weights, options.dtype);
    let packs = matches!(device, Device::Cpu) && dtype == DType::F32;
    let device = || format!("{:?}", device.location());
    match (checkpoint.packed(), asked) {
        (Some(found), Some(expected)) if found != expected => Err(LoadError::PackedAs {
            file: checkpoint.weights_file(),
            expected,
            found,
        }),
        (Some(weights), _) if !packs => Err(LoadError::PackedFor {
            file: checkpoint.weights_file(),
            weights,
            device: device(),
            dtype,
        }),
        (None, Some(weights)) if !packs && weights != WeightType::F32 => Err(LoadError::Weights {
            weights,
            device: device(),
            dtype,
        }),
        (stored, asked) => Ok(packs.then(|| stored.or(asked).unwrap_or_default())),
    }
}

/// An image-and-text-to-text encoder-decoder. Holds weights only, and can be shared between threads.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    encoder: Encoder,
    decoder: Option<Decoder>,
    heads: Heads,
    device: Device,
    dtype: DType,
}

impl Model {
    /// Loads a checkpoint's weights onto a device.
    ///
    /// On the CPU in f32 the linear layers are packed for inference, and every number of a sample is the same
    /// bits whatever else is in its batch.
    ///
    /// # Errors
    /// [`LoadError`] where a tensor cannot be read.
    pub fn load(checkpoint: &Checkpoint, device: &Device, dtype: DType) -> Result<Self, LoadError> {
        let options = LoadOptions {
            dtype,
            ..LoadOptions::default()
        };
        Self::load_with(checkpoint, device, &options)
    }

    /// Loads a checkpoint's weights onto a device, with the linear layers' weights in the form that the options name.
    ///
    /// Embeddings, norms, biases and position tables stay in `dtype`. The projection to the vocabulary is a linear layer;
    /// where it is tied to the embeddings, the table is kept beside it for lookups, 4 bytes a number.
    ///
    /// The weights of a packed checkpoint ([`Checkpoint::pack`]) are used where the file is mapped, and rows of its embeddings are
    /// read from there as tokens name them: neither is copied, and the model keeps the file open.
    ///
    /// # Errors
    /// [`LoadError::Weights`] or [`LoadError::Cache`] where the options do not go together, or not with the model;
    /// [`LoadError::PackedAs`] and [`LoadError::PackedFor`] where the checkpoint is packed for others; [`LoadError`] where a
    /// tensor cannot be read, or is too wide for 8-bit weights.
    pub fn load_with(
        checkpoint: &Checkpoint,
        device: &Device,
        options: &LoadOptions,
    ) -> Result<Self, LoadError> {
        let (config, dtype, cache) = (checkpoint.config(), options.dtype, options.cache);
        if cache != CacheType::F32
            && let Some(found) = steps_on_tensors(config, device, dtype)
        {
            return Err(LoadError::Cache { cache, found });
        }
        let packed = packed_form(checkpoint, device, options)?;
        let read = |stored: &str| {
            let tensor = checkpoint
                .load_tensor(stored, device, dtype)
                .map_err(candle_core::Error::wrap)?;
            if tensor.elem_count() >= LARGE {
                // It has been copied: its pages need not stay beside the copy while the others are read.
                checkpoint.release();
            }
            Ok(tensor)
        };
        let mut weights = Weights::new(config, packed, read);
        if checkpoint.packed().is_some() {
            let ready = |stored: &str| checkpoint.packed_weight(stored).map_err(candle_core::Error::wrap);
            weights = weights.with_ready(ready);
            if dtype == DType::F32 {
                weights = weights.with_tables(|stored| checkpoint.stored_table(stored));
            }
        }
        let model = Self::assemble(config, &weights)?;
        // What was read has been copied; the file's pages need not stay in memory beside it.
        checkpoint.release();
        model.with_cache(cache)
    }

    /// Returns the model with another way to keep keys and values between decoding steps, for the memories and caches that
    /// are made from now on.
    ///
    /// With [`CacheType::Bf16`] they take half the memory of f32, with [`CacheType::Int8`] about a quarter, and steps that
    /// decode many sequences, whose time is that of reading them, are faster. Answers may differ from those of f32 and are
    /// the same bits in any company all the same.
    ///
    /// # Errors
    /// [`LoadError::Cache`] where a type other than f32 is asked for and the model has no text decoder, or was not loaded onto
    /// the CPU in f32.
    ///
    /// # Examples
    /// ```
    /// use multiway_model::CacheType;
    /// use multiway_model::testing::{random_inference_model, tiny_config};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let model = random_inference_model(&tiny_config(), 7)?;
    /// let single = model.cache_token_bytes();
    /// let model = model.with_cache(CacheType::Bf16)?;
    /// assert_eq!(2 * model.cache_token_bytes(), single);
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_cache(mut self, cache: CacheType) -> Result<Self, LoadError> {
        if cache != CacheType::F32 && !self.steps_on_slices() {
            let found = steps_on_tensors(&self.config, &self.device, self.dtype);
            let found = found.unwrap_or_else(|| "linear layers that are not packed".to_owned());
            return Err(LoadError::Cache { cache, found });
        }
        if let Some(decoder) = &mut self.decoder {
            decoder.rows.kept = cache;
        }
        Ok(self)
    }

    /// Builds a model on given tensors, which may be variables: the form that training differentiates.
    ///
    /// # Errors
    /// Where a tensor of [`ModelConfig::tensors`] is missing or has another shape.
    pub fn from_tensors(
        config: &ModelConfig,
        tensors: &HashMap<String, Tensor>,
    ) -> Result<Self, ForwardError> {
        for (stored, shape) in config.tensors() {
            let Some(tensor) = tensors.get(&stored) else {
                let message = format!("'{stored}' of shape {shape:?} is missing");
                return Err(candle_core::Error::msg(message).into());
            };
            if tensor.dims() != shape.as_slice() {
                let found = tensor.dims();
                let message = format!("'{stored}' has shape {found:?}, expected {shape:?}");
                return Err(candle_core::Error::msg(message).into());
            }
        }
        Self::of_tensors(config, tensors, None)
    }

    /// Builds a model on given tensors with its linear layers packed, as [`Model::load`] does on the CPU.
    pub(crate) fn packed(
        config: &ModelConfig,
        tensors: &HashMap<String, Tensor>,
        weights: WeightType,
    ) -> Result<Self, ForwardError> {
        Self::of_tensors(config, tensors, Some(weights))
    }

    fn of_tensors(
        config: &ModelConfig,
        tensors: &HashMap<String, Tensor>,
        packed: Option<WeightType>,
    ) -> Result<Self, ForwardError> {
        let read = |stored: &str| match tensors.get(stored) {
            Some(tensor) => Ok(tensor.clone()),
            None => candle_core::bail!("'{stored}' is missing"),
        };
        Ok(Self::assemble(config, &Weights::new(config, packed, read))?)
    }

    fn assemble(config: &ModelConfig, weights: &Weights) -> candle_core::Result<Self> {
        let embed = weights.table("text_embed.weight")?;
        let decoder = config
            .decoder
            .map(|layers| Decoder::load(config, &layers, weights));
        Ok(Self {
            encoder: Encoder::load(config, weights)?,
            decoder: decoder.transpose()?,
            heads: Heads::load(config, weights)?,
            device: embed.device().clone(),
            dtype: embed.dtype(),
            config: config.clone(),
        })
    }

    /// Returns the model's configuration.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns the device that the weights are on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the number type of the weights.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    pub(crate) fn decoder_if_any(&self) -> Option<&Decoder> {
        self.decoder.as_ref()
    }

    pub(crate) fn decoder(&self) -> Result<&Decoder, ForwardError> {
        self.decoder.as_ref().ok_or(ForwardError::NoHead("text"))
    }

    /// Encodes a packed batch.
    ///
    /// # Shapes
    /// `EncoderOutput::hidden` is `[N, D]`, vision rows first; where the batch has image prefixes `[N + R, D]`, theirs last.
    ///
    /// # Errors
    /// [`ForwardError`] where the batch is empty or a tensor operation fails.
    pub fn encode(&self, batch: &EncoderBatch) -> Result<EncoderOutput, ForwardError> {
        self.encoder.forward(batch, false, None)
    }

    /// Encodes a packed batch, and shows the rows of every layer to `observe`, as [`Model::encode`] makes them.
    ///
    /// # Errors
    /// As [`Model::encode`], and what `observe` gives.
    pub fn encode_observed(
        &self,
        batch: &EncoderBatch,
        observe: &mut dyn FnMut(HookPoint, &Tensor) -> candle_core::Result<()>,
    ) -> Result<EncoderOutput, ForwardError> {
        self.encoder.forward(batch, false, Some(observe))
    }

    /// Encodes a packed batch as [`Model::encode`] does, and keeps every layer's keys and values, `[N, 2D]`, for
    /// [`Model::image_prefix`].
    ///
    /// # Errors
    /// As [`Model::encode`].
    pub fn encode_keeping(&self, batch: &EncoderBatch) -> Result<EncoderOutput, ForwardError> {
        self.encoder.forward(batch, true, None)
    }

    /// Copies what encoding left behind of a sample's pictures, all of them in their order, for later prompts about them.
    /// Pictures that were known already give the prefix that they came with.
    ///
    /// # Errors
    /// [`ForwardError::NotShareable`] where the model's attention pattern is not `ImagePrefix`; [`ForwardError::Prefix`] where
    /// there is no such sample, it has no pictures, or the batch was not encoded by [`Model::encode_keeping`].
    ///
    /// # Examples
    /// ```
    /// use multiway_model::testing::{random_inference_model, tiny_config};
    /// use multiway_model::{EncoderBatch, EncoderSample, ProcessedImage};
    ///
    /// # fn main() -> Result<(), multiway_model::ForwardError> {
    /// let config = tiny_config(); // pictures of 16 patches
    /// let model = random_inference_model(&config, 7)?;
    /// let picture = [ProcessedImage::from_pixels(vec![0.0; 3 * 16 * 16])];
    /// let batch = EncoderBatch::new(&config, &[EncoderSample { images: &picture, tokens: &[5, 1] }])?;
    /// let prefix = model.image_prefix(&model.encode_keeping(&batch)?, 0)?;
    ///
    /// let mut batch = EncoderBatch::builder(&config);
    /// batch.push_known(&prefix, &[8, 9, 1])?;
    /// let encoded = model.encode(&batch.build())?; // three rows are computed, and seventeen known
    /// assert_eq!(encoded.hidden.dims(), [20, config.hidden_size]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn image_prefix(&self, encoded: &EncoderOutput, sample: usize) -> Result<ImagePrefix, ForwardError> {
        check_shareable(&self.config, sample)?;
        encoded.image_prefix(sample, |hidden| match &self.decoder {
            Some(decoder) => decoder.cross_keys_values(hidden),
            None => Ok(Vec::new()),
        })
    }

    /// Advances each row's sequence by one token and returns the logits of the next.
    ///
    /// # Shapes
    /// `[B, V]` in f32, rows in the order of the batch.
    ///
    /// # Errors
    /// [`ForwardError::Slot`] where a slot is full, unknown or named twice; [`ForwardError::CacheFull`] where the step needs
    /// more blocks than are free. The cache is unchanged after an error.
    pub fn decode_step(&self, batch: &DecoderBatch, cache: &mut KvCache) -> Result<Tensor, ForwardError> {
        if self.steps_on_slices() {
            let mut logits = Vec::new();
            self.decode_step_into(batch, cache, &mut logits)?;
            let shape = (batch.rows.len(), logits.len() / batch.rows.len().max(1));
            return Ok(Tensor::from_vec(logits, shape, &self.device)?); // [B, V]
        }
        let logits = self.next_logits(batch, cache); // [B, V]
        match &logits {
            Ok(_) => cache.commit(batch.slots()),
            Err(_) => cache.retract(batch.slots()),
        }
        logits
    }

    /// Advances each row's sequence by one token, and writes the logits of the next into `logits`: the same numbers as
    /// [`Model::decode_step`], without a tensor. On a CPU in f32, no memory is asked for once a step as large has been made.
    ///
    /// # Shapes
    /// `logits`: `[B * V]`, rows in the order of the batch.
    ///
    /// # Errors
    /// As [`Model::decode_step`].
    pub fn decode_step_into(
        &self,
        batch: &DecoderBatch,
        cache: &mut KvCache,
        logits: &mut Vec<f32>,
    ) -> Result<(), ForwardError> {
        if !self.steps_on_slices() {
            let all = self.decode_step(batch, cache)?; // [B, V]
            *logits = all.flatten_all()?.to_vec1()?;
            return Ok(());
        }
        let step = self.decoder()?.step_on_slices(batch, cache, logits);
        match &step {
            Ok(()) => cache.commit(batch.slots()),
            Err(_) => cache.retract(batch.slots()),
        }
        step
    }

    /// Tells whether decoding steps work on slices, outside of tensors.
    pub(crate) fn steps_on_slices(&self) -> bool {
        self.kept_on_slices().is_some()
    }

    /// Tells how keys and values are kept between decoding steps where these work on slices.
    pub(crate) fn kept_on_slices(&self) -> Option<Layout> {
        let decoder = self
            .decoder
            .as_ref()
            .filter(|_| self.config.writing_mask().is_none());
        decoder.and_then(Decoder::layout)
    }

    fn next_logits(&self, batch: &DecoderBatch, cache: &mut KvCache) -> Result<Tensor, ForwardError> {
        match self.config.writing_mask() {
            Some(mask) => {
                let rows = self.encoder.step(batch, cache, mask)?; // [B, D]
                Ok(self.heads.words(&rows)?.to_dtype(DType::F32)?) // [B, V]
            }
            None => self.decoder()?.step(batch, cache),
        }
    }

    /// Makes a cache with room for `slots` sequences of at most `max_length` tokens, all of which may be that long at once.
    ///
    /// # Errors
    /// Where the model writes no text, `max_length` is zero or above the model's limit, or there is no memory.
    pub fn new_cache(&self, slots: usize, max_length: usize) -> Result<KvCache, ForwardError> {
        KvCache::new(&self.cache_shape()?, slots, max_length)
    }

    /// Makes a cache with room for `tokens` tokens in all, rounded up to whole blocks, in `slots` sequences, each as long as the
    /// model writes.
    ///
    /// # Errors
    /// Where the model writes no text, or there is no memory.
    pub fn new_cache_with_capacity(&self, slots: usize, tokens: usize) -> Result<KvCache, ForwardError> {
        KvCache::with_capacity(&self.cache_shape()?, slots, tokens)
    }

    /// Tells what a cache of this model holds.
    fn cache_shape(&self) -> Result<CacheShape, ForwardError> {
        let max_length = self.config.max_target_length;
        let (layers, width) = if self.config.writing_mask().is_some() {
            (self.config.encoder.layers, self.config.encoder.inner_size())
        } else {
            let decoder = self.decoder()?;
            (decoder.layers(), decoder.inner_size)
        };
        let form = self.kept_on_slices().map_or_else(
            || RowForm::Graph {
                width,
                dtype: self.dtype,
                device: self.device.clone(),
            },
            RowForm::Host,
        );
        Ok(CacheShape {
            layers,
            max_length,
            form,
        })
    }

    /// Counts the bytes that a token takes in a [`KvCache`]: its keys and values of all layers.
    ///
    /// # Units
    /// Bytes a token; zero where the model writes no text. The cache takes blocks of [`KvCache::BLOCK`] tokens.
    #[must_use]
    pub fn cache_token_bytes(&self) -> usize {
        self.cache_shape().map_or(0, |shape| shape.token_bytes())
    }

    /// Counts the bytes that a row of the encoder takes in a [`PromptMemory`]: cross-attention keys and values of all
    /// decoder layers, or where the encoder itself writes, its own of all its layers.
    ///
    /// # Units
    /// Bytes a row, so that [`PromptMemory::bytes`] is this times [`PromptMemory::length`]; zero where the model writes no
    /// text.
    #[must_use]
    pub fn memory_row_bytes(&self) -> usize {
        // Cross-attention is as wide and as deep as a decoder's self-attention; an encoder that writes keeps one kind of
        // keys and values for prompt and text.
        self.cache_token_bytes()
    }

    /// Runs whole target texts at once, differentiably, and returns their logits.
    ///
    /// # Shapes
    /// `[rows, V]`, one row per token of `targets`.
    ///
    /// # Errors
    /// [`ForwardError`] where a target is too long or belongs to no sample.
    pub fn decode(&self, encoded: &EncoderOutput, targets: &TargetBatch) -> Result<Tensor, ForwardError> {
        self.decode_observed(encoded, targets, &mut |_, _| Ok(()))
    }

    /// Runs whole target texts, and shows the rows of every layer to `observe`, as [`Model::decode`] makes them.
    ///
    /// # Errors
    /// As [`Model::decode`], and what `observe` gives.
    pub fn decode_observed(
        &self,
        encoded: &EncoderOutput,
        targets: &TargetBatch,
        observe: &mut dyn FnMut(HookPoint, &Tensor) -> candle_core::Result<()>,
    ) -> Result<Tensor, ForwardError> {
        let decoder = self.decoder()?;
        let hidden = decoder.forward(encoded, targets, observe)?; // [N, D]
        Ok(decoder.logits(&hidden)?)
    }

    /// Embeds each sample for retrieval: its first picture's class row, or the last row of its text.
    ///
    /// # Shapes
    /// `[B, E]`, rows of unit length.
    ///
    /// # Errors
    /// [`ForwardError::NoHead`] where the model has no such head; otherwise where a tensor operation fails.
    pub fn embed(&self, encoded: &EncoderOutput) -> Result<Tensor, ForwardError> {
        let all = self.heads.embed(encoded)?; // [B, E]
        let length = (all.to_dtype(DType::F32)?.sqr()?.sum_keepdim(1)? + 1e-12)?.sqrt()?; // [B, 1]
        Ok(all.to_dtype(DType::F32)?.broadcast_div(&length)?)
    }

    /// Predicts the visual codes of given rows of an encoded batch: the head of masked image modelling.
    ///
    /// # Shapes
    /// `[rows, visual_vocab_size]`.
    ///
    /// # Errors
    /// [`ForwardError`] where a row does not exist.
    pub fn visual_code_logits(&self, encoded: &EncoderOutput, rows: &[u32]) -> Result<Tensor, ForwardError> {
        if rows.is_empty() {
            return Err(ForwardError::EmptyBatch);
        }
        let rows = Tensor::from_slice(rows, rows.len(), &self.device)?;
        self.heads.visual_codes(&encoded.hidden.index_select(&rows, 0)?)
    }

    /// Scores the words that given rows of an encoded batch stand for: the head of masked language modelling.
    ///
    /// # Shapes
    /// `[rows, V]`.
    ///
    /// # Errors
    /// [`ForwardError::NoHead`] where the model has no such head; otherwise where a row does not exist.
    pub fn word_logits(&self, encoded: &EncoderOutput, rows: &[u32]) -> Result<Tensor, ForwardError> {
        if rows.is_empty() {
            return Err(ForwardError::EmptyBatch);
        }
        let rows = Tensor::from_slice(rows, rows.len(), &self.device)?;
        self.heads.words(&encoded.hidden.index_select(&rows, 0)?)
    }

    /// Scores the classes that the model's head knows, for each sample; of a head for two pictures, for each two
    /// neighbouring samples, which have the same text.
    ///
    /// # Shapes
    /// `[B, C]`, or `[B / 2, C]`; not normalised.
    ///
    /// # Errors
    /// [`ForwardError::NoHead`] where the model has no such head.
    pub fn classify(&self, encoded: &EncoderOutput) -> Result<Tensor, ForwardError> {
        self.heads.classify(encoded)
    }
}

/// Tells what, if anything, keeps decoding steps of a loaded model from working on slices.
fn steps_on_tensors(config: &ModelConfig, device: &Device, dtype: DType) -> Option<String> {
    if config.writing_mask().is_some() {
        return Some("a model that writes through its encoder".to_owned());
    }
    if config.decoder.is_none() {
        return Some("a model that writes no text".to_owned());
    }
    let packs = matches!(device, Device::Cpu) && dtype == DType::F32;
    (!packs).then(|| format!("{:?} and {dtype:?}", device.location()))
}
