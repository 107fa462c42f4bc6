//! The engine's interface to a model: prompts to readouts, rows to logits.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use multiway_model::{
    AttentionPattern, DType, DecoderBatch, DecoderRow, EncoderBatch, EncoderBatchBuilder, EncoderOutput,
    EncoderSample, EncodingPass, EncodingTargets, ForwardError, KvCache, Model, ModelConfig, Patch,
    PatchedImage, PromptMemory, SampleSegments, Tensor,
};

use super::digest::Digest;
use super::explaining::explain;
use super::readout::{EncodedPrompt, PromptToEncode, Readout, ReadoutValue};
use super::reuse::{ReuseCache, ReuseCounts, ReuseKey, ReuseValue};
use crate::scheduler::Resources;
use crate::tokenizer::TokenId;
use crate::top_k::{TopK, top_k};

/// How many rows of logits over a vocabulary are held at a time.
const ROWS_AT_A_TIME: usize = 16;

/// Runs the model for the engine's thread, and owns the KV cache.
pub(crate) trait Forward {
    /// Begins to encode prompts in one packed batch, in place of any that was begun before.
    fn begin_encoding(&mut self, prompts: Vec<PromptToEncode>) -> Result<(), ForwardError>;

    /// Encodes a slice of about `rows` rows; after the last slice, returns the readouts of all prompts, in
    /// order.
    fn advance_encoding(&mut self, rows: usize) -> Result<Option<Vec<EncodedPrompt>>, ForwardError>;

    /// Drops the batch that was begun.
    fn abandon_encoding(&mut self);

    /// Advances each row by one token and writes the logits of all rows, `[B * V]`.
    fn decode_step(&mut self, rows: &[DecoderRow], logits: &mut Vec<f32>) -> Result<(), ForwardError>;

    /// Copies a slot of the KV cache over another.
    fn copy_slot(&mut self, from: usize, to: usize) -> Result<(), ForwardError>;

    /// Clears a slot of the KV cache.
    fn clear_slot(&mut self, slot: usize);

    /// Counts the hits and misses of the reuse cache.
    fn reuse(&self) -> ReuseCounts;
}

/// The model itself.
pub(crate) struct ModelForward {
    model: Arc<Model>,
    /// None if the model decodes no text.
    pub(super) cache: Option<KvCache>,
    reuse_cache: ReuseCache<ReuseKey, ReuseValue>,
    reuse: ReuseCounts,
    batch: Option<EncodingBatch>,
}

/// The prompts that are encoded together.
#[derive(Default)]
struct EncodingBatch {
    /// The key of each prompt in the reuse cache, if its readout may be cached.
    keys: Vec<Option<ReuseKey>>,
    /// Cached prompts, and later the encoded ones.
    known: HashMap<ReuseKey, EncodedPrompt>,
    /// The prompts that are encoded, without duplicates.
    packed: Vec<PackedPrompt>,
    /// Hashes of the pictures that will be cached, in the order of the wanted prefixes.
    fresh: Vec<Digest>,
    /// None if all prompts were cached.
    encoding: Option<EncodingPass>,
}

/// A prompt in the encoder.
struct PackedPrompt {
    /// Which prompt of the batch it is.
    index: usize,
    prompt: PromptToEncode,
    /// Its samples of the encoder's batch.
    samples: Range<usize>,
}

impl ModelForward {
    /// Allocates the KV cache for a scheduler's capacity, and a reuse cache of `reuse_bytes`.
    pub(crate) fn new(
        model: Arc<Model>,
        capacity: &Resources,
        reuse_bytes: usize,
    ) -> Result<Self, ForwardError> {
        let cache = model
            .config()
            .writes_text()
            .then(|| model.new_cache_with_capacity(capacity.slots, capacity.self_tokens))
            .transpose()?;
        Ok(Self {
            model,
            cache,
            reuse_cache: ReuseCache::new(reuse_bytes),
            reuse: ReuseCounts::default(),
            batch: None,
        })
    }

