//! Readouts: what a request needs of its encoded prompt.

use multiway_model::{ProcessedImage, PromptMemory};

use super::digest::Digest;
use crate::error::RequestError;
use crate::explanation::{AnswerTokens, ExplainedTokens};
use crate::tokenizer::TokenId;
use crate::top_k::TopK;

/// A prompt to encode, and its readout.
#[derive(Debug)]
pub(crate) struct PromptToEncode {
    pub(crate) images: Vec<ProcessedImage>,
    /// The hash of the pictures, if their encoding may be cached.
    pub(crate) pictures: Option<Digest>,
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) readout: Readout,
}

/// What to read out of an encoded prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readout {
    /// What decoding attends to: an [`EncodedPrompt::Memory`].
    Memory,
    /// The retrieval embedding.
    Embedding,
    /// The logits of the classification head.
    Classes,
    /// The top `count` tokens, of the first `vocabulary`, at each mask of the text.
    Words {
        mask: TokenId,
        count: usize,
        vocabulary: usize,
    },
    /// The top `count` visual codes of each patch of the first picture that is hidden from the encoder.
    Codes { hidden: Vec<usize>, count: usize },
    /// What an answer looked at.
    Explanation(AnswerTokens),
}

/// The value of a prompt's [`Readout`].
#[derive(Clone, Debug)]
pub(crate) enum EncodedPrompt {
    Memory(PromptMemory),
    Value(ReadoutValue),
    /// The logits are not finite numbers.
    NotFinite,
}

/// A readout that is the answer itself.
#[derive(Clone, Debug)]
pub(crate) enum ReadoutValue {
    /// An embedding, or the logits of classes.
    Vector(Vec<f32>),
    /// The top-k words or codes at each mask.
    TopK(Vec<TopK>),
    /// What an answer looked at.
    Explanation(Box<ExplainedTokens>),
}

impl ReadoutValue {
    pub(super) fn vector(self) -> Result<Vec<f32>, RequestError> {
        match self {
            Self::Vector(values) => Ok(values),
            _ => Err(mismatch()),
        }
    }

    pub(super) fn top_k(self) -> Result<Vec<TopK>, RequestError> {
        match self {
            Self::TopK(places) => Ok(places),
            _ => Err(mismatch()),
        }
    }

    pub(super) fn explanation(self) -> Result<Box<ExplainedTokens>, RequestError> {
        match self {
            Self::Explanation(explained) => Ok(explained),
            _ => Err(mismatch()),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Vector(values) => size_of_val(values.as_slice()),
            Self::TopK(places) => places.iter().map(|place| size_of_val(place.as_slice())).sum(),
            Self::Explanation(explained) => explained.bytes(),
        }
    }
}

/// [`Forward`](super::forward::Forward) has broken its contract.
fn mismatch() -> RequestError {
    let cause = "the model gave something else than what was asked for".to_owned();
    RequestError::Failed { cause }
}
