//! Timestamps of requests, for their timings, spans and metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Span;
use tracing::dispatcher::{self, Dispatch};
use tracing::field::Empty;
use tracing::span::EnteredSpan;
use tracing::subscriber::NoSubscriber;

use super::meters::Metrics;
use crate::answer::{Timings, Usage};
use crate::request::Request;

/// Times one request from the call to its end.
///
/// It also counts a call as refused or cancelled if it ends before the engine's thread has accepted it; later
/// outcomes are counted by [`Counters`](super::stats::Counters).
#[derive(Debug)]
pub(crate) struct Clock {
    metrics: Arc<Metrics>,
    span: Span,
    stage: Stage,
    called: Instant,
    /// When the last token was chosen.
    token: Option<Instant>,
    /// When sampling of the current step began.
    selecting: Option<Instant>,
    timings: Timings,
}

/// The stage of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is being checked, prepared and submitted.
    Preparing,
    /// It waits for a place in the queue.
    Waiting,
    /// The engine's thread has it.
    Taken,
}

impl Clock {
    /// Starts with the call; the request's span is a child of the caller's.
    pub(super) fn start(metrics: &Arc<Metrics>, request: &Request) -> Self {
        metrics.submitted.increment(1);
        let span = tracing::debug_span!(
            "request",
            id = Empty,
            prompt_tokens = Empty,
            image_patches = Empty,
            max_new_tokens = request.sampling.max_new_tokens,
            priority = request.priority,
        );
        Self {
            metrics: Arc::clone(metrics),
            span,
            stage: Stage::Preparing,
            called: Instant::now(),
            token: None,
            selecting: None,
            timings: Timings::default(),
        }
    }

    /// Enters the request's span.
    pub(super) fn enter(&self) -> EnteredSpan {
        self.span.clone().entered()
    }

    /// Runs and times a part of the preparation.
    pub(super) fn prepare<T>(&mut self, part: impl FnOnce() -> T) -> T {
        let _request = self.enter();
        let since = Instant::now();
        let made = part();
        self.timings.prepare += since.elapsed();
        made
    }

    /// Adds preparation that was done on another thread.
    pub(super) fn prepared(&mut self, took: Duration) {
        self.timings.prepare += took;
    }

    /// Marks that the call waits: for a place in the queue, or for its constraint.
    pub(super) fn wait(&mut self) {
        self.stage = Stage::Waiting;
    }

    /// Marks that the wait is over.
    pub(super) fn stop_waiting(&mut self) {
        self.stage = Stage::Preparing;
    }

    /// Counts a request that is answered without the engine's thread, and returns its timings.
    pub(super) fn answered(mut self) -> Timings {
        self.stage = Stage::Taken;
        self.metrics.finished.increment(1);
        self.stop()
    }

    /// Marks that the engine's thread has accepted the request, under this id.
    pub(super) fn taken(&mut self, id: Option<u64>, usage: Usage) {
        self.stage = Stage::Taken;
        self.span.record("id", id);
        self.span.record("prompt_tokens", usage.prompt_tokens);
        self.span.record("image_patches", usage.image_patches);
    }

    /// Returns the deadline of the request, on a clock that started at `epoch`.
    pub(super) fn deadline(&self, epoch: Instant, timeout: Duration) -> Duration {
        self.called
            .saturating_duration_since(epoch)
            .saturating_add(timeout)
    }

    pub(super) fn admitted(&mut self, usage: Usage) {
        let queued = self.called.elapsed().saturating_sub(self.timings.prepare);
        self.timings.queued = queued;
        self.metrics.queue_seconds.record(queued);
        self.metrics.prompt_tokens.increment(usage.prompt_tokens as u64);
        self.metrics.image_patches.increment(usage.image_patches as u64);
    }

    /// Records how long encoding the prompt's batch took.
    pub(super) fn encoded(&mut self, busy: Duration) {
        self.timings.encode = busy;
    }

    /// Records a decoding step, and that sampling begins.
    pub(super) fn stepped(&mut self, took: Duration) {
        self.timings.steps += 1;
        self.timings.decode += took;
        self.selecting = Some(Instant::now());
    }

    /// Records that sampling has ended.
    pub(super) fn selected(&mut self) {
        if let Some(since) = self.selecting.take() {
            self.timings.select += since.elapsed();
        }
    }

    /// Records that a step produced tokens.
    pub(super) fn token(&mut self) {
        self.selected();
        let now = Instant::now();
        match self.token.replace(now) {
            Some(before) => self.metrics.between_tokens_seconds.record(now - before),
            None => {
                self.timings.first_token = now - self.called;
                self.metrics.first_token_seconds.record(self.timings.first_token);
                tracing::debug!(parent: &self.span, "first token");
            }
        }
    }

    /// Returns the timings until now.
    pub(super) fn stop(&mut self) -> Timings {
        self.selected();
        Timings {
            total: self.called.elapsed(),
            ..self.timings
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        match self.stage {
            Stage::Preparing => self.metrics.refused.increment(1),
            Stage::Waiting => self.metrics.cancelled.increment(1),
            Stage::Taken => {}
        }
    }
}

/// Makes the engine's thread use this thread's `tracing` subscriber, if it has one of its own.
pub(super) fn traced(work: impl FnOnce() + Send) -> impl FnOnce() + Send {
    let dispatch = dispatcher::get_default(Dispatch::clone);
    move || {
        // Without one, a global subscriber that is installed later is used.
        if dispatch.is::<NoSubscriber>() {
            work();
        } else {
            dispatcher::with_default(&dispatch, work);
        }
    }
}

/// Opens the span of one turn of the engine's loop. Its fields are recorded once they are known.
pub(super) fn step_span() -> EnteredSpan {
    tracing::debug_span!("step", encoded = Empty, rows = Empty).entered()
}
