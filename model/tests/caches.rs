//! Keys and values that are kept in 16 and in 8 bits between decoding steps.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use multiway_model::testing::{random_inference_model, random_model, random_quantized_model, tiny_config};
use multiway_model::{
    CacheType, Checkpoint, DType, DecoderBatch, DecoderRow, Device, EncoderBatch, EncoderSample, KvCache,
    LoadOptions, Model, ModelConfig, PromptMemory, WeightType, initialise,
};

/// The native model, with rotary positions, and one of the T5 family, whose scores have a bias.
fn configs() -> [ModelConfig; 2] {
    let t5 = br#"{"model_type": "t5", "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_decoder_layers": 3,
        "num_heads": 4, "vocab_size": 90, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false,
        "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "layer_norm_epsilon": 1e-6,
        "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}"#;
    [tiny_config(), ModelConfig::from_json(t5).unwrap()]
}

fn model(config: &ModelConfig, cache: CacheType) -> Model {
    random_inference_model(config, 5)
        .unwrap()
        .with_cache(cache)
        .unwrap()
}

fn memories(model: &Model) -> Vec<PromptMemory> {
    let long: Vec<u32> = (2..40).collect();
    let texts: [&[u32]; 4] = [&[5, 6, 7, 1], &[8, 1], &long, &[9, 10, 11, 12, 13, 1]];
    let samples = texts.map(|tokens| EncoderSample { images: &[], tokens });
    let batch = EncoderBatch::new(model.config(), &samples).unwrap();
    model.prompt_memory(&model.encode(&batch).unwrap()).unwrap()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

/// Writes a token in each of some slots, and returns the logits of each.
fn step(
    model: &Model,
    cache: &mut KvCache,
    memories: &[PromptMemory],
    rows: &[(usize, u32)],
) -> Vec<Vec<f32>> {
    let row = |(slot, token): &(usize, u32)| DecoderRow {
        token: *token,
        slot: *slot,
        memory: &memories[*slot],
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    let mut logits = Vec::new();
    model
        .decode_step_into(&DecoderBatch { rows: &rows }, cache, &mut logits)
        .unwrap();
    let width = logits.len() / rows.len();
    logits.chunks(width).map(<[f32]>::to_vec).collect()
}

/// The token that is written into a slot at a place.
fn token(slot: usize, place: usize) -> u32 {
    u32::try_from((slot * 31 + place * 7) % 88 + 2).unwrap()
}

/// The logits of each of 20 steps of all memories together.
fn written(model: &Model) -> Vec<Vec<Vec<f32>>> {
    let memories = memories(model);
    let mut cache = model.new_cache(memories.len(), 20).unwrap();
    let mut write = |place| {
        let rows: Vec<_> = (0..memories.len())
            .map(|slot| (slot, token(slot, place)))
            .collect();
        step(model, &mut cache, &memories, &rows)
    };
    (0..20).map(&mut write).collect()
}

/// The root of the mean square of the differences, relative to that of what was expected.
fn relative_error(found: &[Vec<Vec<f32>>], expected: &[Vec<Vec<f32>>]) -> f64 {
    let flat = |all: &[Vec<Vec<f32>>]| all.concat().concat();
    let (found, expected) = (flat(found), flat(expected));
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = found.iter().zip(&expected).map(|(a, b)| square(a - b)).sum();
    let all: f64 = expected.iter().map(|x| square(*x)).sum();
    (error / all).sqrt()
}

/// Rounding to `bf16` moves a number by at most 0.4 % of itself, and 8 bits by at most 0.4 % of the largest
/// of its head. Measured, the native model and T5, whose scores are not scaled down: 0.13 % and 0.48 %, in 8
/// bits 0.37 % and 1.04 %.
#[test]
fn narrow_caches_give_nearly_the_same_logits() {
    for config in configs() {
        let expected = written(&model(&config, CacheType::F32));
        for (cache, least, most) in [(CacheType::Bf16, 1e-4, 0.01), (CacheType::Int8, 1e-3, 0.03)] {
            let error = relative_error(&written(&model(&config, cache)), &expected);
            assert!((least..most).contains(&error), "{cache}: {error}");
        }
    }
}

#[test]
fn a_row_is_the_same_bits_alone_and_among_others_wherever_it_lies() {
    for config in configs() {
        for cache_type in CacheType::ALL {
            let model = model(&config, cache_type);
            let memories = memories(&model);
            let together = written(&model);
            for slot in 0..memories.len() {
                let mut cache = model
                    .new_cache_with_capacity(memories.len(), 6 * KvCache::BLOCK)
                    .unwrap();
                // Another's blocks lie between those of this one, and are given back before it ends.
                let other = (slot + 1) % memories.len();
                for (place, expected) in together.iter().enumerate() {
                    if place % 5 == 4 {
                        cache.clear(other);
                        step(&model, &mut cache, &memories, &[(other, 3)]);
                    }
                    let alone = step(&model, &mut cache, &memories, &[(slot, token(slot, place))]);
                    assert_eq!(
                        bits(&alone[0]),
                        bits(&expected[slot]),
                        "{cache_type}: slot {slot}, token {place}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_copied_slot_goes_on_as_the_original_would() {
    for config in configs() {
        for cache_type in CacheType::ALL {
            let model = model(&config, cache_type);
            let memory = memories(&model).remove(2);
            let memories = vec![memory; 3];
            // Within the first block, at its end, and within the second.
            for length in [1, 7, 16, 18] {
                let mut cache = model.new_cache(3, 20).unwrap();
                let write = |slots: &[usize], place: usize, cache: &mut KvCache| {
                    let rows: Vec<_> = slots.iter().map(|slot| (*slot, token(0, place))).collect();
                    step(&model, cache, &memories, &rows)
                };
                for place in 0..length {
                    write(&[1], place, &mut cache);
                }
                cache.copy(1, 2).unwrap();
                for place in length..20 {
                    let both = write(&[1, 2], place, &mut cache);
                    assert_eq!(bits(&both[0]), bits(&both[1]), "{cache_type}: {length} tokens");
                }
            }
        }
    }
}

#[test]
fn narrow_caches_go_with_narrow_weights() {
    let config = tiny_config();
    let expected = written(&model(&config, CacheType::F32));
    for weights in [WeightType::Bf16, WeightType::Int8] {
        for cache in [CacheType::Bf16, CacheType::Int8] {
            let model = random_quantized_model(&config, 5, weights)
                .unwrap()
                .with_cache(cache)
                .unwrap();
            let error = relative_error(&written(&model), &expected);
            assert!(error < 0.03, "{weights} weights, {cache}: {error}");
        }
    }
}

#[test]
fn a_checkpoint_is_loaded_with_the_cache_that_was_asked_for() {
    let config = tiny_config();
    let tensors = initialise(&config, 5, &Device::Cpu)
        .unwrap()
        .into_iter()
        .collect();
    let folder = tempfile::tempdir().unwrap();
    Checkpoint::save(folder.path(), &config, &tensors, &[]).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    for cache in CacheType::ALL {
        let options = LoadOptions {
            cache,
            ..LoadOptions::default()
        };
        let loaded = Model::load_with(&checkpoint, &Device::Cpu, &options).unwrap();
        let expected = model(&config, cache);
        assert_eq!(loaded.cache_token_bytes(), expected.cache_token_bytes());
        assert_eq!(
            bits(&written(&loaded).concat().concat()),
            bits(&written(&expected).concat().concat())
        );
    }
    let options = LoadOptions {
        dtype: DType::BF16,
        cache: CacheType::Int8,
        ..LoadOptions::default()
    };
    let error = Model::load_with(&checkpoint, &Device::Cpu, &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "keys and values in int8 need a text decoder on the CPU with f32 for the rest, found Cpu and BF16"
    );
}

#[test]
fn models_that_do_not_step_on_slices_refuse_narrow_caches() {
    let captions = br#"{"model_type": "beit3", "task": "captioning", "encoder_embed_dim": 32,
        "encoder_attention_heads": 4, "encoder_ffn_embed_dim": 48, "encoder_layers": 1, "normalize_output": false,
        "max_source_positions": 64, "vocab_size": 96, "img_size": 32, "patch_size": 16}"#;
    let captions = ModelConfig::from_json(captions).unwrap();
    let mut mute = tiny_config();
    mute.decoder = None;
    let found = [
        (
            random_inference_model(&captions, 1),
            "a model that writes through its encoder",
        ),
        (random_inference_model(&mute, 1), "a model that writes no text"),
        (
            random_model(&tiny_config(), 1),
            "linear layers that are not packed",
        ),
    ];
    for (model, found) in found {
        let model = model.unwrap();
        let bytes = model.cache_token_bytes();
        // What changes nothing is no reason to refuse.
        let model = model.with_cache(CacheType::F32).unwrap();
        assert_eq!(model.cache_token_bytes(), bytes);
        let told = model.with_cache(CacheType::Bf16).unwrap_err().to_string();
        assert!(
            told.starts_with("keys and values in bf16 need a text decoder"),
            "{told}"
        );
        assert!(told.ends_with(&format!("found {found}")), "{told}");
    }
}

#[test]
fn a_memory_is_read_in_the_type_that_it_was_made_in() {
    let config = tiny_config();
    let run = |made: CacheType, read: CacheType| {
        let (memories, model) = (memories(&model(&config, made)), model(&config, read));
        let mut cache = model.new_cache(1, 2).unwrap();
        bits(&step(&model, &mut cache, &memories, &[(0, 7)])[0])
    };
    let [single, half, eighth] = CacheType::ALL;
    for (made, read) in [(single, half), (half, eighth), (eighth, single)] {
        let found = run(made, read);
        assert!(
            found != run(made, made) && found != run(read, read),
            "{made} and {read}"
        );
    }
}
