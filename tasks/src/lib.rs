//! Tasks: the library of task files, typed answers, and metrics over answers.
//!
//! A task file declares a task's inputs, its prompt and its output. This crate checks a caller's inputs
//! against the file, sends the request to the engine, and turns the result into a typed answer: streamed
//! text, a choice with probabilities, JSON, or an embedding. It never sees a tensor.
//!
//! ```no_run
//! use multiway_runtime::Engine;
//! use multiway_tasks::{TaskEvent, TaskInputs, TaskLibrary};
//!
//! fn caption(engine: &Engine, inputs: &TaskInputs) -> Result<String, multiway_tasks::TaskError> {
//!     let library = TaskLibrary::builtin()?;
//!     let mut run = library.get("caption")?.run(engine, inputs)?;
//!     let mut text = String::new();
//!     while let Some(event) = run.next_blocking() {
//!         if let TaskEvent::Text(piece) = event? {
//!             text.push_str(&piece);
//!         }
//!     }
//!     Ok(text)
//! }
//! ```
//!
//! | module | contents |
//! |---|---|
//! | `library` | the built-in task files, and those of the caller |
//! | `task`, `inputs`, `prepared` | a task, its inputs, and a task whose prompt is rendered |
//! | `run`, `answer`, `infill`, `samples` | a running task, its typed answer, filled gaps, several samples |
//! | `examples` | the worked examples of task files, which are tests |
//! | [`metrics`] | metrics over answers, and intervals around them |
//! | `picture_index` | the embeddings of a folder of pictures, in one file |

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
