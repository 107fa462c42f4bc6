//! The model: an encoder, a decoder, and the heads that embed and name patches.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use crate::batch::{EncoderBatch, TargetBatch, check_shareable};
use crate::checkpoint::{Checkpoint, LoadError};
use crate::config::ModelConfig;
use crate::encoding::{Encoded, EncodingTargets};
use crate::error::ForwardError;
use crate::execution::{Assembled, Execution, LoadOptions, Underway, with_parts};
use crate::explain::Explanation;
use crate::hook::{HookPoint, Observe};
use crate::kernels::{CacheType, Products, WeightType};
use crate::layers::Weights;
use crate::memory::{CacheShape, KvCache, PromptMemory, RowForm};
use crate::output::EncoderOutput;
use crate::parts::{Parts, Writer};
use crate::prefix::ImagePrefix;
use crate::step::DecoderBatch;

/// Elements from which a tensor's mapped pages are released as soon as it is read.
const LARGE: usize = 1 << 20;

/// An image-and-text-to-text encoder-decoder. Holds weights only, and can be shared between threads.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    execution: Execution,
    parts: Assembled,
    device: Device,
    dtype: DType,
}

/// A batch that is being encoded in slices, of [`Model::begin_encoding`].
#[derive(Debug)]
pub struct EncodingPass {
    batch: EncoderBatch,
    targets: EncodingTargets,
    progress: Underway,
}

impl Model {
    /// Loads a checkpoint's weights onto a device.
    ///
    /// On the CPU in f32 the linear layers are packed for inference, and every number of a sample is the same
    /// bits whatever else is in its batch: inference is batch-invariant.
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

    /// Loads a checkpoint's weights onto a device, with the linear layers' weights in the form that the
    /// options name.
    ///
    /// Embeddings, norms, biases and position tables stay in `dtype`. The projection to the vocabulary is a
    /// linear layer; where it is tied to the embeddings, the table is kept beside it for lookups, 4 bytes a
    /// number.
    ///
    /// The weights of a packed checkpoint ([`Checkpoint::pack`]) are used where the file is mapped, and rows
    /// of its embeddings are read from there as tokens name them: neither is copied, and the model keeps the
    /// file open.
    ///
    /// # Errors
    /// [`LoadError::Weights`] or [`LoadError::Cache`] where the options do not go together, or not with the
    /// model; [`LoadError::PackedAs`] and [`LoadError::PackedFor`] where the checkpoint is packed for others;
    /// [`LoadError`] where a tensor cannot be read, or is too wide for 8-bit weights.
    pub fn load_with(
        checkpoint: &Checkpoint,
        device: &Device,
        options: &LoadOptions,
    ) -> Result<Self, LoadError> {
        let execution = Execution::of(checkpoint, device, options)?;
        let (config, dtype) = (checkpoint.config(), options.dtype);
        let read = |stored: &str| {
            let tensor = checkpoint
                .load_tensor(stored, device, dtype)
                .map_err(candle_core::Error::wrap)?;
            if tensor.elem_count() >= LARGE {
                // It was copied: its pages need not stay beside the copy while the others are read.
                checkpoint.release();
            }
            Ok(tensor)
        };
        let mut weights = Weights::new(config, execution.weight_type(), read);
        if checkpoint.packed().is_some() {
            let packed = |stored: &str| checkpoint.packed_weight(stored).map_err(candle_core::Error::wrap);
            weights = weights
                .with_packed(packed)
                .with_tables(|stored| checkpoint.stored_table(stored));
        }
        let model = Self::assemble(config, &weights, execution)?;
        // What was read was copied; the file's pages need not stay in memory beside it.
        checkpoint.release();
        model.with_cache(options.cache)
    }

    /// Returns the model with another element type of the KV cache, for the memories and caches that it makes
    /// from now on.
    ///
    /// [`CacheType::Bf16`] takes half the memory of f32, [`CacheType::Int8`] about a quarter, and steps of
    /// many sequences, which are bound by the bandwidth of the cache, are faster. Answers may differ from
    /// those of f32, and are batch-invariant all the same.
    ///
    /// # Errors
    /// [`LoadError::Cache`] where the type is not f32 and the model has no text decoder, or
    /// was not loaded onto the CPU in f32.
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
        self.execution.check_cache(&self.config, cache)?;
        if let Assembled::Host(parts) = &mut self.parts
            && let Some(Writer::Decoder(decoder)) = &mut parts.writer
        {
            decoder.cache = cache;
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
        Self::check_tensors(config, tensors)?;
        Self::of_tensors(config, tensors, None, None)
    }

