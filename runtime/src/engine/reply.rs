//! Answering callers that wait for a whole answer.

use tokio::sync::oneshot;

use crate::answer::Answered;
use crate::error::RequestError;

/// Whoever waits for an answer that comes at once; none once it has come.
pub(crate) type Reply<T> = Option<oneshot::Sender<Result<Answered<T>, RequestError>>>;

pub(super) fn is_gone<T>(reply: &Reply<T>) -> bool {
    reply.as_ref().is_none_or(oneshot::Sender::is_closed)
}

/// Answers; a caller that has gone wants no answer.
pub(super) fn answer<T>(reply: &mut Reply<T>, result: Result<Answered<T>, RequestError>) {
    drop(reply.take().map(|reply| reply.send(result)));
}
