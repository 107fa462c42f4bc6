//! T5 and what grew out of it: T5 v1.1, Flan-T5, mT5, UMT5 and ByT5, as the `transformers` library stores them.
//!
//! Source: Raffel et al. 2020 (arXiv 1910.10683); Shazeer 2020 (arXiv 2002.05202) for the gated networks of v1.1; the
//! names and the meaning of each key are those of `transformers` 4.57.

use crate::config::{
    Activation, AttentionPattern, ConfigError, Family, LayerConfig, MAX_SIZE, ModelConfig, Positions,
    WeightSpec, check_eps, check_ids, check_sizes, value,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What only this family has.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct T5Details {
    /// `t5`, `mt5` or `umt5`.
    pub model_type: String,
    /// Size of an attention head.
    pub head_size: usize,
    /// The feed-forward network's activation.
    pub activation: Activation,
    /// Number of buckets of distances.
    pub buckets: usize,
    /// Distance from which on everything falls into the last bucket.
    pub max_distance: usize,
    /// Whether the file has an output projection of its own rather than the embeddings'.
    pub own_output: bool,
    /// Factor between the last norm and the logits.
    pub output_scale: f64,
    /// Whether `config.json` itself says if there is such a factor.
    pub states_scale: bool,
}

/// Distances are told by buckets, so that no length is too long for the weights; this is what is taken at once.
const MAX_TEXT_LENGTH: usize = 1 << 14;

/// The same for the decoder, whose cache is set aside for its longest text.
const MAX_TARGET_LENGTH: usize = 1 << 10;

/// Keys that say nothing about the numbers: notes, training, the tokenizer, and how to generate by default, which has a
/// file of its own.
const IGNORED: [&str; 38] = [
    "_name_or_path",
    "architectures",
    "bos_token_id",
    "classifier_dropout",
    "dense_act_fn",
    "diversity_penalty",
    "do_sample",
    "dropout_rate",
    "dtype",
    "early_stopping",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "is_decoder",
    "is_encoder_decoder",
    "is_gated_act",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "n_positions",
    "no_repeat_ngram_size",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "repetition_penalty",
    "return_dict",
    "scalable_attention",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "problem_type",
];

/// Weights that some files repeat or carry without use.
const UNUSED: [&str; 3] = [
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
];

/// The keys that are used.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawT5Config {
    d_ff: usize,
    d_kv: usize,
    d_model: usize,
    #[serde(default)]
    decoder_start_token_id: u32,
    #[serde(default = "one")]
    eos_token_id: u32,
    #[serde(default = "relu")]
    feed_forward_proj: String,
    #[serde(default = "epsilon")]
    layer_norm_epsilon: f64,
    num_decoder_layers: Option<usize>,
    num_heads: usize,
    num_layers: usize,
    #[serde(default)]
    pad_token_id: u32,
    #[serde(default = "distance")]
    relative_attention_max_distance: usize,
    #[serde(default = "buckets")]
    relative_attention_num_buckets: usize,
    scale_decoder_outputs: Option<bool>,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
    vocab_size: usize,
}

fn one() -> u32 {
    1
}

fn relu() -> String {
    "relu".to_owned()
}

fn epsilon() -> f64 {
    1e-6
}

fn distance() -> usize {
    128
}

fn buckets() -> usize {
    32
}

fn yes() -> bool {
    true
}

