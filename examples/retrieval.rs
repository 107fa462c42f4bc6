//! Indexes the pictures beside it, and finds them by text and by picture.
//!
//! ```sh
//! cargo run --release --example retrieval [TEXT]
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use anyhow::Context;
use multiway::index::{ElementType, IndexBuilder, IndexEntry, IndexSpec, SearchOptions, VectorIndex};
use multiway::{Engine, ImageProcessor, Task, TaskInputs, TaskLibrary};

const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/pictures");

fn main() -> anyhow::Result<()> {
    let text = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "a red apple".to_owned());
    let checkpoint = multiway::embedded_checkpoint()?;
    let processor = ImageProcessor::new(checkpoint.config());
    let engine = Engine::builder(&checkpoint).build()?;
    let library = TaskLibrary::builtin()?;
    let retrieve = library.get("retrieve")?;

    let folder = tempfile::tempdir()?;
    let path = folder.path().join("pictures.index");
    let width = engine.config().embedding_size();
    let spec = IndexSpec::new(checkpoint.name(), width, ElementType::F16).with_root(PICTURES);
    let mut builder = IndexBuilder::open(&path, spec)?;
    for name in ["bicycle", "cat", "dog", "guitar", "red-apple", "rocket", "turtle"] {
        let key = format!("{name}.png");
        let image = processor.open(format!("{PICTURES}/{key}"))?;
        let vector = embed(retrieve, &engine, TaskInputs::new().with_image(image))?;
        builder.push(&IndexEntry::new(key), &vector)?;
    }
    builder.finish()?;
    let index = VectorIndex::open(&path)?;

    println!("nearest to the text '{text}':");
    let query = embed(retrieve, &engine, TaskInputs::new().with("text", text))?;
    show(&index, &query)?;
    println!("nearest to the picture of a cat:");
    let cat = processor.open(format!("{PICTURES}/cat.png"))?;
    let query = embed(retrieve, &engine, TaskInputs::new().with_image(cat))?;
    show(&index, &query)?;
    Ok(())
}

fn show(index: &VectorIndex, query: &[f32]) -> anyhow::Result<()> {
    for found in index.search(&[query], SearchOptions::new(3))?.iter().flatten() {
        println!("  {:.3}  {}", found.score, index.entry(found.position)?.key);
    }
    Ok(())
}

fn embed(task: &Task, engine: &Engine, inputs: TaskInputs) -> anyhow::Result<Vec<f32>> {
    let outcome = task.run(engine, &inputs)?.wait_blocking()?;
    outcome
        .answer
        .embedding()
        .map(<[f32]>::to_vec)
        .context("the task makes no vector")
}
