//! What narrow weights cost: how far each layer's rows are from the reference's, against one table.

use std::collections::{BTreeMap, HashMap};

use candle_core::safetensors;
use multiway_model::{Checkpoint, HookPoint, Model, TargetBatch, Tensor, TokenizerKind, WeightType};
use serde_json::{Value, json};

use super::case::{Case, load};
use super::{are_ours, beit3, cases, t5};

/// How far the worst case may be off in `bf16` and in 8 bits, as a share of the root mean square of what was
/// recorded: half as much again as was measured. Less than half of a bound would mean that the bound says
/// nothing.
///
/// Layers of T5 read what the reference's layers read, so that each is weighed alone; those of BEiT-3 read
/// each other.
const BOUNDS: [(&str, [f64; 2]); 9] = [
    (WORDS, [1e-6, 1e-6]),
    (PATCHES, [0.0033, 0.0139]),
    (LAYERS[0], [0.0120, 0.044]),
    (LAYERS[1], [0.0200, 0.075]),
    (LAYERS[2], [0.0299, 0.103]),
    (HEADS, [0.0410, 0.097]),
    (ENCODER, [0.0200, 0.068]),
    (DECODER, [0.0296, 0.119]),
    (LOGITS, [0.0140, 0.052]),
];

const WORDS: &str = "BEiT-3: words looked up";
const PATCHES: &str = "BEiT-3: patches projected";
const LAYERS: [&str; 3] = ["BEiT-3: a layer", "BEiT-3: two layers", "BEiT-3: three layers"];
const HEADS: &str = "BEiT-3: the output and the heads";
const ENCODER: &str = "T5: a layer of the encoder, or the last with the norm";
const DECODER: &str = "T5: a layer of the decoder, or the last with the norm";
const LOGITS: &str = "T5: the last layer, the norm and the logits";

/// Says which row of the table a recorded tensor of BEiT-3 belongs to; a loss to none.
fn of_beit3(name: &str) -> Option<&'static str> {
    if name.ends_with("layer_in.0") {
        return Some(if name.starts_with("text") { WORDS } else { PATCHES });
    }
    let layer = name
        .rsplit_once("layer.")
        .and_then(|(_, layer)| layer.parse::<usize>().ok());
    match layer {
        Some(layer) => Some(LAYERS[layer]),
        None => (name != "loss").then_some(HEADS),
    }
}

fn of_t5(name: &str) -> Option<&'static str> {
    match name.split_once('.') {
        Some(("enc", _)) => Some(ENCODER),
        Some(("dec", _)) => Some(DECODER),
        _ => Some(LOGITS),
    }
}

/// Makes a model of one encoder and one decoder layer of a case, the last where there are fewer, whose
/// vocabulary is the rows `[N, D]` that a layer is to read.
fn one_layer(case: &Case, layer: usize, rows: &Tensor) -> Model {
    let stored = safetensors::load(case.folder.join("model.safetensors"), rows.device()).unwrap();
    let mut tensors = HashMap::new();
    for (name, tensor) in &stored {
        let tensor = match name.split_once(".block.0.") {
            Some((stack, part)) => {
                let own = format!("{stack}.block.{}.{part}", layer.min(depth(case, stack) - 1));
                // A table of distances that all layers share stands in the first one.
                stored.get(&own).unwrap_or(tensor)
            }
            None if name.contains(".block.") => continue,
            None => tensor,
        };
        tensors.insert(name.clone(), tensor.clone());
    }
    // Where it is the embedding too, the decoder's rows are scaled; the model made here has one of its own
    // either way.
    let scaled = !stored.contains_key("lm_head.weight");
    let output = &stored[if scaled { "shared.weight" } else { "lm_head.weight" }]; // [V, D]
    let vocabulary = rows.dim(0).unwrap().max(output.dim(0).unwrap());
    let pad = |x: &Tensor| x.pad_with_zeros(0, 0, vocabulary - x.dim(0).unwrap()).unwrap();
    tensors.insert("lm_head.weight".to_owned(), pad(output));
    tensors.insert("shared.weight".to_owned(), pad(rows));
    let config = std::fs::read(case.folder.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    (config["num_layers"], config["num_decoder_layers"]) = (json!(1), json!(1));
    (config["vocab_size"], config["tie_word_embeddings"]) = (json!(vocabulary), json!(false));
    config["scale_decoder_outputs"] = json!(scaled);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
    load(&Checkpoint::open(folder.path()).unwrap(), case.weights).unwrap()
}

fn depth(case: &Case, stack: &str) -> usize {
    let config = case.model.config();
    match stack {
        "encoder" => config.encoder.layers,
        _ => config.decoder_layers(),
    }
}

/// Reads what the reference's layer reads, `[N, D]`.
fn read_by(case: &Case, stack: &str, layer: usize, lengths: &[usize]) -> Tensor {
    let place = layer.checked_sub(1).map_or(HookPoint::Embedded, HookPoint::Layer);
    t5::valid(case, &t5::name(stack, place), lengths)
}

/// Compares what a layer makes of it, and, behind the last one, what the norm does.
fn look<'a>(
    case: &'a Case,
    stack: &'a str,
    layer: usize,
    is_last: bool,
    lengths: &'a [usize],
) -> impl FnMut(HookPoint, &Tensor) -> candle_core::Result<()> + 'a {
    move |place, rows| {
        let place = match place {
            HookPoint::Layer(_) => HookPoint::Layer(layer),
            HookPoint::Output if is_last => place,
            _ => return Ok(()),
        };
        t5::compare_packed(case, &t5::name(stack, place), rows, lengths);
        Ok(())
    }
}

