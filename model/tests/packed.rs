//! Packed checkpoints: the same numbers as the original, and refused where they cannot be used.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use multiway_model::testing::tiny_config;
use multiway_model::{
    Checkpoint, DType, DecoderBatch, DecoderRow, Device, EncoderBatch, EncoderSample, LoadOptions, Model,
    ModelConfig, ProcessedImage, Tensor, WeightType, initialise,
};

fn save(config: &ModelConfig) -> tempfile::TempDir {
    let tensors = initialise(config, 5, &Device::Cpu).unwrap().into_iter().collect();
    let folder = tempfile::tempdir().unwrap();
    Checkpoint::save(folder.path(), config, &tensors, &[("tokenizer.json", b"{}")]).unwrap();
    folder
}

/// A T5 whose layers are no multiple of a panel's sixteen outputs, gate and up above all, which are stacked.
fn uneven(tied: bool) -> ModelConfig {
    let json = format!(
        r#"{{"model_type": "t5", "d_model": 24, "d_kv": 10, "d_ff": 39, "num_layers": 2, "num_decoder_layers": 3,
        "num_heads": 3, "vocab_size": 90, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": {tied},
        "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "layer_norm_epsilon": 1e-6,
        "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}}"#
    );
    ModelConfig::from_json(json.as_bytes()).unwrap()
}

/// The recorded checkpoints of other people's code: T5, tied and not, and BEiT-3, with biases and each kind
/// of head.
fn recorded() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/parity");
    let folders = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = folders
        .filter(|path| path.join("model.safetensors").exists())
        .collect();
    folders.sort();
    assert!(folders.len() > 12, "{folders:?}");
    folders
}

