//! The native family: pictures and text, one expert each.
//!
//! Source: Wang et al. 2022, BEiT-3 (arXiv 2208.10442), section 2.1, with an encoder-decoder as in PaLI
//! (arXiv 2209.06794).

use serde::{Deserialize, Serialize};

use super::family::Family;
use crate::config::{
    Activation, AttentionPattern, ConfigError, EmbeddingConfig, MAX_SIZE, ModelConfig, Positions,
    StackConfig, TaskGroup, TextRow, TokenizerKind, VisionConfig, WeightSpec, check_eps, check_ids,
    check_sizes, value,
};

/// The value of `architecture` in a native `config.json`.
const ARCHITECTURE: &str = "multiway";

pub(super) static FAMILY: Family = Family {
    model_types: &[ARCHITECTURE],
    read,
    write,
    weights,
    adapt: |_, _| {},
    is_unused: |_, _| false,
    embedding_aliases: None,
    infer: None,
};

/// The file as it stands: every key known, nothing checked yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMultiwayConfig {
    architecture: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    encoder_layers: usize,
    encoder_heads: usize,
    #[serde(default)]
    fusion_layers: usize,
    decoder_layers: usize,
    decoder_heads: usize,
    #[serde(default = "yes")]
    shared_attention: bool,
    attention_pattern: AttentionPattern,
    image_size: usize,
    patch_size: usize,
    max_images: usize,
    max_text_length: usize,
    max_target_length: usize,
    visual_vocab_size: usize,
    embedding_size: usize,
    #[serde(default = "default_norm_eps")]
    norm_eps: f64,
    #[serde(default = "default_rope_theta")]
    rope_theta: f64,
    image_mean: [f32; 3],
    image_std: [f32; 3],
    pad_token_id: u32,
    eos_token_id: u32,
    decoder_start_token_id: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trained_tasks: Option<Vec<String>>,
}

fn yes() -> bool {
    true
}

fn default_norm_eps() -> f64 {
    1e-6
}

fn default_rope_theta() -> f64 {
    10_000.0
}

/// Reads and checks a native `config.json`.
fn read(json: &[u8]) -> Result<ModelConfig, ConfigError> {
    serde_json::from_slice::<RawMultiwayConfig>(json)?.try_into()
}

/// Writes a native `config.json`. What another family may lack, a native model has.
fn write(config: &ModelConfig) -> String {
    let vision = config.vision.as_ref();
    let raw = RawMultiwayConfig {
        architecture: ARCHITECTURE.to_owned(),
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        encoder_layers: config.encoder.layers,
        encoder_heads: config.encoder.heads,
        fusion_layers: config.fusion_layers,
        decoder_layers: config.decoder_layers(),
        decoder_heads: config
            .decoder
            .map_or(config.encoder.heads, |decoder| decoder.heads),
        shared_attention: config.shared_attention,
        attention_pattern: config.attention_pattern,
        image_size: config.image_size(),
        patch_size: vision.map_or(0, |vision| vision.patch_size),
        max_images: config.max_images(),
        max_text_length: config.max_text_length,
        max_target_length: config.max_target_length,
        visual_vocab_size: config.visual_vocab_size.unwrap_or(0),
        embedding_size: config.embedding_size(),
        norm_eps: config.norm_eps,
        rope_theta: match config.decoder.map(|decoder| decoder.positions) {
            Some(Positions::Rotary { theta }) => theta,
            _ => default_rope_theta(),
        },
        image_mean: vision.map_or([0.0; 3], |vision| vision.image_mean),
        image_std: vision.map_or([1.0; 3], |vision| vision.image_std),
        pad_token_id: config.pad_token_id,
        eos_token_id: config.eos_token_id,
        decoder_start_token_id: config.decoder_start_token_id,
        trained_tasks: config.trained_tasks.clone(),
    };
    // A struct of numbers and strings always serialises; an empty text would be refused on reading.
    serde_json::to_string_pretty(&raw).unwrap_or_default() + "\n"
}

