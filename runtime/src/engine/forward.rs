//! What the engine needs of a model: prompts to what is read off them, rows to logits.

use super::reading::{Digest, PromptToRead, Read, Reading, likeliest};
use super::reuse::{Key, Reuse, ReuseCache, Value};
use crate::scheduler::Resources;
use crate::stream::{CodeScore, WordScore};
use crate::tokenizer::TokenId;
use multiway_model::{
    AttentionPattern, DType, DecoderBatch, DecoderRow, EncoderBatch, EncoderBatchBuilder, EncoderOutput,
    EncoderSample, EncodingPass, EncodingTargets, ForwardError, KvCache, Model, ModelConfig, Patch,
    PatchedImage, PromptMemory, SampleSegments, Tensor,
};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// How many rows' scores of a vocabulary are held at a time.
const ROWS_AT_A_TIME: usize = 16;

/// The likeliest ids of a row with their log-probabilities, the likeliest first.
type Likeliest = Vec<(u32, f32)>;

/// Runs the model for the engine's thread, and owns the cache.
pub(crate) trait Forward {
    /// Begins to encode prompts in one packed batch, in place of any that was begun before.
    fn begin(&mut self, prompts: Vec<PromptToRead>) -> Result<(), ForwardError>;

    /// Goes on with it for a slice of about so many rows; with the last slice comes what was read off each prompt.
    fn advance(&mut self, rows: usize) -> Result<Option<Vec<Read>>, ForwardError>;

    /// Gives up what was begun.
    fn abandon(&mut self);

    /// Advances each row by one token and writes the logits of all rows, `[B * V]`.
    fn step(&mut self, rows: &[DecoderRow], logits: &mut Vec<f32>) -> Result<(), ForwardError>;

    /// Makes slot `to` continue from what slot `from` holds.
    fn copy(&mut self, from: usize, to: usize) -> Result<(), ForwardError>;

    /// Forgets what a slot holds.
    fn clear(&mut self, slot: usize);

    /// Tells what encoding found that was known.
    fn reuse(&self) -> Reuse;
}

/// The model itself.
pub(crate) struct ModelForward {
    model: Arc<Model>,
    /// None where the model writes no text.
    pub(super) cache: Option<KvCache>,
    kept: ReuseCache<Key, Value>,
    reuse: Reuse,
    pending: Option<Pending>,
}

/// Prompts that are being encoded.
struct Pending {
    /// What tells each prompt from all others, where what is read off it may be kept.
    keys: Vec<Option<Key>>,
    /// What was, or will be, read off them.
    found: HashMap<Key, Read>,
    /// The places of the prompts that are encoded; of equal ones one is.
    new: Vec<usize>,
    /// None where everything was known.
    encoding: Option<Underway>,
}

/// Prompts in the encoder.
struct Underway {
    prompts: Vec<PromptToRead>,
    encoding: EncodingPass,
    /// Which samples of the batch are whose.
    owners: Vec<Range<usize>>,
    /// The pictures that are to be kept, in the order of the wanted prefixes.
    fresh: Vec<Digest>,
}

impl ModelForward {
    /// Makes room for what a scheduler gives out, and for `kept` bytes of what may be needed again.
    pub(crate) fn new(model: Arc<Model>, capacity: &Resources, kept: usize) -> Result<Self, ForwardError> {
        let cache = model
            .config()
            .writes_text()
            .then(|| model.new_cache_with_capacity(capacity.slots, capacity.self_tokens))
            .transpose()?;
        Ok(Self {
            model,
            cache,
            kept: ReuseCache::new(kept),
            reuse: Reuse::default(),
            pending: None,
        })
    }

