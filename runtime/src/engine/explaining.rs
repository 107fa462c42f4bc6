//! Explaining an answer on the engine's thread: one teacher-forced pass over an encoded prompt.

use std::ops::Range;

use multiway_model::kernels::Ranking;
use multiway_model::{DType, EncoderOutput, ForwardError, Model, Tensor};

use super::readout::{EncodedPrompt, ReadoutValue};
use crate::explanation::{AnswerTokens, ExplainedTokens};
use crate::tokenizer::TokenId;

/// Explains an answer to the prompt of some samples.
pub(super) fn explain(
    model: &Model,
    encoded: &EncoderOutput,
    samples: Range<usize>,
    answer: &AnswerTokens,
) -> Result<EncodedPrompt, ForwardError> {
    let mut explained = ExplainedTokens {
        attention: Vec::new(),
        log_probabilities: Vec::new(),
        distances: Vec::new(),
    };
    if model.config().decoder.is_some() && answer.tokens.len() > answer.before {
        read(model, encoded, samples.start, answer, &mut explained)?;
    }
    for sample in samples {
        match encoded.text_patch_distances(sample) {
            Ok(distances) => explained.distances.push(distances.to_vec2()?),
            Err(ForwardError::NothingToAlign { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let rows = explained.attention.iter().flatten();
    let is_finite = rows.chain(&explained.log_probabilities).all(|x| x.is_finite());
    Ok(match is_finite {
        true => EncodedPrompt::Value(ReadoutValue::Explanation(Box::new(explained))),
        false => EncodedPrompt::NotFinite,
    })
}

/// Reads the answer, and keeps the rows that wrote its tokens.
fn read(
    model: &Model,
    encoded: &EncoderOutput,
    sample: usize,
    answer: &AnswerTokens,
    explained: &mut ExplainedTokens,
) -> Result<(), ForwardError> {
    let written = answer.tokens.get(answer.before..).unwrap_or_default();
    let input = answer.tokens.len().saturating_sub(1);
    let input = answer.tokens.get(..input).unwrap_or_default();
    let explanation = model.explain(encoded, sample, input)?;
    // The row behind which the first token of the answer was written.
    let first = answer.before.saturating_sub(1);
    let attention = mean_of_heads(&explanation.cross_attention, answer.layer)?; // [T, S]
    explained.attention = attention.narrow(0, first, written.len())?.to_vec2()?;
    let logits = explanation.logits.narrow(0, first, written.len())?; // [written, V]
    let logits: Vec<Vec<f32>> = logits.to_dtype(DType::F32)?.to_vec2()?;
    let log_probability = |(logits, token): (&Vec<f32>, &TokenId)| {
        let logits = logits.get(..answer.vocabulary).unwrap_or(logits);
        let logit = usize::try_from(*token).ok().and_then(|token| logits.get(token));
        let value = logit.and_then(|logit| Ranking::of(logits, 0).log_probability(*logit));
        value.unwrap_or(f32::NAN)
    };
    explained.log_probabilities = logits.iter().zip(written).map(log_probability).collect();
    Ok(())
}

/// Takes the mean of `[L, H, T, S]` over the heads of a layer, or of all, `[T, S]`.
fn mean_of_heads(attention: &Tensor, layer: Option<usize>) -> Result<Tensor, ForwardError> {
    let attention = match layer {
        Some(layer) => attention.narrow(0, layer, 1)?, // [1, H, T, S]
        None => attention.clone(),
    };
    Ok(attention.mean((0, 1))?) // [T, S]
}
