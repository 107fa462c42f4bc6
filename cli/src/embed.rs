//! `multiway embed`: a picture or a text as a vector.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use multiway::task::PreparedTask;
use multiway::{Engine, Task, TaskInputs, TaskLibrary};
use serde_json::json;

use super::context::{Context, tokenizer};
use super::engine::EngineArgs;
use super::failure::{Failure, Outcome, task_failure};
use super::interrupt::until_interrupted;
use super::output::{TimingsMs, print_json};
use super::pictures;

/// The task that computes embeddings; a task folder may override it.
const RETRIEVE: &str = "retrieve";

const AFTER_HELP: &str = "\
Examples:
  multiway embed --image cat.png
  multiway embed --text 'a red apple'
  cat cat.png | multiway embed --image - | jq .embedding

Prints one line of JSON: {embedding [..], usage {..}, timings_ms {..}}.
Embeddings have unit length: the dot product of two is their cosine similarity.
Images and texts share one embedding space.";

/// Names the image or the text.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct EmbedArgs {
    #[command(flatten)]
    source: SourceArgs,

    #[command(flatten)]
    engine: EngineArgs,
}

/// A picture or a text.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SourceArgs {
    /// Image input: PNG, JPEG, WebP, GIF or BMP; `-` reads it from standard input
    #[arg(long, short, value_name = "PATH")]
    image: Option<PathBuf>,

    /// Text input
    #[arg(long, short, value_name = "TEXT")]
    text: Option<String>,
}

impl SourceArgs {
    /// Reads the picture, or takes the text.
    pub(crate) fn inputs(self, processor: &multiway::ImageProcessor) -> Outcome<TaskInputs> {
        let mut inputs = TaskInputs::new();
        inputs.images = pictures::open_all(processor, self.image.as_slice())?;
        Ok(match self.text {
            Some(text) => inputs.with("text", text),
            None => inputs,
        })
    }
}

/// Finds the task that computes embeddings.
pub(crate) fn retrieve_task(library: &TaskLibrary) -> Outcome<&Task> {
    library.get(RETRIEVE).map_err(|_| {
        Failure::Input(anyhow::anyhow!(
            "this checkpoint makes no vectors: `embed` and `search` need one with a head for retrieval, or a task '{RETRIEVE}' in a --task-dir"
        ))
    })
}

/// Computes an embedding.
pub(crate) async fn embed(task: PreparedTask, engine: &Engine) -> Outcome<multiway::task::TaskOutcome> {
    let run = task.run(engine).map_err(task_failure)?;
    run.wait().await.map_err(task_failure)
}

/// Returns the embedding of an answer.
pub(crate) fn vector<'a>(task: &Task, outcome: &'a multiway::task::TaskOutcome) -> Outcome<&'a [f32]> {
    outcome.answer.embedding().ok_or_else(|| {
        let name = task.origin();
        Failure::Input(anyhow::anyhow!(
            "{name}: expected a task with `output: {{kind: embedding}}`, found another kind"
        ))
    })
}

/// Runs the verb.
pub(crate) fn run(context: &Context, args: EmbedArgs) -> Outcome {
    let started = Instant::now();
    let checkpoint = context.checkpoint()?;
    let library = context.library(&checkpoint)?;
    let task = retrieve_task(&library)?;
    let inputs = args.source.inputs(&task.image_processor(checkpoint.config()))?;
    let inputs = inputs.with_terms(args.engine.terms());
    let tokenizer = tokenizer(&checkpoint)?;
    let prepared = task.prepare(&tokenizer, &inputs).map_err(Failure::input)?;
    let engine = context.engine_with(&checkpoint, tokenizer, &args.engine)?;
    let load = started.elapsed();
    let outcome = context.block_on(until_interrupted(embed(prepared, &engine)))?;
    print_json(&json!({
        "embedding": vector(task, &outcome)?,
        "usage": outcome.usage,
        "timings_ms": TimingsMs::new(load, outcome.timings),
    }))
}