    /// Builds a model as [`Model::from_tensors`] does, whose layers multiply as told and, on a CPU, are fused
    /// where they can be: the same function to within rounding, faster to differentiate.
    ///
    /// # Errors
    /// Where a tensor of [`ModelConfig::tensors`] is missing or has another shape.
    pub fn for_training(
        config: &ModelConfig,
        tensors: &HashMap<String, Tensor>,
        products: Products,
    ) -> Result<Self, ForwardError> {
        Self::check_tensors(config, tensors)?;
        Self::of_tensors(config, tensors, None, Some(products))
    }

    /// Checks that every tensor is there, and has its shape.
    fn check_tensors(config: &ModelConfig, tensors: &HashMap<String, Tensor>) -> Result<(), ForwardError> {
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
        Ok(())
    }

    /// Builds a model on given tensors with its linear layers packed, as [`Model::load`] does on the CPU.
    pub(crate) fn packed(
        config: &ModelConfig,
        tensors: &HashMap<String, Tensor>,
        weights: WeightType,
    ) -> Result<Self, ForwardError> {
        Self::of_tensors(config, tensors, Some(weights), None)
    }

    fn of_tensors(
        config: &ModelConfig,
        tensors: &HashMap<String, Tensor>,
        packed: Option<WeightType>,
        products: Option<Products>,
    ) -> Result<Self, ForwardError> {
        let read = |stored: &str| match tensors.get(stored) {
            Some(tensor) => Ok(tensor.clone()),
            None => candle_core::bail!("'{stored}' is missing"),
        };
        let weights = Weights::new(config, packed.unwrap_or_default(), read).with_products(products);
        let embed = weights.table("text_embed.weight")?;
        let execution = match packed {
            Some(weights) => Execution::Host { weights },
            None => Execution::Graph {
                device: embed.device().location(),
                dtype: embed.dtype(),
            },
        };
        Ok(Self::assemble(config, &weights, execution)?)
    }

    fn assemble(config: &ModelConfig, weights: &Weights, execution: Execution) -> candle_core::Result<Self> {
        let embed = weights.table("text_embed.weight")?;
        Ok(Self {
            parts: match execution {
                Execution::Host { .. } => Assembled::Host(Box::new(Parts::load(config, weights)?)),
                Execution::Graph { .. } => Assembled::Graph(Box::new(Parts::load(config, weights)?)),
            },
            execution,
            device: embed.device().clone(),
            dtype: embed.dtype(),
            config: config.clone(),
        })
    }

    /// Tells how the model is executed.
    #[must_use]
    pub fn execution(&self) -> Execution {
        self.execution
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

    /// Returns the element type of the weights.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Encodes a packed batch.
    ///
    /// # Shapes
    /// `EncoderOutput::hidden` is `[N, D]`, vision rows first; where the batch has image prefixes
    /// `[N + R, D]`, theirs last.
    ///
    /// # Errors
    /// [`ForwardError`] where the batch is empty or a tensor operation fails.
    pub fn encode(&self, batch: &EncoderBatch) -> Result<EncoderOutput, ForwardError> {
        self.run_encoder(batch, false, None)
    }

    fn run_encoder(
        &self,
        batch: &EncoderBatch,
        keep: bool,
        observe: Option<Observe>,
    ) -> Result<EncoderOutput, ForwardError> {
        with_parts!(&self.parts, parts => parts.encode(batch, keep, observe))
    }

    /// Encodes a packed batch, and shows the rows of every layer to `observe`, as [`Model::encode`] makes
    /// them.
    ///
    /// # Errors
    /// As [`Model::encode`], and what `observe` gives.
    pub fn encode_observed(
        &self,
        batch: &EncoderBatch,
        observe: &mut dyn FnMut(HookPoint, &Tensor) -> candle_core::Result<()>,
    ) -> Result<EncoderOutput, ForwardError> {
        self.run_encoder(batch, false, Some(observe))
    }

    /// Encodes a packed batch as [`Model::encode`] does, and keeps every layer's keys and values, `[N, 2D]`,
    /// for [`Model::image_prefix`].
    ///
    /// # Errors
    /// As [`Model::encode`].
    pub fn encode_keeping(&self, batch: &EncoderBatch) -> Result<EncoderOutput, ForwardError> {
        self.run_encoder(batch, true, None)
    }

    /// Copies the encoder's state of a sample's pictures, all of them in their order, for later prompts about
    /// them. Pictures of an image prefix give that prefix.
    ///
    /// # Errors
    /// [`ForwardError::NotShareable`] where the model's attention pattern is not `ImagePrefix`;
    /// [`ForwardError::Prefix`] where there is no such sample, it has no pictures, or the batch was not
    /// encoded by [`Model::encode_keeping`].
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
        with_parts!(&self.parts, parts => parts.image_prefix(encoded, sample))
    }

