//! The model: an encoder, a decoder, and the heads that embed and name patches.

use crate::batch::EncoderBatch;
use crate::checkpoint::{Checkpoint, LoadError};
use crate::config::MultiwayConfig;
use crate::decoder::{Decoder, DecoderBatch, TargetBatch};
use crate::encoder::{Encoder, EncoderOutput};
use crate::error::ForwardError;
use crate::layers::Weights;
use crate::layers::linear::Linear;
use crate::memory::{KvCache, PromptMemory};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;

/// An image-and-text-to-text encoder-decoder. Holds weights only, and can be shared between threads.
#[derive(Debug)]
pub struct Model {
    config: MultiwayConfig,
    encoder: Encoder,
    decoder: Decoder,
    vision_head: Linear,
    language_head: Linear,
    mim_head: Linear,
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
        let config = checkpoint.config();
        let mut tensors = HashMap::new();
        for (name, _) in config.tensors() {
            let tensor = checkpoint.load_tensor(&name, device, dtype)?;
            tensors.insert(name, tensor);
        }
        let packed = matches!(device, Device::Cpu) && dtype == DType::F32;
        Ok(Self::assemble(
            config,
            &Weights {
                tensors: &tensors,
                packed,
            },
        )?)
    }

    /// Builds a model on given tensors, which may be variables: the form that training differentiates.
    ///
    /// # Errors
    /// Where a tensor of [`MultiwayConfig::tensors`] is missing or has another shape.
    pub fn from_tensors(
        config: &MultiwayConfig,
        tensors: &HashMap<String, Tensor>,
    ) -> Result<Self, ForwardError> {
        for (name, shape) in config.tensors() {
            if let Some(found) = tensors.get(&name)
                && found.dims() != shape.as_slice()
            {
                let found = found.dims().to_vec();
                return Err(candle_core::Error::msg(format!(
                    "'{name}' has shape {found:?}, expected {shape:?}"
                ))
                .into());
            }
        }
        Ok(Self::assemble(
            config,
            &Weights {
                tensors,
                packed: false,
            },
        )?)
    }

    /// Builds a model on given tensors with its linear layers packed, as [`Model::load`] does on the CPU.
    pub(crate) fn packed(
        config: &MultiwayConfig,
        tensors: &HashMap<String, Tensor>,
    ) -> Result<Self, ForwardError> {
        Ok(Self::assemble(
            config,
            &Weights {
                tensors,
                packed: true,
            },
        )?)
    }

    fn assemble(config: &MultiwayConfig, weights: &Weights) -> candle_core::Result<Self> {
        let embed = weights.get("text_embed.weight")?;
        let linear = |name: &str| Linear::load(weights, &[name.to_owned()]);
        Ok(Self {
            encoder: Encoder::load(config, weights)?,
            decoder: Decoder::load(config, weights)?,
            vision_head: linear("embed.vision.weight")?,
            language_head: linear("embed.language.weight")?,
            mim_head: linear("mim_head.weight")?,
            device: embed.device().clone(),
            dtype: embed.dtype(),
            config: config.clone(),
        })
    }

    /// Returns the model's configuration.
    #[must_use]
    pub fn config(&self) -> &MultiwayConfig {
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

    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Encodes a packed batch.
    ///
    /// # Shapes
    /// `EncoderOutput::hidden` is `[N, D]`, vision rows first.
    ///
    /// # Errors
    /// [`ForwardError`] where the batch is empty or a tensor operation fails.
    pub fn encode(&self, batch: &EncoderBatch) -> Result<EncoderOutput, ForwardError> {
        self.encoder.forward(batch)
    }

    /// Computes what decoding needs of each encoded sample: cross-attention keys and values, once a request.
    ///
    /// # Errors
    /// [`ForwardError`] where a tensor operation fails.
    pub fn prompt_memory(&self, encoded: &EncoderOutput) -> Result<Vec<PromptMemory>, ForwardError> {
        self.decoder.prompt_memory(encoded)
    }

    /// Advances each row's sequence by one token and returns the logits of the next.
    ///
    /// # Shapes
    /// `[B, V]` in f32, rows in the order of the batch.
    ///
    /// # Errors
    /// [`ForwardError::Slot`] where a slot is full, unknown or named twice. The cache is unchanged after an error.
    pub fn decode_step(&self, batch: &DecoderBatch, cache: &mut KvCache) -> Result<Tensor, ForwardError> {
        self.decoder.step(batch, cache)
    }

    /// Runs whole target texts at once, differentiably, and returns their logits.
    ///
    /// # Shapes
    /// `[rows, V]`, one row per token of `targets`.
    ///
    /// # Errors
    /// [`ForwardError`] where a target is too long or belongs to no sample.
    pub fn decode(&self, encoded: &EncoderOutput, targets: &TargetBatch) -> Result<Tensor, ForwardError> {
        Ok(self.decoder.logits(&self.decoder.forward(encoded, targets)?)?)
    }

    /// Embeds each sample for retrieval: its first picture's class row, or the last row of its text.
    ///
    /// # Shapes
    /// `[B, E]`, rows of unit length.
    ///
    /// # Errors
    /// [`ForwardError`] where a tensor operation fails.
    pub fn embed(&self, encoded: &EncoderOutput) -> Result<Tensor, ForwardError> {
        let rows = encoded.segments.samples.iter().map(|sample| {
            let (head, row) = match sample.images.first() {
                Some(image) => (&self.vision_head, image.start),
                None => (&self.language_head, sample.text.end - 1),
            };
            head.forward(&encoded.hidden.narrow(0, row, 1)?) // [1, E]
        });
        let all = Tensor::cat(&rows.collect::<candle_core::Result<Vec<_>>>()?, 0)?; // [B, E]
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
        Ok(self.mim_head.forward(&encoded.hidden.index_select(&rows, 0)?)?)
    }
}
