//! Answering a caller that waits for a whole answer.

use tokio::sync::oneshot::{Receiver, Sender, channel};

use crate::answer::Answered;
use crate::error::RequestError;

type Answer<T> = Result<Answered<T>, RequestError>;

/// Sends one answer to the caller that waits for it.
#[derive(Debug)]
pub(crate) struct Reply<T>(Option<Sender<Answer<T>>>);

impl<T> Reply<T> {
    pub(crate) fn channel() -> (Self, Receiver<Answer<T>>) {
        let (sender, answer) = channel();
        (Self(Some(sender)), answer)
    }

    /// Tells whether nobody waits any more, or the answer was sent.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.as_ref().is_none_or(Sender::is_closed)
    }

    /// Sends the answer; only the first counts.
    pub(crate) fn send(&mut self, answer: Answer<T>) {
        if let Some(sender) = self.0.take() {
            // A caller that has gone wants no answer.
            drop(sender.send(answer));
        }
    }
}
