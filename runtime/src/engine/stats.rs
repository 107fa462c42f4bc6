//! What an engine has done and is doing.

use super::limits::Limits;
use super::reuse::Reuse;
use crate::scheduler::Scheduler;
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
    /// Bytes that running requests have reserved of the memory budget, for keys and values of what they read and write.
    pub memory_bytes: usize,
    /// The most that were reserved at a time; of several replicas the sum of what each had.
    pub peak_memory_bytes: usize,
    /// Bytes that are kept of encoded prompts, so that the same need not be encoded again.
    pub reuse_bytes: usize,
    /// Prompts that were not encoded, because the same had been.
    pub reused_prompts: u64,
    /// Other prompts whose pictures were not encoded, because the same had been.
    pub reused_pictures: u64,
    /// Requests that were answered.
    pub finished: u64,
    /// Requests whose caller went away.
    pub cancelled: u64,
    /// Requests whose time ran out.
    pub expired: u64,
    /// Requests that ended in another error.
    pub failed: u64,
    /// Decoding steps.
    pub steps: u64,
    /// Rows of all decoding steps; divided by the steps it is the mean batch.
    pub rows: u64,
    /// Tokens written.
    pub tokens: u64,
}

impl EngineStats {
    /// Adds what another replica is doing and has done.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            waiting: self.waiting + other.waiting,
            running: self.running + other.running,
            free_slots: self.free_slots + other.free_slots,
            memory_bytes: self.memory_bytes + other.memory_bytes,
            peak_memory_bytes: self.peak_memory_bytes + other.peak_memory_bytes,
            reuse_bytes: self.reuse_bytes + other.reuse_bytes,
            reused_prompts: self.reused_prompts + other.reused_prompts,
            reused_pictures: self.reused_pictures + other.reused_pictures,
            finished: self.finished + other.finished,
            cancelled: self.cancelled + other.cancelled,
            expired: self.expired + other.expired,
            failed: self.failed + other.failed,
            steps: self.steps + other.steps,
            rows: self.rows + other.rows,
            tokens: self.tokens + other.tokens,
        }
    }
}

/// The engine thread writes, anybody reads.
#[derive(Debug)]
pub(crate) struct Counters {
    limits: Limits,
    waiting: AtomicUsize,
    running: AtomicUsize,
    free_slots: AtomicUsize,
    memory_bytes: AtomicUsize,
    peak_memory_bytes: AtomicUsize,
    reuse_bytes: AtomicUsize,
    reused_prompts: AtomicU64,
    reused_pictures: AtomicU64,
    /// Requests that were handed over and have not ended.
    unfinished: AtomicUsize,
    finished: AtomicU64,
    cancelled: AtomicU64,
    expired: AtomicU64,
    failed: AtomicU64,
    steps: AtomicU64,
    rows: AtomicU64,
    tokens: AtomicU64,
}

impl Counters {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            free_slots: AtomicUsize::new(limits.capacity.slots),
            memory_bytes: AtomicUsize::new(0),
            peak_memory_bytes: AtomicUsize::new(0),
            reuse_bytes: AtomicUsize::new(0),
            reused_prompts: AtomicU64::new(0),
            reused_pictures: AtomicU64::new(0),
            unfinished: AtomicUsize::new(0),
            finished: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
        }
    }

    pub(crate) fn set_load(&self, scheduler: &Scheduler, reuse: Reuse) {
        let (free, bytes) = (scheduler.free(), self.limits.bytes(&scheduler.reserved()));
        self.waiting.store(scheduler.waiting(), Relaxed);
        self.running.store(scheduler.running(), Relaxed);
        self.free_slots.store(free.slots, Relaxed);
        self.memory_bytes.store(bytes, Relaxed);
        self.peak_memory_bytes.fetch_max(bytes, Relaxed);
        self.reuse_bytes.store(reuse.bytes, Relaxed);
        self.reused_prompts.store(reuse.prompts, Relaxed);
        self.reused_pictures.store(reuse.pictures, Relaxed);
    }

    /// Counts requests that were handed over and have not ended.
    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished.load(Relaxed)
    }

    pub(crate) fn submitted(&self) {
        self.unfinished.fetch_add(1, Relaxed);
    }

    /// Takes back a submission that did not arrive.
    pub(crate) fn refused(&self) {
        self.unfinished.fetch_sub(1, Relaxed);
    }

    pub(crate) fn retired(&self) {
        self.unfinished.fetch_sub(1, Relaxed);
    }

    pub(crate) fn expired(&self) {
        self.expired.fetch_add(1, Relaxed);
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
            memory_bytes: self.memory_bytes.load(Relaxed),
            peak_memory_bytes: self.peak_memory_bytes.load(Relaxed),
            reuse_bytes: self.reuse_bytes.load(Relaxed),
            reused_prompts: self.reused_prompts.load(Relaxed),
            reused_pictures: self.reused_pictures.load(Relaxed),
            finished: self.finished.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            expired: self.expired.load(Relaxed),
            failed: self.failed.load(Relaxed),
            steps: self.steps.load(Relaxed),
            rows: self.rows.load(Relaxed),
            tokens: self.tokens.load(Relaxed),
        }
    }
}
