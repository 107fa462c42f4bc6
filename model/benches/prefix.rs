//! Times a question about a picture that is encoded with it and about one that is known already:
//! `cargo bench -p multiway-model --bench prefix`.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::hint::black_box;
use std::time::Instant;

use multiway_model::testing::{random_inference_model, tiny_config};
use multiway_model::{
    EncoderBatch, EncoderSample, ForwardError, Model, ModelConfig, ProcessedImage, StackConfig,
};

/// How often each is timed.
const ROUNDS: usize = 15;
/// The token ids of a question.
const QUESTION: [u32; 16] = [3; 16];

/// Describes a native model of the size of BEiT-3 base.
fn base() -> ModelConfig {
    let mut config = tiny_config();
    (config.hidden_size, config.intermediate_size) = (768, 2048);
    (
        config.encoder.layers,
        config.encoder.heads,
        config.encoder.head_size,
    ) = (12, 12, 64);
    config.decoder = config.decoder.map(|decoder| StackConfig {
        layers: 6,
        heads: 12,
        head_size: 64,
        ..decoder
    });
    if let Some(vision) = &mut config.vision {
        (vision.image_size, vision.patch_size) = (224, 16);
    }
    config
}

fn main() -> Result<(), ForwardError> {
    let config = base();
    let model = random_inference_model(&config, 1)?;
    let pixels = vec![0.5; config.image_values()];
    let images = [ProcessedImage::from_pixels(pixels)];
    let sample = EncoderSample {
        images: &images,
        tokens: &QUESTION,
    };
    let fresh = EncoderBatch::new(&config, &[sample])?;
    let prefix = model.image_prefix(&model.encode_keeping(&fresh)?, 0)?;
    let mut known = EncoderBatch::builder(&config);
    known.push_known(&prefix, &QUESTION)?;
    let known = known.build();
    let (mut with_picture, mut with_prefix) = (Vec::new(), Vec::new());
    // In turn, so that whatever else the machine does slows both.
    for _ in 0..ROUNDS {
        with_picture.push(time(&model, &fresh)?);
        with_prefix.push(time(&model, &known)?);
    }
    let (with_picture, with_prefix) = (median(with_picture), median(with_prefix));
    println!(
        "{} picture rows, {} text rows, prefix {:.1} MiB",
        prefix.rows(),
        QUESTION.len(),
        prefix.bytes() as f64 / f64::from(1 << 20)
    );
    println!("picture encoded  {:>8.2} ms", with_picture * 1e3);
    println!("picture known    {:>8.2} ms", with_prefix * 1e3);
    println!("ratio            {:>8.2}", with_picture / with_prefix);
    Ok(())
}

/// Encodes a batch and computes its prompt memory; returns the seconds.
fn time(model: &Model, batch: &EncoderBatch) -> Result<f64, ForwardError> {
    let start = Instant::now();
    black_box(model.prompt_memory(&model.encode(batch)?)?);
    Ok(start.elapsed().as_secs_f64())
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or_default()
}
