//! A call of a handle, from its request to the thread that answers it.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

use super::command::Submission;
use super::decode::Decode;
use super::digest::digest;
use super::job::Work;
use super::prepared::PreparedRequest;
use super::readout::{Readout, ReadoutValue};
use super::reply::Reply;
use super::shared::Shared;
use super::telemetry::Clock;
use crate::answer::{Answered, Usage};
use crate::error::RequestError;
use crate::request::Request;
use crate::scheduler::{Demand, Resources};

/// A call whose request was checked and tokenized.
pub(super) struct Call<'e> {
    shared: &'e Shared,
    clock: Clock,
    pub(super) prepared: PreparedRequest,
}

/// A call that has a place in the queue.
pub(super) struct QueuedCall<'e> {
    call: Call<'e>,
    permit: OwnedSemaphorePermit,
}

/// The decoder rows that a call occupies.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecoderRows {
    pub(super) count: usize,
    /// The most tokens that each row decodes.
    pub(super) tokens: usize,
}

impl<'e> Call<'e> {
    /// Starts the clock, checks what the call `needs` of the model, and prepares the request.
    pub(super) fn start<T>(
        shared: &'e Shared,
        request: Request,
        needs: impl FnOnce() -> Result<T, RequestError>,
    ) -> Result<(Self, T), RequestError> {
        let mut clock = Clock::start(&shared.metrics, &request);
        let needed = needs()?;
        let start = shared.generation.decoder_start;
        let prepare = || PreparedRequest::new(request, &shared.tokenizer, &shared.config, start);
        let prepared = clock.prepare(prepare)?;
        let call = Self {
            shared,
            clock,
            prepared,
        };
        Ok((call, needed))
    }

    /// Runs and times a part of the preparation.
    pub(super) fn prepare<T>(&mut self, part: impl FnOnce(&mut PreparedRequest) -> T) -> T {
        self.clock.prepare(|| part(&mut self.prepared))
    }

    /// Answers at once, without the engine's thread.
    pub(super) fn answer<T>(self, value: T) -> Answered<T> {
        let usage = self.usage();
        Answered::new(value, usage, self.clock.answered())
    }

    /// Waits for a place in the queue.
    pub(super) async fn queue(mut self) -> Result<QueuedCall<'e>, RequestError> {
        self.clock.wait();
        let permit = Arc::clone(&self.shared.places).acquire_owned().await;
        self.clock.stop_waiting();
        let permit = permit.map_err(|_closed| RequestError::ShutDown)?;
        Ok(QueuedCall { call: self, permit })
    }

    /// Takes a place in the queue, or fails if it is full.
    pub(super) fn try_queue(self) -> Result<QueuedCall<'e>, RequestError> {
        let permit = Arc::clone(&self.shared.places).try_acquire_owned();
        let permit = permit.map_err(|error| match error {
            TryAcquireError::NoPermits => RequestError::Overloaded {
                capacity: self.shared.queue_capacity,
            },
            TryAcquireError::Closed => RequestError::ShutDown,
        })?;
        Ok(QueuedCall { call: self, permit })
    }

    /// Submits a request that decodes, and waits for its answer.
    pub(super) async fn decode<T, D: Decode + 'static>(
        self,
        rows: DecoderRows,
        decode: impl FnOnce(&PreparedRequest, Reply<T>) -> D,
    ) -> Result<Answered<T>, RequestError> {
        let queued = self.queue().await?;
        let (reply, answer) = Reply::channel();
        let decode = decode(&queued.call.prepared, reply);
        queued.submit_decoding(decode, rows)?;
        answer.await.unwrap_or(Err(RequestError::ShutDown))
    }

    /// Submits a readout of the encoder's output, and waits for its value.
    pub(super) async fn read_out<T>(
        self,
        readout: Readout,
        value: impl FnOnce(ReadoutValue) -> Result<T, RequestError>,
    ) -> Result<Answered<T>, RequestError> {
        let queued = self.queue().await?;
        let (reply, answer) = Reply::channel();
        queued.submit(Work::Read(readout, reply), Resources::default())?;
        let answered = answer.await.unwrap_or(Err(RequestError::ShutDown))?;
        Ok(Answered::new(
            value(answered.value)?,
            answered.usage,
            answered.timings,
        ))
    }

    /// Counts the encoder's input.
    fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prepared.tokens.len(),
            image_patches: self.prepared.images.len() * self.shared.config.patches(),
            new_tokens: 0,
        }
    }
}

impl QueuedCall<'_> {
    pub(super) fn prepared(&self) -> &PreparedRequest {
        &self.call.prepared
    }

    /// Compiles the answer's constraint, if any, and blocks the caller's thread meanwhile.
    pub(super) fn compile(&mut self) -> Result<(), RequestError> {
        let Call {
            shared,
            clock,
            prepared,
        } = &mut self.call;
        let compile = || shared.constraints.compile(&prepared.sampling);
        prepared.constraint = clock.prepare(compile)?;
        Ok(())
    }

    /// Compiles the answer's constraint, if any, on another thread.
    pub(super) async fn compile_beside(&mut self) -> Result<(), RequestError> {
        let Call {
            shared,
            clock,
            prepared,
        } = &mut self.call;
        let since = Instant::now();
        // A caller that drops the future now has cancelled, and was not refused.
        clock.wait();
        let compiled = shared.constraints.compile_beside(&prepared.sampling).await;
        clock.stop_waiting();
        clock.prepared(since.elapsed());
        prepared.constraint = compiled?;
        Ok(())
    }

    /// Submits a request that decodes.
    pub(super) fn submit_decoding(
        self,
        decode: impl Decode + 'static,
        rows: DecoderRows,
    ) -> Result<(), RequestError> {
        let Call { shared, prepared, .. } = &self.call;
        let constraint = prepared.constraint.as_ref();
        let constraint_bytes = constraint.map_or(0, |compiled| rows.count * compiled.answer_bytes());
        let resources = Resources {
            slots: rows.count,
            // A request whose constraint alone exceeds the capacity can still run, by itself.
            constraint_bytes: constraint_bytes.min(shared.limits.capacity.constraint_bytes),
            memory_tokens: prepared.encoder_rows(&shared.config),
            self_tokens: rows.count * shared.limits.whole_blocks(rows.tokens),
        };
        self.submit(Work::Decode(Box::new(decode)), resources)
    }

    /// Submits to the least loaded replica.
    fn submit(self, work: Work, resources: Resources) -> Result<(), RequestError> {
        let Self { mut call, permit } = self;
        let shared = call.shared;
        shared.limits.check(&resources)?;
        call.prepare(|prepared| {
            prepared.pictures = shared.reuses.then(|| digest(&prepared.images));
        });
        let submission = Submission {
            usage: call.usage(),
            demand: Demand {
                resources,
                encoder_rows: call.prepared.encoder_rows(&shared.config),
                priority: call.prepared.priority,
                // Set by the engine's thread, whose clock it is on.
                deadline: None,
            },
            prepared: call.prepared,
            work,
            permit,
            clock: call.clock,
        };
        shared.replica()?.submit(submission)
    }
}
