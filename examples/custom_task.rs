//! Runs tasks of its own: two files in `examples/tasks`, one that asks and one that chooses.
//!
//! ```sh
//! cargo run --release --example custom_task
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use multiway::{Engine, ImageProcessor, TaskInputs, TaskLibrary};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

fn main() -> anyhow::Result<()> {
    let checkpoint = multiway::embedded_checkpoint()?;
    let processor = ImageProcessor::new(checkpoint.config());
    let engine = Engine::builder(&checkpoint).build()?;

    let mut library = TaskLibrary::builtin()?;
    library.load_dir(format!("{EXAMPLES}/tasks"))?;

    let circle = processor.open(format!("{EXAMPLES}/pictures/red-circle.png"))?;
    let inputs = TaskInputs::new().with("color", "red").with_image(circle);
    let outcome = library
        .get("which-shape")?
        .run(&engine, &inputs)?
        .wait_blocking()?;
    println!("the red shape: {}", outcome.answer.text().unwrap_or_default());

    let turtle = processor.open(format!("{EXAMPLES}/pictures/turtle.png"))?;
    let outcome = library
        .get("animal")?
        .run(&engine, &TaskInputs::new().with_image(turtle))?
        .wait_blocking()?;
    for choice in outcome.answer.choices() {
        println!("the animal: {} {:.3}", choice.text, choice.probability);
    }
    Ok(())
}
