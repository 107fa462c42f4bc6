//! Captions the pictures that are named, or one of its own, in one go.
//!
//! ```sh
//! cargo run --release --example caption [PICTURE]...
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use multiway::{Engine, ImageProcessor, TaskInputs, TaskLibrary};

const CAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/pictures/cat.png");

fn main() -> anyhow::Result<()> {
    let mut paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        paths.push(CAT.to_owned());
    }
    let checkpoint = multiway::embedded_checkpoint()?;
    let processor = ImageProcessor::new(checkpoint.config());
    let engine = Engine::builder(&checkpoint).build()?;
    let library = TaskLibrary::builtin()?;
    let caption = library.get("caption")?;
    for path in paths {
        let inputs = TaskInputs::new().with_image(processor.open(&path)?);
        let outcome = caption.run(&engine, &inputs)?.wait_blocking()?;
        println!("{path}: {}", outcome.answer.text().unwrap_or_default());
    }
    Ok(())
}
