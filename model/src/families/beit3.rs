//! BEiT-3 as released: pictures and text through one encoder with two experts, and a head for each task.
//!
//! `config.json` is torchscale's `EncoderConfig`, with `task` and `num_classes` beside it.
//!
//! Source: Wang et al. 2022 (arXiv 2208.10442); `microsoft/torchscale` 0.3.0 for the encoder,
//! `microsoft/unilm`, folder `beit3`, `modeling_finetune.py` for the heads.

use serde::Deserialize;
use serde_json::{Value, json};

use super::family::{Family, Shapes};
use crate::config::{
    Activation, AttentionPattern, ClassConfig, ConfigError, EmbeddingConfig, MAX_SIZE, ModelConfig, Pooling,
    Positions, StackConfig, TaskGroup, TextRow, TokenizerKind, VisionConfig, WeightSpec, check_eps,
    check_ids, check_sizes, foreign_keys, value,
};

pub(super) static FAMILY: Family = Family {
    model_types: &["beit3"],
    read,
    write,
    weights,
    adapt,
    is_unused,
    embedding_aliases: None,
    infer: Some(infer),
};

/// What checkpoints are fine-tuned for, which decides their heads.
const TASKS: [(&str, TaskGroup); 7] = [
    ("encoder", TaskGroup::Encoder),
    ("vqa", TaskGroup::Vqa),
    ("nlvr2", TaskGroup::Nlvr2),
    ("imageclassification", TaskGroup::ImageClassification),
    ("retrieval", TaskGroup::Retrieval),
    ("captioning", TaskGroup::Captioning),
    ("pretraining", TaskGroup::Pretraining),
];

/// The size of a head in the released base and large.
const HEAD_SIZE: usize = 64;

/// The width of the giant and its number of heads (arXiv 2208.10442, section 2.3).
const GIANT_WIDTH: usize = 1408;
const GIANT_HEADS: usize = 16;

/// The most patches along one side of a picture: positions are made for all of them, however few the file
/// has.
const MAX_GRID: usize = 128;

/// Size of the released vocabulary, which ends in rows that no token has, and its id of `<mask>`.
const RELEASED_VOCABULARY: (usize, u32) = (64010, 64001);

/// Number of visual codes of BEiT v2, by which the released files name patches.
const VISUAL_CODES: usize = 8192;

/// Mean and deviation of the channels of ImageNet's pictures, which only the head for its classes was trained
/// with.
///
/// Source: `timm`, `IMAGENET_DEFAULT_MEAN` and `IMAGENET_DEFAULT_STD`.
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Position tables start at this row: what comes before belongs to padding.
const POSITION_OFFSET: usize = 2;

/// The keys that are used, or that would change the numbers if they had another value than BEiT-3's. All
/// others say nothing about a forward pass: training, and parts that BEiT-3 does not use.
#[derive(Deserialize)]
struct RawBeit3Config {
    encoder_embed_dim: usize,
    encoder_attention_heads: usize,
    encoder_ffn_embed_dim: usize,
    encoder_layers: usize,
    #[serde(default = "yes")]
    normalize_output: bool,
    #[serde(default = "gelu")]
    activation_fn: String,
    #[serde(default = "yes")]
    no_scale_embedding: bool,
    #[serde(default)]
    layernorm_embedding: bool,
    #[serde(default)]
    moe_freq: usize,
    #[serde(default)]
    rel_pos_buckets: usize,
    #[serde(default)]
    deepnorm: bool,
    #[serde(default = "yes")]
    subln: bool,
    #[serde(default = "yes")]
    multiway: bool,
    #[serde(default)]
    xpos_rel_pos: bool,
    #[serde(default = "positions")]
    max_source_positions: usize,
    #[serde(default = "epsilon")]
    layernorm_eps: f64,
    vocab_size: usize,
    img_size: usize,
    patch_size: usize,
    task: String,
    #[serde(default)]
    num_classes: usize,
    mask_token_id: Option<u32>,
    /// Ours, for the giant of the paper: attention that is not doubled, and layers at the top whose networks
    /// are not.
    #[serde(default)]
    shared_attention: bool,
    #[serde(default)]
    fusion_layers: usize,
}