/// Lists every weight.
fn weights(config: &ModelConfig) -> Vec<WeightSpec> {
    let (d, f) = (config.hidden_size, config.intermediate_size);
    let mut all = Vec::new();
    let mut add = |name: String, shape: &[usize]| {
        all.push(WeightSpec {
            stored: name.clone(),
            name,
            shape: shape.to_vec(),
        });
    };
    add("text_embed.weight".into(), &[config.vocab_size, d]);
    if let Some(vision) = &config.vision {
        let patch_values = 3 * vision.patch_size * vision.patch_size;
        add("vision_embed.patch.weight".into(), &[d, patch_values]);
        add("vision_embed.class_token".into(), &[1, d]);
        add("vision_embed.mask_token".into(), &[1, d]);
        add("vision_embed.position.weight".into(), &[config.patches() + 1, d]);
        add("vision_embed.image_index.weight".into(), &[vision.max_images, d]);
    }
    add(
        "language_embed.position.weight".into(),
        &[config.max_text_length, d],
    );
    for layer in 0..config.encoder.layers {
        let p = format!("encoder.layers.{layer}");
        for e in config.attention_experts(layer) {
            for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                add(format!("{p}.self_attn.{e}.{name}.weight"), &[d, d]);
            }
        }
        for e in config.experts(layer) {
            add(format!("{p}.{e}.self_attn_norm.weight"), &[d]);
            add(format!("{p}.{e}.inner_attn_norm.weight"), &[d]);
            add(format!("{p}.{e}.ffn_norm.weight"), &[d]);
            add(format!("{p}.{e}.ffn.gate_up.weight"), &[2 * f, d]);
            add(format!("{p}.{e}.ffn.inner_norm.weight"), &[f]);
            add(format!("{p}.{e}.ffn.down.weight"), &[d, f]);
        }
    }
    for e in ["vision", "language"] {
        add(format!("encoder.{e}.norm.weight"), &[d]);
        if let Some(head) = &config.embedding {
            add(format!("embed.{e}.weight"), &[head.size, d]);
        }
    }
    for layer in 0..config.decoder_layers() {
        let p = format!("decoder.layers.{layer}");
        for block in ["self_attn", "cross_attn"] {
            add(format!("{p}.{block}_norm.weight"), &[d]);
            for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                add(format!("{p}.{block}.{name}.weight"), &[d, d]);
            }
            add(format!("{p}.{block}.inner_norm.weight"), &[d]);
        }
        add(format!("{p}.ffn_norm.weight"), &[d]);
        add(format!("{p}.ffn.gate_up.weight"), &[2 * f, d]);
        add(format!("{p}.ffn.inner_norm.weight"), &[f]);
        add(format!("{p}.ffn.down.weight"), &[d, f]);
    }
    add("decoder.norm.weight".into(), &[d]);
    if let Some(codes) = config.visual_vocab_size {
        add("mim_head.weight".into(), &[codes, d]);
    }
    all
}

impl TryFrom<RawMultiwayConfig> for ModelConfig {
    type Error = ConfigError;

    fn try_from(raw: RawMultiwayConfig) -> Result<Self, ConfigError> {
        check_all_sizes(&raw)?;
        check_relations(&raw)?;
        check_numbers(&raw)?;
        let encoder = StackConfig {
            layers: raw.encoder_layers,
            heads: raw.encoder_heads,
            head_size: raw.hidden_size / raw.encoder_heads,
            scaled: true,
            sub_norm: true,
            activation: Activation::GatedGelu,
            positions: Positions::Learned,
        };
        Ok(Self {
            model_type: ARCHITECTURE.to_owned(),
            task_group: TaskGroup::Native,
            tokenizer: TokenizerKind::Plain,
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            decoder: Some(StackConfig {
                layers: raw.decoder_layers,
                heads: raw.decoder_heads,
                head_size: raw.hidden_size / raw.decoder_heads,
                positions: Positions::Rotary {
                    theta: raw.rope_theta,
                },
                ..encoder
            }),
            encoder,
            fusion_layers: raw.fusion_layers,
            shared_attention: raw.shared_attention,
            attention_pattern: raw.attention_pattern,
            encoder_norm: true,
            vision: Some(VisionConfig {
                image_size: raw.image_size,
                patch_size: raw.patch_size,
                max_images: raw.max_images,
                image_mean: raw.image_mean,
                image_std: raw.image_std,
                crops: false,
                stored_grid: None,
            }),
            max_text_length: raw.max_text_length,
            max_target_length: raw.max_target_length,
            visual_vocab_size: Some(raw.visual_vocab_size),
            embedding: Some(EmbeddingConfig {
                size: raw.embedding_size,
                text_row: TextRow::Last,
            }),
            class_head: None,
            norm_eps: raw.norm_eps,
            scales_embeddings: true,
            tied_output: true,
            output_scale: 1.0,
            states_output_scale: true,
            pad_token_id: raw.pad_token_id,
            eos_token_id: raw.eos_token_id,
            decoder_start_token_id: raw.decoder_start_token_id,
            end_token_ids: vec![raw.eos_token_id],
            text_start: None,
            mask_token_id: None,
            names_words: false,
            trained_tasks: raw.trained_tasks,
        })
    }
}

