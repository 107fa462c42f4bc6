//! Errors of building an engine and of its requests.

use std::borrow::Cow;

use multiway_model::{ForwardError, LoadError};

use crate::tokenizer::{TokenId, TokenizerError};

/// The cause of a failure where logits are NaN or infinite.
pub(crate) const NOT_FINITE: &str = "the model's logits are not finite numbers; its weights may be damaged";

/// An error of building an engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The checkpoint's weights cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The checkpoint's tokenizer cannot be loaded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The names of the head's classes cannot be used.
    #[error("{file}: {problem}")]
    Labels {
        /// The file of the checkpoint.
        file: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The checkpoint's defaults for generating cannot be used.
    #[error("{file}: {problem}")]
    Generation {
        /// The file of the checkpoint: `generation_config.json`, or `config.json` where there is none.
        file: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The memory budget is too small for the model.
    #[error(
        "memory_budget is {found} bytes for each replica, but a request of usual length needs {needed} bytes with this model"
    )]
    MemoryBudget {
        /// The budget of one replica, in bytes.
        found: usize,
        /// The least that is needed, in bytes.
        needed: usize,
    },
    /// The KV cache cannot be allocated.
    #[error("cannot make room for {max_batch} running sequences: {source}; lower max_batch")]
    Cache {
        /// How many were asked for.
        max_batch: usize,
        /// Why.
        source: ForwardError,
    },
    /// An option of the builder is out of range.
    #[error("engine option '{option}' is {found}, expected {expected}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        found: usize,
        /// What was expected.
        expected: &'static str,
    },
    /// The engine's threads cannot be started.
    #[error("cannot start the engine's threads: {0}")]
    Threads(String),
}

