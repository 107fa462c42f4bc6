//! Requests.

use std::time::Duration;

use multiway_model::ProcessedImage;
use multiway_prompts::Prompt;

use crate::sampling_params::SamplingParams;

/// The most bytes of text that are tokenized at a time: those of a prompt, a candidate or a choice.
pub(crate) const MAX_TEXT_BYTES: usize = 1 << 20;
/// The most candidates that one call scores, and the most choices of a constraint.
pub(crate) const MAX_CANDIDATES: usize = 1 << 16;

/// A prompt, and how to answer it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The rendered prompt.
    pub prompt: Prompt,
    /// The pictures that the prompt's image parts point to.
    pub images: Vec<ProcessedImage>,
    /// Sampling parameters.
    pub sampling: SamplingParams,
    /// Requests of a higher priority are admitted first; default: 0. Starvation is bounded: a request that
    /// many others overtook is admitted before them.
    pub priority: i32,
    /// The deadline of the whole answer, measured from the call, time in the queue included; a request that
    /// exceeds it ends with [`RequestError::DeadlineExceeded`](crate::RequestError::DeadlineExceeded) before
    /// the engine's next step, or as soon as it leaves the queue. `None` for no deadline.
    pub timeout: Option<Duration>,
}

impl Request {
    /// Creates a request with default sampling parameters.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_prompts::Prompt;
    /// use multiway_runtime::Request;
    ///
    /// let mut request = Request::new(Prompt::from_text("a cat is a"), Vec::new());
    /// request.sampling.temperature = 0.7;
    /// assert_eq!(request.priority, 0);
    /// ```
    #[must_use]
    pub fn new(prompt: Prompt, images: Vec<ProcessedImage>) -> Self {
        Self {
            prompt,
            images,
            ..Self::default()
        }
    }
}
