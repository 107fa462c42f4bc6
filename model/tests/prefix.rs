//! Pictures that are encoded once: shared within a batch, or known from an earlier one, to the bit as if they
//! were not.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use multiway_model::testing::{random_inference_model, random_model, tiny_config};
use multiway_model::{
    AttentionPattern, CacheType, DecoderBatch, DecoderRow, EncoderBatch, EncoderOutput, EncoderSample,
    ForwardError, ImagePrefix, Model, ModelConfig, ProcessedImage, TargetBatch, Tensor,
};
use proptest::prelude::*;

const PROMPTS: [&[u32]; 4] = [
    &[5, 9, 1],
    &[1],
    &[7, 8, 30, 31, 32, 33, 34, 35, 90, 91, 1],
    &[119, 1],
];

fn image(config: &ModelConfig, seed: usize) -> ProcessedImage {
    let count = config.image_values();
    let value = |i: usize| ((i * 7 + seed * 13) % 29) as f32 / 14.5 - 1.0;
    ProcessedImage::from_pixels((0..count).map(value).collect())
}

/// Groups of one, two and three pictures; the second begins with the picture of the first.
fn groups(config: &ModelConfig) -> [Vec<ProcessedImage>; 3] {
    let of = |seeds: &[usize]| seeds.iter().map(|seed| image(config, *seed)).collect();
    [of(&[1]), of(&[1, 2]), of(&[3, 4, 5])]
}

fn tiny(change: impl FnOnce(&mut ModelConfig)) -> ModelConfig {
    let mut config = tiny_config();
    change(&mut config);
    config
}

fn configs() -> Vec<ModelConfig> {
    let make = |(shared_attention, fusion_layers)| {
        tiny(|config| (config.shared_attention, config.fusion_layers) = (shared_attention, fusion_layers))
    };
    [(true, 0), (false, 0), (true, 1), (false, 2)].map(make).to_vec()
}

