//! The engine's state of one request.

use multiway_model::PromptMemory;
use tokio::sync::OwnedSemaphorePermit;

use super::decode::Decode;
use super::prepared::PreparedRequest;
use super::readout::{PromptToEncode, Readout, ReadoutValue};
use super::reply::Reply;
use super::telemetry::Clock;
use crate::answer::{Answered, Usage};
use crate::error::RequestError;

/// The kind of work that a request is.
#[derive(Debug)]
pub(crate) enum Work {
    /// Decodes from the prompt's cross-attention memory.
    Decode(Box<dyn Decode>),
    /// Reads the answer out of the encoder's output.
    Read(Readout, Reply<ReadoutValue>),
}

/// A request that the engine has accepted.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) prepared: PreparedRequest,
    pub(super) work: Work,
    pub(super) usage: Usage,
    pub(super) permit: Option<OwnedSemaphorePermit>,
    pub(super) clock: Clock,
    /// What decoding attends to, once the prompt is encoded.
    pub(super) memory: Option<PromptMemory>,
}

impl Job {
    pub(super) fn is_cancelled(&self) -> bool {
        match &self.work {
            Work::Decode(decode) => decode.is_cancelled(),
            Work::Read(_, reply) => reply.is_closed(),
        }
    }

    /// Starts the request in its reserved slots, and returns its place in the queue.
    pub(super) fn start(&mut self, slots: Vec<usize>) {
        self.permit = None;
        self.clock.admitted(self.usage);
        if let Work::Decode(decode) = &mut self.work {
            decode.start(slots);
        }
    }

    /// Moves the prompt out, to be encoded.
    pub(super) fn prompt(&mut self) -> PromptToEncode {
        PromptToEncode {
            images: std::mem::take(&mut self.prepared.images),
            pictures: self.prepared.pictures,
            tokens: self.prepared.tokens.clone(),
            readout: match &self.work {
                Work::Decode(_) => Readout::Memory,
                Work::Read(readout, _) => readout.clone(),
            },
        }
    }

    /// Returns the decoding and its memory, once the prompt is encoded.
    pub(super) fn decoding(&self) -> Option<(&dyn Decode, &PromptMemory)> {
        match &self.work {
            Work::Decode(decode) => Some((decode.as_ref(), self.memory.as_ref()?)),
            Work::Read(..) => None,
        }
    }

    /// Answers with the value of the readout.
    pub(super) fn answer(&mut self, value: ReadoutValue) {
        let (usage, timings) = (self.usage, self.clock.stop());
        if let Work::Read(_, reply) = &mut self.work {
            reply.send(Ok(Answered::new(value, usage, timings)));
        }
    }

    pub(super) fn fail(&mut self, error: RequestError) {
        match &mut self.work {
            Work::Decode(decode) => decode.fail(error),
            Work::Read(_, reply) => reply.send(Err(error)),
        }
    }
}
