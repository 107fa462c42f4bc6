//! The engine of `multiway`: requests in, token streams out.
//!
//! A [`Request`] is a rendered prompt, its pictures, and how to answer. An [`Engine`] owns the model and
//! answers many requests at a time; each answer is a [`TokenStream`].
//!
//! ```no_run
//! use multiway_model::Checkpoint;
//! use multiway_prompts::Prompt;
//! use multiway_runtime::{Engine, Request};
//!
//! let checkpoint = Checkpoint::open("checkpoints/default")?;
//! let engine = Engine::builder(&checkpoint).build()?;
//! let answer = engine.generate_blocking(Request::new(Prompt::from_text("a cat is a"), Vec::new()))?;
//! println!("{} ({:?})", answer.text, answer.finish_reason);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `tokenizer` | text to token ids and back: `tokenizer.json`, SentencePiece models, conversion between
//! them |
//! | `request`, `sampling_params` | requests, and the bounds of their parameters |
//! | `scheduler` | admission: a plain data structure |
//! | `engine` | continuous batching: the thread that owns the model, and the handle to it |
//! | `sampling`, `truncation` | greedy choice and sampling; top-k, top-p, min-p and typical-p |
//! | `constraint` | constrained decoding: choices, regular expressions, JSON schemas, grammars |
//! | `top_k` | top-k logits as log-probabilities |
//! | `logits`, `stop` | logits processors: biases, penalties and bans; stop strings |
//! | `generation`, `eos` | a checkpoint's defaults and EOS tokens |
//! | `beam`, `beam_slots` | beam search, and the cache slots of its beams |
//! | `answer`, `stream` | answers: whole, and as token streams |
//! | `explanation` | what an answer looked at |
//! | `blocking` | blocking on futures |
//! | `handover`, `sync` | the channel from the engine's thread to a stream |
//! | [`measure`] | latency and throughput of a model without an engine |
//! | [`testing`] | a tiny engine; constrained decoding without an engine |
//!
//! # Watching an engine
//!
//! [`Engine::stats`] returns a snapshot of an engine's load and totals. The same and more goes through the
//! facade `metrics` (0.24) to the recorder that is installed when the engine is built, such as an exporter
//! for Prometheus; without one nothing is recorded. Values of several replicas and engines add up; to tell
//! engines apart, build each under a recorder that adds a label ([`metrics::with_local_recorder`]).
//!
//! | metric | kind | unit | meaning |
//! |---|---|---|---|
//! | `multiway_requests_submitted_total` | counter | count | calls, each of which ends in exactly one of the next five |
//! | `multiway_requests_refused_total` | counter | count | calls that were not accepted: invalid, too large,
//! the queue full, or the engine stopped |
//! | `multiway_requests_finished_total` | counter | count | requests that were answered |
//! | `multiway_requests_cancelled_total` | counter | count | requests that were cancelled, those waiting for
//! a place in the queue included |
//! | `multiway_requests_expired_total` | counter | count | requests that exceeded their deadline |
//! | `multiway_requests_failed_total` | counter | count | requests that failed otherwise |
//! | `multiway_prompt_tokens_total` | counter | count | text tokens of the prompts that were admitted |
//! | `multiway_image_patches_total` | counter | count | image patches of the prompts that were admitted |
//! | `multiway_new_tokens_total` | counter | count | tokens that were decoded |
//! | `multiway_reuse_hits_total` | counter | count | prompts (label `of="prompt"`), or pictures of other
//! prompts (`of="pictures"`), that were in the reuse cache |
//! | `multiway_reuse_misses_total` | counter | count | those that were not, with the same labels |
//! | `multiway_requests_queued` | gauge | count | queued requests |
//! | `multiway_requests_running` | gauge | count | running requests |
//! | `multiway_rows_running` | gauge | count | decoder rows that running requests have reserved |
//! | `multiway_cross_attention_tokens_reserved` | gauge | count | encoder rows that they have reserved keys
//! and values for |
//! | `multiway_self_attention_tokens_reserved` | gauge | count | decoder tokens that they have reserved keys
//! and values for |
//! | `multiway_memory_bytes` | gauge | bytes | the part of the memory budget that they have reserved |
//! | `multiway_memory_budget_bytes` | gauge | bytes | the memory budget |
//! | `multiway_reuse_bytes` | gauge | bytes | the size of the reuse cache |
//! | `multiway_queue_seconds` | histogram | seconds | from a call until its request is admitted, without its
//! preparation |
//! | `multiway_time_to_first_token_seconds` | histogram | seconds | from a call until its first new token |
//! | `multiway_time_between_tokens_seconds` | histogram | seconds | inter-token latency: between two steps of
//! a request that produced tokens |
//! | `multiway_encode_seconds` | histogram | seconds | encoding a batch of prompts |
//! | `multiway_decode_step_seconds` | histogram | seconds | one decoding step |
//! | `multiway_decode_step_rows` | histogram | count | rows of one decoding step |
//!
//! For `tracing` there is a span `request` for each call, a child of its caller's span, with `id`,
//! `prompt_tokens`, `image_patches`, `max_new_tokens` and `priority`, and a span `step` for each turn of the
//! engine's loop, with the number of requests whose prompts are being `encoded` and of the decoder's `rows`;
//! both at the level `debug`. The latency of a request by stage is in its [`Timings`].

mod answer;
mod beam;
mod beam_slots;
mod blocking;
mod constraint;
mod engine;
mod eos;
mod error;
mod explanation;
mod generation;
mod handover;
mod layers;
mod logits;
pub mod measure;
mod request;
mod sampling;
mod sampling_params;
mod scheduler;
mod stop;
mod stream;
mod sync;
pub mod testing;
mod tokenizer;
mod top_k;
mod truncation;

pub use answer::{
    Alternative, Answered, ClassScore, CodeScore, FinishReason, Generation, Hypothesis, Score, Timings,
    Usage, WordScore,
};
pub use blocking::block_on;
pub use constraint::Constraint;
pub use engine::{Engine, EngineBuilder, EngineStats, Pending, Shutdown};
pub use error::{EngineError, RequestError};
pub use explanation::{AlignedWord, AttendedWord, ExplainedAnswer, Explanation, WordPatchAlignment};
pub use multiway_prompts::{EarlyStopping, SamplingOptions};
pub use request::Request;
pub use sampling_params::SamplingParams;
pub use stream::{StreamEvent, TokenStream};
pub use tokenizer::{DecodeStream, TokenId, TokenWord, Tokenizer, TokenizerError, sentencepiece_to_json};