fn bits(x: &Tensor) -> Vec<u32> {
    let values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// Everything that can be read off an encoded sample.
fn read(model: &Model, encoded: &EncoderOutput, sample: usize) -> Vec<(&'static str, Vec<u32>)> {
    let only = encoded.select(&[sample]);
    let segments = &only.segments.samples[0];
    let rows: Vec<u32> = segments
        .all()
        .into_iter()
        .flatten()
        .map(|row| u32::try_from(row).unwrap())
        .collect();
    let index = Tensor::new(rows.as_slice(), only.hidden.device()).unwrap();
    let mut targets = TargetBatch::default();
    targets.push(0, &[0, 44, 5]);
    let mut read = vec![
        ("hidden rows", bits(&only.hidden.index_select(&index, 0).unwrap())),
        ("embedding", bits(&model.embed(&only).unwrap())),
        (
            "visual codes",
            bits(&model.visual_code_logits(&only, &rows).unwrap()),
        ),
        (
            "words of whole targets",
            bits(&model.decode(&only, &targets).unwrap()),
        ),
    ];
    let memory = model.prompt_memory(&only).unwrap().remove(0);
    assert_eq!(memory.length(), rows.len());
    let mut cache = model.new_cache(1, 8).unwrap();
    for token in [0, 44, 5, 80] {
        let rows = [DecoderRow {
            token,
            slot: 0,
            memory: &memory,
        }];
        let logits = model
            .decode_step(&DecoderBatch { rows: &rows }, &mut cache)
            .unwrap();
        read.push(("words of a step", bits(&logits)));
    }
    read
}

fn alone(model: &Model, images: &[ProcessedImage], tokens: &[u32]) -> Vec<(&'static str, Vec<u32>)> {
    let batch = EncoderBatch::new(model.config(), &[EncoderSample { images, tokens }]).unwrap();
    read(model, &model.encode(&batch).unwrap(), 0)
}

fn prefix(model: &Model, images: &[ProcessedImage]) -> ImagePrefix {
    let sample = EncoderSample {
        images,
        tokens: &[17, 18, 1],
    };
    let batch = EncoderBatch::new(model.config(), &[sample]).unwrap();
    model
        .image_prefix(&model.encode_keeping(&batch).unwrap(), 0)
        .unwrap()
}

fn assert_same(found: &[(&str, Vec<u32>)], expected: &[(&str, Vec<u32>)], which: &str) {
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        assert!(found == expected, "{name} of {which}");
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn samples_that_share_their_pictures_are_the_same_bits_as_alone() {
    for config in configs() {
        let model = random_inference_model(&config, 1).unwrap();
        for images in groups(&config) {
            let mut batch = EncoderBatch::builder(&config);
            batch
                .push(EncoderSample {
                    images: &images,
                    tokens: PROMPTS[0],
                })
                .unwrap();
            for tokens in &PROMPTS[1..] {
                batch.push_shared(0, tokens).unwrap();
            }
            let encoded = model.encode(&batch.build()).unwrap();
            let text: usize = PROMPTS.iter().map(|tokens| tokens.len()).sum();
            assert_eq!(
                encoded.hidden.dim(0).unwrap(),
                17 * images.len() + text,
                "pictures are encoded once"
            );
            for (sample, tokens) in PROMPTS.iter().enumerate() {
                assert_same(
                    &read(&model, &encoded, sample),
                    &alone(&model, &images, tokens),
                    "a shared sample",
                );
            }
        }
    }
}

#[test]
fn samples_whose_pictures_are_known_are_the_same_bits_as_alone() {
    for config in configs() {
        let model = random_inference_model(&config, 2).unwrap();
        for images in groups(&config) {
            let known = prefix(&model, &images);
            let mut batch = EncoderBatch::builder(&config);
            for tokens in PROMPTS {
                batch.push_known(&known, tokens).unwrap();
            }
            let batch = batch.build();
            assert_eq!(
                (batch.segments().vision_rows, batch.segments().prefix_rows),
                (0, known.rows())
            );
            let encoded = model.encode(&batch).unwrap();
            for (sample, tokens) in PROMPTS.iter().enumerate() {
                assert_same(
                    &read(&model, &encoded, sample),
                    &alone(&model, &images, tokens),
                    "a known sample",
                );
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Push {
    Stranger,
    Fresh,
    /// Shares the pictures of the last sample of the same group, whatever it has them from; fresh where there
    /// is none.
    Shared,
    Known,
}

fn pushes() -> impl Strategy<Value = Vec<(Push, usize, usize)>> {
    let push = prop_oneof![
        Just(Push::Stranger),
        Just(Push::Fresh),
        Just(Push::Shared),
        Just(Push::Known)
    ];
    prop::collection::vec((push, 0..3_usize, 0..PROMPTS.len()), 1..9)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn fresh_shared_known_and_foreign_pictures_mix_in_any_batch(
        pushes in pushes(), variant in 0..4_usize, seed in 0..100_u64,
        cache in prop::sample::select(CacheType::ALL.to_vec()),
    ) {
        let config = &configs()[variant];
        let model = random_inference_model(config, seed).unwrap().with_cache(cache).unwrap();
        let groups = groups(config);
        let known: Vec<ImagePrefix> = groups.iter().map(|images| prefix(&model, images)).collect();
        let mut batch = EncoderBatch::builder(config);
        let mut last = [None; 3];
        let mut samples: Vec<(&[ProcessedImage], &[u32])> = Vec::new();
        for (push, group, prompt) in pushes {
            let (images, tokens) = (groups[group].as_slice(), PROMPTS[prompt]);
            let fresh = EncoderSample { images, tokens };
            let number = match (push, last[group]) {
                (Push::Stranger, _) => batch.push(EncoderSample { images: &[], tokens }),
                (Push::Shared, Some(earlier)) => batch.push_shared(earlier, tokens),
                (Push::Fresh | Push::Shared, _) => batch.push(fresh),
                (Push::Known, _) => batch.push_known(&known[group], tokens),
            };
            prop_assert_eq!(number.unwrap(), samples.len());
            if matches!(push, Push::Stranger) {
                samples.push((&[], tokens));
            } else {
                last[group] = Some(samples.len());
                samples.push((images, tokens));
            }
        }
        let encoded = model.encode_keeping(&batch.build()).unwrap();
        for (sample, (images, tokens)) in samples.iter().enumerate() {
            assert_same(&read(&model, &encoded, sample), &alone(&model, images, tokens), &format!("sample {sample}"));
            if images.is_empty() {
                continue;
            }
            // What is kept of any of them serves the next batch as well.
            let again = model.image_prefix(&encoded, sample).unwrap();
            let mut batch = EncoderBatch::builder(config);
            batch.push_known(&again, &[3, 1]).unwrap();
            let encoded = model.encode(&batch.build()).unwrap();
            assert_same(&read(&model, &encoded, 0), &alone(&model, images, &[3, 1]), "a later sample");
        }
    }
}

#[test]
fn the_differentiable_model_takes_known_pictures_too() {
    for config in configs() {
        let model = random_model(&config, 4).unwrap();
        let images = &groups(&config)[1];
        let mut batch = EncoderBatch::builder(&config);
        batch.push_known(&prefix(&model, images), PROMPTS[2]).unwrap();
        let encoded = model.encode(&batch.build()).unwrap();
        let pairs = read(&model, &encoded, 0)
            .into_iter()
            .zip(alone(&model, images, PROMPTS[2]));
        for ((name, found), (_, expected)) in pairs {
            let near = |(a, b): (&u32, &u32)| (f32::from_bits(*a) - f32::from_bits(*b)).abs() < 1e-4;
            assert!(found.iter().zip(&expected).all(near), "{name}");
        }
    }
}

#[test]
fn known_pictures_without_text_need_no_encoding() {
    let config = tiny_config();
    let model = random_inference_model(&config, 5).unwrap();
    let groups = groups(&config);
    let mut batch = EncoderBatch::builder(&config);
    for images in &groups {
        batch.push_known(&prefix(&model, images), &[]).unwrap();
    }
    let batch = batch.build();
    assert_eq!(
        (batch.segments().rows(), batch.segments().prefix_rows),
        (0, 17 * 6)
    );
    let encoded = model.encode(&batch).unwrap();
    for (sample, images) in groups.iter().enumerate() {
        assert_same(
            &read(&model, &encoded, sample),
            &alone(&model, images, &[]),
            "pictures alone",
        );
    }
}

#[test]
fn keeping_changes_no_number_and_a_plain_output_makes_no_prefix() {
    let config = tiny_config();
    let model = random_inference_model(&config, 6).unwrap();
    let images = &groups(&config)[1];
    let samples = [
        EncoderSample {
            images,
            tokens: PROMPTS[0],
        },
        EncoderSample {
            images: &[],
            tokens: PROMPTS[1],
        },
    ];
    let batch = EncoderBatch::new(&config, &samples).unwrap();
    let (plain, kept) = (
        model.encode(&batch).unwrap(),
        model.encode_keeping(&batch).unwrap(),
    );
    assert!(bits(&plain.hidden) == bits(&kept.hidden));
    let refused = [
        model.image_prefix(&plain, 0),
        model.image_prefix(&kept, 1),
        model.image_prefix(&kept, 2),
    ];
    let messages: Vec<String> = refused
        .into_iter()
        .map(|refused| refused.unwrap_err().to_string())
        .collect();
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn a_prefix_counts_the_bytes_of_its_tensors_and_the_rows_of_its_pictures() {
    for config in [
        tiny_config(),
        tiny(|config| {
            config.encoder.layers = 3;
            config.decoder.as_mut().unwrap().layers = 1;
        }),
    ] {
        let model = random_inference_model(&config, 7).unwrap();
        let known = prefix(&model, &groups(&config)[1]);
        assert_eq!((known.rows(), known.images()), (34, [0..17, 17..34].as_slice()));
        let (width, layers) = (
            config.hidden_size,
            config.encoder.layers + config.decoder_layers(),
        );
        assert_eq!(
            known.bytes(),
            34 * (layers * 2 * width + width) * size_of::<f32>()
        );
    }
}

#[test]
fn a_prefix_taken_of_known_pictures_is_the_one_they_came_with() {
    let config = tiny_config();
    let model = random_inference_model(&config, 8).unwrap();
    let [first, second, _] = groups(&config);
    let (first, second) = (prefix(&model, &first), prefix(&model, &second));
    let mut batch = EncoderBatch::builder(&config);
    for known in [&first, &second, &first] {
        batch.push_known(known, PROMPTS[0]).unwrap();
    }
    let batch = batch.build();
    assert_eq!(
        batch.segments().prefix_rows,
        51,
        "a prefix stands in a batch once"
    );
    // Nothing need be kept for it.
    let encoded = model.encode(&batch).unwrap();
    let rows: Vec<usize> = (0..3)
        .map(|sample| model.image_prefix(&encoded, sample).unwrap().rows())
        .collect();
    assert_eq!(rows, [17, 34, 17]);
}

#[test]
fn only_models_whose_images_see_no_text_share_them() {
    let known = prefix(
        &random_inference_model(&tiny_config(), 9).unwrap(),
        &groups(&tiny_config())[0],
    );
    let mut messages = Vec::new();
    for attention_pattern in [AttentionPattern::Joint, AttentionPattern::Causal] {
        let config = tiny(|config| config.attention_pattern = attention_pattern);
        let model = random_inference_model(&config, 9).unwrap();
        let images = &groups(&config)[0];
        let mut batch = EncoderBatch::builder(&config);
        batch
            .push(EncoderSample {
                images,
                tokens: PROMPTS[0],
            })
            .unwrap();
        let refused = [
            batch.push_shared(0, PROMPTS[1]),
            batch.push_known(&known, PROMPTS[1]),
        ];
        messages.extend(refused.map(|refused| refused.unwrap_err()));
        let encoded = model.encode_keeping(&batch.build()).unwrap();
        assert_eq!(
            encoded.segments.samples.len(),
            1,
            "what was refused is not in the batch"
        );
        messages.push(model.image_prefix(&encoded, 0).unwrap_err());
    }
    assert!(
        messages
            .iter()
            .all(|error| matches!(error, ForwardError::NotShareable { .. }))
    );
    let messages: Vec<String> = messages.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn what_does_not_fit_into_a_batch_says_what_would() {
    let config = tiny_config();
    let narrow = tiny(|config| {
        (config.encoder.layers, config.decoder, config.max_target_length) = (1, None, 0);
    });
    let foreign = prefix(&random_inference_model(&narrow, 10).unwrap(), &groups(&narrow)[0]);
    let known = prefix(&random_inference_model(&config, 10).unwrap(), &groups(&config)[0]);
    let long = vec![2; 41];
    let mut batch = EncoderBatch::builder(&config);
    batch
        .push(EncoderSample {
            images: &[],
            tokens: &[1],
        })
        .unwrap();
    let refused = [
        batch.push_shared(1, &[1]),
        batch.push_shared(0, &[]),
        batch.push_known(&known, &long),
        batch.push_known(&known, &[120]),
        batch.push_known(&foreign, &[1]),
    ];
    let messages = refused.map(|refused| refused.unwrap_err().to_string());
    insta::assert_snapshot!(messages.join("\n"));
    assert_eq!(
        (
            batch.build().segments().rows(),
            EncoderBatch::builder(&config).build().segments().rows()
        ),
        (1, 0)
    );
}
