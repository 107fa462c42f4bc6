//! The engine's metrics, through the `metrics` facade.
//!
//! Handles are registered once, when an engine is built, with the recorder that is installed then; without
//! one they are no-ops. Gauges are moved by differences, so those of several replicas and engines add up. The
//! crate's docs list all names.

use metrics::{Counter, Gauge, Histogram, Unit};

const HITS: (&str, &str) = (
    "multiway_reuse_hits_total",
    "Prompts, or their pictures, that were not encoded because the same had been",
);
const MISSES: (&str, &str) = (
    "multiway_reuse_misses_total",
    "Prompts, or their pictures, that could have been kept from before, and were not",
);

/// Handles to all metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(super) submitted: Counter,
    pub(super) refused: Counter,
    pub(super) finished: Counter,
    pub(super) cancelled: Counter,
    pub(super) expired: Counter,
    pub(super) failed: Counter,
    pub(super) prompt_tokens: Counter,
    pub(super) image_patches: Counter,
    pub(super) new_tokens: Counter,
    pub(super) prompt_hits: Counter,
    pub(super) prompt_misses: Counter,
    pub(super) picture_hits: Counter,
    pub(super) picture_misses: Counter,
    pub(super) queued: Gauge,
    pub(super) running: Gauge,
    pub(super) rows: Gauge,
    pub(super) cross_attention_tokens: Gauge,
    pub(super) self_attention_tokens: Gauge,
    pub(super) memory_bytes: Gauge,
    pub(super) memory_budget_bytes: Gauge,
    pub(super) reuse_bytes: Gauge,
    pub(super) queue_seconds: Histogram,
    pub(super) first_token_seconds: Histogram,
    pub(super) between_tokens_seconds: Histogram,
    pub(super) encode_seconds: Histogram,
    pub(super) decode_step_seconds: Histogram,
    pub(super) decode_step_rows: Histogram,
}

impl Metrics {
    /// Describes and registers everything with the recorder of this thread, or else with that of the process.
    pub(super) fn register() -> Self {
        Self {
            submitted: count(
                "multiway_requests_submitted_total",
                "Calls, whatever became of them",
            ),
            refused: count(
                "multiway_requests_refused_total",
                "Calls that were not taken: wrong, too large, no place in the queue, or the engine stopped",
            ),
            finished: count("multiway_requests_finished_total", "Requests that were answered"),
            cancelled: count(
                "multiway_requests_cancelled_total",
                "Requests whose caller went away",
            ),
            expired: count("multiway_requests_expired_total", "Requests whose time ran out"),
            failed: count(
                "multiway_requests_failed_total",
                "Requests that ended in another error",
            ),
            prompt_tokens: count(
                "multiway_prompt_tokens_total",
                "Text tokens of the prompts that were admitted",
            ),
            image_patches: count(
                "multiway_image_patches_total",
                "Image patches of the prompts that were admitted",
            ),
            new_tokens: count("multiway_new_tokens_total", "Tokens that the model wrote"),
            prompt_hits: lookups(HITS, "prompt"),
            prompt_misses: lookups(MISSES, "prompt"),
            picture_hits: lookups(HITS, "pictures"),
            picture_misses: lookups(MISSES, "pictures"),
            queued: level("multiway_requests_queued", "Requests that wait to be admitted"),
            running: level("multiway_requests_running", "Requests that are being answered"),
            rows: level(
                "multiway_rows_running",
                "Rows of the decoder that running requests have reserved",
            ),
            cross_attention_tokens: level(
                "multiway_cross_attention_tokens_reserved",
                "Encoder rows that running requests have reserved memory for",
            ),
            self_attention_tokens: level(
                "multiway_self_attention_tokens_reserved",
                "Tokens to be written that running requests have reserved memory for",
            ),
            memory_bytes: bytes(
                "multiway_memory_bytes",
                "Bytes that running requests have reserved",
            ),
            memory_budget_bytes: bytes(
                "multiway_memory_budget_bytes",
                "The most bytes that running requests can reserve",
            ),
            reuse_bytes: bytes(
                "multiway_reuse_bytes",
                "Bytes that are kept of encoded prompts and pictures",
            ),
            queue_seconds: seconds(
                "multiway_queue_seconds",
                "From a call until its request is admitted, its own preparation not counted",
            ),
            first_token_seconds: seconds(
                "multiway_time_to_first_token_seconds",
                "From a call until its first new token",
            ),
            between_tokens_seconds: seconds(
                "multiway_time_between_tokens_seconds",
                "Between two steps of a request that wrote tokens",
            ),
            encode_seconds: seconds(
                "multiway_encode_seconds",
                "Encoding prompts that were admitted together",
            ),
            decode_step_seconds: seconds(
                "multiway_decode_step_seconds",
                "Advancing the running rows by one token, drawing it not counted",
            ),
            decode_step_rows: sizes("multiway_decode_step_rows", "Rows of one decoding step"),
        }
    }
}

fn count(name: &'static str, about: &'static str) -> Counter {
    metrics::describe_counter!(name, Unit::Count, about);
    metrics::counter!(name)
}

/// Counters of the reuse cache, by what was looked up.
fn lookups((name, about): (&'static str, &'static str), of: &'static str) -> Counter {
    metrics::describe_counter!(name, Unit::Count, about);
    metrics::counter!(name, "of" => of)
}

fn level(name: &'static str, about: &'static str) -> Gauge {
    metrics::describe_gauge!(name, Unit::Count, about);
    metrics::gauge!(name)
}

fn bytes(name: &'static str, about: &'static str) -> Gauge {
    metrics::describe_gauge!(name, Unit::Bytes, about);
    metrics::gauge!(name)
}

fn seconds(name: &'static str, about: &'static str) -> Histogram {
    metrics::describe_histogram!(name, Unit::Seconds, about);
    metrics::histogram!(name)
}

fn sizes(name: &'static str, about: &'static str) -> Histogram {
    metrics::describe_histogram!(name, Unit::Count, about);
    metrics::histogram!(name)
}
