//! The throughput of a job beside that of the engine alone.
//!
//! `cargo bench -p multiway-jobs --bench batch` answers the same requests to the embedded model, alternately in one
//! run: by the engine alone, whose pictures were decoded and preprocessed before, and by a job, which reads a file of
//! records, decodes and preprocesses their pictures, and writes a row for each. It prints the medians of requests a
//! second of each task, and their ratio.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use futures_util::stream::{self, StreamExt};
use multiway_data::{DataOptions, DataSource};
use multiway_jobs::{Job, JobOptions};
use multiway_model::{Checkpoint, ImageProcessor, ProcessedImage};
use multiway_runtime::{Engine, block_on};
use multiway_tasks::{Task, TaskInputs, TaskLibrary};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const RECORDS: usize = 1024;
const ROUNDS: usize = 5;

/// The tasks, with what beside the picture is asked.
const TASKS: [(&str, &[(&str, &str)]); 3] = [
    ("caption", &[]),
    ("vqa", &[("question", "what color is the shape?")]),
    ("classify", &[("choices", "cat,dog,guitar,bicycle,rocket,turtle")]),
];

/// A task with its data on disk and in memory.
struct Subject<'t> {
    task: &'t Task,
    fixed: TaskInputs,
    pictures: Vec<ProcessedImage>,
    data: PathBuf,
}

fn pictures() -> Vec<PathBuf> {
    let folder = fs::read_dir(Path::new(ROOT).join("examples/pictures")).unwrap();
    let mut paths: Vec<PathBuf> = folder
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "png" || extension == "jpg")
        })
        .collect();
    paths.sort();
    paths
}

/// Writes a file of records that name the pictures in turn.
fn write_records(place: &Path) -> PathBuf {
    let mut rows = String::new();
    for path in pictures().iter().cycle().take(RECORDS) {
        let name = path.file_name().unwrap();
        let target = place.join(name);
        if !target.exists() {
            fs::copy(path, &target).unwrap();
        }
        writeln!(rows, "{}", serde_json::json!({"image": name.to_str().unwrap()})).unwrap();
    }
    let data = place.join("records.jsonl");
    fs::write(&data, rows).unwrap();
    data
}

/// Answers all requests through the engine, as many at a time as a job does. Returns requests a second.
fn engine_alone(engine: &Engine, subject: &Subject<'_>) -> f64 {
    let begin = Instant::now();
    let requests = subject.pictures.iter().map(|picture| async {
        let inputs = subject.fixed.clone().with_image(picture.clone());
        subject.task.run(engine, &inputs).unwrap().wait().await.unwrap()
    });
    let in_flight = JobOptions::default().in_flight;
    let answered = block_on(stream::iter(requests).buffered(in_flight).count());
    answered as f64 / begin.elapsed().as_secs_f64()
}

/// Answers all records by a job. Returns records a second.
fn job(engine: &Engine, subject: &Subject<'_>, out: &Path) -> f64 {
    let begin = Instant::now();
    let source = DataSource::open(std::slice::from_ref(&subject.data), DataOptions::default()).unwrap();
    let mut options = JobOptions::default();
    options.fixed = subject.fixed.clone();
    let job = Job::new(engine, subject.task, options);
    let report = block_on(job.batch(&source, "the embedded model", out, |_| ())).unwrap();
    assert_eq!((report.records, report.failed), (RECORDS, 0));
    let elapsed = begin.elapsed().as_secs_f64();
    fs::remove_file(out).unwrap();
    RECORDS as f64 / elapsed
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let checkpoint = Checkpoint::open(format!("{ROOT}/checkpoints/default")).unwrap();
    let engine = Engine::builder(&checkpoint).build().unwrap();
    let library = TaskLibrary::for_model(checkpoint.config()).unwrap();
    let place = tempfile::tempdir().unwrap();
    let data = write_records(place.path());
    let processor = ImageProcessor::new(checkpoint.config());
    let opened: Vec<_> = pictures()
        .iter()
        .map(|path| processor.open(path).unwrap())
        .collect();
    println!("| task | engine alone, requests/s | job, records/s | ratio |");
    println!("|---|---|---|---|");
    for (name, values) in TASKS {
        let task = library.get(name).unwrap();
        let mut fixed = TaskInputs::new();
        for (input, text) in values {
            let value = task.file().inputs[*input].parse(text).unwrap();
            fixed.values.insert((*input).to_owned(), value);
        }
        let subject = Subject {
            task,
            fixed,
            pictures: opened.iter().cycle().take(RECORDS).cloned().collect(),
            data: data.clone(),
        };
        let out = place.path().join("out.jsonl");
        engine_alone(&engine, &subject);
        let rounds = (0..ROUNDS).map(|_| (engine_alone(&engine, &subject), job(&engine, &subject, &out)));
        let (alone, jobs): (Vec<f64>, Vec<f64>) = rounds.unzip();
        let (alone, jobs) = (median(alone), median(jobs));
        println!("| {name} | {alone:.0} | {jobs:.0} | {:.2} |", jobs / alone);
    }
}