/// An error of a request.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The prompt has neither text nor picture.
    #[error("the prompt is empty: expected some text or an image")]
    EmptyPrompt,
    /// The model has no head for the operation.
    #[error("the model makes no {head}: it was not made for this; run a task that it has a head for")]
    NoHead {
        /// The head.
        head: &'static str,
    },
    /// The prompt has text, but the model reads pictures alone.
    #[error("the prompt has text, but this model writes about a picture alone; leave the text out")]
    TextNotTaken,
    /// The model's head reads another number of pictures.
    #[error("the prompt shows {found} images, the model's head reads {expected}")]
    HeadImages {
        /// How many there are.
        found: usize,
        /// How many there have to be.
        expected: usize,
    },
    /// The model's head reads a text, and the prompt has none.
    #[error("the prompt has no text, but the model's head reads a sentence beside the images")]
    HeadText,
    /// There is nothing to explain.
    #[error("there is nothing to explain: {problem}")]
    NothingToExplain {
        /// What is missing.
        problem: &'static str,
    },
    /// A decoder layer is to be explained that the model does not have.
    #[error("layer {found} is to be explained, but the model has {layers} decoder layers (counted from 0)")]
    ExplainedLayer {
        /// The layer.
        found: usize,
        /// How many layers there are.
        layers: usize,
    },
    /// Patches are to be hidden, and the prompt shows no picture.
    #[error("the prompt shows no image of which patches could be hidden")]
    NothingToHide,
    /// A patch is to be hidden that the picture does not have.
    #[error("patch {found} is to be hidden, but an image has {patches} patches (counted from 0)")]
    Patch {
        /// The patch's index.
        found: usize,
        /// How many patches a picture has.
        patches: usize,
    },
    /// The checkpoint does not say what the classes of its head are called.
    #[error(
        "the checkpoint does not name its {classes} classes; put labels.txt beside its weights, one name a line, or the answer2label.txt of BEiT-3's tools"
    )]
    NoLabels {
        /// How many classes there are.
        classes: usize,
    },
    /// The prompt's text is too long to be worth tokenizing.
    #[error("the prompt has {found} bytes of text, at most {limit} are taken; shorten the inputs")]
    PromptTooLarge {
        /// Its length in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The prompt has more text tokens than the model has positions for.
    #[error(
        "the prompt has {found} tokens, the model takes at most {limit} (the closing </s> counts); shorten the inputs"
    )]
    PromptTooLong {
        /// Its length in tokens.
        found: usize,
        /// The model's limit.
        limit: usize,
    },
    /// The prompt shows more pictures than the model takes.
    #[error("the prompt shows {found} images, the model takes at most {limit}")]
    TooManyImages {
        /// How many there are.
        found: usize,
        /// The model's limit.
        limit: usize,
    },
    /// The prompt shows a picture that the request does not bring.
    #[error("the prompt shows image {index}, but the request brings {images} (counted from 0)")]
    MissingImage {
        /// The picture's index.
        index: usize,
        /// How many pictures the request brings.
        images: usize,
    },
    /// The request brings a picture that the prompt does not show.
    #[error(
        "the request brings image {index}, but the prompt does not show it; add an image part or leave it out"
    )]
    UnusedImage {
        /// The picture's index.
        index: usize,
    },
    /// A picture was prepared for another model.
    #[error(
        "image {index} has {found} values, the model takes {expected}; prepare it with this model's ImageProcessor"
    )]
    ForeignImage {
        /// The picture's index.
        index: usize,
        /// How many numbers it has.
        found: usize,
        /// How many were expected.
        expected: usize,
    },
    /// More new tokens are asked for than the model can write, or none.
    #[error(
        "max_new_tokens is {found}, expected 1 to {limit} (the model writes at most {max_target_length}, {prefix} of them forced)"
    )]
    MaxNewTokens {
        /// How many are asked for.
        found: usize,
        /// How many are possible.
        limit: usize,
        /// The model's limit.
        max_target_length: usize,
        /// How many of these the forced prefix takes.
        prefix: usize,
    },
    /// A sampling parameter is out of range.
    #[error("sampling parameter '{name}' is {found}, expected {expected}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// Its value.
        found: String,
        /// What was expected.
        expected: Cow<'static, str>,
    },
    /// A bias is for a token that does not exist.
    #[error("logit_bias has token {id}, expected ids below {vocabulary}, the size of the vocabulary")]
    UnknownToken {
        /// The token.
        id: TokenId,
        /// How many tokens there are.
        vocabulary: usize,
    },
    /// The prompt or the forced prefix names a special token that does not exist.
    #[error("unknown special token '{token}'; the vocabulary has {known}")]
    UnknownSpecial {
        /// The token as it was written.
        token: String,
        /// The first few that there are.
        known: String,
    },
    /// There is nothing to score, or too much.
    #[error("{found} candidates to score, expected 1 to {limit}")]
    Candidates {
        /// How many there are.
        found: usize,
        /// The most that are taken.
        limit: usize,
    },
    /// A candidate is longer than what the model can write.
    #[error(
        "candidate {index} has {found} tokens with the forced prefix and </s>, the model writes at most {limit}"
    )]
    CandidateTooLong {
        /// Which candidate.
        index: usize,
        /// Its length in tokens.
        found: usize,
        /// The model's limit.
        limit: usize,
    },
    /// The request alone exceeds the engine's memory budget.
    #[error(
        "the request can need {found} bytes for what it {what}, the engine has {limit} for that in all; shorten it, ask for fewer new tokens, beams or samples, or raise the engine's memory_budget"
    )]
    TooLarge {
        /// Which part is too large: what it `reads` or what it `writes`.
        what: &'static str,
        /// The most that it can need, in bytes.
        found: usize,
        /// The budget, in bytes.
        limit: usize,
    },
    /// The deadline passed before the answer was complete.
    #[error("the answer was not complete after {after:?}, the request's timeout")]
    DeadlineExceeded {
        /// The request's timeout.
        after: std::time::Duration,
    },
    /// The engine's thread panicked outside of a step, and answers no more requests.
    #[error("the engine is broken and answers no more requests: {cause}; build another")]
    Poisoned {
        /// What happened.
        cause: String,
    },
    /// The constraint of the answer cannot be used.
    #[error("the constraint ({kind}) cannot be used: {problem}")]
    Constraint {
        /// What kind it is.
        kind: &'static str,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// The constraint needs more tokens than `max_new_tokens`.
    #[error(
        "max_new_tokens is {limit}, but the {which} answer that the constraint ({kind}) allows has {found} tokens with the end; raise it, or allow shorter answers"
    )]
    ConstraintTooLong {
        /// What kind of constraint it is.
        kind: &'static str,
        /// Which answer that is: the shortest, or for choices the longest.
        which: &'static str,
        /// How many tokens it has.
        found: usize,
        /// How many it may have.
        limit: usize,
    },
    /// The queue is full.
    #[error("the engine is overloaded: {capacity} requests are waiting; try again later")]
    Overloaded {
        /// The capacity of the queue.
        capacity: usize,
    },
    /// A search is wider than the engine's batch.
    #[error("{found} beams were asked for; this engine runs at most {limit} sequences at a time")]
    TooManyBeams {
        /// How many were asked for.
        found: usize,
        /// How many sequences the engine runs.
        limit: usize,
    },
    /// Several samples were requested of an operation that streams one answer.
    #[error(
        "{samples} samples are to be drawn, but one answer is streamed; ask for them with `Engine::samples`"
    )]
    OneStream {
        /// How many are to be drawn.
        samples: usize,
    },
    /// More samples were requested than the engine's batch holds.
    #[error("{found} samples are to be drawn; this engine runs at most {limit} sequences at a time")]
    TooManySamples {
        /// How many are to be drawn.
        found: usize,
        /// How many sequences the engine runs.
        limit: usize,
    },
    /// The engine was shut down before the request was finished.
    #[error("the engine was shut down before the request was finished")]
    ShutDown,
    /// A step of the request's batch failed; other batches are not affected.
    #[error("the request failed: {cause}")]
    Failed {
        /// Why.
        cause: String,
    },
}

