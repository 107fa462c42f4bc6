//! A broken or hostile checkpoint ends with exit code 2 and a message that names file, tensor and
//! expectation.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod common;

use insta::assert_snapshot;
use multiway_model::testing::tiny_config;
use serde_json::{Map, Value, json};

use common::TestFolder;

/// A safetensors file that can be made wrong: names, shapes and offsets are what the header says.
struct Weights {
    header: Map<String, Value>,
    data: Vec<u8>,
}

impl Weights {
    /// Makes zeros for every tensor of the configuration.
    fn right() -> Self {
        let mut weights = Self {
            header: Map::new(),
            data: Vec::new(),
        };
        for (name, shape) in tiny_config().tensors() {
            let start = weights.data.len();
            weights
                .data
                .resize(start + 4 * shape.iter().product::<usize>(), 0);
            let offsets = [start, weights.data.len()];
            weights.header.insert(
                name,
                json!({"dtype": "F32", "shape": shape, "data_offsets": offsets}),
            );
        }
        weights
    }

    fn to_bytes(&self) -> Vec<u8> {
        let header = serde_json::to_vec(&self.header).unwrap();
        [
            &(header.len() as u64).to_le_bytes(),
            header.as_slice(),
            &self.data,
        ]
        .concat()
    }
}

fn place(config: &str, weights: &[u8]) -> TestFolder {
    let place = TestFolder::new();
    place.write("model/config.json", config);
    place.write("model/model.safetensors", weights);
    place
}

fn refusal(place: &TestFolder) -> String {
    let ended = place.run(&["inspect", "model"]);
    assert_eq!(ended.code, Some(2), "{}", ended.told());
    assert_eq!(ended.stdout, "");
    ended.stderr
}

fn with_config(change: impl Fn(&mut Value)) -> String {
    let mut config: Value = serde_json::from_str(&tiny_config().to_json()).unwrap();
    change(&mut config);
    refusal(&place(&config.to_string(), &Weights::right().to_bytes()))
}

fn with_weights(change: impl Fn(&mut Weights)) -> String {
    let mut weights = Weights::right();
    change(&mut weights);
    refusal(&place(&tiny_config().to_json(), &weights.to_bytes()))
}

#[test]
fn a_right_checkpoint_is_not_refused() {
    let place = place(&tiny_config().to_json(), &Weights::right().to_bytes());
    let ended = place.run(&["inspect", "model"]);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
}

#[test]
fn a_missing_folder_or_file_is_told() {
    assert_snapshot!("missing_folder", refusal(&TestFolder::new()));
    let place = TestFolder::new();
    place.write("model/config.json", tiny_config().to_json());
    assert_snapshot!("missing_weights", refusal(&place));
    let place = TestFolder::new();
    place.write("model/model.safetensors", Weights::right().to_bytes());
    assert_snapshot!("missing_config", refusal(&place));
}

#[test]
fn a_configuration_that_contradicts_itself_is_told_by_its_keys() {
    assert_snapshot!(
        "heads_that_do_not_divide",
        with_config(|config| config["encoder_heads"] = 5.into())
    );
    assert_snapshot!(
        "patches_that_do_not_fit",
        with_config(|config| config["patch_size"] = 5.into())
    );
    assert_snapshot!(
        "unknown_key",
        with_config(|config| config["hiden_size"] = 32.into())
    );
    assert_snapshot!(
        "absurd_size",
        with_config(|config| config["vocab_size"] = u64::MAX.into())
    );
    assert_snapshot!("no_json", refusal(&place("{", &Weights::right().to_bytes())));
}

#[test]
fn a_wrong_tensor_is_told_by_its_name() {
    let name = "decoder.layers.0.cross_attn.k_proj.weight";
    assert_snapshot!(
        "missing_tensor",
        with_weights(|weights| {
            let entry = weights.header.remove(name).unwrap();
            weights.header.insert("k_proj".into(), entry);
        })
    );
    assert_snapshot!(
        "wrong_shape",
        with_weights(|weights| weights.header[name]["shape"] = json!([16, 64]))
    );
    assert_snapshot!(
        "wrong_dtype",
        with_weights(|weights| weights.header[name]["dtype"] = "I32".into())
    );
}

#[test]
fn a_file_that_lies_is_refused_before_memory_is_taken() {
    let name = "decoder.norm.weight";
    let right = Weights::right().to_bytes();
    let refused = |weights: &[u8]| refusal(&place(&tiny_config().to_json(), weights));
    assert_snapshot!("empty_weights", refused(b""));
    assert_snapshot!("cut_weights", refused(&right[..right.len() - 1]));
    assert_snapshot!(
        "header_longer_than_file",
        refused(&[&u64::MAX.to_le_bytes(), &right[8..]].concat())
    );
    assert_snapshot!(
        "header_no_json",
        refused(&[&4u64.to_le_bytes(), b"oops".as_slice()].concat())
    );
    assert_snapshot!(
        "offsets_beyond_file",
        with_weights(|weights| weights.header[name]["data_offsets"] = json!([0, u64::MAX]))
    );
    assert_snapshot!(
        "shape_that_overflows",
        with_weights(|weights| weights.header[name]["shape"] = json!([u64::MAX, u64::MAX]))
    );
}