/// Numbers the rows of texts of these lengths, as the vocabulary of [`one_layer`] is.
fn numbered(lengths: &[usize]) -> Vec<Vec<u32>> {
    let mut next = 0..;
    lengths
        .iter()
        .map(|length| next.by_ref().take(*length).collect())
        .collect()
}

/// Gives each layer of a T5 case what the reference's reads.
fn walk_t5(case: &Case) {
    let prompts: Vec<usize> = t5::prompts(case).iter().map(Vec::len).collect();
    let targets: Vec<usize> = case.tokens("decoder_input_ids").iter().map(Vec::len).collect();
    for layer in 0..depth(case, "encoder") {
        let model = one_layer(case, layer, &read_by(case, "enc", layer, &prompts));
        let is_last = layer + 1 == depth(case, "encoder");
        let batch = t5::batch(&model, &numbered(&prompts));
        let mut look = look(case, "enc", layer, is_last, &prompts);
        model.encode_observed(&batch, &mut look).unwrap();
    }
    let mut batch = TargetBatch::default();
    for (sample, tokens) in numbered(&targets).iter().enumerate() {
        batch.push(sample, tokens);
    }
    for layer in 0..depth(case, "decoder") {
        let model = one_layer(case, layer, &read_by(case, "dec", layer, &targets));
        let is_last = layer + 1 == depth(case, "decoder");
        let mut encoded = model.encode(&t5::batch(&model, &numbered(&prompts))).unwrap();
        encoded.hidden = t5::valid(case, "enc.out", &prompts);
        let mut look = look(case, "dec", layer, is_last, &targets);
        let logits = model.decode_observed(&encoded, &batch, &mut look).unwrap(); // [N, V]
        if is_last {
            let logits = logits.narrow(1, 0, case.model.config().vocab_size).unwrap();
            t5::compare_packed(case, "logits", &logits, &targets);
        }
    }
}

/// Lists the errors of a case by the rows of the table.
fn errors(case: &Case) -> Vec<(&'static str, String, f64)> {
    let row: fn(&str) -> Option<&'static str> = match case.model.config().tokenizer {
        TokenizerKind::T5 => {
            walk_t5(case);
            of_t5
        }
        TokenizerKind::XlmRoberta => {
            beit3::walk(case);
            of_beit3
        }
        _ => panic!("{}: its family is not in the table", case.name),
    };
    let errors = case.errors().into_iter();
    errors
        .filter_map(|(name, error)| Some((row(&name)?, format!("{}: {name}", case.name), error)))
        .collect()
}

#[test]
fn each_layer_of_t5_alone_is_the_references() {
    super::each_t5(walk_t5);
}

#[test]
fn narrow_weights_move_the_references_layers_as_far_as_the_table_says() {
    if !are_ours() {
        return;
    }
    let mut wrong = Vec::new();
    for (column, weights) in [WeightType::Bf16, WeightType::Int8].into_iter().enumerate() {
        let mut worst: BTreeMap<&str, (f64, String)> = BTreeMap::new();
        for folder in cases() {
            for (row, place, error) in errors(&Case::with_weights(&folder, weights)) {
                let most = worst.entry(row).or_default();
                if error >= most.0 {
                    *most = (error, place);
                }
            }
        }
        for (row, bounds) in BOUNDS {
            let (bound, (error, place)) = (bounds[column], &worst[row]);
            let least = if row == WORDS { 0.0 } else { bound / 2.0 };
            println!("{weights}, {row}: {error:.4} at {place}");
            if !(least..=bound).contains(error) {
                wrong.push(format!(
                    "{weights}, {row}: {error:.4} at {place}, expected {least} to {bound}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
