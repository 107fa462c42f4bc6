//! The real binary on checkpoints as they come from elsewhere. `tests/fixtures/cases/checkpoints/plain` is a
//! random T5 of one layer in the layout of `transformers`; right is what `transformers` 4.57.6 writes from
//! it.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::safetensors;
use multiway::checkpoint::Device;
use serde_json::{Value, json};

use common::{Ended, TestFolder};

const FILES: [&str; 4] = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
];

const RIGHT: [u64; 6] = [72, 58, 135, 154, 34, 34];

fn fixture(file: &str) -> PathBuf {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    root.join("tests/fixtures/cases/checkpoints/plain").join(file)
}

/// Puts the model into a folder, with a task that says what it makes of a text.
fn plain() -> TestFolder {
    let place = TestFolder::new();
    for file in FILES {
        place.write(&format!("model/{file}"), fs::read(fixture(file)).unwrap());
    }
    let task = "---\ndescription: Says what a model makes of a text.\ninputs:\n  text: {type: text}\n---\n{{ text }}\n";
    place.write("tasks/plain.task", task);
    place
}

/// Gives the model's configuration other keys.
fn set(place: &TestFolder, keys: &Value) {
    let mut config: Value = serde_json::from_slice(&fs::read(fixture("config.json")).unwrap()).unwrap();
    for (key, value) in keys.as_object().unwrap() {
        config[key] = value.clone();
    }
    place.write("model/config.json", config.to_string());
}

/// Gives the model's weights other names, or none where there is no name.
fn rename(place: &TestFolder, name: impl Fn(&str) -> Vec<String>) {
    let stored = safetensors::load(fixture("model.safetensors"), &Device::Cpu).unwrap();
    let renamed: HashMap<_, _> = stored
        .iter()
        .flat_map(|(old, tensor)| name(old).into_iter().map(|new| (new, tensor.clone())))
        .collect();
    safetensors::save(&renamed, place.path("model/model.safetensors")).unwrap();
}

fn run(place: &TestFolder, checkpoint: &str) -> Ended {
    place.run(&[
        "--checkpoint",
        checkpoint,
        "--task-dir",
        "tasks",
        "run",
        "plain",
        "--set",
        "text=the house is wonderful",
        "--max-new-tokens",
        "6",
        "--json",
        "--top-log-probabilities",
        "1",
    ])
}

/// The ids that a model writes.
fn written(place: &TestFolder, checkpoint: &str) -> Vec<u64> {
    let ended = run(place, checkpoint);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let report = ended.json();
    let tokens = report["tokens"].as_array().unwrap().iter();
    tokens.map(|token| token["id"].as_u64().unwrap()).collect()
}

#[test]
fn the_embeddings_of_a_t5_may_have_the_name_of_either_part() {
    let [encoder, decoder] = ["encoder", "decoder"].map(|part| format!("{part}.embed_tokens.weight"));
    for names in [
        vec![decoder.clone()],
        vec![encoder.clone()],
        vec![encoder, decoder],
    ] {
        let place = plain();
        rename(&place, |name| match name {
            "shared.weight" => names.clone(),
            other => vec![other.to_owned()],
        });
        assert_eq!(written(&place, "model"), RIGHT, "{names:?}");
        // What is converted and packed says the same.
        for options in [&[][..], &["--packed"]] {
            let convert = [&["convert", "model", "out", "--force"], options].concat();
            let ended = place.run(&convert);
            assert_eq!(ended.code, Some(0), "{}", ended.told());
            assert_eq!(written(&place, "out"), RIGHT, "{names:?} {options:?}");
        }
    }
}

#[test]
fn every_weight_may_carry_the_name_of_what_wrapped_the_model() {
    for wrapper in ["module.", "model.", "_orig_mod."] {
        let place = plain();
        rename(&place, |name| vec![format!("{wrapper}{name}")]);
        assert_eq!(written(&place, "model"), RIGHT, "{wrapper}");
    }
}

#[test]
fn keys_of_training_and_whole_dumps_of_a_configuration_are_read() {
    let place = plain();
    set(&place, &json!({"max_source_length": 512, "xla_device": true}));
    assert_eq!(written(&place, "model"), RIGHT);
    set(
        &place,
        &json!({
            "return_dict": true, "output_hidden_states": false, "torchscript": false, "pruned_heads": {},
            "chunk_size_feed_forward": 0, "is_decoder": false, "cross_attention_hidden_size": null,
            "add_cross_attention": false, "tie_encoder_decoder": false, "finetuning_task": null,
            "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1},
            "task_specific_params": null, "problem_type": null, "tokenizer_class": null, "prefix": null,
            "bos_token_id": null, "sep_token_id": null, "bad_words_ids": null, "suppress_tokens": null,
            "_name_or_path": "", "tf_legacy_loss": false, "use_bfloat16": false, "output_attentions": false
        }),
    );
    assert_eq!(written(&place, "model"), RIGHT);
    set(
        &place,
        &json!({"feed_forward_proj": "gelu", "is_gated_act": true, "dense_act_fn": "gelu_new"}),
    );
    assert_eq!(written(&place, "model"), RIGHT);
    set(
        &place,
        &json!({"pad_token_id": null, "eos_token_id": null, "torch_dtype": "float16"}),
    );
    assert_eq!(written(&place, "model"), RIGHT);
    set(&place, &json!({"quantization_config": {"quant_method": "gptq"}}));
    let ended = run(&place, "model");
    assert_eq!(ended.code, Some(2), "{}", ended.told());
    assert!(
        ended.told().contains("'quantization_config' is gptq"),
        "{}",
        ended.told()
    );
}

