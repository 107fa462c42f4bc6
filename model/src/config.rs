//! The configuration of the native model family, read from `config.json` and checked before use.

use serde::{Deserialize, Serialize};

/// Says which rows of one sample may attend to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionPattern {
    /// Every row sees every row, as in BEiT-3.
    Joint,
    /// Image rows see image rows only; text rows see everything. What the encoder makes of a picture then
    /// does not depend on the text beside it.
    ImagePrefix,
    /// Image rows see image rows only; a text row sees the image and the text up to itself.
    Causal,
}

/// Errors of reading a `config.json`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not JSON, or has a key of the wrong type, an unknown key, or lacks one.
    #[error("not a model configuration: {0}")]
    Json(#[from] serde_json::Error),
    /// The file belongs to another kind of model.
    #[error("architecture '{found}' is not known; expected '{ARCHITECTURE}'")]
    Architecture {
        /// What the file says.
        found: String,
    },
    /// A value is outside what the model can be built with.
    #[error("'{key}' is {found}, expected {expected}")]
    Value {
        /// The key in the file.
        key: &'static str,
        /// What the file says.
        found: String,
        /// What would be right.
        expected: String,
    },
}

/// The value of `architecture` in a native `config.json`.
pub const ARCHITECTURE: &str = "multiway";

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

/// Describes a native model; every value has been checked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MultiwayConfig {
    /// Number of token ids, V.
    pub vocab_size: usize,
    /// Width of the residual stream, D.
    pub hidden_size: usize,
    /// Width of the gated feed-forward layers, F.
    pub intermediate_size: usize,
    /// Number of encoder layers.
    pub encoder_layers: usize,
    /// Number of attention heads in the encoder.
    pub encoder_heads: usize,
    /// In how many of the top encoder layers both modalities share one fusion expert.
    pub fusion_layers: usize,
    /// Number of decoder layers.
    pub decoder_layers: usize,
    /// Number of attention heads in the decoder.
    pub decoder_heads: usize,
    /// Whether the attention projections are shared by the experts (the paper) or doubled (the released BEiT-3).
    pub shared_attention: bool,
    /// Which rows see which.
    pub attention_pattern: AttentionPattern,
    /// Side of the square input picture, in pixels.
    pub image_size: usize,
    /// Side of a square patch, in pixels.
    pub patch_size: usize,
    /// How many pictures one prompt may hold.
    pub max_images: usize,
    /// How many text tokens one prompt may hold, the closing `</s>` included.
    pub max_text_length: usize,
    /// How many tokens the decoder may hold, the start token included.
    pub max_target_length: usize,
    /// Number of discrete visual codes that masked patches are predicted as.
    pub visual_vocab_size: usize,
    /// Length of a retrieval embedding, E.
    pub embedding_size: usize,
    /// Added to the mean square in RMSNorm.
    pub norm_eps: f64,
    /// Base of the decoder's rotary positions.
    pub rope_theta: f64,
    /// Mean of the red, green and blue channels, in 0..1.
    pub image_mean: [f32; 3],
    /// Standard deviation of the red, green and blue channels, in 0..1.
    pub image_std: [f32; 3],
    /// Id of `<pad>`.
    pub pad_token_id: u32,
    /// Id of `</s>`.
    pub eos_token_id: u32,
    /// Id that the decoder starts from.
    pub decoder_start_token_id: u32,
}

impl MultiwayConfig {
    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// [`ConfigError`] names the key, what was found and what was expected.
    pub fn from_json(json: &[u8]) -> Result<Self, ConfigError> {
        // The architecture is looked at first: a foreign file would otherwise fail on its first unknown key.
        let value: serde_json::Value = serde_json::from_slice(json)?;
        if let Some(found) = value.get("architecture").and_then(|v| v.as_str())
            && found != ARCHITECTURE
        {
            return Err(ConfigError::Architecture {
                found: found.to_owned(),
            });
        }
        serde_json::from_slice::<RawMultiwayConfig>(json)?.try_into()
    }

