//! `multiway search`: a folder of pictures as an index, and pictures found by text or by picture.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Instant, UNIX_EPOCH};
use std::{fs, io};

use anyhow::{Context as _, anyhow, ensure};
use clap::{Args, Subcommand};
use futures_util::stream::{self, StreamExt};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use multiway::checkpoint::{DType, Device};
use multiway::index::{PictureEntry, PictureIndex, PictureMatch};
use multiway::task::RequestTerms;
use multiway::{Checkpoint, Engine, ImageProcessor, Task, TaskInputs};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::context::{Context, tokenizer};
use super::embed::{SourceArgs, embed, retrieve_task, vector};
use super::engine::EngineArgs;
use super::failure::{Failure, Outcome, task_failure};
use super::interrupt::until_interrupted;
use super::output::{note, print_json, print_line};
use super::pictures;
use super::usage::whole_number;

/// The extensions of the pictures that are indexed: of each format that is read, all that are in use.
const EXTENSIONS: [&str; 15] = [
    "png", "apng", "jpg", "jpeg", "jpe", "jfif", "jif", "jfi", "pjpeg", "pjp", "mpo", "webp", "gif", "bmp",
    "dib",
];

/// How many pictures are decoded and embedded at a time.
const AT_A_TIME: usize = 32;

/// The largest tensors that a model's fingerprint reads.
const FINGERPRINT_TENSOR_BYTES: usize = 1 << 12;

const AFTER_HELP: &str = "\
Examples:
  multiway search index pictures/ --out pictures.index
  multiway search query pictures.index --text 'a red apple'
  multiway search query pictures.index --image cat.png --top 3 --json";

const INDEX_HELP: &str = "\
Examples:
  multiway search index pictures/ --out pictures.index
  multiway search index pictures/ --out pictures.index   # again: reads what changed
  multiway search index pictures/ --out pictures.index --json

Indexes the PNG, JPEG, WebP, GIF and BMP files in the folder and its subfolders, by
extension in upper or lower case (rare ones such as .jfif, .jpe and .dib included).
Files and folders that cannot be read are skipped and reported. An update reuses the
embedding of a file whose size and modification time are unchanged. The index is
written atomically at the end. It can be moved together with its images.

With --json, one line: {index, pictures, reused, removed, skipped [{path, reason}], seconds}.";

const QUERY_HELP: &str = "\
Examples:
  multiway search query pictures.index --text 'a red apple'
  multiway search query pictures.index --image cat.png --top 3
  multiway search query pictures.index --text 'une pomme' --json

Prints the cosine similarity and the path of the nearest images, best match first.
With --json, one line: {results [{path, score}]}.";

/// Indexes or searches.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct SearchArgs {
    #[command(subcommand)]
    verb: SearchVerb,
}

#[derive(Debug, Subcommand)]
enum SearchVerb {
    /// Build or update the index of a folder of images
    #[command(after_help = INDEX_HELP)]
    Index(IndexArgs),
    /// Find the images in an index that are nearest to a text or an image
    #[command(after_help = QUERY_HELP)]
    Query(QueryArgs),
}

#[derive(Debug, Args)]
struct IndexArgs {
    /// Folder of images
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Index file to write; an existing index is updated
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Debug, Args)]
struct QueryArgs {
    /// Index file
    #[arg(value_name = "FILE")]
    index: PathBuf,

    #[command(flatten)]
    source: SourceArgs,

    /// Number of images to print
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10, value_parser = whole_number::<usize>)]
    top: usize,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    engine: EngineArgs,
}

impl SearchArgs {
    /// Tells whether standard output must hold one line of JSON.
    pub(crate) fn json(&self) -> bool {
        match &self.verb {
            SearchVerb::Index(args) => args.json,
            SearchVerb::Query(args) => args.json,
        }
    }
}