    /// Computes the prompt memory of each encoded sample, once a request: cross-attention keys and values, or
    /// where the encoder itself writes, the prompt's own keys and values.
    ///
    /// # Errors
    /// [`ForwardError`] where a tensor operation fails.
    pub fn prompt_memory(&self, encoded: &EncoderOutput) -> Result<Vec<PromptMemory>, ForwardError> {
        with_parts!(&self.parts, parts => parts.prompt_memory(encoded))
    }

    /// Begins to encode a packed batch in slices; the result is the same to the bit as that of
    /// [`Model::encode`], with [`Model::prompt_memory`] and [`Model::image_prefix`].
    ///
    /// # Errors
    /// [`ForwardError`] where the batch is empty, a target is not there or its pictures cannot be kept, or a
    /// tensor operation fails.
    ///
    /// # Examples
    /// ```
    /// use multiway_model::testing::{random_inference_model, tiny_config};
    /// use multiway_model::{EncoderBatch, EncoderSample, EncodingTargets};
    ///
    /// # fn main() -> Result<(), multiway_model::ForwardError> {
    /// let config = tiny_config();
    /// let model = random_inference_model(&config, 7)?;
    /// let batch = EncoderBatch::new(&config, &[EncoderSample { images: &[], tokens: &[5, 8, 9, 1] }])?;
    /// let targets = EncodingTargets { memories: vec![0], ..EncodingTargets::default() };
    /// let mut encoding = model.begin_encoding(batch, targets)?;
    /// let encoded = loop {
    ///     // Two rows of one part of a layer at a time; anything else can be done between two calls.
    ///     if let Some(encoded) = model.advance_encoding(&mut encoding, 2)? {
    ///         break encoded;
    ///     }
    /// };
    /// assert_eq!(encoded.memories[0].length(), 4);
    /// # Ok(())
    /// # }
    /// ```
    pub fn begin_encoding(
        &self,
        batch: EncoderBatch,
        targets: EncodingTargets,
    ) -> Result<EncodingPass, ForwardError> {
        let samples = batch.segments.samples.len();
        for &sample in targets.memories.iter().chain(&targets.prefixes) {
            if sample >= samples {
                return Err(ForwardError::NoSample { sample, samples });
            }
        }
        for &sample in &targets.prefixes {
            check_shareable(&self.config, sample)?;
            if batch.segments.samples[sample].image_rows().is_none() {
                let problem = "has no images";
                return Err(ForwardError::Prefix { sample, problem });
            }
        }
        let progress = match &self.parts {
            Assembled::Host(parts) => Underway::Host(parts.begin(&batch, &targets)?),
            Assembled::Graph(parts) => Underway::Graph(parts.begin(&batch, &targets)?),
        };
        Ok(EncodingPass {
            batch,
            targets,
            progress,
        })
    }

