//! Sends 64 requests of several tasks to one engine at once, then the same ones one at a time: the texts are
//! the same.
//!
//! ```sh
//! cargo run --release --example many_requests
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Instant;

use anyhow::ensure;
use futures_util::future::try_join_all;
use multiway::engine::SamplingOptions;
use multiway::image::ProcessedImage;
use multiway::prompt::InputValue;
use multiway::{Engine, ImageProcessor, TaskInputs, TaskLibrary};

const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/pictures");
const NAMES: [&str; 8] = [
    "bicycle.png",
    "cat.png",
    "dog.png",
    "guitar.png",
    "red-apple.png",
    "red-circle.png",
    "rocket.png",
    "turtle.png",
];
const LANGUAGES: [&str; 4] = ["English", "German", "Spanish", "Japanese"];
const CHOICES: [&str; 3] = ["cat", "rocket", "red circle"];
const REQUESTS: u64 = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let checkpoint = multiway::embedded_checkpoint()?;
    let processor = ImageProcessor::new(checkpoint.config());
    let images = NAMES
        .iter()
        .map(|name| processor.open(format!("{PICTURES}/{name}")))
        .collect::<Result<Vec<_>, _>>()?;
    let engine = Engine::builder(&checkpoint).build()?;
    let library = TaskLibrary::builtin()?;
    let requests: Vec<(&str, TaskInputs)> = (0..REQUESTS).map(|number| request(number, &images)).collect();
    let answer = async |(task, inputs): &(&str, TaskInputs)| -> anyhow::Result<String> {
        let outcome = library.get(task)?.run(&engine, inputs)?.wait().await?;
        Ok(outcome.answer.text().unwrap_or_default().to_owned())
    };

    let start = Instant::now();
    let together = try_join_all(requests.iter().map(&answer)).await?;
    let time_together = start.elapsed();

    let start = Instant::now();
    let mut alone = Vec::new();
    for request in &requests {
        alone.push(answer(request).await?);
    }
    let time_alone = start.elapsed();

    for ((task, _), text) in requests.iter().zip(&together).take(8) {
        println!("{task}: {text}");
    }
    for (number, (together, alone)) in together.iter().zip(&alone).enumerate() {
        ensure!(
            together == alone,
            "request {number}: '{together}' among the others, '{alone}' alone"
        );
    }
    println!("{REQUESTS} requests: the same texts together and one at a time");
    println!(
        "together {:.1} ms, one at a time {:.1} ms",
        time_together.as_secs_f64() * 1e3,
        time_alone.as_secs_f64() * 1e3
    );
    Ok(())
}

/// Makes the request of that number: captions in several languages, questions, choices, gaps, and sampled
/// captions.
fn request(number: u64, images: &[ProcessedImage]) -> (&'static str, TaskInputs) {
    let pick = |from: usize| usize::try_from(number / 5).unwrap_or_default() % from;
    let with_image = TaskInputs::new().with_image(images[pick(images.len())].clone());
    match number % 5 {
        0 => (
            "caption",
            with_image.with("language", LANGUAGES[pick(LANGUAGES.len())]),
        ),
        1 => ("vqa", with_image.with("question", "what color is the shape?")),
        2 => (
            "classify",
            with_image.with("choices", InputValue::List(CHOICES.map(str::to_owned).to_vec())),
        ),
        3 => (
            "infill",
            TaskInputs::new().with("text", format!("The ___ number {number} is ___.")),
        ),
        _ => (
            "caption",
            with_image.with_sampling(SamplingOptions {
                temperature: Some(1.0),
                seed: Some(number),
                ..SamplingOptions::default()
            }),
        ),
    }
}
