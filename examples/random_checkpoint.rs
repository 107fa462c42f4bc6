//! Writes a checkpoint of a real shape with random weights, to measure loading and speed where no weights can
//! be had:
//!
//! ```text
//! cargo run --release --example random_checkpoint -- t5-v1_1-base OUT
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use anyhow::{Context, Result, bail};
use multiway_model::{Checkpoint, Device, ModelConfig, initialise};

/// A T5 of some sizes.
fn t5(width: usize, heads: usize, d_ff: usize, layers: usize, is_v1_1: bool) -> serde_json::Value {
    serde_json::json!({
        "model_type": "t5", "d_model": width, "d_kv": 64, "d_ff": d_ff, "num_layers": layers, "num_decoder_layers": layers,
        "num_heads": heads, "vocab_size": 32128, "tie_word_embeddings": !is_v1_1,
        "feed_forward_proj": if is_v1_1 { "gated-gelu" } else { "relu" },
    })
}

/// A BEiT-3 of some sizes, with a head for the 3,129 answers of VQA.
fn beit3(width: usize, layers: usize, image_size: usize) -> serde_json::Value {
    serde_json::json!({
        "model_type": "beit3", "task": "vqa", "num_classes": 3129, "encoder_embed_dim": width,
        "encoder_attention_heads": width / 64, "encoder_ffn_embed_dim": 4 * width, "encoder_layers": layers,
        "normalize_output": false, "max_source_positions": 1024, "vocab_size": 64010, "img_size": image_size,
        "patch_size": 16,
    })
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: random_checkpoint \
                 t5-base|t5-v1_1-small|t5-v1_1-base|beit3-base|beit3-base-480|t5-tiny|beit3-tiny OUT";
    let (shape, out) = arguments.next().zip(arguments.next()).context(usage)?;
    let json = match shape.as_str() {
        "t5-base" => t5(768, 12, 3072, 12, false),
        "t5-v1_1-small" => t5(512, 6, 1024, 8, true),
        "t5-v1_1-base" => t5(768, 12, 2048, 12, true),
        "beit3-base" => beit3(768, 12, 224),
        "beit3-base-480" => beit3(768, 12, 480),
        "t5-tiny" => t5(64, 1, 128, 1, false),
        "beit3-tiny" => beit3(64, 1, 32),
        _ => bail!("unknown shape '{shape}'; {usage}"),
    };
    let config = ModelConfig::from_json(json.to_string().as_bytes())?;
    let tensors = initialise(&config, 1, &Device::Cpu)?.into_iter().collect();
    Checkpoint::save(&out, &config, &tensors, &[])?;
    println!("{out}: {} parameters", config.parameters());
    Ok(())
}
