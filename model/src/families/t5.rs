//! T5 and what grew out of it: T5 v1.1, Flan-T5, mT5, UMT5 and ByT5, as the `transformers` library stores
//! them.
//!
//! Source: Raffel et al. 2020 (arXiv 1910.10683); Shazeer 2020 (arXiv 2002.05202) for the gated networks of
//! v1.1; the names and the meaning of each key are those of `transformers` 4.57.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::family::{Family, Shapes};
use crate::config::{
    Activation, AttentionPattern, ConfigError, MAX_SIZE, ModelConfig, Positions, StackConfig, TaskGroup,
    TokenizerKind, WeightSpec, check_eps, check_ids, check_sizes, foreign_keys, value,
};

pub(super) static FAMILY: Family = Family {
    model_types: &["t5", "mt5", "umt5"],
    read,
    write,
    weights,
    adapt,
    is_unused: |_, name| name == UNUSED || SHARED_ALIASES.contains(&name),
    embedding_aliases: Some((SHARED, &SHARED_ALIASES)),
    infer: None,
};

/// Size of ByT5's vocabulary, which no other T5 has.
const BYT5_VOCABULARY: usize = 384;

/// Distances are told by buckets, so that no length is too long for the weights; this is what is taken at
/// once.
const MAX_TEXT_LENGTH: usize = 1 << 14;

/// The same for the decoder, whose cache is set aside for its longest text.
const MAX_TARGET_LENGTH: usize = 1 << 10;

/// The most ids that may end a text.
const MAX_ENDS: usize = 64;

/// The embeddings of encoder and decoder, which are one table.
const SHARED: &str = "shared.weight";

/// What files call [`SHARED`] that keep one name, any, of weights that are the same.
const SHARED_ALIASES: [&str; 2] = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];

/// A weight of old files that no layer ever read.
const UNUSED: &str = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";

/// Other names of keys, which `transformers` believes before the usual ones.
const KEY_ALIASES: [(&str, &str); 4] = [
    ("hidden_size", "d_model"),
    ("num_attention_heads", "num_heads"),
    ("num_hidden_layers", "num_layers"),
    ("head_dim", "d_kv"),
];

/// Keys that would make other numbers of the same weights, with the value that is meant where they are not
/// there. All other keys that are not read make none: notes, training, the tokenizer, and how to generate by
/// default.
const FIXED: [(&str, bool); 2] = [("is_encoder_decoder", true), ("tie_encoder_decoder", false)];

/// The keys that are used.
#[derive(Deserialize)]
struct RawT5Config {
    d_ff: usize,
    d_kv: usize,
    d_model: usize,
    bos_token_id: Option<u32>,
    decoder_start_token_id: Option<u32>,
    #[serde(default)]
    eos_token_id: OneOrMany,
    feed_forward_proj: Option<String>,
    dense_act_fn: Option<String>,
    is_gated_act: Option<bool>,
    #[serde(default = "default_epsilon")]
    layer_norm_epsilon: f64,
    num_decoder_layers: Option<usize>,
    num_heads: usize,
    num_layers: usize,
    #[serde(default)]
    pad_token_id: u32,
    #[serde(default = "default_distance")]
    relative_attention_max_distance: usize,
    #[serde(default = "default_buckets")]
    relative_attention_num_buckets: usize,
    scale_decoder_outputs: Option<bool>,
    tie_word_embeddings: Option<bool>,
    vocab_size: usize,
}

/// The ids that end a text, `</s>` if nothing is said.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::One(1)
    }
}

fn default_epsilon() -> f64 {
    1e-6
}

fn default_distance() -> usize {
    128
}

fn default_buckets() -> usize {
    32
}

