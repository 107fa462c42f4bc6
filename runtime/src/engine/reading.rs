//! What a request wants of its encoded prompt.

use multiway_model::kernels::Ranking;
use multiway_model::{ProcessedImage, PromptMemory};

use super::digest::Digest;
use crate::answer::{CodeScore, WordScore};
use crate::tokenizer::TokenId;

/// A prompt to encode, and what is to be read off it.
#[derive(Debug)]
pub(crate) struct PromptToRead {
    pub(crate) images: Vec<ProcessedImage>,
    /// What tells the pictures from all others, where what is made of them may be kept.
    pub(crate) pictures: Option<Digest>,
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) reading: Reading,
}

/// What is to be read off an encoded prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// What decoding needs.
    Memory,
    /// The retrieval embedding.
    Embedding,
    /// The scores of the head's classes.
    Classes,
    /// The likeliest words behind each mask of the text, among the first `vocabulary` ids.
    Words {
        mask: TokenId,
        count: usize,
        vocabulary: usize,
    },
    /// The likeliest visual codes of each patch of the first picture that is hidden from the encoder.
    Codes { hidden: Vec<usize>, count: usize },
}

/// What was read.
#[derive(Clone, Debug)]
pub(crate) enum Read {
    Memory(PromptMemory),
    Embedding(Vec<f32>),
    Classes(Vec<f32>),
    Words(Vec<Vec<WordScore>>),
    Codes(Vec<Vec<CodeScore>>),
    /// Nothing: the logits are not finite numbers.
    NotFinite,
}

/// Finds the likeliest ids with their log-probabilities, the likeliest first; nothing where the logits are no numbers.
pub(super) fn likeliest(logits: &[f32], count: usize) -> Option<Vec<(u32, f32)>> {
    log_probabilities(&Ranking::of(logits, count))
}

/// Turns the highest logits of a row into log-probabilities; nothing where the logits are no numbers.
pub(crate) fn log_probabilities(ranking: &Ranking) -> Option<Vec<(u32, f32)>> {
    let one = |(id, logit): &(u32, f32)| Some((*id, ranking.log_probability(*logit)?));
    ranking.log_total?;
    ranking.highest.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first_and_earlier_ids_before_equal_ones() {
        let ids = |logits: &[f32], count| {
            let best = likeliest(logits, count).unwrap();
            best.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&[0.0, 3.0, 1.0, 3.0], 3), [1, 3, 2]);
        assert_eq!(ids(&[0.0, 3.0], 9), [1, 0]);
        assert_eq!(likeliest(&[0.0, f32::NAN], 1), None);
    }
}
