//! Decoding steps on slices: the numbers of steps on tensors, and no memory asked for once they are warm.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use multiway_model::testing::{random_inference_model, random_model, random_quantized_model, tiny_config};
use multiway_model::{
    CacheType, DecoderBatch, DecoderRow, EncoderBatch, EncoderSample, Model, ModelConfig, PromptMemory,
    WeightType,
};

/// Counts what this thread asks for.
struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator hands everything on to the system's")]
// SAFETY: all is handed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The native model, and one of the T5 family with each kind of feed-forward network.
fn configs() -> Vec<ModelConfig> {
    let t5 = |activation: &str| {
        let json = format!(
            r#"{{"model_type": "t5", "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_decoder_layers": 3,
            "num_heads": 4, "vocab_size": 90, "feed_forward_proj": "{activation}", "tie_word_embeddings": {},
            "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "layer_norm_epsilon": 1e-6,
            "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}}"#,
            activation == "relu"
        );
        ModelConfig::from_json(json.as_bytes()).unwrap()
    };
    vec![tiny_config(), t5("gated-gelu"), t5("relu")]
}

fn memories(model: &Model) -> Vec<PromptMemory> {
    let texts: [&[u32]; 3] = [&[5, 6, 7, 1], &[8, 1], &[9, 10, 11, 12, 13, 14, 15, 1]];
    let samples = texts.map(|tokens| EncoderSample { images: &[], tokens });
    let batch = EncoderBatch::new(model.config(), &samples).unwrap();
    model.prompt_memory(&model.encode(&batch).unwrap()).unwrap()
}

fn rows(memories: &[PromptMemory], token: u32) -> Vec<DecoderRow<'_>> {
    let row = |(slot, memory)| DecoderRow {
        token: token + u32::try_from(slot).unwrap(),
        slot,
        memory,
    };
    memories.iter().enumerate().map(row).collect()
}

/// A BEiT-3 that writes captions through its encoder, with attention that is doubled or shared.
fn captioning(shared: bool) -> ModelConfig {
    let json = format!(
        r#"{{"model_type": "beit3", "task": "captioning", "encoder_embed_dim": 32, "encoder_attention_heads": 4,
        "encoder_ffn_embed_dim": 48, "encoder_layers": 2, "fusion_layers": 1, "shared_attention": {shared},
        "normalize_output": {shared}, "max_source_positions": 64, "vocab_size": 96, "img_size": 32, "patch_size": 16}}"#
    );
    ModelConfig::from_json(json.as_bytes()).unwrap()
}

#[test]
fn steps_on_slices_are_steps_on_tensors() {
    for config in configs().into_iter().chain([true, false].map(captioning)) {
        let (fast, slow) = (
            random_inference_model(&config, 5).unwrap(),
            random_model(&config, 5).unwrap(),
        );
        let run = |model: &Model| {
            let memories = memories(model);
            let mut cache = model.new_cache(3, 20).unwrap();
            let mut all = Vec::new();
            let mut logits = Vec::new();
            for token in 0..20 {
                let rows = rows(&memories, 20 + 3 * token);
                // Rows come and go.
                let rows = &rows[..if token < 9 { 3 } else { 2 }];
                let batch = DecoderBatch { rows };
                model.decode_step_into(&batch, &mut cache, &mut logits).unwrap();
                all.push(logits.clone());
            }
            all
        };
        for (step, (fast, slow)) in run(&fast).iter().zip(run(&slow)).enumerate() {
            assert_eq!(fast.len(), slow.len());
            let largest = slow.iter().fold(1.0_f32, |max, x| max.max(x.abs()));
            for (fast, slow) in fast.iter().zip(slow) {
                assert!(
                    (fast - slow).abs() < 2e-5 * largest,
                    "step {step}: {fast} and {slow}"
                );
            }
        }
    }
}

#[test]
fn both_ways_of_asking_for_a_step_give_the_same_bits() {
    for config in configs() {
        let model = random_inference_model(&config, 5).unwrap();
        let memories = memories(&model);
        let mut caches = [(); 2].map(|()| model.new_cache(3, 20).unwrap());
        let mut logits = Vec::new();
        for token in [20, 31, 4] {
            let rows = rows(&memories, token);
            let batch = DecoderBatch { rows: &rows };
            model
                .decode_step_into(&batch, &mut caches[0], &mut logits)
                .unwrap();
            let tensor = model.decode_step(&batch, &mut caches[1]).unwrap();
            assert_eq!(tensor.dims(), [3, config.vocab_size]);
            let tensor: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            assert!(
                tensor
                    .iter()
                    .zip(&logits)
                    .all(|(a, b)| a.to_bits() == b.to_bits())
            );
        }
    }
}

#[test]
fn what_a_model_of_another_execution_made_is_refused() {
    for config in configs().into_iter().chain([captioning(true)]) {
        let models = [
            random_inference_model(&config, 5).unwrap(),
            random_model(&config, 5).unwrap(),
        ];
        for (own, other) in [(0, 1), (1, 0)] {
            let refused = |memories: &Model, cache: &Model| {
                let memories = self::memories(memories);
                let mut cache = cache.new_cache(3, 20).unwrap();
                let rows = rows(&memories, 20);
                let step = models[own].decode_step(&DecoderBatch { rows: &rows }, &mut cache);
                assert_eq!(cache.length(0), usize::from(step.is_ok()));
                step.map(drop).map_err(|error| error.to_string())
            };
            let (own, other) = (&models[own], &models[other]);
            assert_eq!(refused(own, own), Ok(()));
            for (memories, cache) in [(other, own), (own, other)] {
                let told = refused(memories, cache).unwrap_err();
                assert!(told.contains("by a model of another execution"), "{told}");
            }
        }
    }
}

#[test]
fn a_warm_step_asks_for_no_memory() {
    let weights = WeightType::ALL.map(|weights| (weights, CacheType::F32));
    let caches = CacheType::ALL.map(|cache| (WeightType::F32, cache));
    let kinds = [weights, caches].concat();
    for (config, (weights, kept)) in configs()
        .iter()
        .flat_map(|config| kinds.iter().map(move |kind| (config, *kind)))
    {
        let model = random_quantized_model(config, 5, weights).unwrap();
        let model = model.with_cache(kept).unwrap();
        let memories = memories(&model);
        let mut cache = model.new_cache(3, 20).unwrap();
        let mut logits = Vec::new();
        let mut write = || {
            let mut asked = Vec::new();
            for token in 0..20 {
                let rows = rows(&memories, 20 + token);
                let batch = DecoderBatch { rows: &rows };
                let before = ASKED.get();
                model.decode_step_into(&batch, &mut cache, &mut logits).unwrap();
                asked.push(ASKED.get() - before);
            }
            (0..3).for_each(|slot| cache.clear(slot));
            asked
        };
        let (cold, warm) = (write(), write());
        assert!(cold[0] > 0, "the first step makes room");
        assert_eq!(warm, [0; 20], "{weights} weights, {kept}");
    }
}