/// Reads and checks a `config.json` of `transformers`.
pub(crate) fn read(json: &[u8]) -> Result<ModelConfig, ConfigError> {
    let mut keys: Map<String, Value> = serde_json::from_slice(json)?;
    let model_type = keys.get("model_type").and_then(Value::as_str);
    let model_type = model_type.unwrap_or("t5").to_owned();
    keys.retain(|key, _| !IGNORED.contains(&key.as_str()));
    let raw: RawT5Config = serde_json::from_value(Value::Object(keys))?;
    check(&raw)?;
    let activation = match raw.feed_forward_proj.as_str() {
        "relu" => Activation::Relu,
        "gated-gelu" => Activation::GatedGelu,
        other => return Err(value("feed_forward_proj", other, "'relu' or 'gated-gelu'")),
    };
    // Newer versions of `transformers` say it by a key; for older ones tying decides.
    let scaled = raw.scale_decoder_outputs.unwrap_or(raw.tie_word_embeddings);
    let details = T5Details {
        model_type,
        head_size: raw.d_kv,
        activation,
        buckets: raw.relative_attention_num_buckets,
        max_distance: raw.relative_attention_max_distance,
        own_output: !raw.tie_word_embeddings,
        output_scale: if scaled {
            (raw.d_model as f64).powf(-0.5)
        } else {
            1.0
        },
        states_scale: raw.scale_decoder_outputs.is_some(),
    };
    Ok(ModelConfig {
        family: Family::T5(details),
        vocab_size: raw.vocab_size,
        hidden_size: raw.d_model,
        intermediate_size: raw.d_ff,
        encoder_layers: raw.num_layers,
        encoder_heads: raw.num_heads,
        fusion_layers: 0,
        decoder_layers: raw.num_decoder_layers.unwrap_or(raw.num_layers),
        decoder_heads: raw.num_heads,
        shared_attention: true,
        attention_pattern: AttentionPattern::Joint,
        image_size: 0,
        patch_size: 0,
        max_images: 0,
        max_text_length: MAX_TEXT_LENGTH,
        max_target_length: MAX_TARGET_LENGTH,
        visual_vocab_size: 0,
        embedding_size: 0,
        norm_eps: raw.layer_norm_epsilon,
        rope_theta: 0.0,
        image_mean: [0.0; 3],
        image_std: [1.0; 3],
        pad_token_id: raw.pad_token_id,
        eos_token_id: raw.eos_token_id,
        decoder_start_token_id: raw.decoder_start_token_id,
    })
}

fn check(raw: &RawT5Config) -> Result<(), ConfigError> {
    let sizes = [
        ("vocab_size", raw.vocab_size, 1, MAX_SIZE),
        ("d_model", raw.d_model, 1, 1 << 16),
        ("d_ff", raw.d_ff, 1, 1 << 18),
        ("d_kv", raw.d_kv, 1, 1 << 12),
        ("num_heads", raw.num_heads, 1, 1024),
        ("num_layers", raw.num_layers, 1, 1024),
        (
            "num_decoder_layers",
            raw.num_decoder_layers.unwrap_or(raw.num_layers),
            1,
            1024,
        ),
        (
            "relative_attention_max_distance",
            raw.relative_attention_max_distance,
            1,
            1 << 10,
        ),
    ];
    check_sizes(&sizes)?;
    if raw.num_heads * raw.d_kv > 1 << 16 {
        let expected = format!("at most {} over num_heads ({})", 1 << 16, raw.num_heads);
        return Err(value("d_kv", raw.d_kv, expected));
    }
    let buckets = raw.relative_attention_num_buckets;
    if buckets < 4 || !buckets.is_multiple_of(4) || buckets / 2 >= raw.relative_attention_max_distance {
        let expected = "a multiple of 4, less than twice relative_attention_max_distance";
        return Err(value("relative_attention_num_buckets", buckets, expected));
    }
    let ids = [
        ("pad_token_id", raw.pad_token_id),
        ("eos_token_id", raw.eos_token_id),
        ("decoder_start_token_id", raw.decoder_start_token_id),
    ];
    check_ids(&ids, raw.vocab_size)?;
    check_eps("layer_norm_epsilon", raw.layer_norm_epsilon)
}

/// Writes a `config.json` that [`read`] reads back.
pub(crate) fn write(config: &ModelConfig, details: &T5Details) -> String {
    let activation = match details.activation {
        Activation::GatedGelu => "gated-gelu",
        Activation::Relu | Activation::Gelu => "relu",
    };
    let json = json!({
        "model_type": details.model_type,
        "d_ff": config.intermediate_size,
        "d_kv": details.head_size,
        "d_model": config.hidden_size,
        "decoder_start_token_id": config.decoder_start_token_id,
        "eos_token_id": config.eos_token_id,
        "feed_forward_proj": activation,
        "layer_norm_epsilon": config.norm_eps,
        "num_decoder_layers": config.decoder_layers,
        "num_heads": config.encoder_heads,
        "num_layers": config.encoder_layers,
        "pad_token_id": config.pad_token_id,
        "relative_attention_max_distance": details.max_distance,
        "relative_attention_num_buckets": details.buckets,
        "scale_decoder_outputs": details.output_scale < 1.0,
        "tie_word_embeddings": !details.own_output,
        "vocab_size": config.vocab_size,
    });
    format!("{json:#}\n")
}

