//! Checkpoints as they come from elsewhere: from training scripts, browsers, hubs and their caches.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use insta::assert_snapshot;

use super::files::{PTH_FILE, PTH_INDEX_FILE};
use super::pth_tests::{archive, bytes, config, file, tensors};
use super::*;
use crate::config::ModelConfig;
use crate::init::initialise;
use crate::kernels::WeightType;
use crate::testing::tiny_config;

fn place() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn refusal(place: &tempfile::TempDir, path: impl AsRef<Path>) -> String {
    let folder = fs::canonicalize(place.path()).unwrap();
    let error = Checkpoint::open(folder.join(path)).unwrap_err().to_string();
    error.replace(folder.to_str().unwrap(), "FOLDER")
}

/// Checks that a checkpoint has these tensors, of the same numbers.
fn assert_holds(checkpoint: &Checkpoint, expected: &[(String, Tensor)]) {
    assert_eq!(checkpoint.tensors().len(), expected.len());
    for (name, tensor) in expected {
        let found = checkpoint.load_tensor(name, &Device::Cpu, DType::F32).unwrap();
        assert!(bytes(&found) == bytes(tensor), "{name}");
    }
}

fn renamed(tensors: &[(String, Tensor)], name: impl Fn(&str) -> String) -> Vec<(String, Tensor)> {
    let tensors = tensors.iter();
    tensors.map(|(old, tensor)| (name(old), tensor.clone())).collect()
}

