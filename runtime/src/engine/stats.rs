//! Counters of an engine's load and totals.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use metrics::{Counter, Gauge};
use serde::Serialize;

use super::limits::Limits;
use super::meters::Metrics;
use super::reuse::ReuseCounts;
use crate::scheduler::Scheduler;

/// A snapshot of an engine: its load as of the last step, and totals since it was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EngineStats {
    /// Queued requests.
    pub waiting: usize,
    /// Running requests.
    pub running: usize,
    /// Free cache slots.
    pub free_slots: usize,
    /// Bytes of the memory budget that running requests have reserved.
    pub memory_bytes: usize,
    /// The peak of `memory_bytes`; summed over the replicas' peaks.
    pub peak_memory_bytes: usize,
    /// Bytes of the reuse cache.
    pub reuse_bytes: usize,
    /// Prompts that were found in the reuse cache.
    pub reused_prompts: u64,
    /// Other prompts whose pictures were found in the reuse cache.
    pub reused_pictures: u64,
    /// Answered requests.
    pub finished: u64,
    /// Cancelled requests.
    pub cancelled: u64,
    /// Requests that exceeded their deadline.
    pub expired: u64,
    /// Requests that failed otherwise.
    pub failed: u64,
    /// Decoding steps.
    pub steps: u64,
    /// Rows of all decoding steps; divided by `steps` it is the mean batch size.
    pub rows: u64,
    /// New tokens.
    pub tokens: u64,
}

impl EngineStats {
    /// Adds the counts of another replica.
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

/// The counters of one replica: its thread writes them, handles read them.
#[derive(Debug)]
pub(crate) struct Counters {
    limits: Limits,
    metrics: Arc<Metrics>,
    waiting: AtomicUsize,
    running: AtomicUsize,
    free_slots: AtomicUsize,
    memory_tokens: AtomicUsize,
    self_tokens: AtomicUsize,
    memory_bytes: AtomicUsize,
    peak_memory_bytes: AtomicUsize,
    reuse_bytes: AtomicUsize,
    reused_prompts: AtomicU64,
    reused_pictures: AtomicU64,
    missed_prompts: AtomicU64,
    missed_pictures: AtomicU64,
    /// Submitted requests that have not ended.
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
    pub(crate) fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        let budget = limits.bytes(&limits.capacity);
        metrics.memory_budget_bytes.increment(budget as f64);
        Self {
            limits,
            metrics,
            waiting: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            free_slots: AtomicUsize::new(limits.capacity.slots),
            memory_tokens: AtomicUsize::new(0),
            self_tokens: AtomicUsize::new(0),
            memory_bytes: AtomicUsize::new(0),
            peak_memory_bytes: AtomicUsize::new(0),
            reuse_bytes: AtomicUsize::new(0),
            reused_prompts: AtomicU64::new(0),
            reused_pictures: AtomicU64::new(0),
            missed_prompts: AtomicU64::new(0),
            missed_pictures: AtomicU64::new(0),
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

    pub(crate) fn set_load(&self, scheduler: &Scheduler, reuse: ReuseCounts) {
        let metrics = &self.metrics;
        self.set_reserved(scheduler);
        set(&self.waiting, scheduler.waiting(), &metrics.queued);
        set(&self.running, scheduler.running(), &metrics.running);
        set(&self.reuse_bytes, reuse.bytes, &metrics.reuse_bytes);
        raise(&self.reused_prompts, reuse.prompts, &metrics.prompt_hits);
        raise(&self.reused_pictures, reuse.pictures, &metrics.picture_hits);
        raise(&self.missed_prompts, reuse.missed_prompts, &metrics.prompt_misses);
        raise(
            &self.missed_pictures,
            reuse.missed_pictures,
            &metrics.picture_misses,
        );
    }

    fn set_reserved(&self, scheduler: &Scheduler) {
        let (metrics, reserved) = (&self.metrics, scheduler.reserved());
        let (free, bytes) = (scheduler.free().slots, self.limits.bytes(&reserved));
        shift(&metrics.rows, free, self.free_slots.swap(free, Relaxed));
        set(
            &self.memory_tokens,
            reserved.memory_tokens,
            &metrics.cross_attention_tokens,
        );
        set(
            &self.self_tokens,
            reserved.self_tokens,
            &metrics.self_attention_tokens,
        );
        set(&self.memory_bytes, bytes, &metrics.memory_bytes);
        self.peak_memory_bytes.fetch_max(bytes, Relaxed);
    }

    /// Returns the number of submitted requests that have not ended: the replica's load.
    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished.load(Relaxed)
    }

    pub(crate) fn submitted(&self) {
        self.unfinished.fetch_add(1, Relaxed);
    }

    /// Reverts the count of a submission that the thread did not accept.
    pub(crate) fn refused(&self) {
        self.unfinished.fetch_sub(1, Relaxed);
    }

    pub(crate) fn retired(&self) {
        self.unfinished.fetch_sub(1, Relaxed);
    }

    pub(crate) fn expired(&self) {
        self.expired.fetch_add(1, Relaxed);
        self.metrics.expired.increment(1);
    }

    pub(crate) fn finished(&self) {
        self.finished.fetch_add(1, Relaxed);
        self.metrics.finished.increment(1);
    }

    pub(crate) fn cancelled(&self) {
        self.cancelled.fetch_add(1, Relaxed);
        self.metrics.cancelled.increment(1);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
        self.metrics.failed.increment(1);
    }

    /// Counts a decoding step of some rows.
    pub(crate) fn step(&self, rows: usize) {
        self.steps.fetch_add(1, Relaxed);
        self.rows.fetch_add(rows as u64, Relaxed);
        self.metrics.decode_step_rows.record(rows as f64);
    }

    /// Records the time of a decoding step.
    pub(crate) fn stepped(&self, took: Duration) {
        self.metrics.decode_step_seconds.record(took);
    }

    /// Records the time of encoding a batch.
    pub(crate) fn encoded(&self, took: Duration) {
        self.metrics.encode_seconds.record(took);
    }

    pub(crate) fn tokens(&self, written: usize) {
        self.tokens.fetch_add(written as u64, Relaxed);
        self.metrics.new_tokens.increment(written as u64);
    }

    pub(crate) fn snapshot(&self) -> EngineStats {
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

impl Drop for Counters {
    /// Subtracts this replica's share from the gauges.
    fn drop(&mut self) {
        let metrics = &self.metrics;
        let budget = self.limits.bytes(&self.limits.capacity);
        metrics.memory_budget_bytes.decrement(budget as f64);
        let free = self.free_slots.load(Relaxed);
        shift(&metrics.rows, self.limits.capacity.slots, free);
        set(&self.waiting, 0, &metrics.queued);
        set(&self.running, 0, &metrics.running);
        set(&self.memory_tokens, 0, &metrics.cross_attention_tokens);
        set(&self.self_tokens, 0, &metrics.self_attention_tokens);
        set(&self.memory_bytes, 0, &metrics.memory_bytes);
        set(&self.reuse_bytes, 0, &metrics.reuse_bytes);
    }
}

/// Stores a value, and moves its gauge by the difference.
fn set(value: &AtomicUsize, new: usize, gauge: &Gauge) {
    shift(gauge, value.swap(new, Relaxed), new);
}

/// Stores a total, and adds the difference to its counter.
fn raise(count: &AtomicU64, new: u64, counter: &Counter) {
    counter.increment(new.saturating_sub(count.swap(new, Relaxed)));
}

fn shift(gauge: &Gauge, from: usize, to: usize) {
    if to != from {
        gauge.increment(to as f64 - from as f64);
    }
}