fn yes() -> bool {
    true
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn positions() -> usize {
    1024
}

fn epsilon() -> f64 {
    1e-5
}

/// Reads and checks a `config.json` of torchscale with a task.
fn read(json: &[u8]) -> Result<ModelConfig, ConfigError> {
    let raw: RawBeit3Config = serde_json::from_value(Value::Object(foreign_keys(json)?))?;
    check(&raw)?;
    let mask_token_id = match raw.mask_token_id {
        Some(id) => id,
        None if raw.vocab_size == RELEASED_VOCABULARY.0 => RELEASED_VOCABULARY.1,
        // Elsewhere it is the last, as XLM-R numbers it.
        None => u32::try_from(raw.vocab_size - 1).unwrap_or(u32::MAX),
    };
    check_ids(&[("mask_token_id", mask_token_id)], raw.vocab_size)?;
    let Some((_, task)) = TASKS.iter().find(|(name, _)| *name == raw.task) else {
        let names: Vec<_> = TASKS.iter().map(|(name, _)| *name).collect();
        return Err(value("task", raw.task, format!("one of {}", names.join(", "))));
    };
    let pooling = match task {
        TaskGroup::Vqa => Some(Pooling::ClassRow),
        TaskGroup::Nlvr2 => Some(Pooling::Pair),
        TaskGroup::ImageClassification => Some(Pooling::PatchMean),
        _ => None,
    };
    if pooling.is_some() && !(1..=MAX_SIZE).contains(&raw.num_classes) {
        return Err(value("num_classes", raw.num_classes, format!("1 to {MAX_SIZE}")));
    }
    Ok(model_config(&raw, *task, pooling, mask_token_id))
}

fn model_config(
    raw: &RawBeit3Config,
    task: TaskGroup,
    pooling: Option<Pooling>,
    mask_token_id: u32,
) -> ModelConfig {
    let is_classifier = task == TaskGroup::ImageClassification;
    let writes = task == TaskGroup::Captioning;
    let is_pretrained = task == TaskGroup::Pretraining;
    let max_text_length = raw.max_source_positions - POSITION_OFFSET;
    ModelConfig {
        model_type: "beit3".to_owned(),
        task_group: task,
        tokenizer: TokenizerKind::XlmRoberta,
        vocab_size: raw.vocab_size,
        hidden_size: raw.encoder_embed_dim,
        intermediate_size: raw.encoder_ffn_embed_dim,
        encoder: StackConfig {
            layers: raw.encoder_layers,
            heads: raw.encoder_attention_heads,
            head_size: raw.encoder_embed_dim / raw.encoder_attention_heads,
            scaled: true,
            sub_norm: true,
            activation: Activation::Gelu,
            positions: Positions::Learned,
        },
        fusion_layers: raw.fusion_layers,
        shared_attention: raw.shared_attention,
        attention_pattern: if writes {
            AttentionPattern::Causal
        } else {
            AttentionPattern::Joint
        },
        encoder_norm: raw.normalize_output,
        decoder: None,
        vision: Some(VisionConfig {
            image_size: raw.img_size,
            patch_size: raw.patch_size,
            max_images: if task == TaskGroup::Nlvr2 { 2 } else { 1 },
            image_mean: if is_classifier { IMAGENET_MEAN } else { [0.5; 3] },
            image_std: if is_classifier { IMAGENET_STD } else { [0.5; 3] },
            crops: is_classifier,
            stored_grid: None,
        }),
        max_text_length,
        // The mask stands behind the last word.
        max_target_length: if writes { max_text_length - 1 } else { 0 },
        visual_vocab_size: is_pretrained.then_some(VISUAL_CODES),
        embedding: (task == TaskGroup::Retrieval).then_some(EmbeddingConfig {
            size: raw.encoder_embed_dim,
            text_row: TextRow::First,
        }),
        class_head: pooling.map(|pooling| ClassConfig {
            classes: raw.num_classes,
            pooling,
        }),
        norm_eps: raw.layernorm_eps,
        scales_embeddings: false,
        tied_output: true,
        output_scale: 1.0,
        states_output_scale: true,
        pad_token_id: 1,
        eos_token_id: 2,
        decoder_start_token_id: 0,
        end_token_ids: vec![2],
        text_start: Some(0),
        mask_token_id: Some(mask_token_id),
        names_words: is_pretrained,
        trained_tasks: None,
    }
}

fn check(raw: &RawBeit3Config) -> Result<(), ConfigError> {
    let sizes = [
        ("vocab_size", raw.vocab_size, 3, MAX_SIZE),
        ("encoder_embed_dim", raw.encoder_embed_dim, 1, 1 << 16),
        ("encoder_ffn_embed_dim", raw.encoder_ffn_embed_dim, 1, 1 << 18),
        ("encoder_layers", raw.encoder_layers, 1, 1024),
        ("encoder_attention_heads", raw.encoder_attention_heads, 1, 1024),
        ("fusion_layers", raw.fusion_layers, 0, raw.encoder_layers),
        ("img_size", raw.img_size, 1, 1 << 13),
        ("patch_size", raw.patch_size, 1, 1 << 10),
        (
            "max_source_positions",
            raw.max_source_positions,
            POSITION_OFFSET + 2,
            MAX_SIZE,
        ),
    ];
    check_sizes(&sizes)?;
    if !raw.encoder_embed_dim.is_multiple_of(raw.encoder_attention_heads) {
        let expected = format!("a divisor of encoder_embed_dim ({})", raw.encoder_embed_dim);
        return Err(value(
            "encoder_attention_heads",
            raw.encoder_attention_heads,
            expected,
        ));
    }
    if !raw.img_size.is_multiple_of(raw.patch_size) {
        let expected = format!("a divisor of img_size ({})", raw.img_size);
        return Err(value("patch_size", raw.patch_size, expected));
    }
    if raw.img_size / raw.patch_size > MAX_GRID {
        let expected = format!("at most {MAX_GRID} times patch_size ({})", raw.patch_size);
        return Err(value("img_size", raw.img_size, expected));
    }
    if raw.activation_fn != "gelu" {
        return Err(value("activation_fn", &raw.activation_fn, "'gelu'"));
    }
    check_eps("layernorm_eps", raw.layernorm_eps)?;
    let switches = [
        ("no_scale_embedding", raw.no_scale_embedding, true),
        ("subln", raw.subln, true),
        ("multiway", raw.multiway, true),
        ("layernorm_embedding", raw.layernorm_embedding, false),
        ("moe_freq", raw.moe_freq > 0, false),
        ("rel_pos_buckets", raw.rel_pos_buckets > 0, false),
        ("deepnorm", raw.deepnorm, false),
        ("xpos_rel_pos", raw.xpos_rel_pos, false),
    ];
    match switches.iter().find(|(_, found, expected)| found != expected) {
        Some((key, found, expected)) => Err(value(
            key,
            found,
            format!("{expected}, as in every released BEiT-3"),
        )),
        None => Ok(()),
    }
}

/// Writes a `config.json` that [`read`] reads back.
fn write(config: &ModelConfig) -> String {
    let task = TASKS.iter().find(|(_, task)| *task == config.task_group);
    let mut json = json!({
        "model_type": "beit3",
        "task": task.map_or("encoder", |(name, _)| name),
        "num_classes": config.classes(),
        "encoder_embed_dim": config.hidden_size,
        "encoder_attention_heads": config.encoder.heads,
        "encoder_ffn_embed_dim": config.intermediate_size,
        "encoder_layers": config.encoder.layers,
        "shared_attention": config.shared_attention,
        "fusion_layers": config.fusion_layers,
        "normalize_output": config.encoder_norm,
        "max_source_positions": config.max_text_length + POSITION_OFFSET,
        "layernorm_eps": config.norm_eps,
        "vocab_size": config.vocab_size,
        "mask_token_id": config.mask_token_id,
    });
    if let Some(vision) = &config.vision {
        json["img_size"] = vision.image_size.into();
        json["patch_size"] = vision.patch_size.into();
    }
    format!("{json:#}\n")
}

/// Gathers the table of weights.
struct Table(Vec<WeightSpec>);

impl Table {
    fn add(&mut self, name: impl Into<String>, stored: impl Into<String>, shape: &[usize]) {
        self.0.push(WeightSpec {
            name: name.into(),
            stored: stored.into(),
            shape: shape.to_vec(),
        });
    }

    /// A matrix `[out, in]` or a scale `[D]`, and the bias beside it.
    fn with_bias(&mut self, name: &str, stored: &str, shape: &[usize]) {
        self.add(format!("{name}.weight"), format!("{stored}.weight"), shape);
        let width = shape.first().copied().unwrap_or(0);
        self.add(format!("{name}.bias"), format!("{stored}.bias"), &[width]);
    }
}

/// Names the branch of a doubled module that an expert is; a module that is not doubled has none.
fn branch(expert: &str) -> &'static str {
    match expert {
        "vision" => ".A",
        "language" => ".B",
        _ => "",
    }
}

