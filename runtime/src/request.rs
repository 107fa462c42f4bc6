//! What a caller asks for.

use std::time::Duration;

use multiway_model::ProcessedImage;
use multiway_prompts::Prompt;

use crate::sampling_params::SamplingParams;

/// The most bytes of text that are tokenized at a time: those of a prompt, a candidate or a choice.
pub(crate) const MAX_TEXT_BYTES: usize = 1 << 20;
/// The most candidates that one call scores, and the most choices of a constraint.
pub(crate) const MAX_CANDIDATES: usize = 1 << 16;

/// Asks the engine for something about a prompt.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The rendered prompt.
    pub prompt: Prompt,
    /// The pictures that the prompt's image parts point to.
    pub images: Vec<ProcessedImage>,
    /// How to write the answer.
    pub sampling: SamplingParams,
    /// Requests of a higher priority are admitted first; 0 is usual. A request that many others overtook goes first all the
    /// same.
    pub priority: i32,
    /// How long the answer may take, from the call to the end, waiting for a place in the queue included; then the request ends with
    /// [`RequestError::DeadlineExceeded`] before the engine's next step, or as soon as it has a place. `None` for ever.
    pub timeout: Option<Duration>,
}

impl Request {
    /// Asks about a prompt, with default sampling.
    #[must_use]
    pub fn new(prompt: Prompt, images: Vec<ProcessedImage>) -> Self {
        Self {
            prompt,
            images,
            ..Self::default()
        }
    }
}
