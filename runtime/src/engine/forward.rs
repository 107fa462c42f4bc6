//! What the engine needs of a model: prompts to memories, rows to logits.

use multiway_model::{
    DType, DecoderBatch, DecoderRow, EncoderBatch, EncoderSample, ForwardError, KvCache, Model, PromptMemory,
};
use std::sync::Arc;

/// How many masks' scores are held at a time.
const MASKS_AT_A_TIME: usize = 16;

/// Runs the model for the engine's thread, and owns the cache.
pub(crate) trait Forward {
    /// Encodes prompts into what decoding needs of them, one memory each.
    fn encode(&mut self, samples: &[EncoderSample]) -> Result<Vec<PromptMemory>, ForwardError>;

    /// Encodes prompts into retrieval embeddings of unit length, one each.
    fn embed(&mut self, samples: &[EncoderSample]) -> Result<Vec<Vec<f32>>, ForwardError>;

    /// Scores the classes of the model's head for prompts, `[C]` each, not normalised.
    fn classify(&mut self, samples: &[EncoderSample]) -> Result<Vec<Vec<f32>>, ForwardError>;

    /// Scores the words that the masks of prompts stand for: for each mask what `best` makes of its `[V]`.
    fn unmask<T>(
        &mut self,
        samples: &[EncoderSample],
        mask: u32,
        best: impl Fn(&[f32]) -> T,
    ) -> Result<Vec<Vec<T>>, ForwardError>;

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
    /// None where the model writes no text.
    cache: Option<KvCache>,
}

impl ModelForward {
    pub(crate) fn new(model: Arc<Model>, slots: usize) -> Result<Self, ForwardError> {
        let config = model.config();
        let cache = config
            .writes_text()
            .then(|| KvCache::new(&model, slots, config.max_target_length))
            .transpose()?;
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

    fn classify(&mut self, samples: &[EncoderSample]) -> Result<Vec<Vec<f32>>, ForwardError> {
        // A head that compares two pictures reads each beside the same text, as a sample of its own.
        let pairs = self.model.config().max_images > 1;
        let parted: Vec<EncoderSample> = samples
            .iter()
            .flat_map(|sample| {
                let size = if pairs { 1 } else { sample.images.len().max(1) };
                let images = sample.images.chunks(size);
                images.map(|images| EncoderSample {
                    images,
                    tokens: sample.tokens,
                })
            })
            .collect();
        let batch = EncoderBatch::new(self.model.config(), &parted)?;
        let encoded = self.model.encode(&batch)?; // [N, D]
        let logits = self.model.classify(&encoded)?.to_dtype(DType::F32)?; // [B, C]
        Ok(logits.to_vec2()?)
    }

    fn unmask<T>(
        &mut self,
        samples: &[EncoderSample],
        mask: u32,
        best: impl Fn(&[f32]) -> T,
    ) -> Result<Vec<Vec<T>>, ForwardError> {
        let batch = EncoderBatch::new(self.model.config(), samples)?;
        let encoded = self.model.encode(&batch)?; // [N, D]
        let own = samples.iter().zip(&batch.segments().samples);
        let words = own.map(|(sample, segment)| {
            let masked = segment.text.clone().zip(sample.tokens);
            let masked = masked.filter(|(_, token)| **token == mask);
            let rows: Vec<u32> = masked.filter_map(|(row, _)| u32::try_from(row).ok()).collect();
            let mut words = Vec::with_capacity(rows.len());
            // A vocabulary is large: few rows of it at a time.
            for rows in rows.chunks(MASKS_AT_A_TIME) {
                let logits = self.model.word_logits(&encoded, rows)?; // [masks, V]
                let logits: Vec<Vec<f32>> = logits.to_dtype(DType::F32)?.to_vec2()?;
                words.extend(logits.iter().map(|logits| best(logits)));
            }
            Ok(words)
        });
        words.collect()
    }

    fn step(&mut self, rows: &[DecoderRow]) -> Result<Vec<f32>, ForwardError> {
        let cache = self.cache.as_mut().ok_or(ForwardError::NoHead("text"))?;
        let logits = self.model.decode_step(&DecoderBatch { rows }, cache)?; // [B, V]
        Ok(logits.flatten_all()?.to_vec1()?)
    }

    fn copy(&mut self, from: usize, to: usize) -> Result<(), ForwardError> {
        match &mut self.cache {
            Some(cache) => cache.copy(from, to),
            None => Err(ForwardError::NoHead("text")),
        }
    }

    fn clear(&mut self, slot: usize) {
        if let Some(cache) = &mut self.cache {
            cache.clear(slot);
        }
    }
}
