//! What must hold of the whole model, whatever its weights are.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use multiway_model::testing::{random_inference_model, random_model, tiny_config};
use multiway_model::{
    AttentionPattern, DecoderBatch, DecoderRow, EncoderBatch, EncoderSample, KvCache, Model, ModelConfig,
    Patch, PatchedImage, ProcessedImage, PromptMemory, TargetBatch, Tensor,
};

fn image(config: &ModelConfig, seed: usize) -> ProcessedImage {
    let count = config.image_values();
    ProcessedImage::from_pixels(
        (0..count)
            .map(|i| ((i * 7 + seed * 13) % 29) as f32 / 14.5 - 1.0)
            .collect(),
    )
}

fn rows(x: &Tensor) -> Vec<Vec<f32>> {
    x.to_vec2().unwrap()
}

fn close(a: &[f32], b: &[f32], tolerance: f32) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

/// Encodes samples and returns each one's rows, pictures before text.
fn encode(model: &Model, samples: &[EncoderSample]) -> Vec<Vec<Vec<f32>>> {
    let batch = EncoderBatch::new(model.config(), samples).unwrap();
    let encoded = model.encode(&batch).unwrap();
    let all = rows(&encoded.hidden);
    let of = |sample: &multiway_model::SampleSegments| {
        sample
            .all()
            .into_iter()
            .flatten()
            .map(|r| all[r].clone())
            .collect()
    };
    encoded.segments.samples.iter().map(of).collect()
}

fn memory(model: &Model, sample: EncoderSample) -> PromptMemory {
    let batch = EncoderBatch::new(model.config(), &[sample]).unwrap();
    model
        .prompt_memory(&model.encode(&batch).unwrap())
        .unwrap()
        .remove(0)
}

fn configs() -> Vec<ModelConfig> {
    let variants = [
        (AttentionPattern::ImagePrefix, true, 0),
        (AttentionPattern::Joint, false, 1),
        (AttentionPattern::Causal, true, 2),
    ];
    let make = |(pattern, shared, fusion)| {
        let mut config = tiny_config();
        config.attention_pattern = pattern;
        config.shared_attention = shared;
        config.fusion_layers = fusion;
        config
    };
    variants.into_iter().map(make).collect()
}

#[test]
fn a_sample_is_the_same_bits_alone_and_in_any_batch() {
    for config in configs() {
        let model = random_inference_model(&config, 3).unwrap();
        let pictures = [image(&config, 1), image(&config, 2), image(&config, 3)];
        let long: Vec<u32> = (2..40).collect();
        let samples = [
            EncoderSample {
                images: &pictures[..1],
                tokens: &[5, 9, 1],
            },
            EncoderSample {
                images: &[],
                tokens: &long,
            },
            EncoderSample {
                images: &pictures,
                tokens: &[1],
            },
            EncoderSample {
                images: &pictures[1..2],
                tokens: &[],
            },
        ];
        let together = encode(&model, &samples);
        let reversed: Vec<EncoderSample> = samples.iter().rev().copied().collect();
        let backwards = encode(&model, &reversed);
        for (i, sample) in samples.iter().enumerate() {
            let alone = &encode(&model, std::slice::from_ref(sample))[0];
            assert!(
                *alone == together[i] && *alone == backwards[samples.len() - 1 - i],
                "sample {i}"
            );
        }
    }
}

#[test]
fn packed_layers_give_the_numbers_of_the_differentiable_model() {
    for config in configs() {
        let pictures = [image(&config, 4)];
        let sample = EncoderSample {
            images: &pictures,
            tokens: &[5, 9, 30, 1],
        };
        let packed = encode(&random_inference_model(&config, 4).unwrap(), &[sample]);
        let plain = encode(&random_model(&config, 4).unwrap(), &[sample]);
        assert!(packed[0].iter().zip(&plain[0]).all(|(a, b)| close(a, b, 1e-4)));
    }
}