/// Reads and checks a `config.json` of `transformers`.
fn read(json: &[u8]) -> Result<ModelConfig, ConfigError> {
    let mut keys = foreign_keys(json)?;
    refuse_other_numbers(&keys)?;
    for (alias, key) in KEY_ALIASES {
        if let Some(value) = keys.remove(alias) {
            keys.insert(key.to_owned(), value);
        }
    }
    let model_type = keys.get("model_type").and_then(Value::as_str);
    let model_type = model_type.unwrap_or("t5").to_owned();
    let raw: RawT5Config = serde_json::from_value(Value::Object(keys))?;
    let end_token_ids = match &raw.eos_token_id {
        OneOrMany::One(id) => vec![*id],
        OneOrMany::Many(ids) => ids.clone(),
    };
    check(&raw, &end_token_ids)?;
    let activation = activation(&raw, &model_type)?;
    let tied = raw.tie_word_embeddings.unwrap_or(model_type != "mt5");
    // Newer versions of `transformers` say it by a key; for older ones tying decides.
    let scaled = raw.scale_decoder_outputs.unwrap_or(tied);
    let eos_token_id = end_token_ids.first().copied().unwrap_or_default();
    let layers = StackConfig {
        layers: raw.num_layers,
        heads: raw.num_heads,
        head_size: raw.d_kv,
        scaled: false,
        sub_norm: false,
        activation,
        positions: Positions::Relative {
            buckets: raw.relative_attention_num_buckets,
            max_distance: raw.relative_attention_max_distance,
            every_layer: model_type == "umt5",
        },
    };
    Ok(ModelConfig {
        model_type,
        task_group: if raw.vocab_size == BYT5_VOCABULARY {
            TaskGroup::ByT5
        } else {
            TaskGroup::T5
        },
        tokenizer: TokenizerKind::T5,
        vocab_size: raw.vocab_size,
        hidden_size: raw.d_model,
        intermediate_size: raw.d_ff,
        encoder: layers,
        fusion_layers: 0,
        shared_attention: true,
        attention_pattern: AttentionPattern::Joint,
        encoder_norm: true,
        decoder: Some(StackConfig {
            layers: raw.num_decoder_layers.unwrap_or(raw.num_layers),
            ..layers
        }),
        vision: None,
        max_text_length: MAX_TEXT_LENGTH,
        max_target_length: MAX_TARGET_LENGTH,
        visual_vocab_size: None,
        embedding: None,
        class_head: None,
        norm_eps: raw.layer_norm_epsilon,
        scales_embeddings: false,
        tied_output: tied,
        output_scale: if scaled {
            (raw.d_model as f64).powf(-0.5)
        } else {
            1.0
        },
        states_output_scale: raw.scale_decoder_outputs.is_some(),
        pad_token_id: raw.pad_token_id,
        eos_token_id,
        decoder_start_token_id: start(&raw),
        end_token_ids,
        text_start: None,
        mask_token_id: None,
        names_words: false,
        trained_tasks: None,
    })
}

/// Returns what the decoder starts from: where the file does not say, as `transformers` the token that opens
/// texts, and else padding, as every T5.
fn start(raw: &RawT5Config) -> u32 {
    let start = raw.decoder_start_token_id.or(raw.bos_token_id);
    start.unwrap_or(raw.pad_token_id)
}

/// Refuses keys that `transformers` makes other numbers by, from the same weights, and that mean nothing
/// here.
fn refuse_other_numbers(keys: &Map<String, Value>) -> Result<(), ConfigError> {
    for (key, expected) in FIXED {
        if let Some(found) = keys.get(key).filter(|found| **found != Value::Bool(expected)) {
            return Err(value(key, found, format!("{expected}, as in every T5")));
        }
    }
    let is_empty = |heads: &Value| *heads == json!({}) || *heads == json!([]);
    if let Some(heads) = keys.get("pruned_heads").filter(|heads| !is_empty(heads)) {
        return Err(value("pruned_heads", heads, "none: every head is read"));
    }
    if let Some(quantized) = keys.get("quantization_config") {
        let method = quantized.get("quant_method").and_then(Value::as_str);
        return Err(value(
            "quantization_config",
            method.unwrap_or("set"),
            "none: use the original weights, which are quantized here where that is asked for",
        ));
    }
    Ok(())
}

