//! What comes back from the engine.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_core::Stream;
use serde::Serialize;

use crate::error::RequestError;
use crate::handover::{Giver, Handed, Taker, handover};
use crate::tokenizer::TokenId;

/// One thing that happened to a request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum StreamEvent {
    /// The model wrote a token.
    Token {
        /// The token; `</s>` too is one.
        id: TokenId,
        /// The text that is certain now. It may be empty, or hold text of earlier tokens: half characters and
        /// possible starts of stop strings are held back. All texts joined are the answer.
        text: String,
        /// The token's log-probability, after penalties and bans, before temperature and truncation; where the answer is
        /// constrained, among the tokens that the constraint allows.
        log_probability: f32,
        /// The likeliest tokens, the likeliest first, as many as
        /// [`top_log_probabilities`](crate::SamplingParams::top_log_probabilities) asks for and are possible at all; the
        /// one that was written may not be among them.
        alternatives: Vec<Alternative>,
    },
    /// The answer is complete; this is the last event.
    Finished {
        /// Why it ended.
        finish_reason: FinishReason,
        /// How much work it was.
        usage: Usage,
        /// How long it took.
        timings: Timings,
    },
}

/// What the engine writes into a stream: tokens, and one end.
pub(crate) type Events = Giver<Written, Result<Ended, RequestError>>;

/// A token that the model wrote: [`StreamEvent::Token`].
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) id: TokenId,
    pub(crate) text: String,
    pub(crate) log_probability: f32,
    pub(crate) alternatives: Vec<Alternative>,
}

impl From<Written> for StreamEvent {
    fn from(written: Written) -> Self {
        Self::Token {
            id: written.id,
            text: written.text,
            log_probability: written.log_probability,
            alternatives: written.alternatives,
        }
    }
}

/// The end of an answer that is complete: [`StreamEvent::Finished`].
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) finish_reason: FinishReason,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
}

impl From<Ended> for StreamEvent {
    fn from(ended: Ended) -> Self {
        Self::Finished {
            finish_reason: ended.finish_reason,
            usage: ended.usage,
            timings: ended.timings,
        }
    }
}

/// A token that could have been written.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Alternative {
    /// The token.
    pub id: TokenId,
    /// Its log-probability, after penalties and bans, before temperature and truncation.
    pub log_probability: f32,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// The model wrote `</s>`.
    Stop,
    /// One of the request's stop strings appeared.
    StopString,
    /// The answer reached `max_new_tokens`.
    Length,
}

/// How much work a request was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Text tokens that the encoder read, `</s>` included.
    pub prompt_tokens: usize,
    /// Image patches that the encoder read, class rows not counted.
    pub image_patches: usize,
    /// Tokens that the model wrote, `</s>` included, the forced prefix not.
    pub new_tokens: usize,
}

/// How long the parts of a request took.
///
/// `prepare`, `queued`, `encode`, `decode` and `select` follow each other and do not overlap; what the total has besides
/// them went by while the engine worked for other requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Timings {
    /// Checking the request, tokenizing its texts, compiling its constraint, and telling its pictures apart.
    pub prepare: Duration,
    /// The rest of the time from the call until it was admitted.
    pub queued: Duration,
    /// Encoding the prompt, together with the prompts that were admitted with it.
    pub encode: Duration,
    /// The decoding steps that its rows were in, together with those of other requests.
    pub decode: Duration,
    /// How many decoding steps these were.
    pub steps: usize,
    /// Reading the steps' logits: penalties, constraint, drawing the token, and turning it into text.
    pub select: Duration,
    /// From the call until the first new token; zero where none was written.
    pub first_token: Duration,
    /// From the call until the end.
    pub total: Duration,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Generation {
    /// The answer's text.
    pub text: String,
    /// The tokens that the model wrote.
    pub tokens: Vec<TokenId>,
    /// The log-probability of each token.
    pub log_probabilities: Vec<f32>,
    /// For each token the likeliest ones in its place; nothing where they were not asked for.
    pub alternatives: Vec<Vec<Alternative>>,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// How much work it was.
    pub usage: Usage,
    /// How long it took.
    pub timings: Timings,
}

impl Generation {
    /// Returns the mean of the tokens' log-probabilities, `</s>` included.
    #[must_use]
    pub fn mean_log_probability(&self) -> f64 {
        let sum: f64 = self.log_probabilities.iter().map(|p| f64::from(*p)).sum();
        sum / self.log_probabilities.len().max(1) as f64
    }
}