#[test]
fn what_training_scripts_put_beside_the_weights_is_passed_over() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pth");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "pth") {
            continue;
        }
        seen += 1;
        let file = fs::read(&path).unwrap();
        let found = pth::parse(&file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let weights = [
            ("bias", vec![2], vec![0.5, -0.5]),
            ("weight", vec![2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        ];
        assert_eq!(found.len(), weights.len(), "{}", path.display());
        for (entry, (name, shape, numbers)) in found.iter().zip(weights) {
            let bytes: Vec<u8> = numbers.iter().flat_map(|x: &f32| x.to_le_bytes()).collect();
            assert_eq!(
                (entry.name.as_str(), &entry.shape),
                (name, &shape),
                "{}",
                path.display()
            );
            assert_eq!(
                file[entry.start..entry.start + entry.bytes],
                bytes,
                "{}",
                path.display()
            );
        }
    }
    assert_eq!(seen, 12);
}

#[test]
fn what_every_name_begins_with_is_taken_from_it() {
    let config = config("vqa");
    let tensors = tensors(&config);
    for wrapper in [
        "module.",
        "model.",
        "_orig_mod.",
        "module.model.",
        "model.module._orig_mod.",
    ] {
        let place = place();
        let path = place.path().join("model.pth");
        fs::write(&path, file(&renamed(&tensors, |name| format!("{wrapper}{name}")))).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(*checkpoint.config(), config, "{wrapper}");
        assert_holds(&checkpoint, &tensors);
    }
    // What only some begin with belongs to them.
    let place = place();
    let some = renamed(&tensors, |name| match name.strip_prefix("head.") {
        Some(_) => name.to_owned(),
        None => format!("module.{name}"),
    });
    fs::write(place.path().join("model.pth"), file(&some)).unwrap();
    assert_snapshot!(refusal(&place, "model.pth"), @"'FOLDER/model.pth' has no config.json beside it, and is no BEiT-3: it has no tensor 'beit3.text_embed.weight'");
}

#[test]
fn safetensors_of_a_wrapped_model_are_read_and_converted() {
    let (place, out) = (place(), place());
    let config = tiny_config();
    let tensors = initialise(&config, 3, &Device::Cpu).unwrap();
    let wrapped: HashMap<_, _> = renamed(&tensors, |name| format!("module.{name}"))
        .into_iter()
        .collect();
    candle_core::safetensors::save(&wrapped, place.path().join(WEIGHTS_FILE)).unwrap();
    fs::write(place.path().join(CONFIG_FILE), config.to_json()).unwrap();
    let checkpoint = Checkpoint::open(place.path()).unwrap();
    assert_holds(&checkpoint, &tensors);
    checkpoint.convert(out.path(), None, &[]).unwrap();
    assert_holds(&Checkpoint::open(out.path()).unwrap(), &tensors);
    checkpoint.pack(out.path(), WeightType::F32, &[]).unwrap();
}

#[test]
fn a_file_is_taken_for_what_it_holds_whatever_it_is_called() {
    let (config, place) = (config("retrieval"), place());
    let tensors = tensors(&config);
    for name in ["beit3.zip", "beit3.pth.zip", "beit3.download", "beit3"] {
        let path = place.path().join(name);
        fs::write(&path, file(&tensors)).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(*checkpoint.config(), config, "{name}");
        assert_holds(&checkpoint, &tensors);
        fs::remove_file(path).unwrap();
    }
    fs::write(place.path().join("beit3.zip"), file(&tensors)).unwrap();
    // Some other archive beside it is none.
    let mut other = archive(b"", &[]);
    other[30..46].copy_from_slice(b"archive/data.txt");
    fs::write(place.path().join("labels.zip"), &other).unwrap();
    assert_holds(&Checkpoint::open(place.path()).unwrap(), &tensors);
    // The two kinds of files under each other's names.
    fs::write(place.path().join(CONFIG_FILE), config.to_json()).unwrap();
    fs::rename(place.path().join("beit3.zip"), place.path().join(WEIGHTS_FILE)).unwrap();
    assert_holds(&Checkpoint::open(place.path()).unwrap(), &tensors);
    let by_name: HashMap<_, _> = tensors.iter().cloned().collect();
    candle_core::safetensors::save(&by_name, place.path().join(PTH_FILE)).unwrap();
    fs::remove_file(place.path().join(WEIGHTS_FILE)).unwrap();
    assert_holds(&Checkpoint::open(place.path()).unwrap(), &tensors);
    assert_holds(&Checkpoint::open(place.path().join(PTH_FILE)).unwrap(), &tensors);
}

#[test]
fn an_archive_that_is_no_file_of_pytorch_says_so() {
    let place = place();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("model/config.json", zip::write::SimpleFileOptions::default())
        .unwrap();
    fs::write(place.path().join("model.zip"), zip.finish().unwrap().into_inner()).unwrap();
    assert_snapshot!(refusal(&place, "model.zip"), @"'FOLDER/model.zip' is not a usable PyTorch file: its archive has no data.pkl, so that it is something else than `torch.save` writes; if it is a folder that was packed, unpack it and name the folder");
    // As other programs pack: compressed. The method stands in the file's own header and in the table at the
    // end.
    let mut packed = archive(b"\x80\x02}.", &[]);
    packed[8] = 8;
    let table = packed.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    packed[table + 10] = 8;
    fs::write(place.path().join("model.pth"), packed).unwrap();
    assert_snapshot!(refusal(&place, "model.pth"), @"'FOLDER/model.pth' is not a usable PyTorch file: its archive is compressed, which PyTorch never does: unpack it, and pack it with `zip -0 -r`");
}

#[test]
fn a_file_that_was_unpacked_says_how_it_is_packed_again() {
    let place = place();
    for file in [
        "beit3 base/data.pkl",
        "beit3 base/data/0",
        "x/archive/data.pkl",
        "x/archive/data/0",
    ] {
        let path = place.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }
    assert_snapshot!(refusal(&place, "beit3 base"), @"'FOLDER/beit3 base' is a file of PyTorch's that was unpacked into a folder: pack it again, without compression, with `cd FOLDER && zip -0 -r 'beit3 base.pth' 'beit3 base'`, and name 'beit3 base.pth' there");
    assert_snapshot!(refusal(&place, "x"), @"'FOLDER/x/archive' is a file of PyTorch's that was unpacked into a folder: pack it again, without compression, with `cd FOLDER/x && zip -0 -r archive.pth archive`, and name archive.pth there");
    // What was packed without a folder around it is read too.
    let tensors = tensors(&config("vqa"));
    let mut packed = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let mut original = zip::ZipArchive::new(std::io::Cursor::new(file(&tensors))).unwrap();
    for index in 0..original.len() {
        let entry = original.by_index(index).unwrap();
        let name = entry.name().unwrap().strip_prefix("archive/").unwrap().to_owned();
        packed.raw_copy_file_rename(entry, name).unwrap();
    }
    let path = place.path().join("again.pth");
    fs::write(&path, packed.finish().unwrap().into_inner()).unwrap();
    assert_holds(&Checkpoint::open(path).unwrap(), &tensors);
}

/// Writes the weights of a small BEiT-3 as two files of PyTorch's, with or without their index.
fn parts(with_index: bool) -> (tempfile::TempDir, Vec<(String, Tensor)>) {
    let (place, config) = (place(), config("captioning"));
    let tensors = tensors(&config);
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (part, name) in [
        (first, "pytorch_model-00001-of-00002.bin"),
        (second, "pytorch_model-00002-of-00002.bin"),
    ] {
        fs::write(place.path().join(name), file(part)).unwrap();
        map.extend(part.iter().map(|(tensor, _)| (tensor.clone(), name.into())));
    }
    fs::write(place.path().join(CONFIG_FILE), config.to_json()).unwrap();
    if with_index {
        let index = serde_json::json!({"metadata": {}, "weight_map": map});
        fs::write(place.path().join(PTH_INDEX_FILE), index.to_string()).unwrap();
    }
    (place, tensors)
}

#[test]
fn parts_of_weights_by_pytorch_are_read_with_and_without_their_index() {
    for with_index in [true, false] {
        let (place, tensors) = parts(with_index);
        assert_holds(&Checkpoint::open(place.path()).unwrap(), &tensors);
        // A released BEiT-3 needs no configuration, in parts neither.
        fs::remove_file(place.path().join(CONFIG_FILE)).unwrap();
        assert_holds(&Checkpoint::open(place.path()).unwrap(), &tensors);
    }
}

#[test]
fn a_part_that_is_missing_is_named() {
    let (place, _) = parts(true);
    fs::remove_file(place.path().join("pytorch_model-00001-of-00002.bin")).unwrap();
    assert_snapshot!(refusal(&place, "."), @"'FOLDER/.' lacks 'pytorch_model-00001-of-00002.bin', one of the 2 files that its weights are in: fetch it too");
    fs::remove_file(place.path().join(PTH_INDEX_FILE)).unwrap();
    assert_snapshot!(refusal(&place, "."), @"'FOLDER/.' lacks 'pytorch_model-00001-of-00002.bin', one of the 2 files that its weights are in: fetch it too");
}

#[test]
fn numbered_safetensors_are_read_without_their_index_and_must_not_repeat_tensors() {
    let (place, config) = (place(), tiny_config());
    let tensors = initialise(&config, 3, &Device::Cpu).unwrap();
    let part = |number: usize| {
        place
            .path()
            .join(format!("model-{number:05}-of-00003.safetensors"))
    };
    for number in 1..=3 {
        let some: HashMap<_, _> = tensors.iter().skip(number - 1).step_by(3).cloned().collect();
        candle_core::safetensors::save(&some, part(number)).unwrap();
    }
    fs::write(place.path().join(CONFIG_FILE), config.to_json()).unwrap();
    // The remains of a series of another length.
    fs::write(place.path().join("model-00001-of-00002.safetensors"), b"").unwrap();
    assert_holds(&Checkpoint::open(place.path()).unwrap(), &tensors);
    fs::copy(part(1), part(2)).unwrap();
    let refusal = refusal(&place, ".");
    assert!(
        refusal.contains("model-00002-of-00003.safetensors' holds tensor"),
        "{refusal}"
    );
    assert!(
        refusal.contains("which another of the files with weights holds too"),
        "{refusal}"
    );
}

#[test]
fn what_stands_in_a_files_place_is_told_by_its_name() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 242041896\n";
    let pages = [
        "<!DOCTYPE html>\n<html>",
        "\n <html lang=\"en\">",
        "\u{feff}<!doctype HTML>",
    ];
    for name in [CONFIG_FILE, WEIGHTS_FILE, "tokenizer.json"] {
        let place = place();
        let tensors: HashMap<_, _> = initialise(&tiny_config(), 3, &Device::Cpu)
            .unwrap()
            .into_iter()
            .collect();
        Checkpoint::save(place.path(), &tiny_config(), &tensors, &[]).unwrap();
        let told = |text: &str| {
            fs::write(place.path().join(name), text).unwrap();
            let read = Checkpoint::open(place.path()).and_then(|checkpoint| checkpoint.file(name).map(drop));
            let error = read.unwrap_err().to_string();
            error.replace(place.path().join(name).to_str().unwrap(), "FILE")
        };
        assert_eq!(
            told(pointer),
            "'FILE' is not the file itself but a pointer of Git LFS to it: fetch the file with `git lfs pull` in its folder, after `git lfs install`"
        );
        for page in pages {
            assert_eq!(
                told(page),
                "'FILE' is a web page (HTML), not the file itself: download the file, not the page that shows it"
            );
        }
    }
    // Files that are named themselves, whatever they are called.
    let place = place();
    for name in ["beit3.pth", "beit3.zip", "model.safetensors", "download"] {
        fs::write(place.path().join(name), pointer).unwrap();
        assert!(refusal(&place, name).contains("`git lfs pull`"), "{name}");
        fs::write(place.path().join(name), pages[0]).unwrap();
        assert!(refusal(&place, name).contains("a web page (HTML)"), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_told_from_a_file_that_is_not_there() {
    let place = place();
    let link = |name: &str| std::os::unix::fs::symlink("../../blobs/0123", place.path().join(name)).unwrap();
    link(CONFIG_FILE);
    assert_snapshot!(refusal(&place, ""), @"'FOLDER/config.json' is a link to '../../blobs/0123', which is not there: fetch the checkpoint again");
    fs::remove_file(place.path().join(CONFIG_FILE)).unwrap();
    fs::write(place.path().join(CONFIG_FILE), tiny_config().to_json()).unwrap();
    link(WEIGHTS_FILE);
    assert_snapshot!(refusal(&place, ""), @"'FOLDER/model.safetensors' is a link to '../../blobs/0123', which is not there: fetch the checkpoint again");
}

/// A small T5, with a table of embeddings under the given names, of the given numbers each.
fn t5(names: &[(&str, f32)], extra: &str) -> (tempfile::TempDir, Vec<(String, Tensor)>) {
    let place = place();
    let json = format!(
        r#"{{"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 40,
        "feed_forward_proj": "gated-gelu"{extra}}}"#
    );
    let mut config = ModelConfig::from_json(json.as_bytes()).unwrap();
    let tied = extra.contains("true");
    config.adapt(&|name| (name == "lm_head.weight" && !tied).then(Vec::new));
    let tensors = initialise(&config, 7, &Device::Cpu).unwrap();
    let mut stored: HashMap<String, Tensor> = tensors.iter().cloned().collect();
    let shared = stored.remove("shared.weight").unwrap();
    for (name, factor) in names {
        stored.insert((*name).to_owned(), (&shared * f64::from(*factor)).unwrap());
    }
    candle_core::safetensors::save(&stored, place.path().join(WEIGHTS_FILE)).unwrap();
    fs::write(place.path().join(CONFIG_FILE), json).unwrap();
    (place, tensors)
}

const ENCODER: &str = "encoder.embed_tokens.weight";
const DECODER: &str = "decoder.embed_tokens.weight";

#[test]
fn the_embeddings_of_a_t5_are_found_under_each_of_their_names() {
    for tied in [
        r#", "tie_word_embeddings": true"#,
        r#", "tie_word_embeddings": false"#,
    ] {
        let cases: [&[(&str, f32)]; 5] = [
            &[("shared.weight", 1.0)],
            &[(ENCODER, 1.0)],
            &[(DECODER, 1.0)],
            &[(ENCODER, 1.0), (DECODER, 1.0)],
            // As `transformers` reads safetensors: the table's own name is believed.
            &[(ENCODER, 2.0), ("shared.weight", 1.0), (DECODER, 3.0)],
        ];
        for names in cases {
            let (place, tensors) = t5(names, tied);
            let checkpoint = Checkpoint::open(place.path()).unwrap();
            for (name, tensor) in &tensors {
                let found = checkpoint.load_tensor(name, &Device::Cpu, DType::F32).unwrap();
                assert!(bytes(&found) == bytes(tensor), "{names:?}: {name}");
            }
            // Both prove that what they write gives the same numbers.
            let out = self::place();
            checkpoint.convert(out.path(), None, &[]).unwrap();
            assert_holds(&Checkpoint::open(out.path()).unwrap(), &tensors);
            checkpoint.pack(out.path(), WeightType::Int8, &[]).unwrap();
            let packed = Checkpoint::open(out.path()).unwrap();
            assert_eq!(packed.packed(), Some(WeightType::Int8));
        }
    }
}

#[test]
fn two_tables_of_embeddings_that_differ_are_refused_and_none_is_said() {
    let (place, _) = t5(&[(ENCODER, 1.0), (DECODER, 2.0)], "");
    assert_snapshot!(refusal(&place, ""), @"'FOLDER/model.safetensors' holds 'encoder.embed_tokens.weight' and 'decoder.embed_tokens.weight' with different numbers and no 'shared.weight': the model has one table of embeddings for both, so remove the wrong one");
    let (place, _) = t5(&[], "");
    assert_snapshot!(refusal(&place, ""), @"'FOLDER/model.safetensors' lacks tensor 'shared.weight' of shape [40, 16]: its config.json belongs to another model, or the file is incomplete");
}

#[test]
fn a_wrapped_t5_with_its_embeddings_under_another_name_is_read() {
    let (place, tensors) = t5(&[(DECODER, 1.0)], "");
    let path: PathBuf = place.path().join(WEIGHTS_FILE);
    let stored = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let stored: Vec<_> = stored.into_iter().collect();
    fs::remove_file(path).unwrap();
    let wrapped = renamed(&stored, |name| format!("model.{name}"));
    fs::write(place.path().join(PTH_FILE), file(&wrapped)).unwrap();
    assert_holds(&Checkpoint::open(place.path()).unwrap(), &tensors);
}