    /// Does the next slice of an encoding: `rows` rows of one part of one layer, or 64 where these attend and
    /// `rows` is less. Gives the result with the last slice.
    ///
    /// On a CPU in f32 the cost of a slice is bounded by its rows, in attention by them and the rows that
    /// they see; not so what is copied of pictures that are kept or known. Elsewhere a slice is a layer of
    /// all rows.
    ///
    /// # Errors
    /// [`ForwardError`] where a tensor operation fails, or the result was taken already.
    pub fn advance_encoding(
        &self,
        encoding: &mut EncodingPass,
        rows: usize,
    ) -> Result<Option<Encoded>, ForwardError> {
        let EncodingPass {
            batch,
            targets,
            progress,
        } = encoding;
        match (&self.parts, progress) {
            (Assembled::Host(parts), Underway::Host(progress)) => {
                parts.advance(progress, batch, targets, rows)
            }
            (Assembled::Graph(parts), Underway::Graph(progress)) => {
                parts.advance(progress, batch, targets, rows)
            }
            _ => Err(ForwardError::OtherExecution("encoding")),
        }
    }

    /// Advances each row's sequence by one token and returns the logits of the next.
    ///
    /// # Shapes
    /// `[B, V]` in f32, rows in the order of the batch.
    ///
    /// # Errors
    /// As [`Model::decode_step_into`].
    pub fn decode_step(&self, batch: &DecoderBatch, cache: &mut KvCache) -> Result<Tensor, ForwardError> {
        let mut logits = Vec::new();
        self.decode_step_into(batch, cache, &mut logits)?;
        let shape = (batch.rows.len(), logits.len() / batch.rows.len().max(1));
        Ok(Tensor::from_vec(logits, shape, &self.device)?) // [B, V]
    }

    /// Advances each row's sequence by one token, and writes the logits of the next into `logits`. A decoder
    /// on the host needs no allocation once a step as large was made.
    ///
    /// # Shapes
    /// `logits`: `[B * V]`, rows in the order of the batch.
    ///
    /// # Errors
    /// [`ForwardError::Slot`] where a slot is full, unknown or named twice; [`ForwardError::CacheFull`] where
    /// the step needs more blocks than are free. The cache is unchanged after an error.
    pub fn decode_step_into(
        &self,
        batch: &DecoderBatch,
        cache: &mut KvCache,
        logits: &mut Vec<f32>,
    ) -> Result<(), ForwardError> {
        let step = with_parts!(&self.parts, parts => parts.step(batch, cache, logits));
        match &step {
            Ok(()) => cache.commit(batch.slots()),
            Err(_) => cache.retract(batch.slots()),
        }
        step
    }

    /// Makes a cache with room for `slots` sequences of at most `max_length` tokens, all of which may be that
    /// long at once.
    ///
    /// # Errors
    /// Where the model writes no text, `max_length` is zero or above the model's limit, or there is no
    /// memory.
    pub fn new_cache(&self, slots: usize, max_length: usize) -> Result<KvCache, ForwardError> {
        KvCache::new(&self.cache_shape()?, slots, max_length)
    }

    /// Makes a cache with room for `tokens` tokens in all, rounded up to whole blocks, in `slots` sequences,
    /// each as long as the model writes.
    ///
    /// # Errors
    /// Where the model writes no text, or there is no memory.
    pub fn new_cache_with_capacity(&self, slots: usize, tokens: usize) -> Result<KvCache, ForwardError> {
        KvCache::with_capacity(&self.cache_shape()?, slots, tokens)
    }

    /// Returns the shape of a cache of this model.
    fn cache_shape(&self) -> Result<CacheShape, ForwardError> {
        let (layers, width) = with_parts!(&self.parts, parts => parts.cache_layers())?;
        let form = match &self.parts {
            Assembled::Host(parts) => RowForm::Host(match &parts.writer {
                Some(Writer::Decoder(decoder)) => decoder.layout(),
                Some(Writer::Encoder(_)) | None => parts.encoder.layout(),
            }),
            Assembled::Graph(_) => RowForm::Graph {
                width,
                dtype: self.dtype,
                device: self.device.clone(),
            },
        };
        Ok(CacheShape {
            layers,
            max_length: self.config.max_target_length,
            form,
        })
    }

