//! One model, one runtime, any image-and-text task written as a prompt.
//!
//! This crate is the way in: it re-exports what an application needs of the member crates. Open a checkpoint,
//! build an [`Engine`], take a [`Task`] from the [`TaskLibrary`], run it:
//!
//! ```
//! use multiway::{Checkpoint, Engine, ImageProcessor, TaskEvent, TaskInputs, TaskLibrary};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let checkpoint = Checkpoint::open("checkpoints/default")?;
//! let image = ImageProcessor::new(checkpoint.config()).open("examples/pictures/cat.png")?;
//! let engine = Engine::builder(&checkpoint).build()?;
//!
//! let library = TaskLibrary::for_model(checkpoint.config())?;
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
//! A [`TaskRun`](task::TaskRun) is also a `Stream`. An engine is cheap to clone, answers many requests at a
//! time, and gives each the answer that it would give it alone.
//!
//! The names that most programs need are at the root; the rest is by subject:
//!
//! | to | use |
//! |---|---|
//! | open a model folder, or convert it | [`Checkpoint::open`], [`checkpoint`] |
//! | fetch a model by name (feature `hub`) | `hub` |
//! | prepare pictures | [`ImageProcessor`], [`image`] |
//! | run tasks, read their answers, score them | [`TaskLibrary`], [`Task`], [`task`] |
//! | write task files and prompts | [`prompt`] |
//! | find pictures by text, by picture, or by both | [`index`] |
//! | generate, score, embed and classify below tasks | [`Engine`], [`engine`] |
//! | tokenize | [`tokenizer`] |
//! | read data sets, run or evaluate a task on them (feature `data`) | `data`, `jobs` |
//!
//! # Features
//!
//! None is on by default, and Rust alone builds the library.
//!
//! - `hub`: fetches checkpoints from a hub, if asked for by name.
//! - `embedded-checkpoint`: carries the default checkpoint in the program, as `embedded_checkpoint`.
//! - `jpeg`: reads JPEG pictures, with the pixels of libjpeg; builds C.
//! - `sentencepiece`: reads SentencePiece models; builds C++ with cmake.
//! - `onig`: runs the regular expressions of tokenizer files on Oniguruma, as `tokenizers` does in Python,
//!   rather than on `fancy-regex`; builds C.
//! - `cuda`, `flash-attn`: run on an NVIDIA GPU.
//! - `data`: reads data sets, and runs tasks on them.
//! - `measure`: what `multiway bench` measures with.

#[cfg(feature = "embedded-checkpoint")]
mod embedded;

#[cfg(feature = "embedded-checkpoint")]
pub use embedded::embedded_checkpoint;

pub use multiway_model::{Checkpoint, ImageProcessor};
pub use multiway_runtime::{Engine, Request, SamplingParams};
pub use multiway_tasks::{Answer, Task, TaskEvent, TaskInputs, TaskLibrary};

/// Checkpoints: what a model is, the types that its numbers are kept in, and conversion.
pub mod checkpoint {
    pub use multiway_model::checkpoint::{
        Adapter, AdapterConfig, AdapterError, ConvertError, TensorEntry, write_atomically,
    };
    pub use multiway_model::{
        CacheType, Checkpoint, Conversion, DType, Device, Execution, LoadError, LoadOptions, ModelConfig,
        TaskGroup, WeightType,
    };
}

/// The engine: requests in, streams of tokens, scores and vectors out.
pub mod engine {
    pub use multiway_runtime::{
        AlignedWord, Alternative, Answered, AttendedWord, ClassScore, CodeScore, Constraint, EarlyStopping,
        Engine, EngineBuilder, EngineError, EngineStats, ExplainedAnswer, Explanation, FinishReason,
        Generation, Hypothesis, Pending, Request, RequestError, SamplingOptions, SamplingParams, Score,
        Shutdown, StreamEvent, Timings, TokenStream, Usage, WordPatchAlignment, WordScore, block_on,
    };
}

