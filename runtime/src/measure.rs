//! Latency and throughput of a model's encoder and decoder, without an engine.
//!
//! Prompts are random ids of the requested length; answers have exactly the requested length, since EOS is
//! banned. Everything runs on the calling thread and its rayon pool.

mod growth;

use std::time::Instant;

use multiway_model::kernels::{Ranking, rank_rows};
use multiway_model::measure::median;
use multiway_model::{
    DecoderBatch, DecoderRow, EncoderBatch, EncoderSample, ForwardError, KvCache, Model, ModelConfig,
    ProcessedImage, PromptMemory,
};
use multiway_prompts::EarlyStopping;

use crate::beam::{BeamParams, BeamSearch, Rules};
use crate::beam_slots::BeamSlots;
use crate::eos::EosTokens;
use crate::tokenizer::TokenId;
use crate::top_k::log_probabilities;
pub use growth::{decode_step, ragged_encoding, ragged_lengths};

/// Upper bound of random ids: checkpoints of T5 have rows without a token above.
const ID_LIMIT: usize = 32_000;

/// Lower bound of random ids: the special tokens are below.
const FIRST_ID: usize = 5;

/// Tokens that are decoded to warm up.
const WARM_TOKENS: usize = 4;

/// An error of a measurement.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The model refused a case, or failed.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The logits are not finite.
    #[error("no next token is possible: the model's logits are not finite numbers")]
    NotFinite,
}

/// One case: the size of the prompts and of the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// How many prompts.
    pub batch: usize,
    /// How many text tokens each has.
    pub source_length: usize,
    /// How many pictures each has, of the size that the model takes.
    pub pictures: usize,
    /// The beam width; 1 is greedy.
    pub beams: usize,
    /// How many tokens each answer has.
    pub new_tokens: usize,
    /// How often the case is run; results are medians.
    pub repeats: usize,
    /// The seed of the random prompts.
    pub seed: u64,
}

/// The result of a decoding case.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Decoded {
    /// Median seconds of encoding the batch, with its cross-attention memories.
    pub encode_seconds: f64,
    /// Median seconds of decoding all answers.
    pub decode_seconds: f64,
    /// The tokens of each answer; with several beams, of the best.
    pub tokens: Vec<Vec<TokenId>>,
}

impl Case {
    /// Makes the prompts' ids: SplitMix64 from the seed on, each number taken modulo the ids that are in use.
    ///
    /// Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014).
    #[must_use]
    pub fn prompts(&self, config: &ModelConfig) -> Vec<Vec<TokenId>> {
        random_prompts(
            config,
            self.seed,
            std::iter::repeat_n(self.source_length, self.batch),
        )
    }

    fn encoder_batch(&self, config: &ModelConfig) -> Result<EncoderBatch, ForwardError> {
        let mut random = SplitMix(!self.seed);
        let mut picture = || {
            let values = config.image_values();
            ProcessedImage::from_pixels((0..values).map(|_| random.pixel()).collect())
        };
        let images: Vec<Vec<ProcessedImage>> = (0..self.batch)
            .map(|_| (0..self.pictures).map(|_| picture()).collect())
            .collect();
        let prompts = self.prompts(config);
        let samples = images.iter().zip(&prompts);
        let samples = samples.map(|(images, tokens)| EncoderSample { images, tokens });
        EncoderBatch::new(config, &samples.collect::<Vec<_>>())
    }
}

/// Makes a prompt of each length.
fn random_prompts(
    config: &ModelConfig,
    seed: u64,
    lengths: impl Iterator<Item = usize>,
) -> Vec<Vec<TokenId>> {
    let mut random = SplitMix(seed);
    let limit = config.vocab_size.min(ID_LIMIT);
    let first = FIRST_ID.min(limit.saturating_sub(1));
    let mut id = || {
        let place = random.next() % ((limit - first).max(1) as u64);
        TokenId::try_from(first as u64 + place).unwrap_or_default()
    };
    lengths
        .map(|length| (0..length).map(|_| id()).collect())
        .collect()
}

struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Draws a number from -1 to 1.
    fn pixel(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Times encoding a case's prompts, with their cross-attention memories if the model decodes text; returns
/// the median seconds.
///
/// # Errors
/// [`MeasureError`] if the case does not fit the model.
///
/// # Examples
///
/// ```
/// use multiway_model::testing::{random_inference_model, tiny_config};
/// use multiway_runtime::measure::{self, Case};
///
/// let model = random_inference_model(&tiny_config(), 3)?;
/// let case = Case {
///     batch: 2,
///     source_length: 7,
///     pictures: 0,
///     beams: 1,
///     new_tokens: 9,
///     repeats: 1,
///     seed: 5,
/// };
/// assert!(measure::encoding(&model, &case)? > 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encoding(model: &Model, case: &Case) -> Result<f64, MeasureError> {
    time_encoding(model, &case.encoder_batch(model.config())?, case.repeats)
}

/// Times encoding a batch, after a run to warm up.
fn time_encoding(model: &Model, batch: &EncoderBatch, repeats: usize) -> Result<f64, MeasureError> {
    encode(model, batch)?;
    let times = (0..repeats).map(|_| {
        let start = Instant::now();
        encode(model, batch)?;
        Ok(start.elapsed().as_secs_f64())
    });
    Ok(median(times.collect::<Result<_, ForwardError>>()?))
}

/// Times encoding a case's prompts and decoding its answers.
///
/// # Errors
/// [`MeasureError`] if the case does not fit the model, or the model decodes no text.
///
/// # Examples
///
/// ```
/// use multiway_model::testing::{random_inference_model, tiny_config};
/// use multiway_runtime::measure::{self, Case};
///
/// let model = random_inference_model(&tiny_config(), 3)?;
/// let case = Case {
///     batch: 2,
///     source_length: 7,
///     pictures: 0,
///     beams: 1,
///     new_tokens: 9,
///     repeats: 1,
///     seed: 5,
/// };
/// let decoded = measure::decoding(&model, &case)?;
/// assert!(decoded.tokens.iter().all(|answer| answer.len() == case.new_tokens));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn decoding(model: &Model, case: &Case) -> Result<Decoded, MeasureError> {
    // First, so that a model without a decoder fails before any work.
    let mut cache = model.new_cache(case.batch * case.beams, case.new_tokens)?;
    let batch = case.encoder_batch(model.config())?;
    let mut run = |new_tokens| -> Result<(f64, f64, Vec<Vec<TokenId>>), MeasureError> {
        let start = Instant::now();
        let memories = encode(model, &batch)?;
        let encoded = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let tokens = write(model, &memories, &mut cache, case.beams, new_tokens)?;
        let written = start.elapsed().as_secs_f64();
        (0..cache.slots()).for_each(|slot| cache.clear(slot));
        Ok((encoded, written, tokens))
    };
    run(WARM_TOKENS.min(case.new_tokens))?;
    let (mut encode_times, mut decode_times, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..case.repeats {
        let (encoded, written, tokens) = run(case.new_tokens)?;
        encode_times.push(encoded);
        decode_times.push(written);
        answers = tokens;
    }
    Ok(Decoded {
        encode_seconds: median(encode_times),
        decode_seconds: median(decode_times),
        tokens: answers,
    })
}

/// Encodes a case's prompts, and decodes the first token of each answer if the model decodes text: the cold
/// start of a model that was just loaded.
///
/// # Errors
/// [`MeasureError`] if the case does not fit the model.
pub fn first_token(model: &Model, case: &Case) -> Result<Vec<Vec<TokenId>>, MeasureError> {
    let memories = encode(model, &case.encoder_batch(model.config())?)?;
    if !model.config().writes_text() {
        return Ok(Vec::new());
    }
    let mut cache = model.new_cache(case.batch * case.beams, 1)?;
    write(model, &memories, &mut cache, case.beams, 1)
}

fn encode(model: &Model, batch: &EncoderBatch) -> Result<Vec<PromptMemory>, ForwardError> {
    let encoded = model.encode(batch)?;
    if model.config().writes_text() {
        model.prompt_memory(&encoded)
    } else {
        Ok(Vec::new())
    }
}

fn write(
    model: &Model,
    memories: &[PromptMemory],
    cache: &mut KvCache,
    beams: usize,
    new_tokens: usize,
) -> Result<Vec<Vec<TokenId>>, MeasureError> {
    if beams == 1 {
        write_likeliest(model, memories, cache, new_tokens)
    } else {
        search(model, memories, cache, beams, new_tokens)
    }
}

