//! Scores a checkpoint on what training never saw, through the same tasks and engine that users have.

mod asker;
mod drawings;
mod examples;
mod photographs;
mod questions;
mod scenes;
mod score;

use multiway_model::{Checkpoint, ImageProcessor};
use multiway_runtime::{Engine, EngineBuilder};
use multiway_tasks::TaskLibrary;

use self::asker::Asker;
use self::score::Scores;
pub use self::score::{Count, EvaluateError, EvaluateOptions, EvaluationReport, EvaluationSplit, TestScore};
use crate::data::{PreparedData, audit};

/// Evaluates a checkpoint; the split is audited first.
///
/// `progress` is told what is done, how many of how many.
///
/// # Errors
///
/// Fails where held-out data is found in training data, or anything cannot be read or run.
pub fn evaluate(
    checkpoint: &Checkpoint,
    options: &EvaluateOptions,
    progress: &(dyn Fn(&'static str, usize, usize) + Sync),
) -> Result<EvaluationReport, EvaluateError> {
    let data = PreparedData::open(&options.prepared)?;
    let audit = audit(&data)?;
    let builder = Engine::builder(checkpoint)
        .device(options.device.clone())
        .cache(options.cache);
    let engine = options
        .weights
        .into_iter()
        .fold(builder, EngineBuilder::weights)
        .build()?;
    let asker = Asker {
        engine,
        tasks: TaskLibrary::builtin()?,
        processor: ImageProcessor::new(checkpoint.config()),
        concurrency: options.concurrency.max(1),
        progress,
    };
    let mut scores = Scores {
        options,
        tests: Vec::new(),
    };
    drawings::score(&asker, &data, &mut scores)?;
    photographs::score(&asker, &data, &mut scores)?;
    questions::score(&asker, &data, &mut scores)?;
    scenes::score(&asker, &data, &mut scores)?;
    if let Some(folder) = &options.examples {
        examples::score(&asker, folder, &mut scores)?;
    }
    Ok(EvaluationReport {
        tests: scores.tests,
        audit,
    })
}
