//! Small random models and comparisons for tests and benchmarks of this and other crates.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use crate::config::{
    Activation, AttentionPattern, EmbeddingConfig, ModelConfig, Positions, StackConfig, TaskGroup, TextRow,
    TokenizerKind, VisionConfig,
};
use crate::error::ForwardError;
use crate::init::initialise;
use crate::kernels::WeightType;
use crate::model::Model;

/// Describes a model small enough for tests: width 32, two encoder and two decoder layers, 16-pixel pictures.
#[must_use]
pub fn tiny_config() -> ModelConfig {
    let encoder = StackConfig {
        layers: 2,
        heads: 4,
        head_size: 8,
        scaled: true,
        sub_norm: true,
        activation: Activation::GatedGelu,
        positions: Positions::Learned,
    };
    ModelConfig {
        model_type: "multiway".to_owned(),
        task_group: TaskGroup::Native,
        tokenizer: TokenizerKind::Plain,
        vocab_size: 120,
        hidden_size: 32,
        intermediate_size: 48,
        encoder,
        fusion_layers: 0,
        shared_attention: true,
        attention_pattern: AttentionPattern::ImagePrefix,
        encoder_norm: true,
        decoder: Some(StackConfig {
            heads: 2,
            head_size: 16,
            positions: Positions::Rotary { theta: 10_000.0 },
            ..encoder
        }),
        vision: Some(VisionConfig {
            image_size: 16,
            patch_size: 4,
            max_images: 3,
            image_mean: [0.5; 3],
            image_std: [0.5; 3],
            crops: false,
            stored_grid: None,
        }),
        max_text_length: 40,
        max_target_length: 24,
        visual_vocab_size: Some(20),
        embedding: Some(EmbeddingConfig {
            size: 16,
            text_row: TextRow::Last,
        }),
        class_head: None,
        norm_eps: 1e-6,
        scales_embeddings: true,
        tied_output: true,
        output_scale: 1.0,
        states_output_scale: true,
        pad_token_id: 0,
        eos_token_id: 1,
        decoder_start_token_id: 0,
        end_token_ids: vec![1],
        text_start: None,
        mask_token_id: None,
        names_words: false,
        trained_tasks: None,
    }
}

/// Builds a model with random weights in its differentiable form.
///
/// # Errors
/// Where a tensor cannot be made.
pub fn random_model(config: &ModelConfig, seed: u64) -> Result<Model, ForwardError> {
    let tensors = initialise(config, seed, &Device::Cpu)?.into_iter().collect();
    Model::from_tensors(config, &tensors)
}

/// Builds the same model as [`random_model`] with its linear layers packed for inference.
///
/// # Errors
/// Where a tensor cannot be made.
pub fn random_inference_model(config: &ModelConfig, seed: u64) -> Result<Model, ForwardError> {
    inference_model(
        config,
        &initialise(config, seed, &Device::Cpu)?.into_iter().collect(),
    )
}

/// Builds a model on given tensors with its linear layers packed for inference.
///
/// # Errors
/// Where a tensor is missing.
pub fn inference_model(
    config: &ModelConfig,
    tensors: &HashMap<String, Tensor>,
) -> Result<Model, ForwardError> {
    Model::packed(config, tensors, WeightType::F32)
}

/// Builds the same model as [`random_inference_model`] with the weights of its linear layers in another form.
///
/// # Errors
/// Where a tensor cannot be made.
pub fn random_quantized_model(
    config: &ModelConfig,
    seed: u64,
    weights: WeightType,
) -> Result<Model, ForwardError> {
    let tensors = initialise(config, seed, &Device::Cpu)?.into_iter().collect();
    Model::packed(config, &tensors, weights)
}

#[cfg(test)]
pub(crate) fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 3.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

#[cfg(test)]
pub(crate) fn assert_close(what: &str, got: &Tensor, want: &Tensor, tolerance: f32) {
    assert_eq!(got.dims(), want.dims(), "{what}: shapes");
    let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (got, want) = (flat(got), flat(want));
    let largest = want.iter().fold(1.0f32, |m, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!(
            (g - w).abs() <= tolerance * largest,
            "{what}: element {i} is {g}, expected {w} (of {largest})"
        );
    }
}
