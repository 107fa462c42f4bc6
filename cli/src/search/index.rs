//! `multiway search index`: the vectors of a folder of pictures, in one file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use clap::Args;
use futures_util::stream::{self, StreamExt};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use multiway::index::{BuildReport, ElementType, IndexBuilder, IndexEntry, IndexError, IndexSpec};
use multiway::task::RequestTerms;
use multiway::{Engine, ImageProcessor, Task, TaskInputs};
use serde::Serialize;

use super::folder::{Found, Skipped, find_pictures};
use crate::context::Context;
use crate::embed::{embed, retrieve_task, vector};
use crate::engine::EngineArgs;
use crate::failure::{Failure, Outcome, task_failure};
use crate::fingerprint::fingerprint;
use crate::interrupt::until_interrupted;
use crate::output::{note, print_json, print_line};
use crate::pictures;

/// How many pictures are decoded and embedded at a time.
const AT_A_TIME: usize = 32;

const AFTER_HELP: &str = "\
Examples:
  multiway search index pictures/ --out pictures.index
  multiway search index pictures/ --out pictures.index   # again: reads what changed
  multiway search index pictures/ --out pictures.index --vector-dtype int8 --approximate

Indexes the PNG, JPEG, WebP, GIF and BMP files in the folder and its subfolders, by
extension in upper or lower case (rare ones such as .jfif, .jpe and .dib included).
Files and folders that cannot be read are skipped and reported. An update reuses the
embedding of a file whose size and modification time are unchanged. The index is
written atomically at the end. It can be moved together with its images.

Finished embeddings are kept in FILE.journal until the index is written: a build that
was interrupted or killed goes on where it ended, and writes the same bytes.

With --json, one line: {index, pictures, reused, removed, skipped [{path, reason}], seconds}.";

/// Names the folder and the index.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct IndexArgs {
    /// Folder of images
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Index file to write; an existing index is updated
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,

    /// Element type of the stored vectors: f16, or int8 (quantized), which takes half the space
    #[arg(long, value_name = "TYPE", default_value_t)]
    vector_dtype: ElementType,

    /// Also build the lists that `search query --approximate` reads
    #[arg(long)]
    approximate: bool,

    /// Print one line of JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    engine: EngineArgs,
}

/// What `search index` prints.
#[derive(Debug, Serialize)]
struct IndexReport {
    index: String,
    pictures: usize,
    reused: usize,
    removed: usize,
    skipped: Vec<Skipped>,
    seconds: f64,
}

/// Runs the verb.
pub(super) fn run(context: &Context, args: &IndexArgs) -> Outcome {
    let started = Instant::now();
    let checkpoint = context.checkpoint()?;
    let library = context.library(&checkpoint)?;
    let task = retrieve_task(&library)?;
    let Found {
        pictures,
        mut skipped,
    } = find_pictures(&args.folder).map_err(Failure::Input)?;
    let fingerprint = fingerprint(&checkpoint)?;
    let engine = context.engine(&checkpoint, &args.engine)?;
    let spec = IndexSpec::new(fingerprint, engine.config().embedding_size(), args.vector_dtype)
        .with_root(absolute(&args.folder)?)
        .approximate(args.approximate);
    let builder = IndexBuilder::open(&args.out, spec).map_err(|error| no_build(&args.out, error))?;
    let work = Indexing {
        task,
        engine: &engine,
        processor: &task.image_processor(checkpoint.config()),
        folder: &args.folder,
        terms: args.engine.terms(),
    };
    let bar = progress_bar(context, pictures.len());
    let built = context.block_on(until_interrupted(work.build(
        builder,
        pictures,
        &mut skipped,
        &bar,
    )));
    bar.finish_and_clear();
    let BuildReport {
        vectors,
        reused,
        removed,
    } = built?;
    report(
        context,
        args,
        IndexReport {
            index: args.out.display().to_string(),
            pictures: vectors,
            reused,
            removed,
            skipped,
            seconds: (started.elapsed().as_secs_f64() * 1e3).round() / 1e3,
        },
    )
}

