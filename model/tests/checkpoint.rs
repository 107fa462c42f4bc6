//! From a checkpoint on disk to a model's numbers.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::collections::HashMap;

use multiway_model::{
    Checkpoint, DType, DecoderBatch, DecoderRow, Device, EncoderBatch, EncoderSample, Model, ModelConfig,
    ProcessedImage, Tensor, initialise,
    testing::{random_inference_model, tiny_config},
};

/// The logits of the first step after one picture and some text.
fn logits(model: &Model, config: &ModelConfig) -> Vec<f32> {
    let values = config.image_values();
    let picture = ProcessedImage::from_pixels((0..values).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect());
    let sample = EncoderSample {
        images: &[picture],
        tokens: &[9, 8, 7, 1],
    };
    let encoded = model
        .encode(&EncoderBatch::new(config, &[sample]).unwrap())
        .unwrap(); // [N, D]
    let memories = model.prompt_memory(&encoded).unwrap();
    let mut cache = model.new_cache(1, 4).unwrap();
    let rows = [DecoderRow {
        token: config.decoder_start_token_id,
        slot: 0,
        memory: &memories[0],
    }];
    let logits = model
        .decode_step(&DecoderBatch { rows: &rows }, &mut cache)
        .unwrap(); // [1, V]
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Saves a random model with its weights in the given type; the folder goes when it is dropped.
fn save(dtype: DType) -> tempfile::TempDir {
    let config = tiny_config();
    let tensors: HashMap<String, Tensor> = initialise(&config, 5, &Device::Cpu)
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| (name, tensor.to_dtype(dtype).unwrap()))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    Checkpoint::save(folder.path(), &config, &tensors, &[]).unwrap();
    folder
}

#[test]
fn a_model_saved_and_loaded_gives_the_same_bits() {
    let config = tiny_config();
    let folder = save(DType::F32);
    let loaded = Model::load(
        &Checkpoint::open(folder.path()).unwrap(),
        &Device::Cpu,
        DType::F32,
    )
    .unwrap();
    let original = random_inference_model(&config, 5).unwrap();
    assert_eq!(bits(&logits(&loaded, &config)), bits(&logits(&original, &config)));
    let another = random_inference_model(&config, 6).unwrap();
    assert_ne!(bits(&logits(&loaded, &config)), bits(&logits(&another, &config)));
}

#[test]
fn half_precision_weights_give_nearly_the_same_numbers() {
    let config = tiny_config();
    let original = logits(&random_inference_model(&config, 5).unwrap(), &config);
    let largest = original.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    for (dtype, tolerance) in [(DType::BF16, 0.03), (DType::F16, 0.004)] {
        let folder = save(dtype);
        let loaded = Model::load(
            &Checkpoint::open(folder.path()).unwrap(),
            &Device::Cpu,
            DType::F32,
        )
        .unwrap();
        for (found, expected) in logits(&loaded, &config).iter().zip(&original) {
            assert!(
                (found - expected).abs() < tolerance * largest,
                "{dtype:?}: {found}, expected {expected}"
            );
        }
    }
}

#[cfg(unix)] // elsewhere an open file cannot be removed
#[test]
fn a_checkpoint_outlives_its_folder_while_it_is_open() {
    let config = tiny_config();
    let folder = save(DType::F32);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    drop(folder);
    let loaded = Model::load(&checkpoint, &Device::Cpu, DType::F32).unwrap();
    assert_eq!(logits(&loaded, &config).len(), config.vocab_size);
}
