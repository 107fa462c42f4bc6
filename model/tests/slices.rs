//! Encoding in slices: to the bit what encoding at once gives, however the slices are cut.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::sync::Arc;

use multiway_model::kernels::Pool;
use multiway_model::testing::{random_inference_model, tiny_config};
use multiway_model::{
    AttentionPattern, CacheType, DecoderBatch, DecoderRow, Encoded, EncoderBatch, EncoderBatchBuilder,
    EncoderSample, EncodingTargets, ForwardError, ImagePrefix, Model, ModelConfig, ProcessedImage,
    PromptMemory, Tensor,
};
use proptest::prelude::*;

/// Texts of up to four tiles of 128 queries.
const LONGEST: usize = 460;

fn config(pattern: AttentionPattern, fusion_layers: usize) -> ModelConfig {
    let mut config = tiny_config();
    config.attention_pattern = pattern;
    config.fusion_layers = fusion_layers;
    config.max_text_length = LONGEST;
    config
}

fn image(config: &ModelConfig, seed: usize) -> ProcessedImage {
    let count = config.image_values();
    let value = |i: usize| ((i * 11 + seed * 17) % 31) as f32 / 15.5 - 1.0;
    ProcessedImage::from_pixels((0..count).map(value).collect())
}

fn text(length: usize, seed: usize) -> Vec<u32> {
    let token = |i: usize| u32::try_from((i * 7 + seed * 5) % 119 + 1).unwrap();
    (0..length).map(token).collect()
}

