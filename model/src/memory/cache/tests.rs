use proptest::prelude::*;

use super::*;
use crate::Execution;
use crate::kernels::CacheType;
use crate::testing::{random_inference_model, random_model, tiny_config};

const SLOTS: usize = 5;
const TOKENS: usize = 8 * KvCache::BLOCK;

#[derive(Clone, Debug)]
enum Event {
    /// Writes so many tokens into a slot.
    Write(usize, usize),
    Copy(usize, usize),
    Clear(usize),
    /// A step that takes its places and then fails.
    Fail(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let slot = || 0..SLOTS;
    prop_oneof![
        4 => (slot(), 1..20_usize).prop_map(|(slot, count)| Event::Write(slot, count)),
        2 => (slot(), slot()).prop_map(|(from, to)| Event::Copy(from, to)),
        1 => slot().prop_map(Event::Clear),
        1 => slot().prop_map(Event::Fail),
    ]
}

fn long_config() -> crate::ModelConfig {
    let mut config = tiny_config();
    config.max_target_length = 60;
    config
}

/// Writes one token, whose keys and values are all `value`.
fn write(cache: &mut KvCache, slot: usize, value: f32) -> std::result::Result<(), ForwardError> {
    cache.reserve(&[slot])?;
    let held = &cache.slots[slot];
    let row = held.row(held.length).unwrap();
    if let KvLayers::Host(layers) = &mut cache.layers {
        for rows in layers {
            rows.write(row, &vec![value; rows.layout().width()]).unwrap();
        }
    } else if let KvLayers::Graph(layers) = &cache.layers {
        for layer in layers {
            let width = layer.dim(1).unwrap();
            let token = Tensor::full(value, (1, width), layer.device()).unwrap();
            cache.store(layer, &token, slot).unwrap();
        }
    }
    cache.slots[slot].length += 1;
    Ok(())
}

fn read(cache: &KvCache, slot: usize) -> Vec<f32> {
    let held = &cache.slots[slot];
    let rows = held.rows(held.length).into_iter().flatten();
    match &cache.layers {
        KvLayers::Host(layers) => rows.map(|row| layers.last().unwrap().read(row)[0]).collect(),
        KvLayers::Graph(layers) => {
            let table: Vec<Vec<f32>> = layers.last().unwrap().to_vec2().unwrap();
            rows.map(|row| table[row][0]).collect()
        }
    }
}

/// What becomes of numbers from 1 to 1023 that a cache keeps.
fn kept(cache: CacheType, values: &[f32]) -> Vec<f32> {
    let one = |value: &f32| match cache {
        CacheType::F32 => *value,
        CacheType::Bf16 => half::bf16::from_f32(*value).to_f32(),
        CacheType::Int8 => 127.0 * (value / 127.0),
    };
    values.iter().map(one).collect()
}

/// What must hold at any time.
fn check(cache: &KvCache, kind: CacheType, held: &[Vec<f32>]) -> std::result::Result<(), TestCaseError> {
    let mut holders = vec![0; cache.blocks.count()];
    for (slot, held) in held.iter().enumerate() {
        prop_assert_eq!(cache.length(slot), held.len());
        prop_assert_eq!(read(cache, slot), kept(kind, held));
        cache.slots[slot]
            .blocks
            .iter()
            .for_each(|block| holders[*block] += 1);
    }
    for (block, holders) in holders.iter().enumerate() {
        let freed = cache.blocks.freed_by(&[block]);
        prop_assert_eq!(freed == 1, *holders == 1, "as many holders as slots that hold it");
    }
    let free = holders.iter().filter(|holders| **holders == 0).count();
    prop_assert_eq!(cache.free_tokens(), free * KvCache::BLOCK);
    prop_assert_eq!(
        cache.bytes_in_use(),
        (TOKENS - cache.free_tokens()) * cache.token_bytes
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn slots_hold_what_was_written_whatever_is_shared(
        events in prop::collection::vec(event(), 1..40),
        kind in prop::option::of(prop::sample::select(CacheType::ALL.to_vec())),
    ) {
        let config = long_config();
        let model = match kind {
            Some(kind) => random_inference_model(&config, 1).unwrap().with_cache(kind).unwrap(),
            None => random_model(&config, 1).unwrap(),
        };
        prop_assert_eq!(matches!(model.execution(), Execution::Host { .. }), kind.is_some());
        let kind = kind.unwrap_or_default();
        let mut cache = model.new_cache_with_capacity(SLOTS, TOKENS).unwrap();
        let mut held = vec![Vec::new(); SLOTS];
        let mut value = 0.0;
        for event in events {
            match event {
                Event::Write(slot, count) => {
                    for _ in 0..count {
                        let full = held[slot].len() == 60;
                        let starts_block = held[slot].len().is_multiple_of(KvCache::BLOCK);
                        let room = cache.free_tokens() > 0 || !starts_block;
                        value += 1.0;
                        match write(&mut cache, slot, value) {
                            Ok(()) => {
                                prop_assert!(room && !full);
                                held[slot].push(value);
                            }
                            Err(ForwardError::CacheFull { tokens }) => prop_assert!(!room && tokens == TOKENS),
                            Err(ForwardError::Slot { .. }) => prop_assert!(full),
                            Err(other) => prop_assert!(false, "{other}"),
                        }
                    }
                }
                Event::Copy(from, to) => {
                    let freed = cache.blocks.freed_by(&cache.slots[to].blocks);
                    let room = from == to || cache.free_tokens() > 0 || freed > 0;
                    match cache.copy(from, to) {
                        Ok(()) => held[to] = held[from].clone(),
                        Err(ForwardError::CacheFull { .. }) => prop_assert!(!room),
                        Err(other) => prop_assert!(false, "{other}"),
                    }
                }
                Event::Clear(slot) => {
                    cache.clear(slot);
                    held[slot].clear();
                }
                Event::Fail(slot) => {
                    let free = cache.free_tokens();
                    drop(cache.reserve(&[slot]));
                    cache.retract_slot(slot);
                    prop_assert_eq!(cache.free_tokens(), free);
                }
            }
            check(&cache, kind, &held)?;
        }
        (0..SLOTS).for_each(|slot| cache.clear(slot));
        prop_assert_eq!(cache.free_tokens(), TOKENS);
    }
}

#[test]
fn a_step_that_finds_no_room_for_one_row_takes_none_for_the_others() {
    let model = random_model(&long_config(), 1).unwrap();
    let mut cache = model.new_cache_with_capacity(3, 2 * KvCache::BLOCK).unwrap();
    write(&mut cache, 0, 1.0).unwrap();
    let error = cache.reserve(&[1, 2]).unwrap_err();
    insta::assert_snapshot!(error, @"the cache is full: it has room for 32 tokens in all; clear a slot or make it larger");
    assert_eq!(cache.free_tokens(), KvCache::BLOCK);
    assert_eq!(cache.bytes_in_use(), KvCache::BLOCK * model.cache_token_bytes());
    assert!(cache.reserve(&[0, 2]).is_ok());
}

#[test]
fn a_cache_made_for_its_slots_never_runs_full() {
    let model = random_model(&long_config(), 1).unwrap();
    let mut cache = model.new_cache(2, 20).unwrap();
    for slot in [0, 1] {
        (0..20).for_each(|_| write(&mut cache, slot, 1.0).unwrap());
    }
    assert_eq!(cache.free_tokens(), 0);
    cache.copy(0, 1).unwrap();
    assert_eq!(cache.free_tokens(), KvCache::BLOCK, "the full block is shared");
    cache.copy(1, 0).unwrap();
    assert_eq!((cache.length(0), cache.length(1)), (20, 20));
}

#[test]
fn a_row_of_a_memory_and_a_token_of_a_cache_take_what_the_model_says() {
    use crate::{EncoderBatch, EncoderSample};
    let samples = [[5, 6, 7, 1], [8, 9, 10, 1]];
    let samples = samples
        .each_ref()
        .map(|tokens| EncoderSample { images: &[], tokens });
    let config = long_config();
    // Two layers of keys and values in 2 heads of 16 numbers each.
    let told = CacheType::ALL.map(|kind| {
        let model = random_inference_model(&config, 1)
            .unwrap()
            .with_cache(kind)
            .unwrap();
        let batch = EncoderBatch::new(&config, &samples).unwrap();
        for memory in model.prompt_memory(&model.encode(&batch).unwrap()).unwrap() {
            assert_eq!(memory.bytes(), memory.length() * model.memory_row_bytes());
        }
        let cache = model.new_cache_with_capacity(2, TOKENS).unwrap();
        let KvLayers::Host(layers) = &cache.layers else {
            panic!("a cache for steps on slices")
        };
        let bytes: usize = layers.iter().map(KvRows::bytes).sum();
        assert_eq!(bytes, TOKENS * model.cache_token_bytes());
        assert_eq!(cache.token_bytes(), model.cache_token_bytes());
        model.cache_token_bytes()
    });
    assert_eq!(told, [2 * 64 * 4, 2 * 64 * 2, 2 * (64 + 4 * 4)]);
    assert_eq!(random_model(&config, 1).unwrap().cache_token_bytes(), told[0]);
}
