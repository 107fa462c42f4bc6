//! Loads a checkpoint, runs it once, and prints how long loading took and how much memory is in use after the
//! run:
//!
//! ```text
//! cargo run --release --example load_time -- CHECKPOINT
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Instant;

use anyhow::{Context, Result};
use multiway_model::{
    Checkpoint, DType, DecoderBatch, DecoderRow, Device, EncoderBatch, EncoderSample, Model, ProcessedImage,
};

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("usage: load_time CHECKPOINT")?;
    let start = Instant::now();
    let checkpoint = Checkpoint::open(&folder)?;
    let model = Model::load(&checkpoint, &Device::Cpu, DType::F32)?;
    let seconds = start.elapsed().as_secs_f64();
    let config = model.config();
    let side = config.image_size();
    let images: Vec<_> = (0..config.max_images().min(1))
        .map(|_| ProcessedImage::from_pixels(vec![0.5; 3 * side * side]))
        .collect();
    let sample = EncoderSample {
        images: &images,
        tokens: &[5, 6, 7, 8, 1],
    };
    let encoded = model.encode(&EncoderBatch::new(config, &[sample])?)?;
    if config.classes() > 0 {
        model.classify(&encoded)?;
    }
    if config.writes_text() {
        let memory = model.prompt_memory(&encoded)?.pop().context("no memory")?;
        let mut cache = model.new_cache(1, 8)?;
        for token in 0..4 {
            let rows = [DecoderRow {
                token,
                slot: 0,
                memory: &memory,
            }];
            model.decode_step(&DecoderBatch { rows: &rows }, &mut cache)?;
        }
    }
    let weights = 4 * config.parameters();
    let resident = resident().unwrap_or(0);
    println!(
        "{}",
        serde_json::json!({
            "checkpoint": folder, "load_seconds": seconds, "weights_mb": weights as f64 / 1e6,
            "resident_mb": resident as f64 / 1e6, "ratio": resident as f64 / weights as f64,
        })
    );
    Ok(())
}

/// Reads the bytes of memory that this process has in use, where the system says so.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
}
