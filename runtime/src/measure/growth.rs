//! How latency grows with the rows of a step, the length of the prompts, and texts of different lengths.

use std::ops::RangeInclusive;
use std::time::Instant;

use multiway_model::measure::median;
use multiway_model::{EncoderBatch, EncoderSample, Model};

use super::{
    Case, MeasureError, SplitMix, WARM_TOKENS, encode, random_prompts, time_encoding, write_likeliest,
};

/// Times the mean greedy decoding step of a case; returns the median seconds. The prompts are encoded once.
///
/// # Errors
/// [`MeasureError`] if the case does not fit the model, or the model decodes no text.
pub fn decode_step(model: &Model, case: &Case) -> Result<f64, MeasureError> {
    let mut cache = model.new_cache(case.batch, case.new_tokens)?;
    let memories = encode(model, &case.encoder_batch(model.config())?)?;
    let mut run = |new_tokens: usize| -> Result<f64, MeasureError> {
        let start = Instant::now();
        write_likeliest(model, &memories, &mut cache, new_tokens)?;
        let written = start.elapsed().as_secs_f64();
        (0..cache.slots()).for_each(|slot| cache.clear(slot));
        Ok(written / new_tokens.max(1) as f64)
    };
    run(WARM_TOKENS.min(case.new_tokens))?;
    let times = (0..case.repeats).map(|_| run(case.new_tokens));
    Ok(median(times.collect::<Result<_, _>>()?))
}

/// Draws lengths uniformly from a range; the same for the same seed.
///
/// # Examples
///
/// ```
/// use multiway_runtime::measure::ragged_lengths;
///
/// let lengths = ragged_lengths(5, 10..=20, 7);
/// assert!(lengths.iter().all(|length| (10..=20).contains(length)));
/// assert_eq!(lengths, ragged_lengths(5, 10..=20, 7));
/// ```
#[must_use]
pub fn ragged_lengths(texts: usize, range: RangeInclusive<usize>, seed: u64) -> Vec<usize> {
    let (shortest, longest) = range.into_inner();
    let count = longest.saturating_sub(shortest) as u64 + 1;
    let mut random = SplitMix(seed);
    let mut length = || shortest + usize::try_from(random.next() % count).unwrap_or_default();
    (0..texts).map(|_| length()).collect()
}

/// Times encoding a batch of random texts of these lengths, as [`encoding`](super::encoding) does texts of
/// one length; returns the median seconds.
///
/// # Errors
/// [`MeasureError`] if the batch does not fit the model.
pub fn ragged_encoding(
    model: &Model,
    lengths: &[usize],
    seed: u64,
    repeats: usize,
) -> Result<f64, MeasureError> {
    let prompts = random_prompts(model.config(), seed, lengths.iter().copied());
    let samples = prompts.iter().map(|tokens| EncoderSample { images: &[], tokens });
    let batch = EncoderBatch::new(model.config(), &samples.collect::<Vec<_>>())?;
    time_encoding(model, &batch, repeats)
}

#[cfg(test)]
mod tests {
    use multiway_model::testing::{random_inference_model, tiny_config};

    use super::*;

    const CASE: Case = Case {
        batch: 3,
        source_length: 7,
        pictures: 0,
        beams: 1,
        new_tokens: 9,
        repeats: 2,
        seed: 5,
    };

    #[test]
    fn lengths_depend_on_the_seed_and_stay_within_the_range_both_ends_included() {
        let lengths = ragged_lengths(200, 3..=6, 1);
        assert_eq!(lengths, ragged_lengths(200, 3..=6, 1));
        assert_ne!(lengths, ragged_lengths(200, 3..=6, 2));
        let found: std::collections::BTreeSet<usize> = lengths.into_iter().collect();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert_eq!(ragged_lengths(2, 8..=8, 1), [8, 8]);
    }

    #[test]
    fn a_step_is_a_part_of_writing_the_answer() {
        let model = random_inference_model(&tiny_config(), 3).unwrap();
        assert!(decode_step(&model, &CASE).unwrap() > 0.0);
        let new_tokens = 99;
        let refused = decode_step(&model, &Case { new_tokens, ..CASE }).unwrap_err();
        assert!(refused.to_string().contains("at most 24"), "{refused}");
    }

    #[test]
    fn texts_of_different_lengths_are_encoded_together_and_too_long_ones_refused() {
        let model = random_inference_model(&tiny_config(), 3).unwrap();
        assert!(ragged_encoding(&model, &[1, 40, 7], 1, 2).unwrap() > 0.0);
        let refused = ragged_encoding(&model, &[1, 41], 1, 1).unwrap_err();
        assert!(refused.to_string().contains("at most 40"), "{refused}");
    }
}
