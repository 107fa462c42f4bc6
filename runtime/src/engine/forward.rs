//! What the engine needs of a model: prompts to what is read off them, rows to logits.

use super::reading::{PromptToRead, Read, Reading, likeliest};
use crate::scheduler::Resources;
use crate::stream::{CodeScore, WordScore};
use crate::tokenizer::TokenId;
use multiway_model::{
    DType, DecoderBatch, DecoderRow, EncoderBatch, EncoderOutput, ForwardError, KvCache, Model, Patch,
    PatchedImage, SampleSegments, Tensor,
};
use std::ops::Range;
use std::sync::Arc;

/// How many rows' scores of a vocabulary are held at a time.
const ROWS_AT_A_TIME: usize = 16;

/// The likeliest ids of a row with their log-probabilities, the likeliest first.
type Likeliest = Vec<(u32, f32)>;

/// Runs the model for the engine's thread, and owns the cache.
pub(crate) trait Forward {
    /// Encodes prompts in one packed batch and reads off each what it asks for.
    fn encode(&mut self, prompts: &[PromptToRead]) -> Result<Vec<Read>, ForwardError>;

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
    pub(super) cache: Option<KvCache>,
}

impl ModelForward {
    /// Makes room for what a scheduler gives out.
    pub(crate) fn new(model: Arc<Model>, capacity: &Resources) -> Result<Self, ForwardError> {
        let cache = model
            .config()
            .writes_text()
            .then(|| KvCache::with_capacity(&model, capacity.slots, capacity.self_tokens))
            .transpose()?;
        Ok(Self { model, cache })
    }

    /// Packs prompts, and tells which samples of the batch are whose.
    fn pack(&self, prompts: &[PromptToRead]) -> Result<(EncoderBatch, Vec<Range<usize>>), ForwardError> {
        let config = self.model.config();
        let all = patches(&[], config.patches());
        let first: Vec<Vec<Patch>> = prompts
            .iter()
            .map(|prompt| match prompt.reading {
                Reading::Codes { hidden, .. } => patches(hidden, config.patches()),
                _ => all.clone(),
            })
            .collect();
        let (mut samples, mut owners) = (Vec::new(), Vec::new());
        for (prompt, first) in prompts.iter().zip(&first) {
            let start = samples.len();
            let images: Vec<PatchedImage> = prompt
                .images
                .iter()
                .enumerate()
                .map(|(index, image)| PatchedImage {
                    pixels: image.pixels(),
                    patches: if index == 0 { first } else { &all },
                })
                .collect();
            // A head that compares two pictures reads each beside the same text, as a sample of its own.
            if *prompt.reading == Reading::Classes && config.max_images > 1 {
                samples.extend(images.into_iter().map(|image| (vec![image], prompt.tokens)));
            } else {
                samples.push((images, prompt.tokens));
            }
            owners.push(start..samples.len());
        }
        Ok((EncoderBatch::with_patches(config, &samples)?, owners))
    }

    /// Names the words behind the masks of a prompt's text.
    fn words(
        &self,
        encoded: &EncoderOutput,
        sample: &SampleSegments,
        tokens: &[TokenId],
        (mask, count, vocabulary): (TokenId, usize, usize),
    ) -> Result<Read, ForwardError> {
        let masked = sample
            .text
            .clone()
            .zip(tokens)
            .filter(|(_, token)| **token == mask);
        let rows: Vec<usize> = masked.map(|(row, _)| row).collect();
        let best = self.best(&rows, count, vocabulary, |rows| {
            self.model.word_logits(encoded, rows)
        })?;
        let word = |(id, log_probability)| WordScore { id, log_probability };
        Ok(best.map_or(Read::NotFinite, |best| Read::Words(name(best, word))))
    }

    /// Names the hidden patches of a prompt's first picture.
    fn codes(
        &self,
        encoded: &EncoderOutput,
        sample: &SampleSegments,
        hidden: &[usize],
        count: usize,
    ) -> Result<Read, ForwardError> {
        // The picture's class row comes before its patches.
        let first = sample.images.first().map_or(0, |rows| rows.start + 1);
        let rows: Vec<usize> = hidden.iter().map(|patch| first + patch).collect();
        let logits = |rows: &[u32]| self.model.visual_code_logits(encoded, rows);
        let best = self.best(&rows, count, usize::MAX, logits)?;
        let code = |(code, log_probability)| CodeScore {
            code,
            log_probability,
        };
        Ok(best.map_or(Read::NotFinite, |best| Read::Codes(name(best, code))))
    }