#[test]
fn a_text_ends_at_each_id_that_the_configuration_lists() {
    let place = plain();
    fs::remove_file(place.path("model/generation_config.json")).unwrap();
    set(&place, &json!({"eos_token_id": [1, 154]}));
    assert_eq!(written(&place, "model")[..4], RIGHT[..4]);
    assert!(written(&place, "model").len() == 4, "it ends at 154");
    // The list outlives a conversion.
    let ended = place.run(&["convert", "model", "out"]);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    assert_eq!(written(&place, "out").len(), 4);
}

#[test]
fn a_pointer_of_git_lfs_is_told_by_its_name_whichever_file_it_stands_for() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 242041896\n";
    for file in FILES {
        let place = plain();
        place.write(&format!("model/{file}"), pointer);
        let ended = run(&place, "model");
        assert_ne!(ended.code, Some(0), "{file}");
        let told = ended.told();
        for part in ["Git LFS", "git lfs pull", &format!("model/{file}")] {
            assert!(told.contains(part), "{file}: {told}");
        }
    }
}

/// Puts the model where `huggingface_hub` keeps what it fetched, in a cache.
fn cached(place: &TestFolder, cache: &str) -> String {
    let repository = format!("{cache}/models--owner--plain");
    for (number, file) in FILES.iter().enumerate() {
        let blob = format!("{repository}/blobs/{number:04}");
        place.write(&blob, fs::read(fixture(file)).unwrap());
        let snapshot = place.path(&format!("{repository}/snapshots/0123abcd"));
        fs::create_dir_all(&snapshot).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(format!("../../blobs/{number:04}"), snapshot.join(file)).unwrap();
        #[cfg(not(unix))]
        fs::copy(place.path(&blob), snapshot.join(file)).unwrap();
    }
    place.write(&format!("{repository}/refs/main"), "0123abcd");
    repository
}

#[cfg(feature = "hub")]
#[test]
fn a_cache_is_found_where_huggingface_hub_keeps_it() {
    let place = TestFolder::new();
    cached(&place, "x/huggingface/hub");
    cached(&place, "home/.cache/huggingface/hub");
    cached(&place, "h/hub");
    cached(&place, "old");
    let arguments = ["--offline", "--checkpoint", "owner/plain", "tasks"];
    let path = |name: &str| place.path(name).display().to_string();
    let [home, root, x, h] = ["home", "", "x", "h"].map(path);
    let unset = [
        "HF_HOME",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "XDG_CACHE_HOME",
    ]
    .map(|name| (name, ""));
    let ends = |variables: &[(&str, &str)]| {
        let variables = [&unset[..], &[("HOME", &home), ("PLACE", &root)], variables].concat();
        place.run_in(&arguments, &variables)
    };
    for variables in [
        &[][..],
        &[("XDG_CACHE_HOME", x.as_str())],
        &[("XDG_CACHE_HOME", "$PLACE/x")],
        &[("HF_HOME", h.as_str())],
        &[("HF_HOME", "~/../h"), ("XDG_CACHE_HOME", "/nowhere")],
        &[("HUGGINGFACE_HUB_CACHE", "${PLACE}/old"), ("HF_HOME", "/nowhere")],
        &[
            ("HF_HUB_CACHE", "~/../old"),
            ("HUGGINGFACE_HUB_CACHE", "/nowhere"),
        ],
    ] {
        let ended = ends(variables);
        assert_eq!(ended.code, Some(0), "{variables:?}: {}", ended.told());
    }
    let ended = ends(&[("XDG_CACHE_HOME", "/nowhere")]);
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains("/nowhere/huggingface/hub"),
        "{}",
        ended.told()
    );
}

#[cfg(all(unix, feature = "hub"))]
#[test]
fn a_link_in_the_cache_that_leads_nowhere_is_named() {
    for (number, file) in FILES.iter().enumerate() {
        let place = TestFolder::new();
        let repository = cached(&place, "cache");
        fs::remove_file(place.path(&format!("{repository}/blobs/{number:04}"))).unwrap();
        let arguments = ["--offline", "--checkpoint", "owner/plain", "tasks"];
        let ended = place.run_in(&arguments, &[("HF_HUB_CACHE", "cache")]);
        assert_eq!(ended.code, Some(2), "{}", ended.told());
        assert!(
            ended.stderr.contains(&format!("snapshots/0123abcd/{file}")),
            "{}",
            ended.told()
        );
        assert!(
            ended.stderr.contains("run once without --offline"),
            "{}",
            ended.told()
        );
    }
}