/// Runs the verb.
pub(crate) fn run(context: &Context, args: SearchArgs) -> Outcome {
    match args.verb {
        SearchVerb::Index(args) => index(context, &args),
        SearchVerb::Query(args) => query(context, args),
    }
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

/// A file that is not in the index, and why.
#[derive(Debug, Serialize)]
struct Skipped {
    path: String,
    reason: String,
}

fn index(context: &Context, args: &IndexArgs) -> Outcome {
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
    let root = absolute(&args.folder)?;
    let known = known_index(&args.out, &root, &fingerprint)?;
    let mut index = PictureIndex::new(root, fingerprint, engine.config().embedding_size());
    let work = Indexing {
        task,
        engine: &engine,
        processor: &task.image_processor(checkpoint.config()),
        folder: &args.folder,
        terms: args.engine.terms(),
    };
    let bar = progress_bar(context, pictures.len());
    let reused = context.block_on(until_interrupted(async {
        let reused = work
            .fill(&mut index, known.as_ref(), pictures, &mut skipped, &bar)
            .await?;
        if !index.is_empty() {
            index.save(&args.out).map_err(Failure::runtime)?;
        }
        Ok(reused)
    }));
    bar.finish_and_clear();
    let reused = reused?;
    let kept: HashSet<&str> = index.iter().map(|(picture, _)| picture.path.as_str()).collect();
    let removed = known
        .iter()
        .flat_map(PictureIndex::iter)
        .filter(|(picture, _)| !kept.contains(picture.path.as_str()))
        .count();
    report(
        context,
        args,
        IndexReport {
            index: args.out.display().to_string(),
            pictures: index.len(),
            reused,
            removed,
            skipped,
            seconds: (started.elapsed().as_secs_f64() * 1e3).round() / 1e3,
        },
    )
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

/// What a folder holds.
struct Found {
    pictures: Vec<PictureEntry>,
    skipped: Vec<Skipped>,
}

/// Lists the pictures of a folder and of the folders in it, in the order of their paths. Links to folders are
/// not followed.
fn find_pictures(folder: &Path) -> anyhow::Result<Found> {
    find_pictures_by(folder, |folder| fs::read_dir(folder)?.collect())
}

/// Lists the pictures of a folder and of the folders in it, each of which is listed by `list`.
fn find_pictures_by(
    folder: &Path,
    list: impl Fn(&Path) -> io::Result<Vec<fs::DirEntry>>,
) -> anyhow::Result<Found> {
    let mut found = Found {
        pictures: Vec::new(),
        skipped: Vec::new(),
    };
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = match list(&next) {
            Ok(entries) => entries,
            Err(error) if next == folder => {
                return Err(error).with_context(|| format!("cannot read the folder '{}'", next.display()));
            }
            Err(error) => {
                found.skip(&next, format!("the folder cannot be read: {error}"));
                continue;
            }
        };
        for entry in entries {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if is_picture(&path) {
                match picture_entry(folder, &path) {
                    Ok(picture) => found.pictures.push(picture),
                    Err(error) => found.skip(&path, format!("{error:#}")),
                }
            }
        }
    }
    if found.pictures.is_empty() && found.skipped.is_empty() {
        return Err(anyhow!(
            "there are no pictures ({}) in '{}'",
            EXTENSIONS.join(", "),
            folder.display()
        ));
    }
    found.pictures.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

impl Found {
    fn skip(&mut self, path: &Path, reason: String) {
        let path = path.display().to_string();
        self.skipped.push(Skipped { path, reason });
    }
}

fn is_picture(path: &Path) -> bool {
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .map(str::to_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

fn picture_entry(folder: &Path, path: &Path) -> anyhow::Result<PictureEntry> {
    let metadata = fs::metadata(path)?;
    ensure!(metadata.is_file(), "it is not a file");
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let relative = path
        .strip_prefix(folder)
        .unwrap_or(path)
        .to_str()
        .context("its name is not UTF-8")?;
    Ok(PictureEntry {
        path: relative.to_owned(),
        bytes: metadata.len(),
        modified_ns: modified
            .and_then(|time| u64::try_from(time.as_nanos()).ok())
            .unwrap_or_default(),
    })
}

fn absolute(folder: &Path) -> Outcome<String> {
    let path = fs::canonicalize(folder).map_err(Failure::input)?;
    let text = path
        .to_str()
        .with_context(|| format!("the folder's name '{}' is not UTF-8", path.display()));
    text.map(str::to_owned).map_err(Failure::Input)
}

/// Opens the index that is there already, if it is of this folder and model.
///
/// A file that is no index is not overwritten: it may be somebody's picture.
fn known_index(out: &Path, root: &str, fingerprint: &str) -> Outcome<Option<PictureIndex>> {
    if !out.exists() {
        return Ok(None);
    }
    let index = PictureIndex::open(out)
        .with_context(|| {
            format!(
                "'{}' is there already; remove it, or choose another --out",
                out.display()
            )
        })
        .map_err(Failure::Input)?;
    // A folder that is no longer where it was may be this one: what each file is decides.
    let is_of_folder = index.root() == root || !Path::new(index.root()).is_dir();
    let usable = is_of_folder && index.check_model(fingerprint).is_ok();
    Ok(usable.then_some(index))
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
    /// Fills an index, and counts the pictures whose vectors were known.
    async fn fill(
        &self,
        index: &mut PictureIndex,
        known: Option<&PictureIndex>,
        pictures: Vec<PictureEntry>,
        skipped: &mut Vec<Skipped>,
        bar: &ProgressBar,
    ) -> Outcome<usize> {
        let known: HashMap<&str, (&PictureEntry, &[f32])> = known
            .into_iter()
            .flat_map(PictureIndex::iter)
            .map(|(entry, vector)| (entry.path.as_str(), (entry, vector)))
            .collect();
        let mut reused = 0;
        let mut vectors = stream::iter(pictures)
            .map(|picture| {
                let known = known
                    .get(picture.path.as_str())
                    .filter(|(entry, _)| **entry == picture)
                    .map(|(_, vector)| *vector);
                async move {
                    let vector = match known {
                        Some(vector) => Ok(vector.to_vec()),
                        None => self.vector(&picture).await,
                    };
                    (picture, known.is_some(), vector)
                }
            })
            .buffered(AT_A_TIME);
        while let Some((picture, was_known, vector)) = vectors.next().await {
            match vector {
                Ok(vector) => {
                    index.push(picture, &vector).map_err(Failure::runtime)?;
                    reused += usize::from(was_known);
                }
                Err(Failure::Input(error)) => skipped.push(Skipped {
                    path: picture.path,
                    reason: format!("{error:#}"),
                }),
                Err(failure) => return Err(failure),
            }
            bar.inc(1);
        }
        Ok(reused)
    }

    async fn vector(&self, picture: &PictureEntry) -> Outcome<Vec<f32>> {
        let path = self.folder.join(&picture.path);
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

/// Names a model by its contents: vectors of two models cannot be compared.
///
/// Hashes the configuration, the table of tensors, and the small tensors. Training moves every norm of a
/// model, so that the large tensors need not be read.
fn fingerprint(checkpoint: &Checkpoint) -> Outcome<String> {
    let mut hash = Sha256::new();
    hash.update(checkpoint.config().to_json());
    for tensor in checkpoint.tensors() {
        hash.update(format!("{} {:?} {:?}\n", tensor.name, tensor.shape, tensor.dtype));
        let is_packed = checkpoint.packed().is_some() && tensor.dtype == DType::U8;
        if tensor.bytes <= FINGERPRINT_TENSOR_BYTES && !is_packed {
            let values = checkpoint
                .load_tensor(&tensor.name, &Device::Cpu, DType::F32)
                .and_then(|values| Ok(values.flatten_all()?.to_vec1::<f32>()?)) // [n]
                .map_err(Failure::input)?;
            values.iter().for_each(|value| hash.update(value.to_le_bytes()));
        }
    }
    Ok(hash
        .finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn query(context: &Context, args: QueryArgs) -> Outcome {
    let checkpoint = context.checkpoint()?;
    let library = context.library(&checkpoint)?;
    let task = retrieve_task(&library)?;
    let index = PictureIndex::open(&args.index).map_err(Failure::input)?;
    index
        .check_model(&fingerprint(&checkpoint)?)
        .map_err(Failure::input)?;
    let inputs = args.source.inputs(&task.image_processor(checkpoint.config()))?;
    let inputs = inputs.with_terms(args.engine.terms());
    let tokenizer = tokenizer(&checkpoint)?;
    let prepared = task.prepare(&tokenizer, &inputs).map_err(Failure::input)?;
    let engine = context.engine_with(&checkpoint, tokenizer, &args.engine)?;
    let outcome = context.block_on(until_interrupted(embed(prepared, &engine)))?;
    let mut results = index
        .nearest(vector(task, &outcome)?, args.top)
        .map_err(Failure::input)?;
    if !Path::new(index.root()).is_dir() {
        note(&format!(
            "the pictures were in '{}' when they were indexed, and are not there now: index them again where they are",
            index.root()
        ));
    }
    for PictureMatch { path, .. } in &mut results {
        *path = Path::new(index.root()).join(&*path).display().to_string();
    }
    if args.json {
        return print_json(&serde_json::json!({ "results": results }));
    }
    results
        .iter()
        .try_for_each(|hit| print_line(&format!("{:.3}  {}", hit.score, hit.path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_read_is_skipped_and_all_others_are_listed() {
        let place = tempfile::tempdir().unwrap();
        for folder in ["a", "b/closed/inner", "c"] {
            fs::create_dir_all(place.path().join(folder)).unwrap();
        }
        for picture in [
            "top.png",
            "a/1.png",
            "b/2.png",
            "b/closed/3.png",
            "b/closed/inner/4.png",
            "c/5.png",
        ] {
            fs::write(place.path().join(picture), b"").unwrap();
        }
        let closed = |folder: &Path| -> io::Result<Vec<fs::DirEntry>> {
            if folder.ends_with("closed") {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            fs::read_dir(folder)?.collect()
        };
        let found = find_pictures_by(place.path(), closed).unwrap();
        let paths: Vec<&str> = found
            .pictures
            .iter()
            .map(|picture| picture.path.as_str())
            .collect();
        assert_eq!(paths, ["a/1.png", "b/2.png", "c/5.png", "top.png"]);
        let [skipped] = found.skipped.as_slice() else {
            panic!("{:?}", found.skipped);
        };
        assert!(skipped.path.ends_with("b/closed"), "{}", skipped.path);
        assert_eq!(skipped.reason, "the folder cannot be read: permission denied");
        // Of a folder of which nothing at all can be read there is nothing to index.
        let none = |_: &Path| Err(io::ErrorKind::PermissionDenied.into());
        let error = find_pictures_by(place.path(), none).err().unwrap();
        assert!(error.to_string().contains("cannot read the folder"), "{error:#}");
    }
}
