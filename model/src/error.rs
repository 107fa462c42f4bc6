//! Errors of running a model.

use crate::config::AttentionPattern;

/// Errors of running a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// A sample has more text than the model has positions for.
    #[error("sample {sample} has {found} text tokens; the model takes at most {limit}")]
    TextTooLong {
        /// Which sample of the batch.
        sample: usize,
        /// Its length in tokens.
        found: usize,
        /// The model's limit.
        limit: usize,
    },
    /// A sample has more pictures than the model takes.
    #[error("sample {sample} has {found} images; the model takes at most {limit}")]
    TooManyImages {
        /// Which sample of the batch.
        sample: usize,
        /// How many pictures it has.
        found: usize,
        /// The model's limit.
        limit: usize,
    },
    /// A picture was prepared for another model.
    #[error("image {image} of sample {sample} has {found} values; the model takes {expected} (3 channels)")]
    ImageSize {
        /// Which sample of the batch.
        sample: usize,
        /// Which picture of the sample.
        image: usize,
        /// How many numbers it has.
        found: usize,
        /// How many were expected.
        expected: usize,
    },
    /// The batch does not have the sample.
    #[error("sample {sample} does not exist: the batch has {samples}")]
    NoSample {
        /// The sample, from 0.
        sample: usize,
        /// How many there are.
        samples: usize,
    },
    /// An encoding was to go on after its end.
    #[error("the encoding is done, and its result was taken")]
    EncodingDone,
    /// A sample has neither text nor picture.
    #[error("sample {sample} is empty: expected at least one token or one image")]
    EmptySample {
        /// Which sample of the batch.
        sample: usize,
    },
    /// A token id is outside the vocabulary.
    #[error("token id {found} is not below the vocabulary size {limit}")]
    TokenId {
        /// The id.
        found: u32,
        /// The vocabulary's size.
        limit: usize,
    },
    /// A cache slot is full, does not exist, or is named twice in one step.
    #[error("cache slot {slot}: {problem}")]
    Slot {
        /// The slot.
        slot: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No block of the cache is free for the tokens of a step.
    #[error("the cache is full: it has room for {tokens} tokens in all; clear a slot or make it larger")]
    CacheFull {
        /// How many tokens it has room for.
        tokens: usize,
    },
    /// A sample lacks the rows that the model's head reads.
    #[error("sample {sample} does not fit the model's head, which expects {expected}")]
    Head {
        /// Which sample of the batch.
        sample: usize,
        /// What the head expects of each sample.
        expected: &'static str,
    },
    /// A sample was to share the rows of its pictures in a model whose attention pattern is not
    /// `ImagePrefix`.
    #[error(
        "sample {sample} cannot share the rows of its images: the model's attention pattern is {pattern:?}; expected {:?}, \
         under which images do not see the text",
        AttentionPattern::ImagePrefix
    )]
    NotShareable {
        /// Which sample of the batch.
        sample: usize,
        /// The model's pattern.
        pattern: AttentionPattern,
    },
    /// There is nothing to share, or it was not kept.
    #[error("sample {sample} {problem}")]
    Prefix {
        /// Which sample of the batch.
        sample: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The image prefix of a sample was made by a model of another shape.
    #[error("the image prefix of sample {sample} has {found}; the model has {expected}")]
    ForeignPrefix {
        /// Which sample of the batch.
        sample: usize,
        /// The layers that the prefix has.
        found: String,
        /// The layers that the model has.
        expected: String,
    },
    /// A sample lacks one of the two sides of a word-patch alignment.
    #[error("sample {sample} has no {missing}; an alignment of words and patches needs text and an image")]
    NothingToAlign {
        /// Which sample of the batch.
        sample: usize,
        /// What it lacks.
        missing: &'static str,
    },
    /// Something was asked of a model that it was not made for.
    #[error("the model makes no {0}: it has no head for it")]
    NoHead(&'static str),
    /// A prompt memory or a cache was made by a model whose execution is another.
    #[error("the {0} was made by a model of another execution: use those of this model")]
    OtherExecution(&'static str),
    /// A batch is empty.
    #[error("the batch is empty")]
    EmptyBatch,
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}
