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
//! | `request`, `bounds` | what a caller asks for, checked before it may wait |
//! | `scheduler` | who runs: a plain data structure |
//! | `engine` | the thread that owns the model, and the handle to it |
//! | `sampling`, `truncation` | the next token, and which tokens it is drawn from |
//! | `constraint` | which form an answer must have: choices, a regular expression, a JSON schema, a grammar |
//! | `logits`, `stop` | what is made likelier, less likely or impossible; where an answer ends |
//! | `generation` | how a checkpoint wants answers written |
//! | `beam` | several continuations at a time |
//! | `stream` | what comes back |
//! | `handover`, `sync` | how it gets from the engine's thread to the caller |
//! | [`testing`] | constrained answers without an engine |

mod beam;
mod bounds;
mod constraint;
mod engine;
mod error;
mod generation;
mod handover;
mod logits;
mod request;
mod sampling;
mod scheduler;
mod stop;
mod stream;
mod sync;
pub mod testing;
mod tokenizer;
mod truncation;

pub use constraint::Constraint;
pub use engine::{Engine, EngineBuilder, EngineStats, Shutdown};
pub use error::{EngineError, RequestError};
pub use request::{EarlyStopping, Request, SamplingParams};
pub use stream::{
    Alternative, ClassScore, CodeScore, FinishReason, Generation, Hypothesis, Score, StreamEvent, Timings,
    TokenStream, Usage, WordScore,
};
pub use tokenizer::{DecodeStream, TokenId, Tokenizer, TokenizerError, sentencepiece_to_json};