/// Lists every weight.
fn weights(config: &ModelConfig) -> Vec<WeightSpec> {
    let (d, f) = (config.hidden_size, config.intermediate_size);
    let (p, grid) = config.vision.as_ref().map_or((0, 0), |vision| {
        (vision.patch_size, vision.stored_grid.unwrap_or(vision.grid()))
    });
    let mut all = Table(Vec::new());
    all.add(
        "text_embed.weight",
        "beit3.text_embed.weight",
        &[config.vocab_size, d],
    );
    all.with_bias("vision_embed.patch", "beit3.vision_embed.proj", &[d, 3, p, p]);
    all.add(
        "vision_embed.class_token",
        "beit3.vision_embed.cls_token",
        &[1, 1, d],
    );
    all.add(
        "vision_embed.mask_token",
        "beit3.vision_embed.mask_token",
        &[1, 1, d],
    );
    let positions = "beit3.encoder.embed_positions";
    let rows = grid * grid + 1 + POSITION_OFFSET;
    all.add(
        "vision_embed.position.weight",
        format!("{positions}.A.weight"),
        &[rows, d],
    );
    let rows = config.max_text_length + POSITION_OFFSET;
    all.add(
        "language_embed.position.weight",
        format!("{positions}.B.weight"),
        &[rows, d],
    );
    for layer in 0..config.encoder.layers {
        let (name, stored) = (
            format!("encoder.layers.{layer}"),
            format!("beit3.encoder.layers.{layer}"),
        );
        for expert in config.attention_experts(layer) {
            for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                let (name, stored) = (
                    format!("{name}.self_attn.{expert}.{part}"),
                    format!("{stored}.self_attn.{part}{}", branch(expert)),
                );
                all.with_bias(&name, &stored, &[d, d]);
            }
        }
        for expert in config.experts(layer) {
            let branch = branch(expert);
            let norms = [
                ("self_attn_norm", "self_attn_layer_norm"),
                ("inner_attn_norm", "self_attn.inner_attn_ln"),
                ("ffn_norm", "final_layer_norm"),
            ];
            for (norm, key) in norms {
                all.with_bias(
                    &format!("{name}.{expert}.{norm}"),
                    &format!("{stored}.{key}{branch}"),
                    &[d],
                );
            }
            let ffn = format!("{stored}.ffn{branch}");
            let name = format!("{name}.{expert}.ffn");
            all.with_bias(&format!("{name}.up"), &format!("{ffn}.fc1"), &[f, d]);
            all.with_bias(
                &format!("{name}.inner_norm"),
                &format!("{ffn}.ffn_layernorm"),
                &[f],
            );
            all.with_bias(&format!("{name}.down"), &format!("{ffn}.fc2"), &[d, f]);
        }
    }
    if config.encoder_norm {
        for expert in ["vision", "language"] {
            let stored = format!("beit3.encoder.layer_norm{}", branch(expert));
            all.with_bias(&format!("encoder.{expert}.norm"), &stored, &[d]);
        }
    }
    head(&mut all, config);
    all.0
}