    /// Packs prompts, and begins to encode them.
    ///
    /// Pictures that are cached, or in an earlier prompt of the batch, are not encoded again if their
    /// encoding does not depend on the text.
    fn pack(
        &mut self,
        prompts: Vec<(usize, PromptToEncode)>,
        into: &mut EncodingBatch,
    ) -> Result<(), ForwardError> {
        let model = Arc::clone(&self.model);
        let config = model.config();
        let mut batch = EncoderBatch::builder(config);
        let mut wanted = EncodingTargets::default();
        let mut samples = 0;
        for (index, mut prompt) in prompts {
            let start = samples;
            samples += 1;
            let shareable = self.shareable(&prompt);
            let cached = shareable.and_then(|pictures| self.reuse_cache.get(&ReuseKey::Pictures(pictures)));
            let earlier =
                shareable.and_then(|pictures| into.fresh.iter().position(|earlier| *earlier == pictures));
            if let Some(ReuseValue::Pictures(prefix)) = cached {
                self.reuse.pictures += 1;
                batch.push_known(&prefix, &prompt.tokens)?;
            } else if let Some(earlier) = earlier {
                self.reuse.pictures += 1;
                batch.push_shared(wanted.prefixes[earlier], &prompt.tokens)?;
            } else if reads_apart(config, &prompt.readout) {
                // A head that compares two pictures reads each beside the same text, as a sample of its own.
                samples = start + prompt.images.len();
                for image in &prompt.images {
                    batch.push(EncoderSample {
                        images: std::slice::from_ref(image),
                        tokens: &prompt.tokens,
                    })?;
                }
            } else {
                self.reuse.missed_pictures += u64::from(shareable.is_some());
                if let Some(pictures) = shareable {
                    into.fresh.push(pictures);
                    wanted.prefixes.push(start);
                }
                push(&mut batch, config, &prompt)?;
            }
            if prompt.readout == Readout::Memory {
                wanted.memories.push(start);
            }
            // The batch has the pixels now.
            prompt.images = Vec::new();
            into.packed.push(PackedPrompt {
                index,
                prompt,
                samples: start..samples,
            });
        }
        into.encoding = Some(model.begin_encoding(batch.build(), wanted)?);
        Ok(())
    }

    /// Returns the hash of a prompt's pictures if their encoding can be shared.
    fn shareable(&self, prompt: &PromptToEncode) -> Option<Digest> {
        let config = self.model.config();
        let whole = !matches!(prompt.readout, Readout::Codes { .. } | Readout::Classes);
        let apart = config.attention_pattern == AttentionPattern::ImagePrefix;
        prompt
            .pictures
            .filter(|_| self.reuse_cache.is_on() && whole && apart && !prompt.images.is_empty())
    }

    /// Reads out what each prompt asks for.
    fn read_out(
        &self,
        packed: &[PackedPrompt],
        encoded: &EncoderOutput,
        memories: Vec<PromptMemory>,
    ) -> Result<Vec<EncodedPrompt>, ForwardError> {
        // A head runs once, on all prompts that ask for it.
        let asking = |wanted: &Readout| {
            let asking = packed.iter().filter(|packed| packed.prompt.readout == *wanted);
            let samples: Vec<usize> = asking.flat_map(|packed| packed.samples.clone()).collect();
            (!samples.is_empty()).then(|| encoded.select(&samples))
        };
        let mut memories = memories.into_iter();
        let mut embeddings = match asking(&Readout::Embedding) {
            Some(encoded) => to_rows(&self.model.embed(&encoded)?)?.into_iter(), // [B, E]
            None => Vec::new().into_iter(),
        };
        let mut classes = match asking(&Readout::Classes) {
            Some(encoded) => to_rows(&self.model.classify(&encoded)?)?.into_iter(), // [B, C]
            None => Vec::new().into_iter(),
        };
        let nothing = || ForwardError::EmptyBatch;
        let vector = |values: Option<Vec<f32>>| {
            let values = values.ok_or_else(nothing)?;
            Ok(EncodedPrompt::Value(ReadoutValue::Vector(values)))
        };
        let read_out = |PackedPrompt { prompt, samples, .. }: &PackedPrompt| {
            let sample = &encoded.segments.samples[samples.start];
            match &prompt.readout {
                Readout::Memory => memories.next().map(EncodedPrompt::Memory).ok_or_else(nothing),
                Readout::Embedding => vector(embeddings.next()),
                Readout::Classes => vector(classes.next()),
                Readout::Words {
                    mask,
                    count,
                    vocabulary,
                } => {
                    let rows = masked_rows(sample, &prompt.tokens, *mask);
                    let logits = |rows: &[u32]| self.model.word_logits(encoded, rows);
                    top_of_rows(&rows, *count, *vocabulary, logits)
                }
                Readout::Explanation(answer) => explain(&self.model, encoded, samples.clone(), answer),
                Readout::Codes { hidden, count } => {
                    let rows = hidden_rows(sample, hidden);
                    let logits = |rows: &[u32]| self.model.visual_code_logits(encoded, rows);
                    top_of_rows(&rows, *count, usize::MAX, logits)
                }
            }
        };
        packed.iter().map(read_out).collect()
    }
}

