//! Commands of the handles to the engine's thread.

use tokio::sync::OwnedSemaphorePermit;

use super::job::Work;
use super::prepared::PreparedRequest;
use super::telemetry::Clock;
use crate::answer::Usage;
use crate::scheduler::Demand;

/// A command to the engine's thread. Submissions are bounded by the places in the queue, so the channel needs
/// no bound, and a shutdown never waits behind a full queue.
#[derive(Debug)]
pub(crate) enum Command {
    Submit(Box<Submission>),
    Shutdown(Shutdown),
}

/// How to shut an engine down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Finish every request that was accepted, then stop.
    Drain,
    /// Stop before the next step; unfinished requests end with
    /// [`RequestError::ShutDown`](crate::RequestError::ShutDown).
    Abort,
}

/// A request on its way into the engine.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) prepared: PreparedRequest,
    pub(crate) work: Work,
    pub(crate) demand: Demand,
    pub(crate) usage: Usage,
    /// The place in the queue, given back when the request is admitted.
    pub(crate) permit: OwnedSemaphorePermit,
    pub(crate) clock: Clock,
}
