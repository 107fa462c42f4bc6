//! Explanations are of the computation that writes answers: the same logits, and the same attention however
//! the model is executed.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use multiway_model::testing::{random_inference_model, random_model, random_quantized_model, tiny_config};
use multiway_model::{
    AttentionPattern, DecoderBatch, DecoderRow, EncoderBatch, EncoderOutput, EncoderSample, Explanation,
    ForwardError, Model, ModelConfig, ProcessedImage, TargetBatch, Tensor, WeightType,
};

const TARGET: [u32; 6] = [0, 44, 5, 80, 17, 3];

fn image(config: &ModelConfig, seed: usize) -> ProcessedImage {
    let value = |i: usize| ((i * 7 + seed * 13) % 29) as f32 / 14.5 - 1.0;
    ProcessedImage::from_pixels((0..config.image_values()).map(value).collect())
}

fn t5() -> ModelConfig {
    let json = r#"{"model_type": "t5", "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_decoder_layers": 3,
        "num_heads": 4, "vocab_size": 90, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false,
        "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "layer_norm_epsilon": 1e-6,
        "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}"#;
    ModelConfig::from_json(json.as_bytes()).unwrap()
}

/// Encodes two samples, of which the second is explained.
fn encode(model: &Model) -> EncoderOutput {
    let config = model.config();
    let pictures: Vec<ProcessedImage> = match config.vision {
        Some(_) => vec![image(config, 1), image(config, 2)],
        None => Vec::new(),
    };
    let other = EncoderSample {
        images: &[],
        tokens: &[9, 1],
    };
    let own = EncoderSample {
        images: &pictures,
        tokens: &[7, 8, 12, 1],
    };
    let batch = EncoderBatch::new(config, &[other, own]).unwrap();
    model.encode(&batch).unwrap()
}

fn rows(x: &Tensor) -> Vec<Vec<f32>> {
    x.to_vec2().unwrap()
}

fn weights(explanation: &Explanation) -> Vec<f32> {
    let all = explanation.cross_attention.flatten_all().unwrap();
    all.to_vec1().unwrap()
}

#[track_caller]
fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    let farthest = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(farthest <= tolerance, "{farthest}");
}

/// Decodes the target with the cache, as an engine does.
fn stepped(model: &Model, encoded: &EncoderOutput) -> Vec<Vec<f32>> {
    let memory = &model.prompt_memory(encoded).unwrap()[1];
    let mut cache = model.new_cache(1, 10).unwrap();
    let mut step = |token| {
        let rows = [DecoderRow {
            token,
            slot: 0,
            memory,
        }];
        let logits = model
            .decode_step(&DecoderBatch { rows: &rows }, &mut cache)
            .unwrap();
        self::rows(&logits).remove(0)
    };
    TARGET.into_iter().map(&mut step).collect()
}