impl Forward for ModelForward {
    fn begin_encoding(&mut self, prompts: Vec<PromptToEncode>) -> Result<(), ForwardError> {
        self.batch = None;
        let mut batch = EncodingBatch::default();
        // Duplicates in the batch are encoded once.
        let mut seen: HashSet<ReuseKey> = HashSet::new();
        let mut unknown = Vec::new();
        let count = prompts.len();
        for (index, prompt) in prompts.into_iter().enumerate() {
            let key = ReuseKey::prompt(&prompt).filter(|_| self.reuse_cache.is_on());
            batch.keys.push(key);
            let cached = key.and_then(|key| Some((key, self.reuse_cache.get(&key)?)));
            if let Some((key, ReuseValue::Prompt(encoded))) = cached {
                batch.known.insert(key, encoded);
            } else if key.is_none_or(|key| seen.insert(key)) {
                unknown.push((index, prompt));
            }
        }
        self.reuse.prompts += (count - unknown.len()) as u64;
        self.reuse.missed_prompts += seen.len() as u64;
        if !unknown.is_empty() {
            self.pack(unknown, &mut batch)?;
        }
        self.batch = Some(batch);
        Ok(())
    }

    fn advance_encoding(&mut self, rows: usize) -> Result<Option<Vec<EncodedPrompt>>, ForwardError> {
        let Some(batch) = &mut self.batch else {
            return Err(ForwardError::EncodingDone);
        };
        let mut encoded = None;
        if let Some(encoding) = &mut batch.encoding {
            encoded = self.model.advance_encoding(encoding, rows)?;
            if encoded.is_none() {
                return Ok(None);
            }
        }
        let mut batch = self.batch.take().unwrap_or_default();
        let mut uncached: HashMap<usize, EncodedPrompt> = HashMap::new();
        if let Some(encoded) = encoded {
            for (pictures, prefix) in batch.fresh.into_iter().zip(encoded.prefixes) {
                self.reuse_cache
                    .insert(ReuseKey::Pictures(pictures), ReuseValue::Pictures(prefix));
            }
            let read = self.read_out(&batch.packed, &encoded.output, encoded.memories)?;
            for (PackedPrompt { index, .. }, read) in batch.packed.into_iter().zip(read) {
                match batch.keys.get(index).copied().flatten() {
                    Some(key) => {
                        if !matches!(read, EncodedPrompt::NotFinite) {
                            self.reuse_cache.insert(key, ReuseValue::Prompt(read.clone()));
                        }
                        batch.known.insert(key, read);
                    }
                    None => drop(uncached.insert(index, read)),
                }
            }
        }
        let all = batch.keys.iter().enumerate().map(|(index, key)| match key {
            Some(key) => batch.known.get(key).cloned(),
            None => uncached.remove(&index),
        });
        Ok(Some(all.flatten().collect()))
    }

    fn abandon_encoding(&mut self) {
        self.batch = None;
    }

