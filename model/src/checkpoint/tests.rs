//! Whole checkpoints, and every way in which a file can lie.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use insta::assert_snapshot;
use proptest::prelude::*;
use safetensors::SafeTensors;

use super::files::{CONFIG_LIMIT, FILE_LIMIT};
use super::*;
use crate::{init::initialise, testing::tiny_config};

type StaticFiles = &'static [(&'static str, &'static [u8])];

fn zeros(size: usize, dtype: DType) -> Tensor {
    Tensor::zeros(size, dtype, &Device::Cpu).unwrap()
}

fn tensors(seed: u64) -> HashMap<String, Tensor> {
    initialise(&tiny_config(), seed, &Device::Cpu)
        .unwrap()
        .into_iter()
        .collect()
}

/// A saved checkpoint, whose folder is removed when it is dropped.
fn saved() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    Checkpoint::save(
        folder.path(),
        &tiny_config(),
        &tensors(3),
        &[("tokenizer.json", b"{}")],
    )
    .unwrap();
    folder
}

fn saved_weights() -> Vec<u8> {
    fs::read(saved().path().join(WEIGHTS_FILE)).unwrap()
}

/// A weights file with this header, its length set right, and this many bytes of data.
fn weights_file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

/// A saved weights file whose header has been edited as JSON.
fn edited(edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> Vec<u8> {
    with_header(&saved_weights(), edit)
}

/// A weights file whose header has been edited as JSON.
pub(super) fn with_header(
    file: &[u8],
    edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
) -> Vec<u8> {
    let header = header::parse(file).unwrap();
    let mut json = serde_json::from_slice(&file[8..header.data]).unwrap();
    edit(&mut json);
    let json = serde_json::to_vec(&json).unwrap();
    [
        &(json.len() as u64).to_le_bytes()[..],
        &json,
        &file[header.data..],
    ]
    .concat()
}

/// Opens an embedded checkpoint with the given weights file and the configuration that goes with [`tensors`].
fn open_weights(weights: Vec<u8>) -> Result<Checkpoint, LoadError> {
    let config = tiny_config().to_json().into_bytes().leak();
    let files: StaticFiles = Box::leak(Box::new([
        (CONFIG_FILE, &*config),
        (WEIGHTS_FILE, &*weights.leak()),
    ]));
    Checkpoint::from_static("tiny", files)
}

fn refusal(weights: Vec<u8>) -> String {
    open_weights(weights).unwrap_err().to_string()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap()
        .iter()
        .map(|x| x.to_bits())
        .collect()
}

fn check_tensors(checkpoint: &Checkpoint) {
    for (name, tensor) in tensors(3) {
        let loaded = checkpoint.load_tensor(&name, &Device::Cpu, DType::F32).unwrap();
        assert_eq!(loaded.dims(), tensor.dims(), "{name}");
        assert_eq!(bits(&loaded), bits(&tensor), "{name}");
    }
}

#[test]
fn a_saved_checkpoint_opens_with_the_same_bits() {
    let folder = saved();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(*checkpoint.config(), tiny_config());
    assert_eq!(
        checkpoint.name(),
        folder.path().file_name().unwrap().to_str().unwrap()
    );
    assert_eq!(
        checkpoint.file("tokenizer.json").unwrap().as_deref(),
        Some(&b"{}"[..])
    );
    assert_eq!(checkpoint.file("tokenizer.model").unwrap(), None);
    assert_eq!(checkpoint.tensors().len(), tiny_config().tensors().len());
    check_tensors(&checkpoint);
}

#[test]
fn an_embedded_checkpoint_is_read_like_a_folder() {
    let checkpoint = open_weights(saved_weights()).unwrap();
    assert_eq!(checkpoint.name(), "tiny");
    assert_eq!(checkpoint.file("tokenizer.json").unwrap(), None);
    check_tensors(&checkpoint);
}

#[test]
fn weights_at_an_odd_address_are_read_right() {
    let file = saved_weights();
    for shift in 0..4 {
        let shifted = [&vec![0; shift][..], &file].concat().leak();
        let config = tiny_config().to_json().into_bytes().leak();
        let files: StaticFiles = Box::leak(Box::new([
            (CONFIG_FILE, &*config),
            (WEIGHTS_FILE, &shifted[shift..]),
        ]));
        check_tensors(&Checkpoint::from_static("odd", files).unwrap());
    }
}

#[test]
fn half_precision_weights_are_stored_as_they_are_and_loaded_as_asked() {
    for dtype in [DType::BF16, DType::F16] {
        let half = tensors(3)
            .into_iter()
            .map(|(name, t)| (name, t.to_dtype(dtype).unwrap()))
            .collect();
        let folder = tempfile::tempdir().unwrap();
        Checkpoint::save(folder.path(), &tiny_config(), &half, &[]).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        for entry in checkpoint.tensors() {
            assert_eq!(entry.dtype, dtype);
            assert_eq!(entry.bytes, 2 * entry.shape.iter().product::<usize>());
            let loaded = checkpoint
                .load_tensor(&entry.name, &Device::Cpu, DType::F32)
                .unwrap();
            assert_eq!(
                bits(&loaded),
                bits(&half[&entry.name].to_dtype(DType::F32).unwrap())
            );
        }
    }
}

#[test]
fn the_same_tensors_are_saved_as_the_same_bytes() {
    assert_eq!(saved_weights(), saved_weights());
}

#[test]
fn the_reference_reader_reads_what_is_saved() {
    let file = saved_weights();
    let reference = SafeTensors::deserialize(&file).unwrap();
    let checkpoint = open_weights(file.clone()).unwrap();
    assert_eq!(reference.len(), checkpoint.tensors().len());
    for entry in checkpoint.tensors() {
        let view = reference.tensor(&entry.name).unwrap();
        assert_eq!(view.shape(), entry.shape);
        let start = checkpoint.opened.shards[0].data + entry.start;
        assert_eq!(view.data(), &file[start..start + entry.bytes]);
    }
}

#[test]
fn saving_over_a_checkpoint_leaves_the_open_one_and_foreign_files_as_they_were() {
    let folder = saved();
    fs::write(folder.path().join("README.md"), "mine").unwrap();
    let open = Checkpoint::open(folder.path()).unwrap();
    Checkpoint::save(folder.path(), &tiny_config(), &tensors(4), &[]).unwrap();
    check_tensors(&open);
    let again = Checkpoint::open(folder.path()).unwrap();
    let name = "text_embed.weight";
    let load =
        |checkpoint: &Checkpoint| bits(&checkpoint.load_tensor(name, &Device::Cpu, DType::F32).unwrap());
    assert_ne!(load(&open), load(&again));
    assert_eq!(again.file("README.md").unwrap().as_deref(), Some(&b"mine"[..]));
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["README.md", "config.json", "model.safetensors", "tokenizer.json"],
        "no temporary file stays"
    );
}