fn load(checkpoint: &Checkpoint, weights: Option<WeightType>) -> Model {
    let options = LoadOptions {
        weights,
        ..LoadOptions::default()
    };
    Model::load_with(checkpoint, &Device::Cpu, &options).unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// The bits of all that a model gives: hidden states, the logits of three steps, and what its heads say.
fn run(model: &Model) -> Vec<Vec<u32>> {
    let config = model.config();
    let count = config.image_values();
    let value = |i: usize| ((i * 11) % 31) as f32 / 15.5 - 1.0;
    let picture = [ProcessedImage::from_pixels((0..count).map(value).collect())];
    let images: &[ProcessedImage] = if config.vision.is_some() { &picture } else { &[] };
    let start = config.text_start();
    let sample = |tokens| EncoderSample { images, tokens };
    let (first, second) = ([start.unwrap_or(9), 8, 7, 1], [start.unwrap_or(5), 6, 1]);
    let batch = EncoderBatch::new(config, &[sample(&first), sample(&second)]).unwrap();
    let encoded = model.encode(&batch).unwrap();
    let mut all = vec![bits(&encoded.hidden)];
    if config.writes_text() {
        let memories = model.prompt_memory(&encoded).unwrap();
        let mut cache = model.new_cache(2, 4).unwrap();
        for token in [config.decoder_start_token_id, 11, 4] {
            let rows = memories.iter().enumerate();
            let rows: Vec<_> = rows
                .map(|(slot, memory)| DecoderRow { token, slot, memory })
                .collect();
            let batch = DecoderBatch { rows: &rows };
            all.push(bits(&model.decode_step(&batch, &mut cache).unwrap()));
        }
    }
    if config.classes() > 0 {
        all.push(bits(&model.classify(&encoded).unwrap()));
    }
    if config.embedding_size() > 0 {
        all.push(bits(&model.embed(&encoded).unwrap()));
    }
    if config.word_mask().is_some() {
        all.push(bits(&model.word_logits(&encoded, &[0, 2]).unwrap()));
    }
    if config.names_patches() {
        all.push(bits(&model.visual_code_logits(&encoded, &[1, 3]).unwrap()));
    }
    all
}

fn check(folder: &Path) {
    let original = Checkpoint::open(folder).unwrap();
    assert_eq!(original.packed(), None);
    for weights in WeightType::ALL {
        let out = tempfile::tempdir().unwrap();
        let report = original.pack(out.path(), weights, &[]).unwrap();
        let packed = Checkpoint::open(out.path()).unwrap();
        assert_eq!(packed.packed(), Some(weights));
        assert_eq!(
            (report.packed, report.tensors),
            (Some(weights), packed.tensors().len())
        );
        assert_eq!(packed.config().tensors(), original.config().tensors());
        let expected = run(&load(&original, Some(weights)));
        for asked in [None, Some(weights)] {
            assert_eq!(
                run(&load(&packed, asked)),
                expected,
                "{}: {weights}",
                folder.display()
            );
        }
        let rounds = weights != WeightType::F32;
        assert_eq!(report.max_error > 0.0, rounds, "{weights}: {report:?}");
    }
}

#[test]
fn a_packed_checkpoint_of_every_recorded_model_gives_the_bits_of_the_original() {
    recorded().iter().for_each(|folder| check(folder));
}

#[test]
fn a_packed_checkpoint_of_any_size_gives_the_bits_of_the_original() {
    for config in [tiny_config(), uneven(true), uneven(false)] {
        check(save(&config).path());
    }
}

/// A packed checkpoint, whose folder is removed when it is dropped.
fn pack(weights: WeightType) -> (tempfile::TempDir, Checkpoint) {
    let (folder, out) = (save(&tiny_config()), tempfile::tempdir().unwrap());
    let original = Checkpoint::open(folder.path()).unwrap();
    original.pack(out.path(), weights, &[("note", b"kept")]).unwrap();
    let packed = Checkpoint::open(out.path()).unwrap();
    (out, packed)
}

#[test]
fn what_lies_beside_the_weights_goes_with_them() {
    let (_folder, packed) = pack(WeightType::Int8);
    assert_eq!(
        packed.file("tokenizer.json").unwrap().as_deref(),
        Some(&b"{}"[..])
    );
    assert_eq!(packed.file("note").unwrap().as_deref(), Some(&b"kept"[..]));
}

#[test]
fn a_packed_model_outlives_its_checkpoint_and_its_folder() {
    let (folder, packed) = pack(WeightType::Bf16);
    let model = load(&packed, None);
    let expected = run(&model);
    drop((folder, packed));
    assert_eq!(run(&model), expected);
}

#[test]
fn a_packed_checkpoint_is_refused_for_what_it_was_not_packed_for() {
    let (folder, packed) = pack(WeightType::Int8);
    let shown = |error: &dyn std::error::Error| {
        let folder = folder.path().to_str().unwrap();
        error.to_string().replace(folder, "FOLDER")
    };
    let refusal = |dtype, weights| {
        let options = LoadOptions {
            dtype,
            weights,
            ..LoadOptions::default()
        };
        let error = Model::load_with(&packed, &Device::Cpu, &options).unwrap_err();
        shown(&error)
    };
    insta::assert_snapshot!(refusal(DType::F32, Some(WeightType::Bf16)), @"'FOLDER/model.safetensors' is packed as int8, not bf16: ask for int8 or for nothing, or convert the original checkpoint to bf16");
    insta::assert_snapshot!(refusal(DType::BF16, None), @"'FOLDER/model.safetensors' is packed as int8, for the CPU and f32 for the rest, found Cpu and BF16: use the original checkpoint");
    let training = packed.load_tensor("mim_head.weight", &Device::Cpu, DType::F32);
    insta::assert_snapshot!(shown(&training.unwrap_err()), @"'FOLDER/model.safetensors': tensor 'mim_head.weight' is packed as int8, for inference alone: use the original checkpoint");
    let bytes = packed.load_tensor("mim_head.weight.packed", &Device::Cpu, DType::F32);
    insta::assert_snapshot!(shown(&bytes.unwrap_err()), @"'FOLDER/model.safetensors': tensor 'mim_head.weight.packed' is packed as int8, for inference alone: use the original checkpoint");
    let out = tempfile::tempdir().unwrap();
    let again = packed.pack(out.path().join("again"), WeightType::Int8, &[]);
    insta::assert_snapshot!(shown(&again.unwrap_err()), @"'FOLDER/model.safetensors': tensor 'vision_embed.patch.weight' is packed as int8, for inference alone: use the original checkpoint");
    let back = packed.convert(out.path().join("back"), None, &[]);
    insta::assert_snapshot!(shown(&back.unwrap_err()), @"'FOLDER/model.safetensors': tensor 'vision_embed.patch.weight' is packed as int8, for inference alone: use the original checkpoint");
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
}