    fn decode_step(&mut self, rows: &[DecoderRow], logits: &mut Vec<f32>) -> Result<(), ForwardError> {
        let cache = self.cache.as_mut().ok_or(ForwardError::NoHead("text"))?;
        self.model.decode_step_into(&DecoderBatch { rows }, cache, logits)
    }

    fn copy_slot(&mut self, from: usize, to: usize) -> Result<(), ForwardError> {
        match &mut self.cache {
            Some(cache) => cache.copy(from, to),
            None => Err(ForwardError::NoHead("text")),
        }
    }

    fn clear_slot(&mut self, slot: usize) {
        if let Some(cache) = &mut self.cache {
            cache.clear(slot);
        }
    }

    fn reuse(&self) -> ReuseCounts {
        ReuseCounts {
            bytes: self.reuse_cache.bytes(),
            ..self.reuse
        }
    }
}

/// Tells whether the model reads each picture of a prompt apart, for a head that compares two.
fn reads_apart(config: &ModelConfig, readout: &Readout) -> bool {
    let compares = config.classes() > 0 && config.max_images() > 1;
    compares && matches!(readout, Readout::Classes | Readout::Explanation(_))
}

/// Lists the encoder rows of the masks in a prompt's text.
fn masked_rows(sample: &SampleSegments, tokens: &[TokenId], mask: TokenId) -> Vec<usize> {
    let text = sample.text.clone().zip(tokens);
    let masked = text.filter(|(_, token)| **token == mask);
    masked.map(|(row, _)| row).collect()
}

/// Lists the encoder rows of the hidden patches of a prompt's first picture.
fn hidden_rows(sample: &SampleSegments, hidden: &[usize]) -> Vec<usize> {
    // The picture's class row comes before its patches.
    let first = sample.images.first().map_or(0, |rows| rows.start + 1);
    hidden.iter().map(|patch| first + patch).collect()
}

/// Finds the `count` highest of the first `limit` logits of each row.
fn top_of_rows(
    rows: &[usize],
    count: usize,
    limit: usize,
    logits: impl Fn(&[u32]) -> Result<Tensor, ForwardError>,
) -> Result<EncodedPrompt, ForwardError> {
    let rows: Vec<u32> = rows.iter().filter_map(|row| u32::try_from(*row).ok()).collect();
    let mut all: Vec<TopK> = Vec::with_capacity(rows.len());
    // A vocabulary is large: few rows of it at a time.
    for rows in rows.chunks(ROWS_AT_A_TIME) {
        let logits: Vec<Vec<f32>> = logits(rows)?.to_dtype(DType::F32)?.to_vec2()?; // [rows, V]
        for logits in logits {
            match top_k(logits.get(..limit).unwrap_or(&logits), count) {
                Some(top) => all.push(top),
                None => return Ok(EncodedPrompt::NotFinite),
            }
        }
    }
    Ok(EncodedPrompt::Value(ReadoutValue::TopK(all)))
}

/// Packs a prompt with all its pictures; of the first, some patches may be hidden.
fn push(
    batch: &mut EncoderBatchBuilder,
    config: &ModelConfig,
    prompt: &PromptToEncode,
) -> Result<usize, ForwardError> {
    let Readout::Codes { hidden, .. } = &prompt.readout else {
        return batch.push(EncoderSample {
            images: &prompt.images,
            tokens: &prompt.tokens,
        });
    };
    let patches = |hidden: &[usize]| -> Vec<Patch> {
        let patch = |index| Patch {
            index,
            masked: hidden.contains(&index),
        };
        (0..config.patches()).map(patch).collect()
    };
    let (first, others) = (patches(hidden), patches(&[]));
    let images: Vec<PatchedImage> = prompt
        .images
        .iter()
        .enumerate()
        .map(|(index, image)| PatchedImage {
            pixels: image.pixels(),
            patches: if index == 0 { &first } else { &others },
        })
        .collect();
    batch.push_patched(&images, &prompt.tokens)
}

fn to_rows(values: &Tensor) -> Result<Vec<Vec<f32>>, ForwardError> {
    Ok(values.to_dtype(DType::F32)?.to_vec2()?)
}
