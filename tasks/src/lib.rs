//! Tasks: the library of task files, typed answers, metrics and evaluation.
//!
//! A task is one file: what it takes, how it asks, what it answers. This crate checks what a caller gives against the
//! file, asks the engine, and turns what comes back into a typed answer: text as it is written, a choice with
//! probabilities, or a vector. It never sees a tensor.
//!
//! ```no_run
//! use multiway_runtime::Engine;
//! use multiway_tasks::{TaskEvent, TaskInputs, TaskLibrary};
//!
//! fn tell(engine: &Engine, inputs: &TaskInputs) -> Result<String, multiway_tasks::TaskError> {
//!     let library = TaskLibrary::builtin()?;
//!     let mut run = library.get("caption")?.run(engine, inputs)?;
//!     let mut told = String::new();
//!     while let Some(event) = run.next_blocking() {
//!         if let TaskEvent::Text(piece) = event? {
//!             told.push_str(&piece);
//!         }
//!     }
//!     Ok(told)
//! }
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `library` | the built-in task files, and those of the caller |
//! | `task`, `inputs` | a task, and what it is given |
//! | `run`, `answer`, `infill`, `samples` | a task at work, its typed answer, and several of them |
//! | `examples` | the worked examples of task files, which are tests |
//! | [`metrics`] | how often answers are right |
//! | `picture_index` | a folder of pictures as vectors, in one file |

mod answer;
mod error;
mod examples;
mod infill;
mod inputs;
mod library;
pub mod metrics;
mod picture_index;
mod prepared;
mod run;
mod samples;
mod task;

pub use answer::{
    Answer, Choice, PatchAnswer, ScoredToken, TaskOutcome, TaskSample, VisualCode, WrittenToken,
};
pub use error::TaskError;
pub use examples::ExampleReport;
pub use inputs::{RequestTerms, TaskInputs};
pub use library::TaskLibrary;
pub use picture_index::{IndexError, PictureEntry, PictureIndex, PictureMatch};
pub use prepared::PreparedTask;
pub use run::{TaskEvent, TaskRun};
pub use task::Task;