#[test]
fn cached_decoding_equals_a_full_recomputation() {
    for config in configs() {
        let model = random_inference_model(&config, 5).unwrap();
        let pictures = [image(&config, 5)];
        let sample = EncoderSample {
            images: &pictures,
            tokens: &[7, 8, 1],
        };
        let memory = memory(&model, sample);
        let target = [0u32, 44, 5, 80, 17, 3];
        let mut cache = model.new_cache(2, 10).unwrap();
        let mut steps = Vec::new();
        for token in target {
            let batch = [DecoderRow {
                token,
                slot: 1,
                memory: &memory,
            }];
            let logits = model
                .decode_step(&DecoderBatch { rows: &batch }, &mut cache)
                .unwrap();
            steps.push(rows(&logits).remove(0));
        }
        assert_eq!((cache.length(0), cache.length(1)), (0, target.len()));
        let encoded = model
            .encode(&EncoderBatch::new(&config, &[sample]).unwrap())
            .unwrap();
        let mut targets = TargetBatch::default();
        targets.push(0, &target);
        let whole = rows(&model.decode(&encoded, &targets).unwrap());
        assert!(steps.iter().zip(&whole).all(|(a, b)| close(a, b, 1e-4)));
    }
}

#[test]
fn a_decoding_row_is_the_same_bits_alone_and_among_others() {
    let config = tiny_config();
    let model = random_inference_model(&config, 6).unwrap();
    let memories: Vec<PromptMemory> = (0..9u32)
        .map(|i| {
            let tokens: Vec<u32> = (0..=i).map(|t| t * 3 + 2).collect();
            memory(
                &model,
                EncoderSample {
                    images: &[],
                    tokens: &tokens,
                },
            )
        })
        .collect();
    let run = |which: &[usize]| {
        let mut cache = model.new_cache(9, 8).unwrap();
        let mut logits = Vec::new();
        for step in 0..4u32 {
            let batch: Vec<DecoderRow> = which
                .iter()
                .map(|&i| DecoderRow {
                    token: step * 7 + u32::try_from(i).unwrap(),
                    slot: i,
                    memory: &memories[i],
                })
                .collect();
            logits.push(rows(
                &model
                    .decode_step(&DecoderBatch { rows: &batch }, &mut cache)
                    .unwrap(),
            ));
        }
        logits
    };
    let together = run(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
    for i in 0..9 {
        let alone = run(&[i]);
        assert!(alone.iter().zip(&together).all(|(a, b)| a[0] == b[i]), "row {i}");
    }
}

#[test]
fn a_copied_slot_goes_on_as_the_original_would() {
    let config = tiny_config();
    let model = random_inference_model(&config, 7).unwrap();
    let memory = memory(
        &model,
        EncoderSample {
            images: &[],
            tokens: &[4, 1],
        },
    );
    let mut cache = model.new_cache(3, 8).unwrap();
    let step = |token, slots: &[usize], cache: &mut KvCache| {
        let batch: Vec<DecoderRow> = slots
            .iter()
            .map(|&slot| DecoderRow {
                token,
                slot,
                memory: &memory,
            })
            .collect();
        rows(&model.decode_step(&DecoderBatch { rows: &batch }, cache).unwrap())
    };
    step(0, &[2], &mut cache);
    step(9, &[2], &mut cache);
    cache.copy(2, 0).unwrap();
    let both = step(11, &[2, 0], &mut cache);
    assert!(both[0] == both[1]);
    cache.clear(0);
    assert_eq!(cache.length(0), 0);
    assert!(cache.copy(0, 3).is_err());
}

#[test]
fn full_unknown_and_repeated_slots_are_refused_and_change_nothing() {
    let config = tiny_config();
    let model = random_inference_model(&config, 8).unwrap();
    let memory = memory(
        &model,
        EncoderSample {
            images: &[],
            tokens: &[4, 1],
        },
    );
    let mut cache = model.new_cache(2, 1).unwrap();
    let row = |slot| DecoderRow {
        token: 0,
        slot,
        memory: &memory,
    };
    let run = |rows: &[DecoderRow], cache: &mut KvCache| {
        let result = model.decode_step(&DecoderBatch { rows }, cache).map(|_| ());
        result.map_err(|error| error.to_string())
    };
    let refused = |message: &str| Err(message.to_owned());
    assert_eq!(
        run(&[row(0), row(0)], &mut cache),
        refused("cache slot 0: is named twice in one step")
    );
    assert_eq!(
        run(&[row(2)], &mut cache),
        refused("cache slot 2: does not exist")
    );
    run(&[row(0)], &mut cache).unwrap();
    assert_eq!(
        run(&[row(1), row(0)], &mut cache),
        refused("cache slot 0: is full")
    );
    assert_eq!(run(&[], &mut cache), refused("the batch is empty"));
    assert_eq!((cache.length(0), cache.length(1)), (1, 0));
    assert!(model.new_cache(1, 0).is_err() && model.new_cache(1, 1000).is_err());
}

#[test]
fn under_an_image_prefix_the_picture_does_not_depend_on_the_text() {
    let mut config = tiny_config();
    let pictures = [image(&config, 9)];
    let vision = |model: &Model, tokens: &[u32]| {
        encode(
            model,
            &[EncoderSample {
                images: &pictures,
                tokens,
            }],
        )[0][..17]
            .to_vec()
    };
    let model = random_inference_model(&config, 9).unwrap();
    assert!(vision(&model, &[5, 1]) == vision(&model, &[90, 91, 92, 1]));
    config.attention_pattern = AttentionPattern::Joint;
    let model = random_inference_model(&config, 9).unwrap();
    assert!(vision(&model, &[5, 1]) != vision(&model, &[90, 91, 92, 1]));
}

#[test]
fn the_order_of_pictures_matters() {
    let config = tiny_config();
    let model = random_inference_model(&config, 10).unwrap();
    let (a, b) = (image(&config, 1), image(&config, 2));
    let (forth, back) = ([a.clone(), b.clone()], [b, a]);
    let text = |images: &[ProcessedImage]| {
        encode(
            &model,
            &[EncoderSample {
                images,
                tokens: &[5, 1],
            }],
        )[0][34..]
            .to_vec()
    };
    assert!(text(&forth) != text(&back));
}

#[test]
fn embeddings_have_unit_length_and_tell_pictures_apart() {
    let config = tiny_config();
    let model = random_inference_model(&config, 11).unwrap();
    let (a, b) = ([image(&config, 1)], [image(&config, 2)]);
    let samples = [
        EncoderSample {
            images: &a,
            tokens: &[1],
        },
        EncoderSample {
            images: &b,
            tokens: &[1],
        },
        EncoderSample {
            images: &[],
            tokens: &[6, 1],
        },
    ];
    let encoded = model
        .encode(&EncoderBatch::new(&config, &samples).unwrap())
        .unwrap();
    let all = rows(&model.embed(&encoded).unwrap());
    for row in &all {
        assert!((row.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }
    assert!(all[0] != all[1] && all[1] != all[2]);
}

#[test]
fn patches_left_out_are_not_seen_and_masked_ones_hide_their_pixels() {
    let config = tiny_config();
    let model = random_model(&config, 12).unwrap();
    let patches: Vec<Patch> = (0..12)
        .map(|index| Patch {
            index,
            masked: index % 3 == 0,
        })
        .collect();
    let encode = |pixels: &[f32]| {
        let images = vec![PatchedImage {
            pixels,
            patches: &patches,
        }];
        let batch = EncoderBatch::with_patches(&config, &[(images, &[1])]).unwrap();
        rows(&model.encode(&batch).unwrap().hidden)
    };
    let picture = image(&config, 3);
    let mut changed = picture.pixels().to_vec();
    let side = config.image_size();
    // Patch 0 (rows 0..4, columns 0..4) is masked; patches 12..16 (rows 12..16) are left out.
    let masked = (0..4).flat_map(|y| (0..4).map(move |x| (y, x)));
    let left_out = (12..16).flat_map(|y| (0..16).map(move |x| (y, x)));
    for (y, x) in masked.chain(left_out) {
        changed[y * side + x] += 1.0;
    }
    assert!(encode(picture.pixels()) == encode(&changed));
    changed[4] += 1.0; // patch 1 is seen
    assert!(encode(picture.pixels()) != encode(&changed));
}

#[test]
fn batches_that_do_not_fit_say_what_would() {
    let config = tiny_config();
    let pictures = vec![image(&config, 1); 4];
    let foreign = [ProcessedImage::from_pixels(vec![0.0; 12])];
    let long = vec![2u32; 41];
    let samples: [(&[ProcessedImage], &[u32]); 5] = [
        (&[], &[]),
        (&[], &long),
        (&pictures, &[1]),
        (&foreign, &[1]),
        (&[], &[120]),
    ];
    let messages: Vec<String> = samples
        .into_iter()
        .map(|(images, tokens)| {
            let good = EncoderSample {
                images: &[],
                tokens: &[1],
            };
            EncoderBatch::new(&config, &[good, EncoderSample { images, tokens }])
                .unwrap_err()
                .to_string()
        })
        .collect();
    insta::assert_snapshot!(messages.join("\n"));
}