fn bits(x: &Tensor) -> Vec<u32> {
    let values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// What decoding makes of a memory.
fn words(model: &Model, memory: &PromptMemory) -> Vec<u32> {
    let mut cache = model.new_cache(1, 4).unwrap();
    let step = |token| {
        let rows = [DecoderRow {
            token,
            slot: 0,
            memory,
        }];
        bits(
            &model
                .decode_step(&DecoderBatch { rows: &rows }, &mut cache)
                .unwrap(),
        )
    };
    [0, 44, 5].into_iter().flat_map(step).collect()
}

/// What a later prompt makes of kept pictures.
fn later(model: &Model, prefix: &ImagePrefix) -> Vec<u32> {
    let mut batch = EncoderBatch::builder(model.config());
    batch.push_known(prefix, &[8, 9, 1]).unwrap();
    let encoded = model.encode(&batch.build()).unwrap();
    let memory = model.prompt_memory(&encoded).unwrap().remove(0);
    [bits(&encoded.hidden), words(model, &memory)].concat()
}

/// A batch of samples, `(pictures, words)` each.
fn batch(config: &ModelConfig, samples: &[(usize, usize)], known: &[ImagePrefix]) -> EncoderBatch {
    let mut batch: EncoderBatchBuilder = EncoderBatch::builder(config);
    for (seed, (pictures, length)) in samples.iter().enumerate() {
        let images: Vec<_> = (0..*pictures).map(|i| image(config, seed + i)).collect();
        let tokens = text(*length, seed);
        let sample = EncoderSample {
            images: &images,
            tokens: &tokens,
        };
        batch.push(sample).unwrap();
    }
    for (seed, prefix) in known.iter().enumerate() {
        batch.push_known(prefix, &text(70 + seed, seed)).unwrap();
    }
    batch.build()
}

fn in_slices(
    model: &Model,
    batch: EncoderBatch,
    targets: &EncodingTargets,
    slices: &[usize],
) -> (Encoded, usize) {
    let mut encoding = model.begin_encoding(batch, targets.clone()).unwrap();
    for (count, rows) in slices.iter().cycle().enumerate() {
        if let Some(encoded) = model.advance_encoding(&mut encoding, *rows).unwrap() {
            return (encoded, count + 1);
        }
    }
    unreachable!("the slices go round and round")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn slices_give_the_same_bits_as_all_at_once(
        samples in prop::collection::vec((0..3_usize, 1..LONGEST), 1..4),
        slices in prop::collection::vec(prop_oneof![1..9_usize, 30..200_usize, Just(usize::MAX)], 1..5),
        pattern in prop_oneof![Just(AttentionPattern::Joint), Just(AttentionPattern::ImagePrefix)],
        fusion_layers in 0..2_usize,
        knows in any::<bool>(),
        cache in prop::sample::select(CacheType::ALL.to_vec()),
    ) {
        let config = config(pattern, fusion_layers);
        let model = random_inference_model(&config, 3).unwrap().with_cache(cache).unwrap();
        let keeps = pattern == AttentionPattern::ImagePrefix;
        let known: Vec<ImagePrefix> = if knows && keeps {
            let encoded = model.encode_keeping(&batch(&config, &[(2, 5)], &[])).unwrap();
            vec![model.image_prefix(&encoded, 0).unwrap()]
        } else {
            Vec::new()
        };
        let whole = model.encode_keeping(&batch(&config, &samples, &known)).unwrap();
        let count = samples.len() + known.len();
        let shown = samples.iter().enumerate().filter(|(_, (pictures, _))| keeps && *pictures > 0);
        let targets = EncodingTargets {
            memories: (0..count).rev().step_by(2).collect(),
            prefixes: shown.map(|(sample, _)| sample).collect(),
        };
        let (sliced, _) = in_slices(&model, batch(&config, &samples, &known), &targets, &slices);

        prop_assert!(bits(&sliced.output.hidden) == bits(&whole.hidden));
        let memories = model.prompt_memory(&whole).unwrap();
        prop_assert_eq!(sliced.memories.len(), targets.memories.len());
        for (sample, memory) in targets.memories.iter().zip(&sliced.memories) {
            prop_assert_eq!(memory.length(), memories[*sample].length());
            prop_assert!(words(&model, memory) == words(&model, &memories[*sample]));
        }
        prop_assert_eq!(sliced.prefixes.len(), targets.prefixes.len());
        for (sample, prefix) in targets.prefixes.iter().zip(&sliced.prefixes) {
            let expected = model.image_prefix(&whole, *sample).unwrap();
            prop_assert_eq!(prefix.bytes(), expected.bytes());
            prop_assert!(later(&model, prefix) == later(&model, &expected));
        }
    }
}

#[test]
fn rows_are_the_same_bits_on_any_number_of_threads() {
    for pattern in [AttentionPattern::Joint, AttentionPattern::ImagePrefix] {
        let config = config(pattern, 1);
        let model = random_inference_model(&config, 3).unwrap();
        let samples: Vec<_> = (0..11).map(|i| (i % 3, LONGEST - 1 - i)).collect();
        let targets = EncodingTargets {
            memories: vec![1],
            ..EncodingTargets::default()
        };
        // Enough rows for five threads to take some of their own, at once, and too few.
        let run = |threads, rows| {
            let encode = || in_slices(&model, batch(&config, &samples, &[]), &targets, &[rows]).0;
            let encoded = Arc::new(Pool::new(threads)).install(encode);
            assert!(encoded.output.segments.rows() > 5 * 2 * 96);
            [bits(&encoded.output.hidden), words(&model, &encoded.memories[0])].concat()
        };
        let one = run(1, usize::MAX);
        for (threads, rows) in [
            (2, usize::MAX),
            (3, usize::MAX),
            (5, usize::MAX),
            (2, 400),
            (3, 100),
        ] {
            assert!(
                run(threads, rows) == one,
                "{threads} threads, {rows} rows at a time"
            );
        }
        let encoded = model.encode(&batch(&config, &samples, &[])).unwrap();
        assert!(one.starts_with(&bits(&encoded.hidden)), "on the threads of rayon");
    }
}

#[test]
fn smaller_slices_are_more() {
    let config = config(AttentionPattern::Joint, 0);
    let model = random_inference_model(&config, 3).unwrap();
    let targets = EncodingTargets {
        memories: vec![0],
        ..EncodingTargets::default()
    };
    let count = |rows| in_slices(&model, batch(&config, &[(1, 200)], &[]), &targets, &[rows]).1;
    // Embedding, three parts of each layer, the last norm, and a projection for each layer of the decoder.
    let parts = 1 + 3 * config.encoder.layers + 1 + config.decoder_layers();
    assert_eq!(count(usize::MAX), parts);
    // 217 rows are two tiles, and two slices of 128 rows.
    assert_eq!(count(128), 2 * parts);
    // Of attention a tile is the least.
    assert_eq!(count(31), 7 * parts - 5 * config.encoder.layers);
}

#[test]
fn what_cannot_be_made_is_refused_at_the_start() {
    let config = config(AttentionPattern::Joint, 0);
    let model = random_inference_model(&config, 3).unwrap();
    let begin = |memories: Vec<usize>, prefixes: Vec<usize>| {
        let targets = EncodingTargets { memories, prefixes };
        model
            .begin_encoding(batch(&config, &[(1, 3)], &[]), targets)
            .map(drop)
    };
    assert!(begin(vec![0], vec![]).is_ok());
    assert!(matches!(
        begin(vec![1], vec![]),
        Err(ForwardError::NoSample {
            sample: 1,
            samples: 1
        })
    ));
    assert!(matches!(
        begin(vec![], vec![0]),
        Err(ForwardError::NotShareable { .. })
    ));
    let config = self::config(AttentionPattern::ImagePrefix, 0);
    let model = random_inference_model(&config, 3).unwrap();
    let targets = EncodingTargets {
        prefixes: vec![0],
        ..EncodingTargets::default()
    };
    let refused = model.begin_encoding(batch(&config, &[(0, 3)], &[]), targets);
    assert!(matches!(refused, Err(ForwardError::Prefix { sample: 0, .. })));
    let mut mute = config;
    mute.decoder = None;
    let model = random_inference_model(&mute, 3).unwrap();
    let targets = EncodingTargets {
        memories: vec![0],
        ..EncodingTargets::default()
    };
    let refused = model.begin_encoding(batch(&mute, &[(0, 3)], &[]), targets);
    assert!(matches!(refused, Err(ForwardError::NoHead("text"))));
}

#[test]
fn an_encoding_that_is_done_does_not_go_on() {
    let config = config(AttentionPattern::Joint, 0);
    let model = random_inference_model(&config, 3).unwrap();
    let mut encoding = model
        .begin_encoding(batch(&config, &[(0, 3)], &[]), EncodingTargets::default())
        .unwrap();
    while model.advance_encoding(&mut encoding, 9).unwrap().is_none() {}
    let again = model.advance_encoding(&mut encoding, 9);
    assert!(matches!(again, Err(ForwardError::EncodingDone)));
}