fn head(all: &mut Table, config: &ModelConfig) {
    let (d, classes) = (config.hidden_size, config.classes());
    match config.task_group {
        TaskGroup::Vqa => {
            all.with_bias("pooler.norm", "pooler.norm", &[d]);
            all.with_bias("pooler.dense", "pooler.dense", &[d, d]);
            all.with_bias("head.dense1", "head.0", &[2 * d, d]);
            all.with_bias("head.norm2", "head.1", &[2 * d]);
            all.with_bias("head.dense2", "head.3", &[classes, 2 * d]);
        }
        TaskGroup::Nlvr2 => {
            all.with_bias("head.norm1", "head.norm1", &[4 * d]);
            all.with_bias("head.dense1", "head.dense1", &[2 * d, 4 * d]);
            all.with_bias("head.norm2", "head.norm2", &[2 * d]);
            all.with_bias("head.dense2", "head.dense2", &[classes, 2 * d]);
        }
        TaskGroup::ImageClassification => {
            all.with_bias("head.norm1", "fc_norm", &[d]);
            all.with_bias("head.dense2", "head", &[classes, d]);
        }
        TaskGroup::Retrieval => {
            all.add("embed.vision.weight", "vision_head.weight", &[d, d]);
            all.add("embed.language.weight", "language_head.weight", &[d, d]);
        }
        TaskGroup::Captioning => all.with_bias("mlm_head", "mlm_head", &[config.vocab_size, d]),
        TaskGroup::Pretraining => {
            all.with_bias("mlm_head", "mlm_head", &[config.vocab_size, d]);
            if let Some(codes) = config.visual_vocab_size {
                all.with_bias("mim_head", "mim_head", &[codes, d]);
            }
        }
        _ => {}
    }
}

