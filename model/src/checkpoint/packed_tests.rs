//! Packed checkpoints as files: how they are laid out, that they are used where they lie, and every way in
//! which one can lie.

use std::collections::HashMap;
use std::fs;
use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor};
use insta::assert_snapshot;
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};

use super::tests::with_header;
use super::*;
use crate::config::ModelConfig;
use crate::execution::LoadOptions;
use crate::kernels::{LAYOUT, PackedLinear, WeightType};
use crate::layers::Weights;
use crate::layers::embedding::Embedding;
use crate::model::Model;
use crate::{init::initialise, testing::tiny_config};

/// A T5 of whole panels, with an output projection of its own or without.
fn t5(tied: bool) -> ModelConfig {
    let json = json!({
        "model_type": "t5", "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2, "vocab_size": 90,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": tied,
    });
    ModelConfig::from_json(json.to_string().as_bytes()).unwrap()
}

/// A packed checkpoint, whose folder is removed when it is dropped.
fn packed(config: &ModelConfig, weights: WeightType) -> tempfile::TempDir {
    let tensors = initialise(config, 3, &Device::Cpu).unwrap().into_iter().collect();
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Checkpoint::save(folder.path(), config, &tensors, &[]).unwrap();
    Checkpoint::open(folder.path())
        .unwrap()
        .pack(out.path(), weights, &[])
        .unwrap();
    out
}

fn file(folder: &tempfile::TempDir) -> Vec<u8> {
    fs::read(folder.path().join(WEIGHTS_FILE)).unwrap()
}

fn open(config: &ModelConfig, weights: &'static [u8]) -> Result<Checkpoint, LoadError> {
    let config = config.to_json().into_bytes().leak();
    let files = Box::leak(Box::new([(CONFIG_FILE, &*config), (WEIGHTS_FILE, weights)]));
    Checkpoint::from_static("tiny", files)
}

#[test]
fn panels_begin_at_cache_lines_and_metadata_says_what_they_are() {
    for weights in WeightType::ALL {
        let file = file(&packed(&t5(false), weights));
        let header = header::parse(&file).unwrap();
        assert_eq!(header.data % 64, 0);
        for entry in &header.tensors {
            let is_packed = entry.name.ends_with(packed::SUFFIX);
            assert_eq!(entry.dtype == DType::U8, is_packed, "{}", entry.name);
            assert!(!is_packed || entry.start % 64 == 0, "{}", entry.name);
        }
        let (_, metadata) = SafeTensors::read_metadata(&file).unwrap();
        let metadata = metadata.metadata().as_ref().unwrap();
        assert_eq!(metadata["multiway.layout"], LAYOUT.to_string());
        assert_eq!(metadata["multiway.weights"], weights.name());
        let shapes: HashMap<String, Vec<usize>> = serde_json::from_str(&metadata["multiway.shapes"]).unwrap();
        assert_eq!(shapes["lm_head.weight"], [90, 32]);
        let reference = SafeTensors::deserialize(&file).unwrap();
        let lines = WeightType::Int8.panel_shape(90, 32)[1];
        assert_eq!(lines, 2 + 8);
        let shape = weights.panel_shape(90, 32);
        assert_eq!(reference.tensor("lm_head.weight.packed").unwrap().shape(), shape);
    }
}

#[test]
fn the_same_checkpoint_is_packed_as_the_same_bytes() {
    let make = || file(&packed(&tiny_config(), WeightType::Int8));
    assert_eq!(make(), make());
}

#[test]
fn embeddings_that_are_the_output_projection_are_there_twice() {
    let names = |tied| {
        let checkpoint = Checkpoint::open(packed(&t5(tied), WeightType::Bf16).path()).unwrap();
        let names = checkpoint.tensors().iter().map(|entry| entry.name.clone());
        let mut names: Vec<_> = names
            .filter(|name| !name.contains("block") && !name.contains("norm"))
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(true), ["shared.weight", "shared.weight.packed"]);
    assert_eq!(names(false), ["lm_head.weight.packed", "shared.weight"]);
}

/// The layers that stack several weights, by the names of those.
fn stacks() -> [Vec<String>; 3] {
    let names = |prefix: &str, parts: &[&str]| {
        let name = |part| format!("{prefix}.{part}.weight");
        parts.iter().map(name).collect()
    };
    [
        names(
            "encoder.layers.0.self_attn.shared",
            &["q_proj", "k_proj", "v_proj"],
        ),
        names("decoder.layers.0.cross_attn", &["k_proj", "v_proj"]),
        names("decoder.layers.0.ffn", &["gate", "up"]),
    ]
}