/// Tells the activation: by `feed_forward_proj`, and by the keys that say the same in two parts, which win.
///
/// Source: `transformers`, `T5Config.__init__`, which sets the two parts from the one before it takes over
/// other keys.
fn activation(raw: &RawT5Config, model_type: &str) -> Result<Activation, ConfigError> {
    let usual = if model_type == "t5" { "relu" } else { "gated-gelu" };
    let projection = raw.feed_forward_proj.as_deref().unwrap_or(usual);
    let (is_gated, function) = match projection.split_once('-') {
        None => (false, projection),
        Some(("gated", "gelu")) => (true, "gelu_new"),
        Some(("gated", function)) if !function.contains('-') => (true, function),
        Some(_) => {
            let expected = "'relu', 'gelu' or 'gated-gelu'";
            return Err(value("feed_forward_proj", projection, expected));
        }
    };
    let is_gated = raw.is_gated_act.unwrap_or(is_gated);
    let function = raw.dense_act_fn.as_deref().unwrap_or(function);
    match (is_gated, function) {
        (false, "relu") => Ok(Activation::Relu),
        (false, "gelu") => Ok(Activation::Gelu),
        // Names of one formula.
        (true, "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Activation::GatedGelu),
        _ if raw.dense_act_fn.is_none() && raw.is_gated_act.is_none() => Err(value(
            "feed_forward_proj",
            projection,
            "'relu', 'gelu' or 'gated-gelu'",
        )),
        (true, _) => Err(value("dense_act_fn", function, "'gelu_new' in a gated network")),
        (false, _) => Err(value(
            "dense_act_fn",
            function,
            "'relu' or 'gelu' in a network without gate",
        )),
    }
}

fn check(raw: &RawT5Config, ends: &[u32]) -> Result<(), ConfigError> {
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
    if !(1..=MAX_ENDS).contains(&ends.len()) {
        let found = format!("a list of {} ids", ends.len());
        return Err(value("eos_token_id", found, format!("1 to {MAX_ENDS}")));
    }
    let ids = [
        ("pad_token_id", raw.pad_token_id),
        ("decoder_start_token_id", start(raw)),
    ];
    let ends = ends.iter().map(|id| ("eos_token_id", *id));
    let ids: Vec<_> = ids.into_iter().chain(ends).collect();
    check_ids(&ids, raw.vocab_size)?;
    check_eps("layer_norm_epsilon", raw.layer_norm_epsilon)
}

/// Writes a `config.json` that [`read`] reads back.
fn write(config: &ModelConfig) -> String {
    let (buckets, max_distance) = match config.encoder.positions {
        Positions::Relative {
            buckets,
            max_distance,
            ..
        } => (buckets, max_distance),
        Positions::Learned | Positions::Rotary { .. } => (default_buckets(), default_distance()),
    };
    let activation = match config.encoder.activation {
        Activation::GatedGelu => "gated-gelu",
        Activation::Gelu => "gelu",
        Activation::Relu => "relu",
    };
    let ends = match config.end_token_ids.as_slice() {
        [only] => json!(only),
        all => json!(all),
    };
    let json = json!({
        "model_type": config.model_type,
        "d_ff": config.intermediate_size,
        "d_kv": config.encoder.head_size,
        "d_model": config.hidden_size,
        "decoder_start_token_id": config.decoder_start_token_id,
        "eos_token_id": ends,
        "feed_forward_proj": activation,
        "layer_norm_epsilon": config.norm_eps,
        "num_decoder_layers": config.decoder_layers(),
        "num_heads": config.encoder.heads,
        "num_layers": config.encoder.layers,
        "pad_token_id": config.pad_token_id,
        "relative_attention_max_distance": max_distance,
        "relative_attention_num_buckets": buckets,
        "scale_decoder_outputs": config.output_scale < 1.0,
        "tie_word_embeddings": config.tied_output,
        "vocab_size": config.vocab_size,
    });
    format!("{json:#}\n")
}

/// Adapts to what a file really holds: whether it has an output projection of its own.
fn adapt(config: &mut ModelConfig, shapes: &Shapes) {
    config.tied_output = shapes("lm_head.weight").is_none();
    // Version 5 of `transformers` calls every mT5 tied, also where it writes an output projection.
    if !config.tied_output && !config.states_output_scale && config.model_type != "t5" {
        config.output_scale = 1.0;
    }
}

/// Lists every weight.
fn weights(config: &ModelConfig) -> Vec<WeightSpec> {
    let (d, inner) = (config.hidden_size, config.encoder.inner_size());
    let (f, v) = (config.intermediate_size, config.vocab_size);
    let mut all = Vec::new();
    let mut add = |name: String, stored: String, shape: &[usize]| {
        all.push(WeightSpec {
            name,
            stored,
            shape: shape.to_vec(),
        });
    };
    add("text_embed.weight".into(), SHARED.into(), &[v, d]);
    for (stack, layers) in [
        ("encoder", config.encoder.layers),
        ("decoder", config.decoder_layers()),
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
            if let Positions::Relative {
                buckets, every_layer, ..
            } = config.encoder.positions
                && (layer == 0 || every_layer)
            {
                add(
                    format!("{p}.position_bias.weight"),
                    format!("{block}.0.SelfAttention.relative_attention_bias.weight"),
                    &[buckets, config.encoder.heads],
                );
            }
            let inputs: &[(&str, &str)] = match config.encoder.activation {
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
    if !config.tied_output {
        add("output.weight".into(), "lm_head.weight".into(), &[v, d]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration as `transformers` saves one, with keys set, or removed where the value is `"absent"`.
    fn config(keys: &[(&str, Value)]) -> Result<ModelConfig, ConfigError> {
        let mut json = json!({
            "architectures": ["T5ForConditionalGeneration"], "classifier_dropout": 0.0, "d_ff": 32, "d_kv": 8,
            "d_model": 16, "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1,
            "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0, "is_encoder_decoder": true,
            "layer_norm_epsilon": 1e-06, "model_type": "t5", "num_decoder_layers": 1, "num_heads": 2, "num_layers": 1,
            "pad_token_id": 0, "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32,
            "tie_word_embeddings": false, "transformers_version": "4.57.6", "use_cache": true, "vocab_size": 160
        });
        for (key, value) in keys {
            json[*key] = value.clone();
            if *value == json!("absent") {
                json.as_object_mut().unwrap().remove(*key);
            }
        }
        ModelConfig::from_json(json.to_string().as_bytes())
    }

    #[test]
    fn keys_that_say_nothing_about_the_model_change_nothing() {
        let plain = config(&[]).unwrap();
        let others = [
            ("max_source_length", json!(512)),
            ("xla_device", json!(true)),
            ("dtype", json!("bfloat16")),
            ("torch_dtype", json!("float16")),
            ("num_beams", json!(4)),
            ("max_length", json!(20)),
            ("no_repeat_ngram_size", json!(2)),
            ("bad_words_ids", json!([[5]])),
            ("prefix", Value::Null),
            ("task_specific_params", json!({"summarization": {"num_beams": 4}})),
            ("pruned_heads", json!({})),
            ("quantization_config", Value::Null),
            ("tie_encoder_decoder", json!(false)),
            // `transformers` sets it for each stack itself.
            ("is_decoder", json!(true)),
            ("add_cross_attention", json!(true)),
            ("chunk_size_feed_forward", json!(4)),
            ("layer_norm_eps", json!(0.1)),
            ("architecture", json!("encoder-decoder")),
            ("dense_act_fn", json!("gelu_new")),
            ("is_gated_act", json!(true)),
        ];
        assert_eq!(config(&others).unwrap(), plain);
    }

    #[test]
    fn keys_that_would_make_other_numbers_are_refused_by_name() {
        let refusals = [
            ("is_encoder_decoder", json!(false)),
            ("tie_encoder_decoder", json!(true)),
            ("pruned_heads", json!({"0": [1]})),
            (
                "quantization_config",
                json!({"quant_method": "bitsandbytes", "load_in_8bit": true}),
            ),
            ("eos_token_id", json!([])),
            ("eos_token_id", json!([1, 160])),
            ("pad_token_id", json!(160)),
        ];
        let told = refusals.map(|(key, value)| config(&[(key, value)]).unwrap_err().to_string());
        insta::assert_snapshot!(told.join("\n"), @r#"
        'is_encoder_decoder' is false, expected true, as in every T5
        'tie_encoder_decoder' is true, expected false, as in every T5
        'pruned_heads' is {"0":[1]}, expected none: every head is read
        'quantization_config' is bitsandbytes, expected none: use the original weights, which are quantized here where that is asked for
        'eos_token_id' is a list of 0 ids, expected 1 to 64
        'eos_token_id' is 160, expected an id below vocab_size (160)
        'pad_token_id' is 160, expected an id below vocab_size (160)
        "#);
    }

    #[test]
    fn an_id_that_is_null_or_absent_is_the_usual_one_and_several_may_end_a_text() {
        for nothing in [Value::Null, json!("absent")] {
            let keys = ["pad_token_id", "eos_token_id", "decoder_start_token_id"];
            let read = config(&keys.map(|key| (key, nothing.clone()))).unwrap();
            assert_eq!(
                (read.pad_token_id, read.eos_token_id, read.decoder_start_token_id),
                (0, 1, 0)
            );
            assert_eq!(read.end_token_ids(), [1]);
        }
        // The decoder starts from what opens a text, or from padding.
        let no_start = ("decoder_start_token_id", Value::Null);
        let read = config(&[
            no_start.clone(),
            ("bos_token_id", json!(3)),
            ("pad_token_id", json!(2)),
        ])
        .unwrap();
        assert_eq!(read.decoder_start_token_id, 3);
        let read = config(&[no_start, ("pad_token_id", json!(2))]).unwrap();
        assert_eq!(read.decoder_start_token_id, 2);
        let read = config(&[("eos_token_id", json!([1, 2]))]).unwrap();
        assert_eq!((read.eos_token_id, read.end_token_ids()), (1, vec![1, 2]));
        let again = ModelConfig::from_json(read.to_json().as_bytes()).unwrap();
        assert_eq!(again.end_token_ids(), [1, 2]);
    }

    /// Right is what `T5Config` of `transformers` 4.57.6 makes of these keys.
    #[test]
    fn the_activation_is_what_two_keys_say_or_else_what_one_says() {
        let absent = || json!("absent");
        let read = |projection: Value, gated: Value, function: Value| {
            let keys = [
                ("feed_forward_proj", projection),
                ("is_gated_act", gated),
                ("dense_act_fn", function),
            ];
            config(&keys)
        };
        let known = [
            ("relu", absent(), absent(), Activation::Relu),
            ("gelu", absent(), absent(), Activation::Gelu),
            ("gated-gelu", absent(), absent(), Activation::GatedGelu),
            ("gelu", json!(true), json!("gelu_new"), Activation::GatedGelu),
            ("relu", json!(true), json!("gelu_new"), Activation::GatedGelu),
            ("gated-gelu", json!(false), json!("relu"), Activation::Relu),
            ("gated-gelu", json!(null), json!(null), Activation::GatedGelu),
            ("absent", absent(), absent(), Activation::Relu),
        ];
        for (projection, gated, function, expected) in known {
            let case = format!("{projection} {gated} {function}");
            let read = read(json!(projection), gated, function).unwrap();
            assert_eq!(read.encoder.activation, expected, "{case}");
            let again = ModelConfig::from_json(read.to_json().as_bytes()).unwrap();
            assert_eq!(again.encoder.activation, expected, "{case}");
        }
        let unknown = [
            ("gated-silu", absent(), absent()),
            ("gated-gelu-new", absent(), absent()),
            ("gelu_new", absent(), absent()),
            ("gelu", json!(true), absent()),
            ("gated-gelu", absent(), json!("relu")),
            ("gated-gelu", json!(false), absent()),
        ];
        let told = unknown.map(|(projection, gated, function)| {
            read(json!(projection), gated, function).unwrap_err().to_string()
        });
        insta::assert_snapshot!(told.join("\n"), @r"
        'feed_forward_proj' is gated-silu, expected 'relu', 'gelu' or 'gated-gelu'
        'feed_forward_proj' is gated-gelu-new, expected 'relu', 'gelu' or 'gated-gelu'
        'feed_forward_proj' is gelu_new, expected 'relu', 'gelu' or 'gated-gelu'
        'dense_act_fn' is gelu, expected 'gelu_new' in a gated network
        'dense_act_fn' is relu, expected 'gelu_new' in a gated network
        'dense_act_fn' is gelu_new, expected 'relu' or 'gelu' in a network without gate
        ");
    }

    #[test]
    fn other_names_of_keys_are_believed_first() {
        let keys = [
            ("hidden_size", json!(24)),
            ("num_attention_heads", json!(3)),
            ("num_hidden_layers", json!(2)),
            ("head_dim", json!(4)),
        ];
        let read = config(&keys).unwrap();
        let found = (
            read.hidden_size,
            read.encoder.heads,
            read.encoder.layers,
            read.encoder.head_size,
        );
        assert_eq!(found, (24, 3, 2, 4));
    }

    #[test]
    fn what_an_mt5_leaves_out_is_what_an_mt5_has() {
        let absent = ["feed_forward_proj", "tie_word_embeddings"].map(|key| (key, json!("absent")));
        let read = |kind: &str| {
            let config = config(&[&absent[..], &[("model_type", json!(kind))]].concat()).unwrap();
            (config.encoder.activation, !config.tied_output)
        };
        assert_eq!(read("t5"), (Activation::Relu, false));
        assert_eq!(read("mt5"), (Activation::GatedGelu, true));
        assert_eq!(read("umt5"), (Activation::GatedGelu, false));
    }
}