    /// Finds the likeliest ids of each row; nothing where the logits of one are no numbers.
    fn best(
        &self,
        rows: &[usize],
        count: usize,
        limit: usize,
        logits: impl Fn(&[u32]) -> Result<Tensor, ForwardError>,
    ) -> Result<Option<Vec<Likeliest>>, ForwardError> {
        let rows: Vec<u32> = rows.iter().filter_map(|row| u32::try_from(*row).ok()).collect();
        let mut all = Vec::with_capacity(rows.len());
        // A vocabulary is large: few rows of it at a time.
        for rows in rows.chunks(ROWS_AT_A_TIME) {
            let logits: Vec<Vec<f32>> = logits(rows)?.to_dtype(DType::F32)?.to_vec2()?; // [rows, V]
            for logits in logits {
                let Some(best) = likeliest(logits.get(..limit).unwrap_or(&logits), count) else {
                    return Ok(None);
                };
                all.push(best);
            }
        }
        Ok(Some(all))
    }
}

impl Forward for ModelForward {
    fn encode(&mut self, prompts: &[PromptToRead]) -> Result<Vec<Read>, ForwardError> {
        let (batch, owners) = self.pack(prompts)?;
        let encoded = self.model.encode(&batch)?; // [N, D]
        // Of each kind, what all prompts that ask for it want is read at once.
        let asking = |wanted: &Reading| {
            let asking = prompts.iter().zip(&owners);
            let samples = asking.filter(|(prompt, _)| prompt.reading == wanted);
            let samples: Vec<usize> = samples.flat_map(|(_, samples)| samples.clone()).collect();
            (!samples.is_empty()).then(|| encoded.select(&samples))
        };
        let mut memories = match asking(&Reading::Memory) {
            Some(encoded) => self.model.prompt_memory(&encoded)?.into_iter(),
            None => Vec::new().into_iter(),
        };
        let mut embeddings = match asking(&Reading::Embedding) {
            Some(encoded) => rows(&self.model.embed(&encoded)?)?.into_iter(), // [B, E]
            None => Vec::new().into_iter(),
        };
        let mut classes = match asking(&Reading::Classes) {
            Some(encoded) => rows(&self.model.classify(&encoded)?)?.into_iter(), // [B, C]
            None => Vec::new().into_iter(),
        };
        let nothing = || ForwardError::EmptyBatch;
        let read = |(prompt, samples): (&PromptToRead, &Range<usize>)| {
            let sample = &batch.segments().samples[samples.start];
            match prompt.reading {
                Reading::Memory => memories.next().map(Read::Memory).ok_or_else(nothing),
                Reading::Embedding => embeddings.next().map(Read::Embedding).ok_or_else(nothing),
                Reading::Classes => classes.next().map(Read::Classes).ok_or_else(nothing),
                Reading::Words {
                    mask,
                    count,
                    vocabulary,
                } => self.words(&encoded, sample, prompt.tokens, (*mask, *count, *vocabulary)),
                Reading::Codes { hidden, count } => self.codes(&encoded, sample, hidden, *count),
            }
        };
        prompts.iter().zip(&owners).map(read).collect()
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

/// Lists the patches of a picture, with those that are hidden masked.
fn patches(hidden: &[usize], patches: usize) -> Vec<Patch> {
    let patch = |index| Patch {
        index,
        masked: hidden.contains(&index),
    };
    (0..patches).map(patch).collect()
}

fn rows(values: &Tensor) -> Result<Vec<Vec<f32>>, ForwardError> {
    Ok(values.to_dtype(DType::F32)?.to_vec2()?)
}

fn name<T>(best: Vec<Likeliest>, score: impl Fn((u32, f32)) -> T) -> Vec<Vec<T>> {
    let one = |best: Likeliest| best.into_iter().map(&score).collect();
    best.into_iter().map(one).collect()
}