/// Checkpoints by name, from a hub or from the cache that other tools share.
#[cfg(feature = "hub")]
pub mod hub {
    pub use multiway_model::hub::{Download, Hub, HubError, HubName};
}

/// Pictures: bytes in, normalised pixels out.
pub mod image {
    pub use multiway_model::{ImageError, ImageLimits, ImageProcessor, ProcessedImage, Rgb8Picture};
}

/// Indexes of vectors in one file, searched by text, by picture, or by both.
pub mod index {
    pub use multiway_index::{
        BuildReport, ElementType, IndexBuilder, IndexEntry, IndexError, IndexMatch, IndexSpec, SearchOptions,
        VectorIndex, combine,
    };
}

/// What `multiway bench` measures with: batches without an engine, kernels, and what the machine can do.
#[cfg(feature = "measure")]
pub mod measure {
    pub use multiway_model::kernels::Pool;
    pub use multiway_model::measure::{KernelTiming, Machine, Prediction, StepWork, Workload, kernels};
    pub use multiway_model::{ForwardError, Model};
    pub use multiway_runtime::measure::*;
}

/// Task files and prompts: typed inputs, a sandboxed template, and the parts that it renders to.
pub mod prompt {
    pub use multiway_prompts::{
        BoxUnit, Calibration, CheckedInputs, ChoiceMethod, ChoiceSpec, Choices, Compared, DecodeSpec,
        Example, ExampleInput, FewShot, GroundingDialect, ImageFit, InputError, InputKind, InputSpec,
        InputValue, Inputs, LabelsSpec, LevelSpec, LocationDialect, LocationSpec, MAX_SHOTS, MetadataValue,
        Metric, Normalization, NumberLanguage, NumberSpec, OutputSpec, ParameterError, PatchRange,
        PredicateSpec, Preprocessing, Prompt, PromptError, PromptErrorKind, PromptPart, Ranking, Shot,
        SourceFile, SourceTask, TaskFile, TaskSource, task_file_schema, text_of_file,
    };
}

/// Data sets: JSONL, CSV, Parquet, WebDataset tars and folders of pictures, read in a stream.
#[cfg(feature = "data")]
pub mod data {
    pub use multiway_data::{
        Corrupt, Cursor, DataError, DataOptions, DataSource, Field, Picture, Record, Records, TableWriter,
    };
}

/// Jobs: a task on every record of a data set, answered or evaluated.
#[cfg(feature = "data")]
pub mod jobs {
    pub use multiway_jobs::{
        BatchReport, CalibrationReport, CurationOptions, CurationReport, Direction, Edges, EvaluationOptions,
        EvaluationReport, EvaluationSummary, Filter, Job, JobError, JobOptions, JobProgress, LabelledRecord,
        LabelledRecords, MetricReport, Reliability, RightBox, Row, UnusableRecord, Verdict,
    };
}

/// Tasks, their answers, and metrics over answers.
pub mod task {
    pub use multiway_tasks::{
        Answer, AnswerScale, Choice, ClosedAnswer, ClosedQuestion, Decision, DecisionError, ExampleReport,
        FileChange, FileReport, Import, ImportError, ImportNote, OutcomeReport, PatchAnswer, PictureError,
        PreparedTask, RequestTerms, ScoredToken, Task, TaskError, TaskEvent, TaskInputs, TaskLibrary,
        TaskOutcome, TaskRun, TaskSample, TaskShot, VisualCode, WatchedLibrary, WrittenToken, import_path,
        import_paths, import_text, metrics, parse,
    };
}

/// Tokenizers: text to token ids and back.
pub mod tokenizer {
    pub use multiway_runtime::{
        DecodeStream, TokenId, TokenWord, Tokenizer, TokenizerError, sentencepiece_to_json,
    };
}

/// Compiles the README's programs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the programs of the guide.
#[cfg(doctest)]
#[doc = include_str!("../docs/pipelines.md")]
struct Pipelines;

/// Compiles the program of the page on search.
#[cfg(doctest)]
#[doc = include_str!("../docs/search.md")]
struct Search;