#[test]
fn the_logits_are_those_of_decoding_and_each_row_sums_to_one() {
    for config in [tiny_config(), t5()] {
        let narrow = |weights| random_quantized_model(&config, 5, weights).unwrap();
        for model in [
            random_model(&config, 5).unwrap(),
            random_inference_model(&config, 5).unwrap(),
            narrow(WeightType::Bf16),
            narrow(WeightType::Int8),
        ] {
            let encoded = encode(&model);
            let explanation = model.explain(&encoded, 1, &TARGET).unwrap();
            let decoder = config.decoder.unwrap();
            let sources = encoded.segments.samples[1].rows();
            let shape = [decoder.layers, decoder.heads, TARGET.len(), sources];
            assert_eq!(explanation.cross_attention.dims(), shape);
            for row in weights(&explanation).chunks(sources) {
                assert!(row.iter().all(|weight| *weight >= 0.0));
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
            let mut targets = TargetBatch::default();
            targets.push(1, &TARGET);
            let whole = rows(&model.decode(&encoded, &targets).unwrap());
            let explained = rows(&explanation.logits);
            for ((explained, stepped), whole) in explained.iter().zip(stepped(&model, &encoded)).zip(&whole) {
                assert_close(explained, &stepped, 1e-4);
                assert_close(explained, whole, 1e-4);
            }
        }
    }
}

#[test]
fn the_attention_is_the_same_in_every_form_and_with_known_pictures() {
    let config = tiny_config();
    let model = random_inference_model(&config, 6).unwrap();
    let plain = random_model(&config, 6).unwrap();
    let encoded = encode(&model);
    let expected = weights(&model.explain(&encoded, 1, &TARGET).unwrap());
    let differentiable = plain.explain(&encode(&plain), 1, &TARGET).unwrap();
    assert_close(&weights(&differentiable), &expected, 1e-5);

    let pictures = [image(&config, 1), image(&config, 2)];
    let sample = EncoderSample {
        images: &pictures,
        tokens: &[30, 1],
    };
    let batch = EncoderBatch::new(&config, &[sample]).unwrap();
    let prefix = model
        .image_prefix(&model.encode_keeping(&batch).unwrap(), 0)
        .unwrap();
    let mut batch = EncoderBatch::builder(&config);
    batch.push_known(&prefix, &[7, 8, 12, 1]).unwrap();
    let known = model.encode(&batch.build()).unwrap();
    let explanation = model.explain(&known, 0, &TARGET).unwrap();
    assert_close(&weights(&explanation), &expected, 1e-5);
    let distances = |encoded: &EncoderOutput, sample| rows(&encoded.text_patch_distances(sample).unwrap());
    assert_close(
        &distances(&known, 0).concat(),
        &distances(&encoded, 1).concat(),
        1e-5,
    );
}

#[test]
fn distances_are_those_of_the_angles_between_text_and_patches() {
    for pattern in [AttentionPattern::ImagePrefix, AttentionPattern::Joint] {
        let mut config = tiny_config();
        config.attention_pattern = pattern;
        let model = random_inference_model(&config, 8).unwrap();
        let encoded = encode(&model);
        let hidden = rows(&encoded.hidden);
        let own = &encoded.segments.samples[1];
        let patches: Vec<usize> = own
            .images
            .iter()
            .flat_map(|image| image.start + 1..image.end)
            .collect();
        assert_eq!(patches.len(), 2 * config.patches());
        let found = rows(&encoded.text_patch_distances(1).unwrap());
        assert_eq!((found.len(), found[0].len()), (own.text.len(), patches.len()));
        for (text, found) in own.text.clone().zip(&found) {
            for (patch, found) in patches.iter().zip(found) {
                let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                let (a, b) = (&hidden[text], &hidden[*patch]);
                let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
                assert!((1.0 - cosine - f64::from(*found)).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn what_cannot_be_explained_is_told() {
    let config = tiny_config();
    let model = random_inference_model(&config, 5).unwrap();
    let encoded = encode(&model);
    let no_picture = encoded.text_patch_distances(0).unwrap_err();
    assert!(matches!(
        no_picture,
        ForwardError::NothingToAlign {
            sample: 0,
            missing: "image"
        }
    ));
    assert!(matches!(
        encoded.text_patch_distances(2).unwrap_err(),
        ForwardError::NoSample {
            sample: 2,
            samples: 2
        }
    ));
    for (sample, tokens) in [(2, &TARGET[..]), (1, &[]), (1, &[0; 25]), (1, &[0, 5000])] {
        assert!(model.explain(&encoded, sample, tokens).is_err());
    }
    let mut encoder = config;
    encoder.decoder = None;
    encoder.max_target_length = 0;
    let encoder = random_inference_model(&encoder, 5).unwrap();
    assert!(matches!(
        encoder.explain(&encode(&encoder), 1, &TARGET).unwrap_err(),
        ForwardError::NoHead("cross-attention")
    ));
}
