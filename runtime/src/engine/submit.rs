//! From a checked request to the thread that answers it.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

use super::Engine;
use super::digest::digest;
use super::prepared::Prepared;
use super::reading::Reading;
use super::replica::Replica;
use super::search::{Search, SearchReply};
use super::sequence::Sequence;
use super::telemetry::Clock;
use super::worker::{Submission, Work};
use crate::error::RequestError;
use crate::request::Request;
use crate::scheduler::{Demand, Resources};
use crate::stream::{TokenStream, Usage};

/// A call that may enter the queue.
#[derive(Debug)]
pub(super) struct Place {
    permit: OwnedSemaphorePermit,
    clock: Clock,
}

impl Engine {
    /// Starts the clock of a call.
    pub(super) fn clock(&self, request: &Request) -> Clock {
        Clock::start(&self.shared.metrics, request)
    }

    /// Waits for a place in the queue.
    pub(super) async fn place(&self, mut clock: Clock) -> Result<Place, RequestError> {
        clock.wait();
        let permit = Arc::clone(&self.shared.places).acquire_owned().await;
        clock.stop_waiting();
        let permit = permit.map_err(|_closed| RequestError::ShutDown)?;
        Ok(Place { permit, clock })
    }

    /// Takes a place in the queue if there is one.
    pub(super) fn try_place(&self, clock: Clock) -> Result<Place, RequestError> {
        let permit = Arc::clone(&self.shared.places).try_acquire_owned();
        let permit = permit.map_err(|error| match error {
            TryAcquireError::NoPermits => RequestError::Overloaded {
                capacity: self.shared.queue_capacity,
            },
            TryAcquireError::Closed => RequestError::ShutDown,
        })?;
        Ok(Place { permit, clock })
    }

    /// Compiles the constraint of a request, if it has one, while the caller's thread waits.
    pub(super) fn compile(&self, prepared: &mut Prepared, place: &mut Place) -> Result<(), RequestError> {
        let constraints = &self.shared.constraints;
        let compile = || constraints.compile(&prepared.sampling);
        prepared.constraint = place.clock.prepare(compile)?;
        Ok(())
    }

    /// Compiles the constraint of a request, if it has one, on a thread beside the caller's.
    pub(super) async fn compile_beside(
        &self,
        prepared: &mut Prepared,
        place: &mut Place,
    ) -> Result<(), RequestError> {
        let since = Instant::now();
        // Who leaves now has cancelled, and was not refused.
        place.clock.wait();
        let compiled = self.shared.constraints.compile_beside(&prepared.sampling).await;
        place.clock.stop_waiting();
        place.clock.prepared(since.elapsed());
        prepared.constraint = compiled?;
        Ok(())
    }

    pub(super) fn start_generation(
        &self,
        prepared: Prepared,
        place: Place,
    ) -> Result<TokenStream, RequestError> {
        let drawn = prepared.sampling.drawn();
        if drawn > 1 {
            return Err(RequestError::OneStream { samples: drawn });
        }
        let (events, stream) = TokenStream::open();
        let beams = prepared.sampling.beams;
        if beams > 1 {
            self.check_beams(beams)?;
            let reply = SearchReply::Stream(Some(events));
            self.submit_search(prepared, reply, place)?;
            return Ok(stream);
        }
        let sequence = Sequence::new(&prepared, self.tokenizer(), &self.shared.generation.ends, events);
        self.submit(prepared, Work::Generate(Box::new(sequence)), 1, place)?;
        Ok(stream)
    }

    pub(super) fn submit_search(
        &self,
        prepared: Prepared,
        reply: SearchReply,
        place: Place,
    ) -> Result<(), RequestError> {
        let (ends, beams) = (&self.shared.generation.ends, prepared.sampling.beams);
        let search = Search::new(&prepared, self.tokenizer(), self.config(), ends, reply);
        self.submit(prepared, Work::Search(Box::new(search)), beams, place)
    }

    /// Submits what decodes `rows` rows a step.
    pub(super) fn submit(
        &self,
        prepared: Prepared,
        work: Work,
        rows: usize,
        place: Place,
    ) -> Result<(), RequestError> {
        // The decoder reads all that it starts with and all that it writes but the last token.
        let tokens = match &work {
            Work::Score(scoring) => scoring.longest(),
            _ => prepared.start.len() + prepared.sampling.max_new_tokens - 1,
        };
        let constraint = prepared.constraint.as_ref();
        let constraint_bytes = constraint.map_or(0, |compiled| rows * compiled.answer_bytes());
        let resources = Resources {
            slots: rows,
            // One request can always run.
            constraint_bytes: constraint_bytes.min(self.shared.limits.capacity.constraint_bytes),
            memory_tokens: prepared.encoder_rows(self.config()),
            self_tokens: rows * self.shared.limits.whole_blocks(tokens),
        };
        self.send(prepared, Reading::Memory, work, resources, place)
    }

    /// Submits what is answered by encoding alone, and keeps nothing.
    pub(super) fn submit_reading(
        &self,
        prepared: Prepared,
        reading: Reading,
        work: Work,
        place: Place,
    ) -> Result<(), RequestError> {
        self.send(prepared, reading, work, Resources::default(), place)
    }

    fn send(
        &self,
        prepared: Prepared,
        reading: Reading,
        work: Work,
        resources: Resources,
        place: Place,
    ) -> Result<(), RequestError> {
        self.shared.limits.check(&resources)?;
        let (mut prepared, Place { permit, mut clock }) = (prepared, place);
        prepared.pictures = clock.prepare(|| self.shared.reuses.then(|| digest(&prepared.images)));
        let config = self.config();
        let submission = Submission {
            usage: Usage {
                prompt_tokens: prepared.tokens.len(),
                image_patches: prepared.images.len() * config.patches(),
                new_tokens: 0,
            },
            demand: Demand {
                resources,
                encoder_rows: prepared.encoder_rows(config),
                priority: prepared.priority,
                // The thread that answers knows what its clock says.
                deadline: None,
            },
            prepared,
            reading,
            work,
            place: permit,
            clock,
        };
        self.replica()?.submit(submission)
    }

    /// Chooses the replica that has the least to do; the first of equals.
    fn replica(&self) -> Result<&Replica, RequestError> {
        let replicas = self.shared.replicas.iter();
        let alive = replicas.filter(|replica| replica.poison().is_none());
        let idlest = alive.min_by_key(|replica| replica.counters().unfinished());
        idlest.ok_or_else(|| {
            let mut causes = self.shared.replicas.iter().filter_map(|replica| replica.poison());
            let cause = causes.next().unwrap_or_default().to_owned();
            RequestError::Poisoned { cause }
        })
    }
}