#[test]
fn a_failed_write_keeps_the_old_file_and_leaves_no_temporary_one() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    fs::create_dir(&target).unwrap();
    assert!(write_atomically(&target, b"a file cannot replace a folder").is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn only_the_tensors_of_the_model_can_be_saved() {
    let folder = tempfile::tempdir().unwrap();
    let save = |edit: fn(&mut HashMap<String, Tensor>)| {
        let mut tensors = tensors(3);
        edit(&mut tensors);
        Checkpoint::save(folder.path().join("new"), &tiny_config(), &tensors, &[])
            .unwrap_err()
            .to_string()
    };
    assert_snapshot!(save(|t| { t.remove("decoder.norm.weight"); }), @"tensor 'decoder.norm.weight' of shape [32] is missing");
    assert_snapshot!(save(|t| { t.insert("extra".into(), zeros(1, DType::F32)); }), @"tensor 'extra' is not one of the model's");
    assert_snapshot!(save(|t| { t.insert("decoder.norm.weight".into(), zeros(9, DType::F32)); }), @"tensor 'decoder.norm.weight' has shape [9], expected [32]");
    assert_snapshot!(save(|t| { t.insert("decoder.norm.weight".into(), zeros(32, DType::F64)); }), @"tensor 'decoder.norm.weight' has dtype F64, expected F32, BF16 or F16");
    assert!(
        !folder.path().join("new").exists(),
        "nothing is written before everything is checked"
    );
    for name in ["../up", "config.json", "a/b", ""] {
        let error = Checkpoint::save(folder.path(), &tiny_config(), &tensors(3), &[(name, b"")]).unwrap_err();
        assert!(matches!(error, SaveError::FileName { .. }), "{error}");
    }
}

#[test]
fn a_path_that_is_no_checkpoint_says_what_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let shown = |path: &Path| {
        let error = Checkpoint::open(path).unwrap_err().to_string();
        error.replace(folder.path().to_str().unwrap(), "FOLDER")
    };
    assert_snapshot!(shown(&folder.path().join("absent")), @"there is no checkpoint at 'FOLDER/absent': expected a folder with config.json, model.safetensors, and tokenizer.json or tokenizer.model");
    let file = folder.path().join("notes.txt");
    fs::write(&file, "hello").unwrap();
    assert_snapshot!(shown(&file), @"'FOLDER/notes.txt' is not a folder: a checkpoint is a folder with config.json, model.safetensors, and tokenizer.json or tokenizer.model, or a .pth file of PyTorch's");
    assert_snapshot!(shown(folder.path()), @"'FOLDER' has no config.json: a checkpoint is a folder with config.json, model.safetensors, and tokenizer.json or tokenizer.model; found notes.txt");
    fs::write(folder.path().join(CONFIG_FILE), tiny_config().to_json()).unwrap();
    assert_snapshot!(shown(folder.path()), @"'FOLDER' has no model.safetensors: a checkpoint is a folder with config.json, model.safetensors, and tokenizer.json or tokenizer.model; found config.json, notes.txt");
    fs::create_dir(folder.path().join(WEIGHTS_FILE)).unwrap();
    assert_snapshot!(shown(folder.path()), @"'FOLDER/model.safetensors' is not a regular file");
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_with_its_key() {
    let refusal = |config: String| {
        let config = config.into_bytes().leak();
        let files: StaticFiles = Box::leak(Box::new([(CONFIG_FILE, &*config), (WEIGHTS_FILE, &[])]));
        Checkpoint::from_static("broken", files).unwrap_err().to_string()
    };
    assert_snapshot!(refusal("not json".into()), @"'embedded:broken/config.json': not a model configuration: expected ident at line 1 column 2");
    assert_snapshot!(refusal(tiny_config().to_json().replace("\"patch_size\": 4", "\"patch_size\": 5")), @"'embedded:broken/config.json': 'patch_size' is 5, expected a divisor of image_size (16)");
}

#[test]
fn a_file_larger_than_its_kind_is_not_read() {
    let folder = saved();
    let limits = [(CONFIG_FILE, CONFIG_LIMIT), ("tokenizer.json", FILE_LIMIT)];
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    for (name, limit) in limits {
        // A sparse file: it takes no room on the disk.
        fs::File::create(folder.path().join(name))
            .unwrap()
            .set_len(limit + 1)
            .unwrap();
    }
    let shown = |error: LoadError| {
        error
            .to_string()
            .replace(folder.path().to_str().unwrap(), "FOLDER")
    };
    assert_snapshot!(shown(Checkpoint::open(folder.path()).unwrap_err()), @"'FOLDER/config.json' has 1048577 bytes, more than the 1048576 that such a file may have");
    assert_snapshot!(shown(checkpoint.file("tokenizer.json").unwrap_err()), @"'FOLDER/tokenizer.json' has 67108865 bytes, more than the 67108864 that such a file may have");
}

#[test]
fn a_file_name_cannot_lead_out_of_the_folder() {
    let folder = saved();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    for name in [
        "",
        ".",
        "..",
        "../x",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:x",
        "x/",
        "./x",
        "nul\0",
    ] {
        let error = checkpoint.file(name).unwrap_err();
        assert!(matches!(error, LoadError::FileName { .. }), "{name:?}: {error}");
    }
    assert_snapshot!(checkpoint.file("../se\ncret").unwrap_err(), @r#"'../se\ncret' is not a file of a checkpoint: expected a plain file name, without folders"#);
}

#[test]
fn a_tensor_that_is_not_there_is_named() {
    let checkpoint = open_weights(saved_weights()).unwrap();
    assert_snapshot!(checkpoint.load_tensor("nothing", &Device::Cpu, DType::F32).unwrap_err(), @"'embedded:tiny/model.safetensors' has no tensor 'nothing'");
}

#[test]
fn weights_of_another_model_are_refused_by_name() {
    let name = "encoder.layers.0.vision.ffn.down.weight";
    assert_snapshot!(refusal(edited(|header| {
        let tensor = header.remove(name).unwrap();
        header.insert("encoder.layers.9.ffn".into(), tensor);
    })), @"'embedded:tiny/model.safetensors' lacks tensor 'encoder.layers.0.vision.ffn.down.weight' of shape [32, 48]: its config.json belongs to another model, or the file is incomplete");
    assert_snapshot!(refusal(edited(|header| { header[name]["shape"] = serde_json::json!([48, 32]); })), @"'embedded:tiny/model.safetensors': tensor 'encoder.layers.0.vision.ffn.down.weight' has shape [48, 32], expected [32, 48]");
    assert_snapshot!(refusal(edited(|header| {
        let end = header.values().filter_map(|t| t["data_offsets"][1].as_u64()).max();
        for extra in ["lm_head.weight", "e\u{1b}[2Jvil"] {
            let tensor = serde_json::json!({"dtype": "F32", "shape": [0, 7], "data_offsets": [end, end]});
            header.insert(extra.into(), tensor);
        }
    })), @r#"'embedded:tiny/model.safetensors' holds tensor 'lm_head.weight', tensor 'e\u{1b}[2Jvil', which the model of its config.json does not have"#);
    assert_snapshot!(refusal(weights_file("{}", 0)), @"'embedded:tiny/model.safetensors' lacks tensor 'text_embed.weight' of shape [120, 32], tensor 'vision_embed.patch.weight' of shape [32, 48], tensor 'vision_embed.class_token' of shape [1, 32], tensor 'vision_embed.mask_token' of shape [1, 32], tensor 'vision_embed.position.weight' of shape [17, 32] and 72 more: its config.json belongs to another model, or the file is incomplete");
}

#[test]
fn a_weights_file_that_lies_is_refused() {
    let one = |tensor: &str, data| refusal(weights_file(&format!("{{\"a\": {tensor}}}"), data));
    let file = saved_weights();
    assert_snapshot!(refusal(Vec::new()), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: it has 0 bytes, fewer than the 8 of a header's length; it may be truncated");
    assert_snapshot!(refusal(file[..5].to_vec()), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: it has 5 bytes, fewer than the 8 of a header's length; it may be truncated");
    assert_snapshot!(refusal(file[..1000].to_vec()), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: its header claims 7944 bytes, but only 992 follow; it may be truncated");
    assert_snapshot!(refusal(file[..file.len() - 1].to_vec()), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: its tensors take 249344 bytes, but 249343 follow the header; it may be truncated");
    assert_snapshot!(refusal([&file[..], &[0]].concat()), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: its tensors take 249344 bytes, but 249345 follow the header; it may be followed by something else");
    assert_snapshot!(refusal([&u64::MAX.to_le_bytes()[..], &file[8..]].concat()), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: its header claims 18446744073709551615 bytes, more than the 16777216 that are read");
    assert_snapshot!(refusal(weights_file("not json", 4)), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: its header is not a table of tensors: expected ident at line 1 column 2");
    assert_snapshot!(refusal(weights_file("[]", 4)), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: its header is not a table of tensors: invalid type: sequence, expected an object of tensors by name at line 1 column 0");
    assert_snapshot!(one(r#"{"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}"#, 8), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: tensor 'a' has dtype 'I64', expected F32, BF16 or F16");
    assert_snapshot!(one(r#"{"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}"#, 4), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: tensor 'a' needs 8 bytes, but its offsets 0 to 4 hold 4");
    assert_snapshot!(one(r#"{"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}"#, 4), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: tensor 'a' needs 4 bytes, but its offsets 4 to 0 hold none");
    assert_snapshot!(one(r#"{"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}"#, 8), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: tensor 'a' starts at offset 4, expected 0, where the one before it ends");
    assert_snapshot!(one(r#"{"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}"#, 4), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: its header is not a table of tensors: invalid value: integer `-1`, expected u64 at line 1 column 35");
    assert_snapshot!(one(r#"{"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}"#, 0), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: tensor 'a' has shape [4294967296, 4294967296], which no file can hold");
    assert_snapshot!(one(r#"{"dtype": "F32", "shape": [0, 18446744073709551615], "data_offsets": [0, 0]}"#, 0), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: tensor 'a' has shape [0, 18446744073709551615], which no file can hold");
    assert_snapshot!(one(r#"{"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "more": 1}"#, 4), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: its header is not a table of tensors: unknown field `more`, expected one of `dtype`, `shape`, `data_offsets` at line 1 column 67");
    let tensor = r#"{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}"#;
    assert_snapshot!(refusal(weights_file(&format!("{{\"a\": {tensor}, \"b\": {tensor}}}"), 4)), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: tensor 'b' starts at offset 0, expected 4, where the one before it ends");
    assert_snapshot!(refusal(weights_file(&format!("{{\"a\": {tensor}, \"a\": {tensor}}}"), 4)), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: its header is not a table of tensors: tensor 'a' is there twice at line 1 column 122");
    assert_snapshot!(refusal(weights_file(&"[".repeat(100_000), 0)), @"'embedded:tiny/model.safetensors' is not a usable safetensors file: its header is not a table of tensors: invalid type: sequence, expected an object of tensors by name at line 1 column 0");
}

/// A small file to mutate: two tensors and metadata.
fn small_file() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]}}"#;
    weights_file(header, 14)
}

fn every_tensor_is_inside(file: &[u8]) {
    if let Ok(header) = header::parse(file) {
        for entry in header.tensors {
            assert!(header.data + entry.start + entry.bytes <= file.len());
        }
    }
}

/// Splits a saved checkpoint's weights over two files with an index.
fn split() -> tempfile::TempDir {
    let folder = saved();
    let (mut map, mut parts) = (serde_json::Map::new(), [HashMap::new(), HashMap::new()]);
    for (number, (name, tensor)) in tensors(3).into_iter().enumerate() {
        map.insert(name.clone(), format!("part-{}.safetensors", number % 2).into());
        parts[number % 2].insert(name, tensor);
    }
    for (number, part) in parts.iter().enumerate() {
        candle_core::safetensors::save(part, folder.path().join(format!("part-{number}.safetensors")))
            .unwrap();
    }
    let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(folder.path().join(INDEX_FILE), index.to_string()).unwrap();
    fs::remove_file(folder.path().join(WEIGHTS_FILE)).unwrap();
    folder
}

#[test]
fn weights_in_several_files_are_one_checkpoint() {
    let checkpoint = Checkpoint::open(split().path()).unwrap();
    let expected = tensors(3);
    assert_eq!(checkpoint.tensors().len(), expected.len());
    for (name, tensor) in expected {
        let found = checkpoint.load_tensor(&name, &Device::Cpu, DType::F32).unwrap();
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(values(&found) == values(&tensor), "{name}");
    }
}

#[test]
fn an_index_that_does_not_fit_its_files_is_refused() {
    let refusal = |edit: &dyn Fn(&Path, &mut serde_json::Value)| {
        let folder = split();
        let path = folder.path().join(INDEX_FILE);
        let mut index = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(folder.path(), &mut index);
        fs::write(&path, index.to_string()).unwrap();
        let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
        message.replace(&folder.path().display().to_string(), "FOLDER")
    };
    let name = "decoder.norm.weight";
    let misplaced = refusal(&|_, index| index["weight_map"][name] = "part-9.safetensors".into());
    assert!(
        misplaced.contains("does not place tensor 'decoder.norm.weight'"),
        "{misplaced}"
    );
    let elsewhere = refusal(&|_, index| {
        let here = index["weight_map"][name] == "part-0.safetensors";
        index["weight_map"][name] = if here {
            "part-1.safetensors"
        } else {
            "part-0.safetensors"
        }
        .into();
    });
    assert!(
        elsewhere.contains("does not place tensor 'decoder.norm.weight'"),
        "{elsewhere}"
    );
    assert_snapshot!(refusal(&|_, index| index["weight_map"] = serde_json::json!({})), @"'FOLDER/model.safetensors.index.json' names 0 files with weights, expected 1 to 1024");
    assert_snapshot!(refusal(&|_, index| index["weight_map"][name] = "../weights".into()), @"'../weights' is not a file of a checkpoint: expected a plain file name, without folders");
    let cut = refusal(&|folder, _| fs::write(folder.join("part-1.safetensors"), b"").unwrap());
    assert!(cut.contains("FOLDER/part-1.safetensors"), "{cut}");
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read_without_panic(bytes: Vec<u8>, header: Vec<u8>) {
        every_tensor_is_inside(&bytes);
        every_tensor_is_inside(&[&(header.len() as u64).to_le_bytes()[..], &header, &bytes].concat());
    }

    #[test]
    fn any_change_to_a_file_is_refused_or_read_without_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
        keep: bool,
    ) {
        let mut file = small_file();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if !keep {
            file.truncate(cut.index(file.len()));
        }
        every_tensor_is_inside(&file);
        let _ = header::parse(&file).map(|header| header::check(&header.tensors.iter().collect::<Vec<_>>(), &tiny_config().tensors(), "file"));
    }
}
