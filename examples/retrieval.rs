//! Indexes the pictures beside it, and finds them by text and by picture.
//!
//! ```sh
//! cargo run --release --example retrieval [TEXT]
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use anyhow::Context;
use multiway::index::{PictureEntry, PictureIndex};
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

    let mut index = PictureIndex::new(PICTURES, checkpoint.name(), engine.config().embedding_size());
    for name in ["bicycle", "cat", "dog", "guitar", "red-apple", "rocket", "turtle"] {
        let path = format!("{name}.png");
        let image = processor.open(format!("{PICTURES}/{path}"))?;
        let vector = embed(retrieve, &engine, TaskInputs::new().with_image(image))?;
        index.push(
            PictureEntry {
                path,
                bytes: 0,
                modified_ns: 0,
            },
            &vector,
        )?;
    }

    println!("nearest to the text '{text}':");
    let query = embed(retrieve, &engine, TaskInputs::new().with("text", text))?;
    for found in index.nearest(&query, 3)? {
        println!("  {:.3}  {}", found.score, found.path);
    }
    println!("nearest to the picture of a cat:");
    let cat = processor.open(format!("{PICTURES}/cat.png"))?;
    let query = embed(retrieve, &engine, TaskInputs::new().with_image(cat))?;
    for found in index.nearest(&query, 3)? {
        println!("  {:.3}  {}", found.score, found.path);
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