/// Adapts to what a file really holds: positions for pictures of another size, and another number of visual
/// codes.
///
/// A table that is no square grid is left to be refused by its shape.
fn adapt(config: &mut ModelConfig, shapes: &Shapes) {
    let rows = |name| shapes(name).and_then(|shape: Vec<usize>| shape.first().copied());
    if let (Some(size), Some(codes)) = (&mut config.visual_vocab_size, rows("mim_head.weight")) {
        *size = codes;
    }
    let rows = rows("beit3.encoder.embed_positions.A.weight");
    let patches = rows.and_then(|rows| rows.checked_sub(1 + POSITION_OFFSET));
    if let (Some(vision), Some(grid)) = (&mut config.vision, patches.map(usize::isqrt))
        && grid > 0
        && patches == Some(grid * grid)
    {
        vision.stored_grid = (grid != vision.grid()).then_some(grid);
    }
}

/// Says whether a weight may stand in a file without being read: the temperature of a training loss, and the
/// heads of pre-training behind a file that was tuned for something else.
fn is_unused(config: &ModelConfig, name: &str) -> bool {
    let words = config.names_words || config.writing_mask().is_some();
    name == "logit_scale"
        || (name.starts_with("mlm_head.") && !words)
        || (name.starts_with("mim_head.") && !config.names_patches())
}