    /// Writes the configuration as the text of a `config.json`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let raw = RawMultiwayConfig {
            architecture: ARCHITECTURE.to_owned(),
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            encoder_layers: self.encoder_layers,
            encoder_heads: self.encoder_heads,
            fusion_layers: self.fusion_layers,
            decoder_layers: self.decoder_layers,
            decoder_heads: self.decoder_heads,
            shared_attention: self.shared_attention,
            attention_pattern: self.attention_pattern,
            image_size: self.image_size,
            patch_size: self.patch_size,
            max_images: self.max_images,
            max_text_length: self.max_text_length,
            max_target_length: self.max_target_length,
            visual_vocab_size: self.visual_vocab_size,
            embedding_size: self.embedding_size,
            norm_eps: self.norm_eps,
            rope_theta: self.rope_theta,
            image_mean: self.image_mean,
            image_std: self.image_std,
            pad_token_id: self.pad_token_id,
            eos_token_id: self.eos_token_id,
            decoder_start_token_id: self.decoder_start_token_id,
        };
        // A struct of numbers and strings always serialises; an empty text would be refused on reading.
        serde_json::to_string_pretty(&raw).unwrap_or_default() + "\n"
    }

    /// Counts the patches along one side of a picture.
    #[must_use]
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Counts the patches of one picture, P.
    #[must_use]
    pub fn patches(&self) -> usize {
        self.grid() * self.grid()
    }

    /// Counts the numbers in one patch, three channels.
    #[must_use]
    pub fn patch_values(&self) -> usize {
        3 * self.patch_size * self.patch_size
    }

    /// Names the experts of an encoder layer's feed-forward network: vision and language, or one fusion expert.
    #[must_use]
    pub fn experts(&self, layer: usize) -> &'static [&'static str] {
        if layer + self.fusion_layers >= self.encoder_layers {
            &["fusion"]
        } else {
            &["vision", "language"]
        }
    }

    /// Names the parts that an encoder layer's attention is split into: one if shared, else as the experts.
    #[must_use]
    pub fn attention_experts(&self, layer: usize) -> &'static [&'static str] {
        if self.shared_attention {
            &["shared"]
        } else {
            self.experts(layer)
        }
    }

    /// Lists every weight with its shape, in the order in which a checkpoint stores them.
    ///
    /// This table is the only place where a weight's name and shape are decided: files are checked against it,
    /// and training initialises from it.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (d, f) = (self.hidden_size, self.intermediate_size);
        let mut all: Vec<(String, Vec<usize>)> = Vec::new();
        let mut add = |name: String, shape: &[usize]| all.push((name, shape.to_vec()));
        add("text_embed.weight".into(), &[self.vocab_size, d]);
        add("vision_embed.patch.weight".into(), &[d, self.patch_values()]);
        add("vision_embed.class_token".into(), &[1, d]);
        add("vision_embed.mask_token".into(), &[1, d]);
        add("vision_embed.position.weight".into(), &[self.patches() + 1, d]);
        add("vision_embed.image_index.weight".into(), &[self.max_images, d]);
        add(
            "language_embed.position.weight".into(),
            &[self.max_text_length, d],
        );
        for layer in 0..self.encoder_layers {
            let p = format!("encoder.layers.{layer}");
            for e in self.attention_experts(layer) {
                for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                    add(format!("{p}.self_attn.{e}.{name}.weight"), &[d, d]);
                }
            }
            for e in self.experts(layer) {
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
            add(format!("embed.{e}.weight"), &[self.embedding_size, d]);
        }
        for layer in 0..self.decoder_layers {
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
        add("mim_head.weight".into(), &[self.visual_vocab_size, d]);
        all
    }

    /// Counts the model's parameters.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.tensors()
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum()
    }
}

/// The largest value accepted for any size: it bounds what a hostile file can ask to be allocated, and keeps
/// products of two sizes inside 64 bits.
const MAX_SIZE: usize = 1 << 20;

impl TryFrom<RawMultiwayConfig> for MultiwayConfig {
    type Error = ConfigError;

    fn try_from(raw: RawMultiwayConfig) -> Result<Self, ConfigError> {
        check_sizes(&raw)?;
        check_relations(&raw)?;
        check_numbers(&raw)?;
        Ok(Self {
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            encoder_layers: raw.encoder_layers,
            encoder_heads: raw.encoder_heads,
            fusion_layers: raw.fusion_layers,
            decoder_layers: raw.decoder_layers,
            decoder_heads: raw.decoder_heads,
            shared_attention: raw.shared_attention,
            attention_pattern: raw.attention_pattern,
            image_size: raw.image_size,
            patch_size: raw.patch_size,
            max_images: raw.max_images,
            max_text_length: raw.max_text_length,
            max_target_length: raw.max_target_length,
            visual_vocab_size: raw.visual_vocab_size,
            embedding_size: raw.embedding_size,
            norm_eps: raw.norm_eps,
            rope_theta: raw.rope_theta,
            image_mean: raw.image_mean,
            image_std: raw.image_std,
            pad_token_id: raw.pad_token_id,
            eos_token_id: raw.eos_token_id,
            decoder_start_token_id: raw.decoder_start_token_id,
        })
    }
}

fn value(key: &'static str, found: impl ToString, expected: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        key,
        found: found.to_string(),
        expected: expected.into(),
    }
}

fn check_sizes(raw: &RawMultiwayConfig) -> Result<(), ConfigError> {
    let sizes = [
        ("vocab_size", raw.vocab_size, MAX_SIZE),
        ("hidden_size", raw.hidden_size, 1 << 16),
        ("intermediate_size", raw.intermediate_size, 1 << 18),
        ("encoder_layers", raw.encoder_layers, 1024),
        ("encoder_heads", raw.encoder_heads, 1024),
        ("decoder_layers", raw.decoder_layers, 1024),
        ("decoder_heads", raw.decoder_heads, 1024),
        ("image_size", raw.image_size, 1 << 13),
        ("patch_size", raw.patch_size, 1 << 10),
        ("max_images", raw.max_images, 1024),
        ("max_text_length", raw.max_text_length, MAX_SIZE),
        ("max_target_length", raw.max_target_length, MAX_SIZE),
        ("visual_vocab_size", raw.visual_vocab_size, MAX_SIZE),
        ("embedding_size", raw.embedding_size, 1 << 16),
    ];
    for (key, found, limit) in sizes {
        if found == 0 || found > limit {
            return Err(value(key, found, format!("1 to {limit}")));
        }
    }
    Ok(())
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
    for (key, id) in ids {
        if id as usize >= raw.vocab_size {
            return Err(value(
                key,
                id,
                format!("an id below vocab_size ({})", raw.vocab_size),
            ));
        }
    }
    Ok(())
}

fn check_numbers(raw: &RawMultiwayConfig) -> Result<(), ConfigError> {
    if !(raw.norm_eps > 0.0 && raw.norm_eps < 1.0) {
        return Err(value("norm_eps", raw.norm_eps, "a number between 0 and 1"));
    }
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

    fn read(value: &serde_json::Value) -> Result<MultiwayConfig, ConfigError> {
        MultiwayConfig::from_json(value.to_string().as_bytes())
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
        assert_eq!(config.experts(config.encoder_layers - 1), ["fusion"]);
    }
}
