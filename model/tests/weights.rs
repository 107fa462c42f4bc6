//! Models whose linear layers have 16-bit and 8-bit weights.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::collections::HashMap;

use multiway_model::testing::{random_quantized_model, tiny_config};
use multiway_model::{
    Checkpoint, DType, DecoderBatch, DecoderRow, Device, EncoderBatch, EncoderSample, LoadOptions, Model,
    ModelConfig, ProcessedImage, Tensor, WeightType, initialise,
};

const SEED: u64 = 5;

fn image(config: &ModelConfig, seed: usize) -> ProcessedImage {
    let count = config.image_values();
    let value = |i: usize| ((i * 11 + seed * 17) % 31) as f32 / 15.5 - 1.0;
    ProcessedImage::from_pixels((0..count).map(value).collect())
}

fn model(weights: WeightType) -> Model {
    random_quantized_model(&tiny_config(), SEED, weights).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    values(x).into_iter().map(f32::to_bits).collect()
}

/// The hidden states of samples encoded together, each a picture and a text, and the logits of a step for
/// each.
fn run(model: &Model, samples: &[(usize, &[u32])]) -> (Vec<Tensor>, Tensor) {
    let config = model.config();
    let images: Vec<_> = samples.iter().map(|(seed, _)| [image(config, *seed)]).collect();
    let all: Vec<_> = std::iter::zip(samples, &images)
        .map(|((_, tokens), images)| EncoderSample { images, tokens })
        .collect();
    let encoded = model.encode(&EncoderBatch::new(config, &all).unwrap()).unwrap();
    let hidden = encoded.segments.samples.iter().map(|sample| {
        let rows = sample.all();
        let rows = rows
            .iter()
            .map(|rows| encoded.hidden.narrow(0, rows.start, rows.len()).unwrap());
        Tensor::cat(&rows.collect::<Vec<_>>(), 0).unwrap() // [S, D]
    });
    let memories = model.prompt_memory(&encoded).unwrap();
    let mut cache = model.new_cache(samples.len(), 4).unwrap();
    let rows: Vec<_> = memories
        .iter()
        .enumerate()
        .map(|(slot, memory)| DecoderRow {
            token: config.decoder_start_token_id,
            slot,
            memory,
        })
        .collect();
    let logits = model
        .decode_step(&DecoderBatch { rows: &rows }, &mut cache)
        .unwrap(); // [B, V]
    (hidden.collect(), logits)
}

/// The root of the mean square of the differences, relative to that of what was expected.
fn relative_error(found: &Tensor, expected: &Tensor) -> f32 {
    let square = |x: Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    (square((found - expected).unwrap()) / square(expected.clone())).sqrt()
}

/// Weights of random models are normal: rounding one to `bf16` changes it by 0.17 %, to 8 bits, as its
/// activations too, by about 1 %. Four layers of the encoder's and decoder's add up their errors on the
/// residual stream.
#[test]
fn narrow_weights_give_nearly_the_same_hidden_states_and_logits() {
    let sample: [(usize, &[u32]); 1] = [(1, &[9, 8, 7, 1])];
    let (expected_hidden, expected_logits) = run(&model(WeightType::F32), &sample);
    for (weights, least, most) in [(WeightType::Bf16, 0.0003, 0.006), (WeightType::Int8, 0.002, 0.03)] {
        let (hidden, logits) = run(&model(weights), &sample);
        for (found, expected) in [(&hidden[0], &expected_hidden[0]), (&logits, &expected_logits)] {
            let error = relative_error(found, expected);
            assert!((least..most).contains(&error), "{weights}: {error}");
        }
    }
}

#[test]
fn a_sample_gives_the_same_bits_alone_and_in_a_batch_in_every_weight_type() {
    let samples: [(usize, &[u32]); 3] = [(1, &[9, 8, 7, 1]), (2, &[5, 1]), (3, &[6, 6, 6, 7, 7, 8, 1])];
    for weights in WeightType::ALL {
        let model = model(weights);
        let (hidden, logits) = run(&model, &samples);
        for (index, sample) in samples.iter().enumerate() {
            let (own, own_logits) = run(&model, std::slice::from_ref(sample));
            assert_eq!(bits(&own[0]), bits(&hidden[index]), "{weights}");
            assert_eq!(
                bits(&own_logits),
                bits(&logits.narrow(0, index, 1).unwrap()),
                "{weights}"
            );
        }
    }
}

fn save() -> tempfile::TempDir {
    let config = tiny_config();
    let tensors: HashMap<_, _> = initialise(&config, SEED, &Device::Cpu)
        .unwrap()
        .into_iter()
        .collect();
    let folder = tempfile::tempdir().unwrap();
    Checkpoint::save(folder.path(), &config, &tensors, &[]).unwrap();
    folder
}

#[test]
fn a_checkpoint_is_loaded_in_the_weight_type_that_was_asked_for() {
    let folder = save();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    for weights in WeightType::ALL {
        let options = LoadOptions {
            weights: Some(weights),
            ..LoadOptions::default()
        };
        let loaded = Model::load_with(&checkpoint, &Device::Cpu, &options).unwrap();
        assert_eq!(loaded.dtype(), DType::F32);
        let sample: [(usize, &[u32]); 1] = [(1, &[9, 8, 7, 1])];
        let ((_, found), (_, expected)) = (run(&loaded, &sample), run(&model(weights), &sample));
        assert_eq!(bits(&found), bits(&expected), "{weights}");
    }
}

#[test]
fn narrow_weights_beside_half_precision_are_refused() {
    let folder = save();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let options = LoadOptions {
        dtype: DType::BF16,
        weights: Some(WeightType::Int8),
        ..LoadOptions::default()
    };
    let error = Model::load_with(&checkpoint, &Device::Cpu, &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "int8 weights need the CPU and f32 for the rest, found Cpu and BF16"
    );
}
