//! Token streams.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::answer::{Alternative, FinishReason, Generation, Timings, Usage};
use crate::blocking::block_on;
use crate::error::RequestError;
use crate::handover::{HandoverReceiver, HandoverSender, Received, handover};
use crate::tokenizer::TokenId;

/// An event of a running request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum StreamEvent {
    /// A new token.
    Token {
        /// The token; `</s>` is one, too.
        id: TokenId,
        /// The text that is complete by now. It may be empty, or hold text of earlier tokens: incomplete
        /// characters and possible starts of stop strings are held back. All texts joined are the answer.
        text: String,
        /// The token's log-probability, after penalties and bans, before temperature and truncation; where
        /// the answer is constrained, among the tokens that the constraint allows.
        log_probability: f32,
        /// The top [`top_log_probabilities`](crate::SamplingParams::top_log_probabilities) tokens that are
        /// not banned, the highest first; the chosen one need not be among them.
        alternatives: Vec<Alternative>,
    },
    /// The answer is complete; this is the last event.
    Finished {
        /// Why it ended.
        finish_reason: FinishReason,
        /// How many tokens and patches were processed.
        usage: Usage,
        /// How long each stage took.
        timings: Timings,
    },
}

/// The engine's side of a stream: tokens, and one end.
pub(crate) type EventSender = HandoverSender<TokenEvent, Result<EndEvent, RequestError>>;

/// [`StreamEvent::Token`].
#[derive(Debug)]
pub(crate) struct TokenEvent {
    pub(crate) id: TokenId,
    pub(crate) text: String,
    pub(crate) log_probability: f32,
    pub(crate) alternatives: Vec<Alternative>,
}

impl From<TokenEvent> for StreamEvent {
    fn from(written: TokenEvent) -> Self {
        Self::Token {
            id: written.id,
            text: written.text,
            log_probability: written.log_probability,
            alternatives: written.alternatives,
        }
    }
}

/// [`StreamEvent::Finished`].
#[derive(Debug)]
pub(crate) struct EndEvent {
    pub(crate) finish_reason: FinishReason,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
}

impl From<EndEvent> for StreamEvent {
    fn from(ended: EndEvent) -> Self {
        Self::Finished {
            finish_reason: ended.finish_reason,
            usage: ended.usage,
            timings: ended.timings,
        }
    }
}

/// The stream of a request's events. Dropping it cancels the request before the engine's next step.
///
/// It is a [`Stream`] for asynchronous code; elsewhere use [`next_blocking`](Self::next_blocking), or wait
/// for the whole answer. [`StreamEvent::Finished`] or an error is the last event.
#[derive(Debug)]
#[must_use = "dropping the stream cancels the request"]
pub struct TokenStream {
    events: HandoverReceiver<TokenEvent, Result<EndEvent, RequestError>>,
    ended: bool,
}

impl TokenStream {
    /// Opens a stream: the engine's side and the caller's.
    pub(crate) fn open() -> (EventSender, Self) {
        let (sender, events) = handover();
        (sender, Self { events, ended: false })
    }

    /// Waits for the next event.
    pub async fn next(&mut self) -> Option<Result<StreamEvent, RequestError>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Blocks this thread until the next event; not for use in asynchronous code.
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// # use multiway_prompts::Prompt;
    /// # use multiway_runtime::{Request, RequestError, SamplingParams, StreamEvent};
    /// let mut stream = engine.try_generate(Request::new(Prompt::from_text("a cat"), Vec::new()))?;
    /// let mut events = 0;
    /// while let Some(event) = stream.next_blocking() {
    ///     event?;
    ///     events += 1;
    /// }
    /// assert!(events > 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_blocking(&mut self) -> Option<Result<StreamEvent, RequestError>> {
        block_on(self.next())
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// [`RequestError`] if the request failed or the engine was shut down.
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

    /// Blocks this thread until the answer is complete; not for use in asynchronous code.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// # use multiway_prompts::Prompt;
    /// # use multiway_runtime::{Request, RequestError, SamplingParams, StreamEvent};
    /// let stream = engine.try_generate(Request::new(Prompt::from_text("a cat"), Vec::new()))?;
    /// let answer = stream.wait_blocking()?;
    /// assert_eq!(answer.tokens.len(), answer.log_probabilities.len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_blocking(self) -> Result<Generation, RequestError> {
        block_on(self.wait())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<StreamEvent, RequestError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let end = match self.events.poll_receive(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Received::Item(token))) => return Poll::Ready(Some(Ok(token.into()))),
            Poll::Ready(Some(Received::End(end))) => end,
            // An engine that is gone without an end was shut down.
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
