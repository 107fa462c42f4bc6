//! Writes a checkpoint of a real shape with random weights, to measure loading and speed where no weights can be had:
//!
//! ```text
//! cargo run --release --example random_checkpoint -- t5-v1_1-base OUT
//! ```

use anyhow::{Context, Result, bail};
use multiway_model::{Checkpoint, Device, ModelConfig, initialise};

/// The sizes of `google/t5-v1_1-base` and `t5-base`.
fn t5(proj: &str, d_ff: usize, tied: bool) -> serde_json::Value {
    serde_json::json!({
        "model_type": "t5", "d_model": 768, "d_kv": 64, "d_ff": d_ff, "num_layers": 12, "num_decoder_layers": 12,
        "num_heads": 12, "vocab_size": 32128, "feed_forward_proj": proj, "tie_word_embeddings": tied,
    })
}

/// The sizes of the released `beit3_base_patch16_224`, with a head for 3,129 answers.
fn beit3() -> serde_json::Value {
    serde_json::json!({
        "model_type": "beit3", "task": "vqa", "num_classes": 3129, "encoder_embed_dim": 768,
        "encoder_attention_heads": 12, "encoder_ffn_embed_dim": 3072, "encoder_layers": 12, "normalize_output": false,
        "max_source_positions": 1024, "vocab_size": 64010, "img_size": 224, "patch_size": 16,
    })
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: random_checkpoint t5-base|t5-v1_1-base|beit3-base OUT";
    let (shape, out) = arguments.next().zip(arguments.next()).context(usage)?;
    let json = match shape.as_str() {
        "t5-base" => t5("relu", 3072, true),
        "t5-v1_1-base" => t5("gated-gelu", 2048, false),
        "beit3-base" => beit3(),
        _ => bail!("unknown shape '{shape}'; {usage}"),
    };
    let config = ModelConfig::from_json(json.to_string().as_bytes())?;
    let tensors = initialise(&config, 1, &Device::Cpu)?.into_iter().collect();
    Checkpoint::save(&out, &config, &tensors, &[])?;
    println!("{out}: {} parameters", config.parameters());
    Ok(())
}
