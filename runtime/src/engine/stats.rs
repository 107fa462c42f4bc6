//! What an engine has done and is doing.

use serde::Serialize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What an engine is doing, as of its last step, and what it has done since it was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EngineStats {
    /// Requests that wait for a place.
    pub waiting: usize,
    /// Requests that are being answered.
    pub running: usize,
    /// Cache slots that are free.
    pub free_slots: usize,
    /// Requests that were answered.
    pub finished: u64,
    /// Requests whose caller went away.
    pub cancelled: u64,
    /// Requests that ended in an error.
    pub failed: u64,
    /// Decoding steps.
    pub steps: u64,
    /// Rows of all decoding steps; divided by the steps it is the mean batch.
    pub rows: u64,
    /// Tokens written.
    pub tokens: u64,
}

/// The engine thread writes, anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    waiting: AtomicUsize,
    running: AtomicUsize,
    free_slots: AtomicUsize,
    finished: AtomicU64,
    cancelled: AtomicU64,
    failed: AtomicU64,
    steps: AtomicU64,
    rows: AtomicU64,
    tokens: AtomicU64,
}

impl Counters {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            free_slots: AtomicUsize::new(slots),
            ..Self::default()
        }
    }

    pub(crate) fn set_load(&self, waiting: usize, running: usize, free_slots: usize) {
        self.waiting.store(waiting, Relaxed);
        self.running.store(running, Relaxed);
        self.free_slots.store(free_slots, Relaxed);
    }

    pub(crate) fn finished(&self) {
        self.finished.fetch_add(1, Relaxed);
    }

    pub(crate) fn cancelled(&self) {
        self.cancelled.fetch_add(1, Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn step(&self, rows: usize) {
        self.steps.fetch_add(1, Relaxed);
        self.rows.fetch_add(rows as u64, Relaxed);
    }

    pub(crate) fn token(&self) {
        self.tokens.fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> EngineStats {
        EngineStats {
            waiting: self.waiting.load(Relaxed),
            running: self.running.load(Relaxed),
            free_slots: self.free_slots.load(Relaxed),
            finished: self.finished.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            failed: self.failed.load(Relaxed),
            steps: self.steps.load(Relaxed),
            rows: self.rows.load(Relaxed),
            tokens: self.tokens.load(Relaxed),
        }
    }
}
