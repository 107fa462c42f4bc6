//! Training: data, masking, objectives, optimiser and the training loop.
//!
//! The embedded model is made here, from packages that anybody can fetch: [`data`] prepares pictures, names
//! and questions and keeps the held-out split clean, [`teacher`] gives patches their visual codes,
//! [`examples`] draws what is asked, [`objective`] scores the answers, [`trainer`] runs the loop, and
//! [`evaluate`] measures the result through the same tasks and engine that users have. [`finetune`] trains
//! any checkpoint on the records of a user.
//!
//! ```
//! use multiway_training::schedule::WarmupCosine;
//!
//! let (warmup_steps, decay_steps) = (10, 90);
//! let schedule = WarmupCosine { peak: 1e-3, floor: 1e-5, warmup_steps, decay_steps, total_steps: 100 };
//! assert!(schedule.learning_rate(0) < schedule.learning_rate(10));
//! ```

pub mod augment;
pub mod data;
mod error;
pub mod evaluate;
pub mod examples;
pub mod finetune;
pub mod log;
pub mod masking;
mod matmul;
pub mod objective;
pub mod optimizer;
pub mod random;
pub mod recipe;
pub mod scenes;
pub mod schedule;
pub mod state;
pub mod teacher;
pub mod trainer;
mod workers;
