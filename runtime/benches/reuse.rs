//! A hundred questions about one picture, with and without keeping what the encoder makes of it.
//!
//! `cargo bench -p multiway-runtime --bench reuse` prints the median seconds of both, measured alternately in
//! one run after a warm-up, and their ratio.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use multiway_model::testing::{random_inference_model, tiny_config};
use multiway_model::{Model, ModelConfig, ProcessedImage, StackConfig};
use multiway_prompts::{Prompt, PromptPart};
use multiway_runtime::{Engine, Request, SamplingParams, Tokenizer, sentencepiece_to_json};

const QUESTIONS: usize = 100;
const ROUNDS: usize = 3;

/// A small ViT's shape: pictures of 224 pixels in patches of 16, width 384.
fn config(tokenizer: &Tokenizer) -> ModelConfig {
    let mut config = tiny_config();
    config.vocab_size = tokenizer.vocab_size();
    (config.hidden_size, config.intermediate_size) = (384, 1536);
    (
        config.encoder.layers,
        config.encoder.heads,
        config.encoder.head_size,
    ) = (12, 6, 64);
    config.decoder = config.decoder.map(|decoder| StackConfig {
        layers: 4,
        heads: 6,
        head_size: 64,
        ..decoder
    });
    if let Some(vision) = &mut config.vision {
        (vision.image_size, vision.patch_size, vision.max_images) = (224, 16, 1);
    }
    config
}

fn seconds(model: &Arc<Model>, tokenizer: &Tokenizer, picture: &ProcessedImage, kept: usize) -> f64 {
    let builder = Engine::builder_from_model(Arc::clone(model), tokenizer.clone());
    let engine = builder.reuse_budget(kept).build().unwrap();
    let question = |n: usize| {
        let mut prompt: Prompt = [PromptPart::Image(0)].into_iter().collect();
        prompt.push(PromptPart::Text(format!(
            "question: what is number {n}? answer: "
        )));
        let sampling = SamplingParams {
            max_new_tokens: 4,
            min_new_tokens: 4,
            ..SamplingParams::default()
        };
        Request {
            sampling,
            ..Request::new(prompt, vec![picture.clone()])
        }
    };
    let start = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let answers = runtime.block_on(join_all((0..QUESTIONS).map(async |n| {
        let stream = engine.generate(question(n)).await.unwrap();
        stream.wait().await.unwrap()
    })));
    assert!(answers.iter().all(|answer| answer.tokens.len() == 4));
    start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let json = sentencepiece_to_json(include_bytes!("../tests/fixtures/tokenizer.model")).unwrap();
    let tokenizer = Tokenizer::from_json(&json).unwrap();
    let config = config(&tokenizer);
    let model = Arc::new(random_inference_model(&config, 1).unwrap());
    let pixels = (0..3 * 224 * 224).map(|i| ((i as f32) * 0.01).sin());
    let picture = ProcessedImage::from_pixels(pixels.collect());
    seconds(&model, &tokenizer, &picture, 256 << 20);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(seconds(&model, &tokenizer, &picture, 0));
        with.push(seconds(&model, &tokenizer, &picture, 256 << 20));
    }
    let (with, without) = (median(with), median(without));
    println!("{QUESTIONS} questions about one picture of 224 pixels, width 384, 12 layers, 4 tokens each");
    println!(
        "without reuse {without:.2} s, with {with:.2} s, ratio {:.1}",
        without / with
    );
}