/// Decodes each answer greedily.
fn write_likeliest(
    model: &Model,
    memories: &[PromptMemory],
    cache: &mut KvCache,
    new_tokens: usize,
) -> Result<Vec<Vec<TokenId>>, MeasureError> {
    let start = model.config().decoder_start_token_id;
    let mut answers = vec![Vec::with_capacity(new_tokens); memories.len()];
    let mut buffers = DecodeBuffers::default();
    for _ in 0..new_tokens {
        let last = |answer: &Vec<TokenId>| answer.last().copied().unwrap_or(start);
        let rows = memories.iter().zip(&answers).enumerate();
        let rows = rows.map(|(slot, (memory, answer))| DecoderRow {
            token: last(answer),
            slot,
            memory,
        });
        let rows: Vec<_> = rows.collect();
        let rankings = buffers.decode_step(model, &rows, cache, 1)?;
        for (answer, ranking) in answers.iter_mut().zip(rankings) {
            let likeliest = ranking.highest.first().filter(|_| ranking.log_total.is_some());
            answer.push(likeliest.ok_or(MeasureError::NotFinite)?.0);
        }
    }
    Ok(answers)
}

/// Decodes each answer with a beam search, as the engine does, and returns the best.
fn search(
    model: &Model,
    memories: &[PromptMemory],
    cache: &mut KvCache,
    beams: usize,
    new_tokens: usize,
) -> Result<Vec<Vec<TokenId>>, MeasureError> {
    let config = model.config();
    let params = BeamParams {
        rules: Rules::Transformers,
        answers: 1,
        width: beams,
        length_penalty: 1.0,
        early_stopping: EarlyStopping::WhenNoBetter,
        max_new_tokens: new_tokens,
        ends: EosTokens::one(config.eos_token_id),
    };
    let mut searches: Vec<(BeamSearch, BeamSlots)> = (0..memories.len())
        .map(|answer| {
            let slots = (answer * beams..(answer + 1) * beams).collect();
            (BeamSearch::new(params.clone()), BeamSlots::new(slots))
        })
        .collect();
    let mut buffers = DecodeBuffers::default();
    for _ in 0..new_tokens {
        let mut rows = Vec::with_capacity(memories.len() * beams);
        for ((search, slots), memory) in searches.iter().zip(memories) {
            rows.extend(search.beams().iter().zip(slots.held()).map(|(beam, slot)| {
                DecoderRow {
                    token: beam
                        .tokens
                        .last()
                        .copied()
                        .unwrap_or(config.decoder_start_token_id),
                    slot: *slot,
                    memory,
                }
            }));
        }
        let count = searches
            .iter()
            .map(|(search, _)| search.candidates_per_beam())
            .max();
        let rankings = buffers.decode_step(model, &rows, cache, count.unwrap_or_default())?;
        let mut rankings = rankings.iter(); // [B * beams]
        for (search, slots) in &mut searches {
            let rows = rankings.by_ref().take(search.beams().len());
            let rows = rows.map(log_probabilities);
            let rows = rows.collect::<Option<Vec<_>>>().ok_or(MeasureError::NotFinite)?;
            let parents = search.expand(&rows).ok_or(MeasureError::NotFinite)?;
            for (from, to) in slots.reassign(&parents) {
                cache.copy(from, to)?;
            }
        }
    }
    let best = searches.iter().map(|(search, _)| search.finished().first());
    let tokens = best.map(|answer| answer.map(|answer| answer.tokens.clone()));
    Ok(tokens.map(Option::unwrap_or_default).collect())
}

/// Buffers of a decoding step, reused by the next.
#[derive(Debug, Default)]
struct DecodeBuffers {
    logits: Vec<f32>,
    counts: Vec<Option<usize>>,
    rankings: Vec<Ranking>,
}

impl DecodeBuffers {
    /// Advances rows by one token, and returns the top-k logits of each, with EOS banned.
    fn decode_step(
        &mut self,
        model: &Model,
        rows: &[DecoderRow],
        cache: &mut KvCache,
        count: usize,
    ) -> Result<&[Ranking], ForwardError> {
        let Self {
            logits,
            counts,
            rankings,
        } = self;
        model.decode_step_into(&DecoderBatch { rows }, cache, logits)?; // [B * V]
        let width = (logits.len() / rows.len().max(1)).max(1);
        for row in logits.chunks_exact_mut(width) {
            if let Some(end) = row.get_mut(model.config().eos_token_id as usize) {
                *end = f32::NEG_INFINITY;
            }
        }
        counts.clear();
        counts.resize(rows.len(), Some(count));
        rank_rows(logits, width, width, counts, rankings);
        Ok(rankings)
    }
}