/// One of several answers that a search with beams found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Hypothesis {
    /// The answer's text.
    pub text: String,
    /// The tokens, `</s>` included where the answer ended by itself.
    pub tokens: Vec<TokenId>,
    /// The sum of the tokens' log-probabilities, divided by their count to the power of the length penalty.
    pub score: f32,
}

/// How likely a given answer is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Score {
    /// The log-probability of the candidate's tokens and `</s>`, given the prompt and the forced prefix: the sum of
    /// `log_probabilities`.
    pub log_probability: f32,
    /// The candidate's tokens, `</s>` included, the forced prefix not.
    pub tokens: Vec<TokenId>,
    /// The log-probability of each token, given those before it.
    pub log_probabilities: Vec<f32>,
}

/// How well a class of the model's head fits a prompt.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ClassScore {
    /// What the class is called.
    pub label: String,
    /// The head's value, not normalised: the class of the highest fits best.
    pub score: f32,
}

/// How likely a word is behind a mask.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WordScore {
    /// The word's token.
    pub id: TokenId,
    /// Its log-probability.
    pub log_probability: f32,
}

/// How likely a visual code is behind a hidden patch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CodeScore {
    /// The code, as the model's visual vocabulary numbers it.
    pub code: u32,
    /// Its log-probability.
    pub log_probability: f32,
}

/// The events of one request, as they happen. Dropping it cancels the request before the engine's next step.
///
/// Use it as a [`Stream`] in asynchronous code, with [`next_blocking`](Self::next_blocking) elsewhere, or wait for the whole answer.
/// After [`StreamEvent::Finished`] or an error there is nothing more.
#[derive(Debug)]
#[must_use = "dropping the stream cancels the request"]
pub struct TokenStream {
    events: Taker<Written, Result<Ended, RequestError>>,
    ended: bool,
}

impl TokenStream {
    /// Opens a stream: what the engine writes into, and what the caller reads.
    pub(crate) fn open() -> (Events, Self) {
        let (giver, events) = handover();
        (giver, Self { events, ended: false })
    }

    /// Waits for the next event.
    pub async fn next(&mut self) -> Option<Result<StreamEvent, RequestError>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Waits for the next event on this thread; not for use in asynchronous code.
    pub fn next_blocking(&mut self) -> Option<Result<StreamEvent, RequestError>> {
        block_on(self.next())
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// [`RequestError`] where the request failed or the engine was shut down.
    pub async fn wait(mut self) -> Result<Generation, RequestError> {
        let (mut text, mut tokens, mut log_probabilities) = (String::new(), Vec::new(), Vec::new());
        let mut alternatives = Vec::new();
        while let Some(event) = self.next().await {
            match event? {
                StreamEvent::Token {
                    id,
                    text: piece,
                    log_probability,
                    alternatives: likeliest,
                } => {
                    text.push_str(&piece);
                    tokens.push(id);
                    log_probabilities.push(log_probability);
                    if !likeliest.is_empty() {
                        alternatives.push(likeliest);
                    }
                }
                StreamEvent::Finished {
                    finish_reason,
                    usage,
                    timings,
                } => {
                    return Ok(Generation {
                        text,
                        tokens,
                        log_probabilities,
                        alternatives,
                        finish_reason,
                        usage,
                        timings,
                    });
                }
            }
        }
        Err(RequestError::ShutDown)
    }

    /// Waits for the whole answer on this thread; not for use in asynchronous code.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_blocking(self) -> Result<Generation, RequestError> {
        block_on(self.wait())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<StreamEvent, RequestError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let end = match self.events.poll_take(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Handed::Item(token))) => return Poll::Ready(Some(Ok(token.into()))),
            Poll::Ready(Some(Handed::End(end))) => end,
            // An engine that is gone without a last event was shut down.
            Poll::Ready(None) => Err(RequestError::ShutDown),
        };
        self.ended = true;
        Poll::Ready(Some(end.map(StreamEvent::from)))
    }
}

impl Stream for TokenStream {
    type Item = Result<StreamEvent, RequestError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread; the engine's futures need no runtime.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    // Inside of a tokio task, the task's budget would run out and end in a wait for a scheduler that is not running.
    let mut future = std::pin::pin!(tokio::task::unconstrained(future));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