/// Takes a stacked layer, and says whether its panels are those of the file.
fn stacked(checkpoint: &Checkpoint, names: &[String]) -> (PackedLinear, bool) {
    let read = |name: &str| panic!("{name} is read");
    let ready = |stored: &str| Ok(checkpoint.packed_weight(stored).unwrap());
    let weights = Weights::new(checkpoint.config(), checkpoint.packed().unwrap(), read).with_packed(ready);
    let linear = weights.packed(names).unwrap().unwrap();
    let (_, file) = checkpoint.weights_files().next().unwrap();
    let is_mapped = file.as_ptr_range().contains(&linear.panels().as_ptr());
    (linear, is_mapped)
}

#[test]
fn stacked_weights_are_used_where_the_file_is_mapped() {
    for weights in WeightType::ALL {
        let checkpoint = Checkpoint::open(packed(&t5(false), weights).path()).unwrap();
        for names in stacks() {
            let (linear, is_mapped) = stacked(&checkpoint, &names);
            assert!(is_mapped, "{weights}: {names:?}");
            let first = checkpoint.packed_weight("encoder.block.0.layer.0.SelfAttention.q.weight");
            assert_eq!(linear.inputs(), first.unwrap().inputs());
            assert_eq!(linear.panels().len(), linear.bytes());
        }
    }
}

#[test]
fn the_table_of_embeddings_stays_in_its_file() {
    let folder = packed(&t5(false), WeightType::Int8);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let read = |name: &str| panic!("{name} is read");
    let weights = Weights::new(checkpoint.config(), checkpoint.packed().unwrap(), read)
        .with_tables(|stored| checkpoint.stored_table(stored));
    let table = weights.table("text_embed.weight").unwrap();
    let Embedding::Stored(_) = &table else {
        panic!("{table:?}")
    };
    let ids: Vec<u32> = (0..u32::try_from(table.count().unwrap()).unwrap()).collect();
    let read = checkpoint.load_tensor("shared.weight", &Device::Cpu, DType::F32);
    let numbers = |table: Tensor| table.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(numbers(table.rows(&ids).unwrap()), numbers(read.unwrap()));
    assert!(checkpoint.stored_table("lm_head.weight").is_none());
    assert!(checkpoint.stored_table("lm_head.weight.packed").is_none());
}

#[test]
fn panels_at_an_odd_address_are_copied_and_give_the_same_bytes() {
    let config = t5(false);
    for weights in WeightType::ALL {
        let file = file(&packed(&config, weights));
        let mut found = Vec::new();
        for shift in [0, 1, 4, 32] {
            let memory = vec![0; file.len() + 128].leak();
            let start = memory.as_ptr().align_offset(64) + shift;
            memory[start..start + file.len()].copy_from_slice(&file);
            let checkpoint = open(&config, &memory[start..start + file.len()]).unwrap();
            let layers = stacks().map(|names| stacked(&checkpoint, &names));
            assert!(layers.iter().all(|(_, is_mapped)| *is_mapped == (shift == 0)));
            Model::load(&checkpoint, &Device::Cpu, DType::F32).unwrap();
            found.push(layers.map(|(layer, _)| layer.panels().to_vec()));
        }
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{weights}");
    }
}

#[test]
fn weights_that_lie_apart_are_joined_in_a_copy() {
    let checkpoint = Checkpoint::open(packed(&t5(false), WeightType::Int8).path()).unwrap();
    let [mut names, ..] = stacks();
    let (together, _) = stacked(&checkpoint, &names);
    names.reverse();
    let (reversed, is_mapped) = stacked(&checkpoint, &names);
    assert!(!is_mapped);
    let third = together.bytes() / 3;
    let parts: Vec<&[u8]> = together.panels().chunks(third).rev().collect();
    assert_eq!(reversed.panels(), parts.concat());
}

/// A packed weights file whose header has been edited as JSON.
fn edited(weights: WeightType, edit: impl FnOnce(&mut Map<String, Value>)) -> Vec<u8> {
    with_header(&file(&packed(&tiny_config(), weights)), edit)
}

fn refusal(weights: Vec<u8>) -> String {
    open(&tiny_config(), weights.leak()).unwrap_err().to_string()
}