impl RequestError {
    /// Returns whether the caller is at fault: the same request would fail again, and a corrected one would
    /// not.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_runtime::{Request, RequestError};
    ///
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// let refused = engine.generate_blocking(Request::default()).unwrap_err();
    /// assert_eq!(refused, RequestError::EmptyPrompt);
    /// assert!(refused.is_caller_fault());
    /// assert!(!RequestError::Overloaded { capacity: 8 }.is_caller_fault());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_caller_fault(&self) -> bool {
        match self {
            Self::EmptyPrompt
            | Self::NoHead { .. }
            | Self::TextNotTaken
            | Self::HeadImages { .. }
            | Self::HeadText
            | Self::NothingToExplain { .. }
            | Self::ExplainedLayer { .. }
            | Self::NothingToHide
            | Self::Patch { .. }
            | Self::NoLabels { .. }
            | Self::PromptTooLarge { .. }
            | Self::PromptTooLong { .. }
            | Self::TooManyImages { .. }
            | Self::MissingImage { .. }
            | Self::UnusedImage { .. }
            | Self::ForeignImage { .. }
            | Self::MaxNewTokens { .. }
            | Self::Parameter { .. }
            | Self::UnknownToken { .. }
            | Self::UnknownSpecial { .. }
            | Self::Candidates { .. }
            | Self::CandidateTooLong { .. }
            | Self::TooLarge { .. }
            | Self::Constraint { .. }
            | Self::ConstraintTooLong { .. }
            | Self::TooManyBeams { .. }
            | Self::OneStream { .. }
            | Self::TooManySamples { .. } => true,
            Self::DeadlineExceeded { .. }
            | Self::Poisoned { .. }
            | Self::Overloaded { .. }
            | Self::ShutDown
            | Self::Failed { .. } => false,
        }
    }
}

/// Errors of tokenizing a prompt.
impl From<TokenizerError> for RequestError {
    fn from(error: TokenizerError) -> Self {
        match error {
            TokenizerError::UnknownSpecial { token, known } => Self::UnknownSpecial { token, known },
            other => Self::Failed {
                cause: other.to_string(),
            },
        }
    }
}
