//! Fine-tuning: any checkpoint that writes text or names classes, on the records of a user's data and the
//! prompt of a task.
//!
//! | module | contents |
//! |---|---|
//! | `examples` | records, tokenized, and the split into those that are trained on and those that validate |
//! | `method`, `variables` | what is trained: low-rank factors beside the weights, or the weights themselves |
//! | `losses` | how wrong the model is on some examples |
//! | `run` | the loop, its states, and the best weights |
//! | `error` | what can end it |

mod error;
mod examples;
mod losses;
mod method;
mod run;
mod variables;

pub use error::FinetuneError;
pub use examples::{ExampleSet, TuningExample, read_examples};
pub use method::Method;
pub use run::{Finished, TuneOptions, TuneReport, Tuning};
pub use variables::TunedWeights;

pub use multiway_model::kernels::Products;