    /// Counts the bytes that a token takes in a [`KvCache`]: its keys and values of all layers.
    ///
    /// # Units
    /// Bytes a token; zero where the model writes no text. The cache takes blocks of [`KvCache::BLOCK`]
    /// tokens.
    #[must_use]
    pub fn cache_token_bytes(&self) -> usize {
        self.cache_shape().map_or(0, |shape| shape.token_bytes())
    }

    /// Counts the bytes that a row of the encoder takes in a [`PromptMemory`]: cross-attention keys and
    /// values of all decoder layers, or where the encoder itself writes, its own of all its layers.
    ///
    /// # Units
    /// Bytes a row, so that [`PromptMemory::bytes`] is this times [`PromptMemory::length`]; zero where the
    /// model writes no text.
    #[must_use]
    pub fn memory_row_bytes(&self) -> usize {
        // Cross-attention is as wide and as deep as a decoder's self-attention; an encoder that writes keeps
        // one kind of keys and values for prompt and text.
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

    /// Runs whole target texts, and shows the rows of every layer to `observe`, as [`Model::decode`] makes
    /// them.
    ///
    /// # Errors
    /// As [`Model::decode`], and what `observe` gives.
    pub fn decode_observed(
        &self,
        encoded: &EncoderOutput,
        targets: &TargetBatch,
        observe: &mut dyn FnMut(HookPoint, &Tensor) -> candle_core::Result<()>,
    ) -> Result<Tensor, ForwardError> {
        with_parts!(&self.parts, parts => {
            let decoder = parts.decoder()?;
            let hidden = decoder.forward(encoded, targets, observe)?; // [N, D]
            Ok(decoder.logits(&hidden)?)
        })
    }

    /// Reads a text for one sample of an encoded batch, and returns where the decoder's cross-attention
    /// looked at each token: for looking at answers, not for serving. `tokens` is the decoder's input, the
    /// start token first.
    ///
    /// Weights are those of this model, in whatever type they are stored; keys and values are those of f32,
    /// also where [`Model::with_cache`] stores narrower ones.
    ///
    /// # Errors
    /// [`ForwardError::NoHead`] where the model has no decoder with cross-attention; otherwise as
    /// [`Model::decode`].
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
    /// let start = config.decoder_start_token_id;
    /// let explanation = model.explain(&model.encode(&batch)?, 0, &[start, 8, 9])?;
    /// // Two layers of two heads, three tokens, and 1 + 16 + 2 rows of the encoder.
    /// assert_eq!(explanation.cross_attention.dims(), [2, 2, 3, 19]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn explain(
        &self,
        encoded: &EncoderOutput,
        sample: usize,
        tokens: &[u32],
    ) -> Result<Explanation, ForwardError> {
        with_parts!(&self.parts, parts => {
            let decoder = parts.decoder_if_any();
            let decoder = decoder.ok_or(ForwardError::NoHead("cross-attention"))?;
            decoder.explain(encoded, sample, tokens)
        })
    }

    /// Embeds each sample for retrieval: its first picture's class row, or the last row of its text.
    ///
    /// # Shapes
    /// `[B, E]`, rows of unit length.
    ///
    /// # Errors
    /// [`ForwardError::NoHead`] where the model has no such head; otherwise where a tensor operation fails.
    pub fn embed(&self, encoded: &EncoderOutput) -> Result<Tensor, ForwardError> {
        let all = with_parts!(&self.parts, parts => parts.heads.embed(encoded))?; // [B, E]
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
        let rows = encoded.hidden.index_select(&rows, 0)?; // [rows, D]
        with_parts!(&self.parts, parts => parts.heads.visual_codes(&rows))
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
        let rows = encoded.hidden.index_select(&rows, 0)?; // [rows, D]
        with_parts!(&self.parts, parts => parts.words(&rows))
    }

    /// Scores the classes that the model's head knows, for each sample; of a head for two pictures, for each
    /// two neighbouring samples, which have the same text.
    ///
    /// # Shapes
    /// `[B, C]`, or `[B / 2, C]`; not normalised.
    ///
    /// # Errors
    /// [`ForwardError::NoHead`] where the model has no such head.
    pub fn classify(&self, encoded: &EncoderOutput) -> Result<Tensor, ForwardError> {
        with_parts!(&self.parts, parts => parts.heads.classify(encoded))
    }
}