    /// Packs prompts, and begins to encode them. Pictures that are known, or that an earlier prompt shows too, are not encoded again where what is made
    /// of them does not depend on the text.
    fn pack(&mut self, mut prompts: Vec<PromptToRead>) -> Result<Underway, ForwardError> {
        let model = Arc::clone(&self.model);
        let config = model.config();
        let mut batch = EncoderBatch::builder(config);
        let (mut owners, mut fresh) = (Vec::new(), Vec::new());
        let mut wanted = EncodingTargets::default();
        let mut samples = 0;
        for prompt in &prompts {
            let start = samples;
            samples += 1;
            let shareable = self.shareable(prompt);
            let known = shareable.and_then(|pictures| self.kept.get(&Key::Pictures(pictures)));
            let earlier =
                shareable.and_then(|pictures| fresh.iter().position(|earlier| *earlier == pictures));
            if let Some(Value::Pictures(prefix)) = known {
                self.reuse.pictures += 1;
                batch.push_known(&prefix, &prompt.tokens)?;
            } else if let Some(earlier) = earlier {
                self.reuse.pictures += 1;
                batch.push_shared(wanted.prefixes[earlier], &prompt.tokens)?;
            } else if prompt.reading == Reading::Classes && config.max_images() > 1 {
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
                    fresh.push(pictures);
                    wanted.prefixes.push(start);
                }
                push(&mut batch, config, prompt)?;
            }
            if prompt.reading == Reading::Memory {
                wanted.memories.push(start);
            }
            owners.push(start..samples);
        }
        // The batch has the pixels now.
        prompts.iter_mut().for_each(|prompt| prompt.images = Vec::new());
        Ok(Underway {
            prompts,
            encoding: model.begin_encoding(batch.build(), wanted)?,
            owners,
            fresh,
        })
    }

    /// Tells pictures from all others, where what the encoder makes of them can be shared.
    fn shareable(&self, prompt: &PromptToRead) -> Option<Digest> {
        let config = self.model.config();
        let whole = !matches!(prompt.reading, Reading::Codes { .. } | Reading::Classes);
        let apart = config.attention_pattern == AttentionPattern::ImagePrefix;
        prompt
            .pictures
            .filter(|_| self.kept.is_on() && whole && apart && !prompt.images.is_empty())
    }

    /// Reads off each prompt what it asks for.
    fn read(
        &self,
        prompts: &[PromptToRead],
        owners: &[Range<usize>],
        encoded: &EncoderOutput,
        memories: Vec<PromptMemory>,
    ) -> Result<Vec<Read>, ForwardError> {
        // Of each kind, what all prompts that ask for it want is read at once.
        let asking = |wanted: &Reading| {
            let asking = prompts.iter().zip(owners);
            let samples = asking.filter(|(prompt, _)| prompt.reading == *wanted);
            let samples: Vec<usize> = samples.flat_map(|(_, samples)| samples.clone()).collect();
            (!samples.is_empty()).then(|| encoded.select(&samples))
        };
        let mut memories = memories.into_iter();
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
            let sample = &encoded.segments.samples[samples.start];
            match &prompt.reading {
                Reading::Memory => memories.next().map(Read::Memory).ok_or_else(nothing),
                Reading::Embedding => embeddings.next().map(Read::Embedding).ok_or_else(nothing),
                Reading::Classes => classes.next().map(Read::Classes).ok_or_else(nothing),
                Reading::Words {
                    mask,
                    count,
                    vocabulary,
                } => self.words(encoded, sample, &prompt.tokens, (*mask, *count, *vocabulary)),
                Reading::Codes { hidden, count } => self.codes(encoded, sample, hidden, *count),
            }
        };
        prompts.iter().zip(owners).map(read).collect()
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
    fn begin(&mut self, prompts: Vec<PromptToRead>) -> Result<(), ForwardError> {
        self.pending = None;
        let key = |prompt: &PromptToRead| Key::prompt(prompt).filter(|_| self.kept.is_on());
        let keys: Vec<Option<Key>> = prompts.iter().map(key).collect();
        // Each prompt that is new is encoded once; the others are given what was, or will be, read off it.
        let mut found: HashMap<Key, Read> = HashMap::new();
        let mut seen: HashSet<Key> = HashSet::new();
        let (mut new, mut unknown) = (Vec::new(), Vec::new());
        let count = prompts.len();
        for ((place, prompt), key) in prompts.into_iter().enumerate().zip(&keys) {
            let kept = key.and_then(|key| Some((key, self.kept.get(&key)?)));
            if let Some((key, Value::Read(read))) = kept {
                found.insert(key, read);
            } else if key.is_none_or(|key| seen.insert(key)) {
                new.push(place);
                unknown.push(prompt);
            }
        }
        self.reuse.prompts += (count - new.len()) as u64;
        self.reuse.missed_prompts += seen.len() as u64;
        let encoding = (!new.is_empty()).then(|| self.pack(unknown)).transpose()?;
        self.pending = Some(Pending {
            keys,
            found,
            new,
            encoding,
        });
        Ok(())
    }

    fn advance(&mut self, rows: usize) -> Result<Option<Vec<Read>>, ForwardError> {
        let Some(pending) = &mut self.pending else {
            return Err(ForwardError::EncodingDone);
        };
        let mut encoded = None;
        if let Some(underway) = &mut pending.encoding {
            encoded = self.model.advance_encoding(&mut underway.encoding, rows)?;
            if encoded.is_none() {
                return Ok(None);
            }
        }
        let Some(Pending {
            keys,
            mut found,
            new,
            encoding,
        }) = self.pending.take()
        else {
            return Ok(None);
        };
        let mut alone: HashMap<usize, Read> = HashMap::new();
        if let Some((underway, encoded)) = encoding.zip(encoded) {
            let Underway {
                prompts,
                owners,
                fresh,
                ..
            } = underway;
            for (pictures, prefix) in fresh.into_iter().zip(encoded.prefixes) {
                self.kept.insert(Key::Pictures(pictures), Value::Pictures(prefix));
            }
            let reads = self.read(&prompts, &owners, &encoded.output, encoded.memories)?;
            for (place, read) in new.into_iter().zip(reads) {
                match keys.get(place).copied().flatten() {
                    Some(key) => {
                        if !matches!(read, Read::NotFinite) {
                            self.kept.insert(key, Value::Read(read.clone()));
                        }
                        found.insert(key, read);
                    }
                    None => drop(alone.insert(place, read)),
                }
            }
        }
        let all = keys.iter().enumerate().map(|(place, key)| match key {
            Some(key) => found.get(key).cloned(),
            None => alone.remove(&place),
        });
        Ok(Some(all.flatten().collect()))
    }

    fn abandon(&mut self) {
        self.pending = None;
    }

    fn step(&mut self, rows: &[DecoderRow], logits: &mut Vec<f32>) -> Result<(), ForwardError> {
        let cache = self.cache.as_mut().ok_or(ForwardError::NoHead("text"))?;
        self.model.decode_step_into(&DecoderBatch { rows }, cache, logits)
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

    fn reuse(&self) -> Reuse {
        Reuse {
            bytes: self.kept.bytes(),
            ..self.reuse
        }
    }
}

/// Packs a prompt with all its pictures; of the first, some patches may be hidden.
fn push(
    batch: &mut EncoderBatchBuilder,
    config: &ModelConfig,
    prompt: &PromptToRead,
) -> Result<usize, ForwardError> {
    let Reading::Codes { hidden, .. } = &prompt.reading else {
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

fn rows(values: &Tensor) -> Result<Vec<Vec<f32>>, ForwardError> {
    Ok(values.to_dtype(DType::F32)?.to_vec2()?)
}

fn name<T>(best: Vec<Likeliest>, score: impl Fn((u32, f32)) -> T) -> Vec<Vec<T>> {
    let one = |best: Likeliest| best.into_iter().map(&score).collect();
    best.into_iter().map(one).collect()
}
