//! What the engine needs of a model: prompts to memories, rows to logits.

use multiway_model::{
    DecoderBatch, DecoderRow, EncoderBatch, EncoderSample, ForwardError, KvCache, Model, PromptMemory,
};
use std::sync::Arc;

/// Runs the model for the engine's thread, and owns the cache.
pub(crate) trait Forward {
    /// Encodes prompts into what decoding needs of them, one memory each.
    fn encode(&mut self, samples: &[EncoderSample]) -> Result<Vec<PromptMemory>, ForwardError>;

    /// Encodes prompts into retrieval embeddings of unit length, one each.
    fn embed(&mut self, samples: &[EncoderSample]) -> Result<Vec<Vec<f32>>, ForwardError>;

    /// Advances each row by one token and returns the logits of all rows, `[B * V]`.
    fn step(&mut self, rows: &[DecoderRow]) -> Result<Vec<f32>, ForwardError>;

    /// Makes slot `to` continue from what slot `from` holds.
    fn copy(&mut self, from: usize, to: usize) -> Result<(), ForwardError>;

    /// Forgets what a slot holds.
    fn clear(&mut self, slot: usize);
}

/// The model itself.
pub(crate) struct ModelForward {
    model: Arc<Model>,
    cache: KvCache,
}

impl ModelForward {
    pub(crate) fn new(model: Arc<Model>, slots: usize) -> Result<Self, ForwardError> {
        let cache = KvCache::new(&model, slots, model.config().max_target_length)?;
        Ok(Self { model, cache })
    }
}

impl Forward for ModelForward {
    fn encode(&mut self, samples: &[EncoderSample]) -> Result<Vec<PromptMemory>, ForwardError> {
        let batch = EncoderBatch::new(self.model.config(), samples)?;
        let encoded = self.model.encode(&batch)?; // [N, D]
        self.model.prompt_memory(&encoded)
    }

    fn embed(&mut self, samples: &[EncoderSample]) -> Result<Vec<Vec<f32>>, ForwardError> {
        let batch = EncoderBatch::new(self.model.config(), samples)?;
        let encoded = self.model.encode(&batch)?; // [N, D]
        Ok(self.model.embed(&encoded)?.to_vec2()?) // [B, E]
    }

    fn step(&mut self, rows: &[DecoderRow]) -> Result<Vec<f32>, ForwardError> {
        let logits = self.model.decode_step(&DecoderBatch { rows }, &mut self.cache)?; // [B, V]
        Ok(logits.flatten_all()?.to_vec1()?)
    }

    fn copy(&mut self, from: usize, to: usize) -> Result<(), ForwardError> {
        self.cache.copy(from, to)
    }

    fn clear(&mut self, slot: usize) {
        self.cache.clear(slot);
    }
}