fn check_all_sizes(raw: &RawMultiwayConfig) -> Result<(), ConfigError> {
    let sizes = [
        ("vocab_size", raw.vocab_size, 1, MAX_SIZE),
        ("hidden_size", raw.hidden_size, 1, 1 << 16),
        ("intermediate_size", raw.intermediate_size, 1, 1 << 18),
        ("encoder_layers", raw.encoder_layers, 1, 1024),
        ("encoder_heads", raw.encoder_heads, 1, 1024),
        ("decoder_layers", raw.decoder_layers, 1, 1024),
        ("decoder_heads", raw.decoder_heads, 1, 1024),
        ("image_size", raw.image_size, 1, 1 << 13),
        ("patch_size", raw.patch_size, 1, 1 << 10),
        ("max_images", raw.max_images, 1, 1024),
        ("max_text_length", raw.max_text_length, 1, MAX_SIZE),
        ("max_target_length", raw.max_target_length, 1, MAX_SIZE),
        ("visual_vocab_size", raw.visual_vocab_size, 1, MAX_SIZE),
        ("embedding_size", raw.embedding_size, 1, 1 << 16),
    ];
    check_sizes(&sizes)
}

fn check_relations(raw: &RawMultiwayConfig) -> Result<(), ConfigError> {
    for (key, heads) in [
        ("encoder_heads", raw.encoder_heads),
        ("decoder_heads", raw.decoder_heads),
    ] {
        if !raw.hidden_size.is_multiple_of(heads) {
            return Err(value(
                key,
                heads,
                format!("a divisor of hidden_size ({})", raw.hidden_size),
            ));
        }
    }
    if !(raw.hidden_size / raw.decoder_heads).is_multiple_of(2) {
        let head = raw.hidden_size / raw.decoder_heads;
        let expected =
            format!("heads of an even size for rotary positions (hidden_size / decoder_heads is {head})");
        return Err(value("decoder_heads", raw.decoder_heads, expected));
    }
    if !raw.image_size.is_multiple_of(raw.patch_size) {
        return Err(value(
            "patch_size",
            raw.patch_size,
            format!("a divisor of image_size ({})", raw.image_size),
        ));
    }
    if raw.fusion_layers > raw.encoder_layers {
        let expected = format!("at most encoder_layers ({})", raw.encoder_layers);
        return Err(value("fusion_layers", raw.fusion_layers, expected));
    }
    let ids = [
        ("pad_token_id", raw.pad_token_id),
        ("eos_token_id", raw.eos_token_id),
        ("decoder_start_token_id", raw.decoder_start_token_id),
    ];
    check_ids(&ids, raw.vocab_size)
}

fn check_numbers(raw: &RawMultiwayConfig) -> Result<(), ConfigError> {
    check_eps("norm_eps", raw.norm_eps)?;
    if !(raw.rope_theta >= 1.0 && raw.rope_theta.is_finite()) {
        return Err(value(
            "rope_theta",
            raw.rope_theta,
            "a finite number of at least 1",
        ));
    }
    if raw.image_mean.iter().any(|m| !m.is_finite()) {
        return Err(value(
            "image_mean",
            format!("{:?}", raw.image_mean),
            "three finite numbers",
        ));
    }
    if raw.image_std.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
        return Err(value(
            "image_std",
            format!("{:?}", raw.image_std),
            "three numbers above 0",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json() -> serde_json::Value {
        serde_json::from_str(&crate::testing::tiny_config().to_json()).unwrap()
    }

    fn read(value: &serde_json::Value) -> Result<ModelConfig, ConfigError> {
        ModelConfig::from_json(value.to_string().as_bytes())
    }

    #[test]
    fn a_config_survives_writing_and_reading() {
        assert_eq!(read(&json()).unwrap(), crate::testing::tiny_config());
    }

    #[test]
    fn contradictions_are_refused_with_the_key_and_the_expectation() {
        let cases = [
            ("encoder_heads", serde_json::json!(5)),
            ("patch_size", serde_json::json!(7)),
            ("fusion_layers", serde_json::json!(9)),
            ("eos_token_id", serde_json::json!(1_000_000)),
            ("hidden_size", serde_json::json!(0)),
            ("vocab_size", serde_json::json!(1u64 << 40)),
            ("norm_eps", serde_json::json!(0.0)),
            ("image_std", serde_json::json!([0.5, 0.0, 0.5])),
            ("architecture", serde_json::json!("T5ForConditionalGeneration")),
            ("surprise", serde_json::json!(1)),
            ("hidden_size", serde_json::json!("wide")),
        ];
        let mut messages = String::new();
        for (key, wrong) in cases {
            let mut config = json();
            config[key] = wrong;
            messages += &format!("{key}: {}\n", read(&config).unwrap_err());
        }
        insta::assert_snapshot!(messages);
    }

    #[test]
    fn fusion_layers_have_one_expert() {
        let mut config = json();
        config["fusion_layers"] = serde_json::json!(1);
        let config = read(&config).unwrap();
        assert_eq!(config.experts(0), ["vision", "language"]);
        assert_eq!(config.experts(config.encoder.layers - 1), ["fusion"]);
    }
}
