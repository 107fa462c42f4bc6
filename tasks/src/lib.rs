//! Tasks: the library of task files, typed answers, and metrics over answers.
//!
//! A task file declares a task's inputs, its prompt and its output. This crate checks a caller's inputs
//! against the file, sends the request to the engine, and turns the result into a typed answer: streamed
//! text, a choice with probabilities, a number, boxes, JSON, or an embedding, among others. It never sees a
//! tensor.
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
//! | `library`, `sources` | the built-in task files, those of the caller, and what these extend and import |
//! | `watched` | a library whose files may change while it is used |
//! | `task`, `inputs`, `prepared` | a task, its inputs, and a task whose prompt is rendered |
//! | `run`, `answer`, `typed`, `report`, `infill`, `samples` | a running task, its typed answer and its JSON, filled gaps, several samples |
//! | `decision` | questions with closed answers, whatever task words them |
//! | `ranking`, `reading` | answers from log-likelihoods, and from generated text |
//! | [`parse`] | the parsers of generated text |
//! | `import` | prompts of other libraries as task files |
//! | `examples` | the worked examples of task files, which are tests |
//! | [`metrics`] | metrics over answers, and intervals around them |

mod answer;
mod decision;
mod error;
mod examples;
mod import;
mod infill;
mod inputs;
mod library;
pub mod metrics;
pub mod parse;
mod prepared;
mod ranking;
mod reading;
mod report;
mod run;
mod samples;
mod sources;
mod task;
mod typed;
mod watched;

pub use answer::{
    Answer, Choice, PatchAnswer, ScoredToken, TaskOutcome, TaskSample, VisualCode, WrittenToken,
};
pub use decision::{AnswerScale, ClosedAnswer, ClosedQuestion, Decision, DecisionError};
pub use error::TaskError;
pub use examples::{ExampleReport, PictureError};
pub use import::{Import, ImportError, ImportNote, import_path, import_paths, import_text};
pub use inputs::{RequestTerms, TaskInputs, TaskShot};
pub use library::TaskLibrary;
pub use prepared::PreparedTask;
pub use report::OutcomeReport;
pub use run::{TaskEvent, TaskRun};
pub use task::Task;
pub use watched::{FileChange, FileReport, WatchedLibrary};