#[test]
fn a_packed_file_that_lies_is_refused() {
    let metadata = |key: &str, value: &str| {
        refusal(edited(WeightType::Int8, |header| {
            header["__metadata__"][key] = value.into();
        }))
    };
    assert_snapshot!(metadata("multiway.layout", "1\u{1b}"), @r#"'embedded:tiny/model.safetensors' is not a usable safetensors file: its weights are packed in layout '1\u{1b}', expected '2': convert the original checkpoint again with this version"#);
    assert_snapshot!(metadata("multiway.weights", "int4"), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: its weights are packed as 'int4', expected f32, bf16 or int8");
    assert_snapshot!(metadata("multiway.weights", "bf16"), @"'embedded:tiny/model.safetensors': tensor 'text_embed.weight.packed' has shape [8, 10, 64], expected [8, 16, 64]");
    assert_snapshot!(metadata("multiway.shapes", "[1"), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: its multiway.shapes is not a table of shapes by name: invalid type: sequence, expected a map at line 1 column 0");
    assert_snapshot!(metadata("multiway.shapes", r#"{"mim_head.weight": [-1]}"#), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: its multiway.shapes is not a table of shapes by name: invalid value: integer `-1`, expected usize at line 1 column 23");
    let shapes = |edit: fn(&mut Map<String, Value>)| {
        refusal(edited(WeightType::Int8, |header| {
            let text = header["__metadata__"]["multiway.shapes"].as_str().unwrap();
            let mut shapes = serde_json::from_str(text).unwrap();
            edit(&mut shapes);
            header["__metadata__"]["multiway.shapes"] = Value::Object(shapes).to_string().into();
        }))
    };
    assert_snapshot!(shapes(|shapes| { shapes.remove("mim_head.weight"); }), @"'embedded:tiny/model.safetensors': its multiway.shapes says that tensor 'mim_head.weight' had shape [none], expected [20, 32]");
    assert_snapshot!(shapes(|shapes| shapes["mim_head.weight"] = json!([u64::MAX, 32])), @"'embedded:tiny/model.safetensors': its multiway.shapes says that tensor 'mim_head.weight' had shape [18446744073709551615, 32], expected [20, 32]");
    let name = "mim_head.weight.packed";
    let tensor = |edit: fn(&mut Value)| {
        refusal(edited(WeightType::Int8, |header| {
            edit(header.get_mut("mim_head.weight.packed").unwrap());
        }))
    };
    assert_snapshot!(tensor(|tensor| tensor["dtype"] = "F32".into()), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: tensor 'mim_head.weight.packed' has dtype 'F32', expected U8, as packed weights have");
    assert_snapshot!(tensor(|tensor| tensor["shape"] = json!([1, 20, 64])), @"'embedded:tiny/model.safetensors': tensor 'mim_head.weight.packed' has shape [1, 20, 64], expected [2, 10, 64]");
    assert_snapshot!(tensor(|tensor| tensor["shape"] = json!([2, 10, 1_u64 << 40])), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: tensor 'mim_head.weight.packed' needs 21990232555520 bytes, but its offsets 72704 to 73984 hold 1280");
    assert_snapshot!(tensor(|tensor| tensor["shape"] = json!([2, 5, 128])), @"'embedded:tiny/model.safetensors': tensor 'mim_head.weight.packed' has shape [2, 5, 128], expected [2, 10, 64]");
    assert_snapshot!(refusal(edited(WeightType::Int8, |header| {
        let tensor = header.remove(name).unwrap();
        header.insert("mim_head.weight".into(), tensor);
    })), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: tensor 'mim_head.weight' has dtype 'U8', expected F32, BF16 or F16");
    assert_snapshot!(refusal(edited(WeightType::Int8, |header| {
        let tensor = header.remove(name).unwrap();
        header.insert("other.weight.packed".into(), tensor);
    })), @"'embedded:tiny/model.safetensors' lacks tensor 'mim_head.weight.packed' of shape [2, 10, 64]: its config.json belongs to another model, or the file is incomplete");
    let twice = r#"{"__metadata__": {}, "__metadata__": {}}"#;
    let twice = [&(twice.len() as u64).to_le_bytes()[..], twice.as_bytes()].concat();
    assert_snapshot!(refusal(twice), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: its header is not a table of tensors: __metadata__ is there twice at line 1 column 40");
    // Without its metadata it is not packed, and bytes are no weights.
    assert_snapshot!(refusal(edited(WeightType::Int8, |header| { header.remove("__metadata__"); })), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: tensor 'text_embed.weight.packed' has dtype 'U8', expected F32, BF16 or F16");
    let whole = file(&packed(&tiny_config(), WeightType::Int8));
    assert_snapshot!(refusal(whole[..whole.len() - 1].to_vec()), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: its tensors take 101632 bytes, but 101631 follow the header; it may be truncated");
}

#[test]
fn a_packed_file_of_another_model_is_refused() {
    let mut config = tiny_config();
    config.intermediate_size = 64;
    let file = file(&packed(&tiny_config(), WeightType::F32)).leak();
    assert_snapshot!(open(&config, file).unwrap_err(), @"'embedded:tiny/model.safetensors': tensor 'encoder.layers.0.vision.ffn.gate_up.weight.packed' has shape [6, 32, 64], expected [8, 32, 64]");
    config = tiny_config();
    config.visual_vocab_size = Some(21);
    // As many panels, so that the shape is all that tells.
    assert_snapshot!(open(&config, file).unwrap_err(), @"'embedded:tiny/model.safetensors': its multiway.shapes says that tensor 'mim_head.weight' had shape [20, 32], expected [21, 32]");
}

#[test]
fn a_packed_file_among_several_is_refused() {
    let folder = packed(&tiny_config(), WeightType::Int8);
    let path = |name: &str| folder.path().join(name);
    fs::rename(path(WEIGHTS_FILE), path("part.safetensors")).unwrap();
    let index = json!({ "weight_map": { "a": "part.safetensors" } });
    fs::write(path(INDEX_FILE), index.to_string()).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert_snapshot!(error.replace(folder.path().to_str().unwrap(), "FOLDER"), @"'FOLDER/part.safetensors' is packed, and one of several files with weights: expected it to be the only one");
}

#[test]
fn too_many_inputs_for_8_bits_are_told_and_nothing_is_left_behind() {
    let mut config = t5(true);
    config.intermediate_size = (1 << 16) + 16;
    let tensors = initialise(&config, 3, &Device::Cpu)
        .unwrap()
        .into_iter()
        .collect();
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files: [(&str, &[u8]); 1] = [("tokenizer.json", b"new")];
    Checkpoint::save(folder.path(), &config, &tensors, &files).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let tokenizer = out.path().join("tokenizer.json");
    fs::write(&tokenizer, "old").unwrap();
    let error = checkpoint.pack(out.path(), WeightType::Int8, &[]).unwrap_err();
    assert!(
        error.to_string().contains("65552 inputs is too wide for int8"),
        "{error}"
    );
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(tokenizer).unwrap(), "old");
}

#[test]
fn any_bits_in_panels_are_numbers() {
    let config = t5(false);
    let whole = file(&packed(&config, WeightType::Int8));
    let header = header::parse(&whole).unwrap();
    for byte in [0x80, 0xff, 0x7f] {
        let mut file = whole.clone();
        for entry in header.tensors.iter().filter(|entry| entry.dtype == DType::U8) {
            file[header.data + entry.start..][..entry.bytes].fill(byte);
        }
        let checkpoint = open(&config, file.leak()).unwrap();
        let options = LoadOptions::default();
        let model = Model::load_with(&checkpoint, &Device::Cpu, &options).unwrap();
        let samples = [crate::EncoderSample {
            images: &[],
            tokens: &[5, 6, 1],
        }];
        let batch = crate::EncoderBatch::new(&config, &samples).unwrap();
        assert_eq!(model.encode(&batch).unwrap().hidden.dims(), [3, 32]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_other_number_in_a_packed_header_is_refused_or_loads_without_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), b'0'..=b'9'), 1..4),
    ) {
        static FILE: OnceLock<Vec<u8>> = OnceLock::new();
        let mut file = FILE.get_or_init(|| file(&packed(&tiny_config(), WeightType::Int8))).clone();
        let data = header::parse(&file).unwrap().data;
        let digits: Vec<usize> = (8..data).filter(|at| file[*at].is_ascii_digit()).collect();
        for (at, digit) in changes {
            file[*at.get(&digits)] = digit;
        }
        if let Ok(checkpoint) = open(&tiny_config(), file.leak()) {
            let _ = Model::load(&checkpoint, &Device::Cpu, DType::F32);
        }
    }
}
