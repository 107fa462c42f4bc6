//! One model, one runtime, any image-and-text task written as a prompt.
//!
//! This crate is the way in: it re-exports what an application needs of the member crates, and carries the default
//! checkpoint. Open a checkpoint, build an [`Engine`], take a [`Task`] from the [`TaskLibrary`], run it:
//!
//! ```
//! use multiway::{Engine, ImageProcessor, TaskEvent, TaskInputs, TaskLibrary};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let checkpoint = multiway::embedded_checkpoint()?;
//! let image = ImageProcessor::new(checkpoint.config()).open("examples/pictures/cat.png")?;
//! let engine = Engine::builder(&checkpoint).build()?;
//!
//! let library = TaskLibrary::builtin()?;
//! let mut run = library.get("caption")?.run(&engine, &TaskInputs::new().with_image(image))?;
//! while let Some(event) = run.next_blocking() {
//!     if let TaskEvent::Text(piece) = event? {
//!         print!("{piece}");
//!     }
//! }
//! println!();
//! # Ok(())
//! # }
//! ```
//!
//! A [`TaskRun`] is also a `Stream`. An engine is cheap to clone, answers many requests at a time, and gives each the
//! answer that it would give it alone.
//!
//! | to | use |
//! |---|---|
//! | open a model folder | [`Checkpoint::open`], [`embedded_checkpoint`] |
//! | prepare pictures | [`ImageProcessor`] |
//! | run tasks, and write tasks | [`TaskLibrary`], [`Task`], [`TaskFile`] |
//! | choose, embed, search | [`Answer`], [`PictureIndex`] |
//! | go below tasks | [`Engine`], [`Request`], [`Prompt`] |
//!
//! # Features
//!
//! - `hub` (default): fetches checkpoints from a hub, if asked for by name.
//! - `embedded-checkpoint` (default): carries the default checkpoint in the binary.
//! - `sentencepiece` (default): reads SentencePiece models; builds C++ with cmake.
//! - `cuda`, `flash-attn`: run on an NVIDIA GPU.

#[cfg(feature = "embedded-checkpoint")]
mod embedded;

#[cfg(feature = "embedded-checkpoint")]
pub use embedded::embedded_checkpoint;

pub use multiway_model::Conversion;
pub use multiway_model::checkpoint::{ConvertError, TensorEntry};
#[cfg(feature = "hub")]
pub use multiway_model::hub::{Download, Hub, HubError, HubName};
pub use multiway_model::{
    CacheType, Checkpoint, DType, Device, Execution, ImageError, ImageLimits, ImageProcessor, LoadError,
    LoadOptions, ModelConfig, ProcessedImage, WeightType,
};
pub use multiway_prompts::{
    InputKind, InputSpec, InputValue, Inputs, OutputSpec, PatchRange, Prompt, PromptError, PromptPart,
    TaskFile,
};
pub use multiway_runtime::{
    Alternative, ClassScore, CodeScore, Constraint, EarlyStopping, Engine, EngineBuilder, EngineError,
    EngineStats, FinishReason, Generation, Hypothesis, Request, RequestError, SamplingParams, Score,
    Shutdown, StreamEvent, Timings, TokenId, TokenStream, Tokenizer, TokenizerError, Usage, WordScore,
    sentencepiece_to_json,
};
pub use multiway_tasks::{
    Answer, Choice, ExampleReport, IndexError, PatchAnswer, PictureEntry, PictureIndex, PictureMatch,
    RequestTerms, SamplingOverrides, ScoredToken, Task, TaskError, TaskEvent, TaskInputs, TaskLibrary,
    TaskOutcome, TaskRun, TaskSample, VisualCode, WrittenToken, metrics,
};

/// Compiles the README's programs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the programs of the guide.
#[cfg(doctest)]
#[doc = include_str!("../docs/pipelines.md")]
struct Pipelines;