#[cfg(test)]
mod tests {
    use multiway_model::testing::{random_inference_model, tiny_config};

    use super::*;

    const CASE: Case = Case {
        batch: 3,
        source_length: 7,
        pictures: 1,
        beams: 1,
        new_tokens: 9,
        repeats: 2,
        seed: 5,
    };

    fn model() -> Model {
        random_inference_model(&tiny_config(), 3).unwrap()
    }

    #[test]
    fn prompts_depend_on_the_seed_alone_and_hold_no_special_token() {
        let config = tiny_config();
        let prompts = CASE.prompts(&config);
        assert_eq!(prompts, CASE.prompts(&config));
        assert_ne!(prompts, Case { seed: 6, ..CASE }.prompts(&config));
        assert_eq!(prompts.len(), 3);
        let ids = prompts.iter().flatten();
        assert!(ids.clone().all(|id| (5..120).contains(id)) && ids.count() == 21);
        assert_eq!(
            SplitMix(0).next(),
            0xe220_a839_7b1d_cdaf,
            "the generator's published first number"
        );
    }

    #[test]
    fn answers_have_the_length_that_was_asked_for_and_no_end() {
        let model = model();
        for beams in [1, 3] {
            let decoded = decoding(&model, &Case { beams, ..CASE }).unwrap();
            assert!(decoded.encode_seconds > 0.0 && decoded.decode_seconds > 0.0);
            assert_eq!(decoded.tokens.len(), 3);
            for answer in &decoded.tokens {
                assert_eq!(answer.len(), 9);
                assert!(!answer.contains(&model.config().eos_token_id));
            }
        }
    }

    #[test]
    fn the_first_token_is_that_of_the_whole_answer() {
        let model = model();
        let first = first_token(&model, &CASE).unwrap();
        let whole = decoding(&model, &CASE).unwrap().tokens;
        for (first, whole) in first.iter().zip(&whole) {
            assert_eq!(first[..], whole[..1]);
        }
        assert_eq!(first.len(), 3);
    }

    #[test]
    fn an_answer_does_not_depend_on_the_batch() {
        let model = model();
        for beams in [1, 3] {
            let case = Case { beams, ..CASE };
            let all = decoding(&model, &case).unwrap().tokens;
            let one = decoding(&model, &Case { batch: 1, ..case }).unwrap().tokens;
            // The first prompt is the same; the pictures are, too.
            assert_eq!(all[0], one[0]);
        }
    }

    #[test]
    fn several_beams_find_an_answer_that_is_at_least_as_likely() {
        let model = model();
        let case = Case { batch: 1, ..CASE };
        let batch = case.encoder_batch(model.config()).unwrap();
        let memories = encode(&model, &batch).unwrap();
        let likelihood = |tokens: &[TokenId]| {
            let mut cache = model.new_cache(1, 9).unwrap();
            let mut last = model.config().decoder_start_token_id;
            let mut sum = 0.0;
            for token in tokens {
                let rows = [DecoderRow {
                    token: last,
                    slot: 0,
                    memory: &memories[0],
                }];
                let mut buffers = DecodeBuffers::default();
                let rankings = buffers.decode_step(&model, &rows, &mut cache, usize::MAX);
                let likeliest = log_probabilities(&rankings.unwrap()[0]).unwrap();
                sum += likeliest.iter().find(|(id, _)| id == token).unwrap().1;
                last = *token;
            }
            sum
        };
        let greedy = decoding(&model, &case).unwrap().tokens.remove(0);
        let wide = decoding(&model, &Case { beams: 8, ..case })
            .unwrap()
            .tokens
            .remove(0);
        assert!(likelihood(&wide) >= likelihood(&greedy));
    }

    #[test]
    fn a_case_that_the_model_does_not_take_is_refused() {
        let model = model();
        let told = |case| decoding(&model, &case).unwrap_err().to_string();
        assert!(
            told(Case {
                new_tokens: 99,
                ..CASE
            })
            .contains("at most 24")
        );
        assert!(
            told(Case {
                source_length: 99,
                ..CASE
            })
            .contains("at most 40")
        );
        assert!(told(Case { pictures: 4, ..CASE }).contains("at most 3"));
        let empty = Case {
            pictures: 0,
            source_length: 0,
            ..CASE
        };
        assert!(
            encoding(&model, &empty)
                .unwrap_err()
                .to_string()
                .contains("is empty")
        );
    }
}