/// Describes the layers, which are the same in encoder and decoder.
pub(crate) fn layer(config: &ModelConfig, details: &T5Details) -> LayerConfig {
    LayerConfig {
        heads: config.encoder_heads,
        head_size: details.head_size,
        scaled: false,
        sub_norm: false,
        activation: details.activation,
        positions: Positions::Relative {
            buckets: details.buckets,
            max_distance: details.max_distance,
            every_layer: every_layer(details),
        },
    }
}

fn every_layer(details: &T5Details) -> bool {
    details.model_type == "umt5"
}

/// Adapts to what a file really holds: whether it has an output projection of its own.
pub(crate) fn adapt(details: &mut T5Details, shape: impl Fn(&str) -> Option<Vec<usize>>) {
    details.own_output = shape("lm_head.weight").is_some();
    // Version 5 of `transformers` calls every mT5 tied, also where it writes an output projection.
    if details.own_output && !details.states_scale && details.model_type != "t5" {
        details.output_scale = 1.0;
    }
}

/// Says whether a weight may stand in a file without being read.
pub(crate) fn is_unused(name: &str) -> bool {
    UNUSED.contains(&name)
}

/// Lists every weight.
pub(crate) fn weights(config: &ModelConfig, details: &T5Details) -> Vec<WeightSpec> {
    let (d, inner) = (config.hidden_size, config.encoder_heads * details.head_size);
    let (f, v) = (config.intermediate_size, config.vocab_size);
    let mut all = Vec::new();
    let mut add = |name: String, stored: String, shape: &[usize]| {
        all.push(WeightSpec {
            name,
            stored,
            shape: shape.to_vec(),
        });
    };
    add("text_embed.weight".into(), "shared.weight".into(), &[v, d]);
    for (stack, layers) in [
        ("encoder", config.encoder_layers),
        ("decoder", config.decoder_layers),
    ] {
        let is_encoder = stack == "encoder";
        for layer in 0..layers {
            let (p, block) = (
                format!("{stack}.layers.{layer}"),
                format!("{stack}.block.{layer}.layer"),
            );
            // What the encoder's expert is called, and the part of the decoder's layer that it stands for.
            let (expert, own, last) = if is_encoder {
                (format!("{p}.language"), format!("{p}.self_attn.shared"), 1)
            } else {
                (p.clone(), format!("{p}.self_attn"), 2)
            };
            let mut attention = |own: &str, norm: String, stored: String, place: usize| {
                for (name, key) in [("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v")] {
                    let stored = format!("{block}.{place}.{stored}.{key}.weight");
                    add(format!("{own}.{name}.weight"), stored, &[inner, d]);
                }
                let out = format!("{block}.{place}.{stored}.o.weight");
                add(format!("{own}.out_proj.weight"), out, &[d, inner]);
                add(norm, format!("{block}.{place}.layer_norm.weight"), &[d]);
            };
            attention(
                &own,
                format!("{expert}.self_attn_norm.weight"),
                "SelfAttention".into(),
                0,
            );
            if !is_encoder {
                let own = format!("{p}.cross_attn");
                attention(
                    &own,
                    format!("{p}.cross_attn_norm.weight"),
                    "EncDecAttention".into(),
                    1,
                );
            }
            if layer == 0 || every_layer(details) {
                add(
                    format!("{p}.position_bias.weight"),
                    format!("{block}.0.SelfAttention.relative_attention_bias.weight"),
                    &[details.buckets, config.encoder_heads],
                );
            }
            let inputs: &[(&str, &str)] = match details.activation {
                Activation::Relu | Activation::Gelu => &[("up", "wi")],
                Activation::GatedGelu => &[("gate", "wi_0"), ("up", "wi_1")],
            };
            for (name, key) in inputs {
                let stored = format!("{block}.{last}.DenseReluDense.{key}.weight");
                add(format!("{expert}.ffn.{name}.weight"), stored, &[f, d]);
            }
            let stored = format!("{block}.{last}.DenseReluDense.wo.weight");
            add(format!("{expert}.ffn.down.weight"), stored, &[d, f]);
            let stored = format!("{block}.{last}.layer_norm.weight");
            add(format!("{expert}.ffn_norm.weight"), stored, &[d]);
        }
        let norm = if is_encoder {
            "encoder.language.norm"
        } else {
            "decoder.norm"
        };
        add(
            format!("{norm}.weight"),
            format!("{stack}.final_layer_norm.weight"),
            &[d],
        );
    }
    if details.own_output {
        add("output.weight".into(), "lm_head.weight".into(), &[v, d]);
    }
    all
}
