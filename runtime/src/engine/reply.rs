//! Replies to callers that wait for a whole answer.

use tokio::sync::oneshot::{Receiver, Sender, channel};

use crate::answer::Answered;
use crate::error::RequestError;

type Answer<T> = Result<Answered<T>, RequestError>;

/// The sender of one answer.
#[derive(Debug)]
pub(crate) struct Reply<T>(Option<Sender<Answer<T>>>);

impl<T> Reply<T> {
    pub(crate) fn channel() -> (Self, Receiver<Answer<T>>) {
        let (sender, answer) = channel();
        (Self(Some(sender)), answer)
    }

    /// Returns whether the caller has gone, or the answer was sent.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.as_ref().is_none_or(Sender::is_closed)
    }

    /// Sends the answer; no-op after the first.
    pub(crate) fn send(&mut self, answer: Answer<T>) {
        if let Some(sender) = self.0.take() {
            // The caller may have gone.
            drop(sender.send(answer));
        }
    }
}
