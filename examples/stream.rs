//! Prints a caption word by word, in several languages at once, from an asynchronous program.
//!
//! ```sh
//! cargo run --release --example stream
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::io::Write;

use futures_util::StreamExt;
use multiway::{Engine, ImageProcessor, TaskEvent, TaskInputs, TaskLibrary};

const APPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/pictures/red-apple.png");

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let checkpoint = multiway::embedded_checkpoint()?;
    let image = ImageProcessor::new(checkpoint.config()).open(APPLE)?;
    let engine = Engine::builder(&checkpoint).build()?;
    let library = TaskLibrary::builtin()?;
    let caption = library.get("caption")?;
    for language in ["English", "German", "French", "Japanese"] {
        let inputs = TaskInputs::new()
            .with("language", language)
            .with_image(image.clone());
        let mut run = caption.run(&engine, &inputs)?;
        print!("{language}: ");
        while let Some(event) = run.next().await {
            match event? {
                TaskEvent::Text(piece) => {
                    print!("{piece}");
                    std::io::stdout().flush()?;
                }
                TaskEvent::Finished(outcome) => {
                    println!(
                        "  ({} tokens, {:?})",
                        outcome.usage.new_tokens, outcome.timings.total
                    );
                }
                _ => {}
            }
        }
    }
    Ok(())
}
