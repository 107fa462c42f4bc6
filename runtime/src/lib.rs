//! The engine of `multiway`: requests in, token streams out.
//!
//! A [`Request`] is a rendered prompt, its pictures, and how to answer. An [`Engine`] owns the model and answers many
//! requests at a time; each answer is a [`TokenStream`].
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
//! | `tokenizer` | text to ids and back: `tokenizer.json`, SentencePiece models, conversion between them |
//! | `request`, `sampling_params` | what a caller asks for, and within which bounds |
//! | `scheduler` | who runs: a plain data structure |
//! | `engine` | the thread that owns the model, and the handle to it |
//! | `sampling`, `truncation` | the next token, and which tokens it is drawn from |
//! | `constraint` | which form an answer must have: choices, a regular expression, a JSON schema, a grammar |
//! | `top_k` | the highest logits, as log-probabilities |
//! | `logits`, `stop` | what is made likelier, less likely or impossible; where an answer ends |
//! | `generation`, `eos` | how a checkpoint wants answers written; which tokens end them |
//! | `beam`, `beam_slots` | several continuations at a time |
//! | `answer`, `stream` | what comes back: whole, or as it is written |
//! | `blocking` | how code that is not asynchronous waits for it |
//! | `handover`, `sync` | how it gets from the engine's thread to the caller |
//! | [`measure`] | how fast a model encodes and decodes |
//! | [`testing`] | constrained answers without an engine |
//!
//! # Watching an engine
//!
//! [`Engine::stats`] tells what an engine does and has done. The same and more goes through the facade `metrics` (0.24) to the
//! recorder that is installed when the engine is built, such as an exporter for Prometheus; without one nothing is
//! recorded. Numbers of several replicas and engines add up; to tell engines apart, build each under a recorder that adds a
//! label ([`metrics::with_local_recorder`]).
//!
//! | metric | kind | unit | what it tells |
//! |---|---|---|---|
//! | `multiway_requests_submitted_total` | counter | count | calls, each of which ends in exactly one of the next five |
//! | `multiway_requests_refused_total` | counter | count | calls that were not taken: wrong, too large, no place in the queue, or the engine stopped |
//! | `multiway_requests_finished_total` | counter | count | requests that were answered |
//! | `multiway_requests_cancelled_total` | counter | count | requests whose caller went away, waiting for a place in the queue included |
//! | `multiway_requests_expired_total` | counter | count | requests whose time ran out |
//! | `multiway_requests_failed_total` | counter | count | requests that ended in another error |
//! | `multiway_prompt_tokens_total` | counter | count | text tokens of the prompts that were admitted |
//! | `multiway_image_patches_total` | counter | count | image patches of the prompts that were admitted |
//! | `multiway_new_tokens_total` | counter | count | tokens that the model wrote |
//! | `multiway_reuse_hits_total` | counter | count | prompts (label `of="prompt"`), or the pictures of other prompts (`of="pictures"`), that were not encoded because the same had been |
//! | `multiway_reuse_misses_total` | counter | count | those that were looked for and not found, with the same labels |
//! | `multiway_requests_queued` | gauge | count | requests that wait to be admitted |
//! | `multiway_requests_running` | gauge | count | requests that are being answered |
//! | `multiway_rows_running` | gauge | count | rows of the decoder that running requests have reserved |
//! | `multiway_cross_attention_tokens_reserved` | gauge | count | encoder rows that they have reserved memory for |
//! | `multiway_self_attention_tokens_reserved` | gauge | count | tokens to be written that they have reserved memory for |
//! | `multiway_memory_bytes` | gauge | bytes | what they have reserved of the memory budget |
//! | `multiway_memory_budget_bytes` | gauge | bytes | the most that they can reserve |
//! | `multiway_reuse_bytes` | gauge | bytes | what is kept of encoded prompts and pictures |
//! | `multiway_queue_seconds` | histogram | seconds | from a call until its request is admitted, its own preparation not counted |
//! | `multiway_time_to_first_token_seconds` | histogram | seconds | from a call until its first new token |
//! | `multiway_time_between_tokens_seconds` | histogram | seconds | between two steps of a request that wrote tokens |
//! | `multiway_encode_seconds` | histogram | seconds | encoding prompts that were admitted together |
//! | `multiway_decode_step_seconds` | histogram | seconds | advancing the running rows by one token |
//! | `multiway_decode_step_rows` | histogram | count | rows of one decoding step |
//!
//! For `tracing` there is a span `request` for each call, below the span of its caller, with `id`, `prompt_tokens`,
//! `image_patches`, `max_new_tokens` and `priority`, and a span `step` for each turn of the engine's thread, with the requests
//! whose prompts are being `encoded` and the decoder's `rows`; both at the level `debug`. How long the parts of one request took, its caller learns
//! from [`Timings`].

mod answer;
mod beam;
mod beam_slots;
mod blocking;
mod constraint;
mod engine;
mod eos;
mod error;
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
pub use multiway_prompts::{EarlyStopping, SamplingOptions};
pub use request::Request;
pub use sampling_params::SamplingParams;
pub use stream::{StreamEvent, TokenStream};
pub use tokenizer::{DecodeStream, TokenId, Tokenizer, TokenizerError, sentencepiece_to_json};