/// Tells from the shapes of a file's weights what model they belong to, as the text of a `config.json`; or
/// why not.
///
/// The released files have no configuration beside them. What shapes do not tell is the number of heads: it
/// is taken from the width as in the released sizes, whose heads are 64 wide, and as in the giant. A model
/// with others needs a `config.json`. A part is known by its weight or its bias, so that of a file that lacks
/// one of them it is said which.
fn infer(shape: &Shapes) -> Result<String, String> {
    let of = |name: &str| match shape(name) {
        Some(shape) if !shape.is_empty() => Ok(shape),
        _ => Err(format!("it has no tensor '{name}'")),
    };
    let has = |part: &str| {
        ["weight", "bias"]
            .iter()
            .any(|leaf| shape(&format!("{part}.{leaf}")).is_some())
    };
    let embed = of("beit3.text_embed.weight")?;
    let [vocab_size, width] = embed.as_slice() else {
        return Err(format!(
            "'beit3.text_embed.weight' has shape {embed:?}, expected two dimensions"
        ));
    };
    let patch = of("beit3.vision_embed.proj.weight")?;
    let patch = patch.last().copied().unwrap_or(0);
    let heads = match *width {
        GIANT_WIDTH => Some(GIANT_HEADS),
        _ => width.is_multiple_of(HEAD_SIZE).then(|| width / HEAD_SIZE),
    };
    let heads = heads.ok_or_else(|| {
        format!("its width is {width}, expected a multiple of {HEAD_SIZE}, the size of a head")
    })?;
    let positions = of("beit3.encoder.embed_positions.A.weight")?;
    let patches = positions
        .first()
        .and_then(|rows| rows.checked_sub(1 + POSITION_OFFSET));
    let grid = patches
        .map(usize::isqrt)
        .filter(|grid| patches == Some(grid * grid));
    let grid = grid.ok_or_else(|| {
        format!(
            "'beit3.encoder.embed_positions.A.weight' has shape {positions:?}, which is no square of patches"
        )
    })?;
    let network = |layer: usize, branch: &str| has(&format!("beit3.encoder.layers.{layer}.ffn{branch}.fc1"));
    let layers = (0..1024)
        .take_while(|layer| network(*layer, ".A") || network(*layer, ""))
        .count();
    let fusion_layers = (0..layers).filter(|layer| network(*layer, "")).count();
    let first = |name: &str| of(name).map(|shape| shape[0]);
    let (task, classes) = if has("pooler.dense") {
        ("vqa", first("head.3.weight")?)
    } else if has("head.dense1") {
        ("nlvr2", first("head.dense2.weight")?)
    } else if has("fc_norm") {
        ("imageclassification", first("head.weight")?)
    } else if has("language_head") || has("vision_head") {
        ("retrieval", 0)
    } else if has("mim_head") && has("mlm_head") {
        ("pretraining", 0)
    } else if has("mlm_head") {
        ("captioning", 0)
    } else {
        ("encoder", 0)
    };
    let json = json!({
        "model_type": "beit3",
        "task": task,
        "num_classes": classes,
        "encoder_embed_dim": width,
        "encoder_attention_heads": heads,
        "encoder_ffn_embed_dim": first(if network(0, "") {
            "beit3.encoder.layers.0.ffn.fc1.weight"
        } else {
            "beit3.encoder.layers.0.ffn.A.fc1.weight"
        })?,
        "encoder_layers": layers,
        "shared_attention": has("beit3.encoder.layers.0.self_attn.q_proj"),
        "fusion_layers": fusion_layers,
        "normalize_output": has("beit3.encoder.layer_norm.A"),
        "max_source_positions": first("beit3.encoder.embed_positions.B.weight")?,
        "vocab_size": vocab_size,
        "img_size": grid.checked_mul(patch).ok_or("its pictures are larger than can be counted")?,
        "patch_size": patch,
    });
    Ok(json.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_training_and_null_say_nothing_and_those_that_would_make_other_numbers_are_refused() {
        let config = |keys: &[(&str, Value)]| {
            let mut json = json!({
                "model_type": "beit3", "task": "encoder", "encoder_embed_dim": 64, "encoder_attention_heads": 1,
                "encoder_ffn_embed_dim": 32, "encoder_layers": 2, "vocab_size": 30, "img_size": 16, "patch_size": 4
            });
            keys.iter().for_each(|(key, value)| json[*key] = value.clone());
            ModelConfig::from_json(json.to_string().as_bytes())
        };
        let others = [
            ("drop_path_rate", json!(0.1)),
            ("checkpoint_activations", json!(true)),
            ("batch_size", json!(64)),
            ("output_dir", json!("/tmp/out")),
            ("num_max_bpe_tokens", Value::Null),
            ("mask_token_id", Value::Null),
            ("layernorm_eps", Value::Null),
            ("dtype", json!("float16")),
        ];
        assert_eq!(config(&others).unwrap(), config(&[]).unwrap());
        for (key, value) in [
            ("deepnorm", json!(true)),
            ("subln", json!(false)),
            ("activation_fn", json!("relu")),
        ] {
            let error = config(&[(key, value)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("'{key}' is ")), "{error}");
        }
    }

    #[test]
    fn heads_are_those_of_the_released_sizes_and_of_the_giant() {
        let heads = |width: usize| {
            let shape = |name: &str| match name {
                "beit3.text_embed.weight" => Some(vec![64010, width]),
                "beit3.vision_embed.proj.weight" => Some(vec![width, 3, 16, 16]),
                "beit3.encoder.embed_positions.A.weight" => Some(vec![199, width]),
                "beit3.encoder.embed_positions.B.weight" => Some(vec![1024, width]),
                "beit3.encoder.layers.0.ffn.A.fc1.weight" => Some(vec![4 * width, width]),
                _ => None,
            };
            let config = read(infer(&shape)?.as_bytes()).map_err(|error| error.to_string())?;
            Ok::<_, String>((config.encoder.heads, config.image_size()))
        };
        assert_eq!(heads(768), Ok((12, 224)));
        assert_eq!(heads(1024), Ok((16, 224)));
        assert_eq!(heads(1408), Ok((16, 224)));
        assert!(heads(700).unwrap_err().contains("its width is 700"));
    }
}