/// A file that is no index is not overwritten: it may be somebody's picture.
fn no_build(out: &Path, error: IndexError) -> Failure {
    let is_there = matches!(
        error,
        IndexError::Read { .. } | IndexError::Broken { .. } | IndexError::OtherVersion { .. }
    );
    let is_runtime = matches!(error, IndexError::Write { .. } | IndexError::Busy { .. });
    let mut error = anyhow::Error::new(error);
    if is_there {
        error = error.context(format!(
            "'{}' is there already; remove it, or choose another --out",
            out.display()
        ));
    }
    if is_runtime {
        Failure::Runtime(error)
    } else {
        Failure::Input(error)
    }
}

fn report(context: &Context, args: &IndexArgs, report: IndexReport) -> Outcome {
    for Skipped { path, reason } in &report.skipped {
        note(&format!("skipped {path}: {reason}"));
    }
    if report.pictures == 0 {
        return Err(Failure::Input(anyhow!(
            "none of the pictures in '{}' can be read; no index is written",
            args.folder.display()
        )));
    }
    if args.json {
        return print_json(&report);
    }
    if context.quiet() {
        return Ok(());
    }
    let IndexReport {
        index,
        pictures,
        reused,
        removed,
        skipped,
        seconds,
    } = report;
    print_line(&format!(
        "{index}: {pictures} pictures ({reused} unchanged, {removed} gone, {} skipped) in {seconds:.1} s",
        skipped.len()
    ))
}

fn absolute(folder: &Path) -> Outcome<String> {
    let path = fs::canonicalize(folder).map_err(Failure::input)?;
    let text = path
        .to_str()
        .with_context(|| format!("the folder's name '{}' is not UTF-8", path.display()));
    text.map(str::to_owned).map_err(Failure::Input)
}

/// Holds what is needed to embed the pictures of a folder.
struct Indexing<'a> {
    task: &'a Task,
    engine: &'a Engine,
    processor: &'a ImageProcessor,
    folder: &'a Path,
    terms: RequestTerms,
}

impl Indexing<'_> {
    /// Embeds the pictures whose vectors are not known, and writes the index.
    async fn build(
        &self,
        mut builder: IndexBuilder,
        pictures: Vec<IndexEntry>,
        skipped: &mut Vec<Skipped>,
        bar: &ProgressBar,
    ) -> Outcome<BuildReport> {
        let known: Vec<bool> = pictures.iter().map(|picture| builder.knows(picture)).collect();
        let mut vectors = stream::iter(pictures.into_iter().zip(known))
            .map(|(picture, is_known)| async move {
                let vector = match is_known {
                    true => None,
                    false => Some(self.vector(&picture).await),
                };
                (picture, vector)
            })
            .buffered(AT_A_TIME);
        while let Some((picture, vector)) = vectors.next().await {
            match vector {
                None => builder.reuse(&picture).map(drop).map_err(Failure::runtime)?,
                Some(Ok(vector)) => builder.push(&picture, &vector).map_err(Failure::runtime)?,
                Some(Err(Failure::Input(error))) => skipped.push(Skipped {
                    path: picture.key,
                    reason: format!("{error:#}"),
                }),
                Some(Err(failure)) => return Err(failure),
            }
            bar.inc(1);
        }
        builder.finish().map_err(Failure::runtime)
    }

    async fn vector(&self, picture: &IndexEntry) -> Outcome<Vec<f32>> {
        let path = self.folder.join(&picture.key);
        let processor = self.processor.clone();
        let image = tokio::task::spawn_blocking(move || pictures::open_unnamed(&processor, &path)).await;
        let image = image.map_err(Failure::runtime)?.map_err(Failure::input)?;
        let inputs = TaskInputs::new().with_image(image).with_terms(self.terms);
        let prepared = self.task.prepare(self.engine.tokenizer(), &inputs);
        let outcome = embed(prepared.map_err(task_failure)?, self.engine).await?;
        vector(self.task, &outcome).map(<[f32]>::to_vec)
    }
}

fn progress_bar(context: &Context, pictures: usize) -> ProgressBar {
    if context.quiet() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(pictures as u64), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} pictures  {per_sec}  {eta} left");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
