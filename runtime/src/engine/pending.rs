//! An answer that is not there yet.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::answer::Answered;
use crate::blocking::block_on;
use crate::error::RequestError;

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Answered<T>, RequestError>> + Send + 'a>>;

/// A request to an engine: await it, or block on it with [`wait_blocking`](Self::wait_blocking).
///
/// It is submitted when it is first polled. Dropping it cancels the request.
///
/// # Examples
///
/// ```
/// # let engine = multiway_runtime::testing::tiny_engine()?;
/// use multiway_prompts::Prompt;
/// use multiway_runtime::{Request, block_on};
///
/// let ask = || engine.embed(Request::new(Prompt::from_text("a cat"), Vec::new()));
/// let awaited = block_on(async { ask().await })?;
/// assert_eq!(awaited.value, ask().wait_blocking()?.value);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the request is not submitted until it is awaited, or `wait_blocking` is called"]
pub struct Pending<'a, T>(Answer<'a, T>);

impl<'a, T> Pending<'a, T> {
    pub(super) fn new(answer: impl Future<Output = Result<Answered<T>, RequestError>> + Send + 'a) -> Self {
        Self(Box::pin(answer))
    }

    /// Blocks this thread until the answer is there; not for use in asynchronous code.
    ///
    /// # Errors
    /// [`RequestError`] if the request cannot be answered or fails, or the engine was shut down.
    pub fn wait_blocking(self) -> Result<Answered<T>, RequestError> {
        block_on(self)
    }
}

impl<T> Future for Pending<'_, T> {
    type Output = Result<Answered<T>, RequestError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<T> fmt::Debug for Pending<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}
