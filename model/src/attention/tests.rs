//! Every implementation against the reference, over ragged lengths, patterns and head sizes.

use std::ops::Range;

use candle_core::Var;

use super::*;
use crate::kernels::bias::RelativeBias;
use crate::kernels::plan::QueryTile;
use crate::kernels::tile::{Attention, Columns, KvSource};
use crate::testing::{assert_close, random};

type Case<'a> = (&'a [Range<usize>], &'a [Range<usize>], bool);

fn plan(blocks: &[Case]) -> Arc<AttentionPlan> {
    let mut plan = AttentionPlan::default();
    for (queries, keys, causal) in blocks {
        plan.push(queries.to_vec(), keys.to_vec(), *causal);
    }
    Arc::new(plan)
}

#[test]
fn self_attention_equals_the_reference_in_value_and_gradient() {
    let cases = [
        (
            plan(&[(&[0..5, 9..12], &[0..5, 9..12], false), (&[5..9], &[5..9], false)]),
            12,
            4,
            8,
        ),
        (
            plan(&[(&[0..7], &[0..7], true), (&[7..8], &[7..8], true)]),
            8,
            2,
            5,
        ),
        (
            plan(&[(&[0..6], &[0..6], false), (&[6..9], &[0..6, 6..9], true)]),
            9,
            1,
            16,
        ),
        (plan(&[(&[1..3], &[0..4], false)]), 4, 3, 2),
    ];
    for (plan, n, heads, head) in cases {
        let d = heads * head;
        let qkv = Var::from_tensor(&random(&[n, 3 * d], 1)).unwrap();
        let fast = self_attention(&qkv, &plan, &ScoreRule::scaled(heads, head)).unwrap();
        let part = |i| qkv.narrow(1, i * d, d).unwrap();
        let slow = reference::attend(
            &part(0),
            &part(1),
            &part(2),
            &plan,
            &ScoreRule::scaled(heads, head),
        )
        .unwrap();
        assert_close("value", &fast, &slow, 1e-5);
        let weight = random(&[n, d], 2);
        let gradient = |y: Tensor| (y * &weight).unwrap().sum_all().unwrap().backward().unwrap();
        let (fast, slow) = (gradient(fast), gradient(slow));
        assert_close("gradient", fast.get(&qkv).unwrap(), slow.get(&qkv).unwrap(), 1e-4);
    }
}

#[test]
fn tiles_equal_the_reference_whatever_is_attended_at_a_time() {
    let (heads, head) = (3, 4);
    let d = heads * head;
    let mut scoring = ScoreRule::scaled(heads, head);
    scoring.bias = Some(Arc::new(
        RelativeBias::new(&random(&[8, heads], 8), 90, true).unwrap(),
    ));
    // Blocks of no, one and several tiles, one of them over two ranges; some keys come before the first
    // query.
    let plan = plan(&[
        (&[0..10, 90..280], &[0..10, 90..280], false),
        (&[10..90], &[10..90], true),
        (&[280..284], &[0..10, 280..284], true),
        (&[284..284], &[0..3], false),
        (&[284..420], &[0..10, 284..420], true),
    ]);
    let qkv = random(&[420, 3 * d], 1);
    let part = |i| qkv.narrow(1, i * d, d).unwrap();
    let slow = reference::attend(&part(0), &part(1), &part(2), &plan, &scoring).unwrap();
    let fast = self_attention(&qkv, &plan, &scoring).unwrap();
    assert_close("value", &fast, &slow, 1e-5);

    let tiles = plan.tiles();
    assert_eq!(
        tiles.iter().map(QueryTile::rows).collect::<Vec<_>>(),
        [128, 72, 80, 4, 128, 8]
    );
    let fast: Vec<f32> = fast.flatten_all().unwrap().to_vec1().unwrap();
    let (qkv, kv): (Vec<f32>, Vec<f32>) = {
        let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1().unwrap();
        (flat(&qkv), flat(&qkv.narrow(1, d, 2 * d).unwrap()))
    };
    let columns = |values, width, offset| Columns {
        values,
        width,
        offset,
    };
    let source = |first, keys, values| KvSource { first, keys, values };
    let beside = [source(0, columns(&qkv, 3 * d, d), columns(&qkv, 3 * d, 2 * d))];
    // Keys and values may lie in several places, each from some row on.
    let at = |row: usize| &kv[row * 2 * d..];
    let apart = [
        source(
            0,
            columns(&kv[..10 * 2 * d], 2 * d, 0),
            columns(&kv[..10 * 2 * d], 2 * d, d),
        ),
        source(90, columns(at(90), 2 * d, 0), columns(at(90), 2 * d, d)),
        source(10, columns(at(10), 2 * d, 0), columns(at(10), 2 * d, d)),
    ];
    for (at_a_time, sources, threads) in [(1, &beside[..], 1), (3, &apart, 2), (6, &beside, 3)] {
        let attention = Attention {
            queries: columns(&qkv, 3 * d, 0),
            sources,
            scoring: &scoring,
            width: d,
        };
        let mut out = vec![0.0; 420 * d];
        Arc::new(crate::kernels::Pool::new(threads)).install(|| {
            for tiles in tiles.chunks(at_a_time) {
                attention.attend(&plan, tiles, &mut out).unwrap();
            }
        });
        assert!(out == fast, "{at_a_time} at a time");
    }
}

#[test]
fn many_keys_are_taken_in_blocks_whose_scores_may_grow() {
    let (heads, head) = (2, 20);
    let d = heads * head;
    let mut scoring = ScoreRule::scaled(heads, head);
    for (causal, with_bias) in [(false, false), (true, false), (true, true)] {
        scoring.bias = with_bias.then(|| {
            let table = random(&[8, heads], 8);
            Arc::new(RelativeBias::new(&table, 300, false).unwrap())
        });
        let plan = plan(&[(&[0..3, 500..700], &[0..100, 101..700], causal)]);
        // Later keys score higher, so that the largest score grows from block to block.
        let growing = Tensor::arange(0u32, 700, &candle_core::Device::Cpu).unwrap();
        let growing = (growing.to_dtype(candle_core::DType::F32).unwrap() / 100.0).unwrap();
        let qkv = random(&[700, 3 * d], 1)
            .broadcast_mul(&growing.unsqueeze(1).unwrap())
            .unwrap();
        let part = |i| qkv.narrow(1, i * d, d).unwrap();
        let slow = reference::attend(&part(0), &part(1), &part(2), &plan, &scoring).unwrap();
        let fast = self_attention(&qkv, &plan, &scoring).unwrap();
        assert_close("value", &fast, &slow, 2e-5);
    }
}

#[test]
fn a_query_is_the_same_bits_in_any_tile_over_any_number_of_blocks_of_keys() {
    let (heads, head) = (2, 20);
    let width = heads * head;
    let mut scoring = ScoreRule::scaled(heads, head);
    let qkv: Vec<f32> = random(&[700, 3 * width], 1)
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap();
    let columns = |offset| Columns {
        values: &qkv,
        width: 3 * width,
        offset,
    };
    let sources = [KvSource {
        first: 0,
        keys: columns(width),
        values: columns(2 * width),
    }];
    for (causal, with_bias) in [(false, false), (true, false), (true, true)] {
        scoring.bias = with_bias.then(|| {
            let table = random(&[8, heads], 8);
            Arc::new(RelativeBias::new(&table, 300, false).unwrap())
        });
        let attention = Attention {
            queries: columns(0),
            sources: &sources,
            scoring: &scoring,
            width,
        };
        let plan = plan(&[(&[0..700], &[0..700], causal)]);
        let mut whole = vec![0.0; 700 * width];
        attention.attend(&plan, &plan.tiles(), &mut whole).unwrap();
        for first in [0, 15, 16, 127, 128, 255, 256, 257, 319, 320, 511, 512, 513, 699] {
            for rows in [1, 7, 90] {
                let queries = first..(first + rows).min(700);
                let here = queries.start * width..queries.end * width;
                let tile = QueryTile {
                    block: 0,
                    first,
                    queries: vec![queries],
                };
                let mut out = vec![0.0; 700 * width];
                attention.attend(&plan, &[tile], &mut out).unwrap();
                assert!(
                    out[here.clone()] == whole[here],
                    "{rows} rows from {first}, causal: {causal}"
                );
            }
        }
    }
}

#[test]
fn tiles_that_share_a_row_or_have_no_block_are_refused() {
    let plan = plan(&[(&[0..4], &[0..4], false)]);
    let scoring = ScoreRule::scaled(1, 4);
    let values = [0.5; 4 * 12];
    let columns = |offset| Columns {
        values: &values,
        width: 12,
        offset,
    };
    let sources = [KvSource {
        first: 0,
        keys: columns(4),
        values: columns(8),
    }];
    let attention = Attention {
        queries: columns(0),
        sources: &sources,
        scoring: &scoring,
        width: 4,
    };
    let tile = |block, queries| QueryTile {
        block,
        first: 0,
        queries: vec![queries],
    };
    let attend = |tiles: &[QueryTile], rows: usize| attention.attend(&plan, tiles, &mut vec![0.0; rows * 4]);
    assert!(attend(&[tile(0, 0..2), tile(0, 2..4)], 4).is_ok());
    assert!(attend(&[tile(0, 0..3), tile(0, 2..4)], 4).is_err(), "twice");
    assert!(attend(&[tile(0, 0..4)], 3).is_err(), "no place for the last row");
    assert!(attend(&[tile(1, 0..4)], 4).is_err(), "no such block");
}

#[test]
fn cross_attention_equals_the_reference_in_value_and_gradient() {
    let plan = plan(&[(&[0..2], &[0..3, 8..11], false), (&[2..6], &[3..8], false)]);
    let (heads, d) = (2, 12);
    let q = Var::from_tensor(&random(&[6, d], 3)).unwrap();
    let kv = Var::from_tensor(&random(&[11, 2 * d], 4)).unwrap();
    let fast = cross_attention(&q, &kv, &plan, &ScoreRule::scaled(heads, d / heads)).unwrap();
    let (k, v) = (kv.narrow(1, 0, d).unwrap(), kv.narrow(1, d, d).unwrap());
    let slow = reference::attend(&q, &k, &v, &plan, &ScoreRule::scaled(heads, d / heads)).unwrap();
    assert_close("value", &fast, &slow, 1e-5);
    let weight = random(&[6, d], 5);
    let gradient = |y: Tensor| (y * &weight).unwrap().sum_all().unwrap().backward().unwrap();
    let (fast, slow) = (gradient(fast), gradient(slow));
    for variable in [&q, &kv] {
        assert_close(
            "gradient",
            fast.get(variable).unwrap(),
            slow.get(variable).unwrap(),
            1e-4,
        );
    }
}

#[test]
fn a_block_gives_the_same_bits_whatever_else_is_in_the_plan() {
    let qkv = random(&[40, 48], 6);
    let alone = plan(&[(&[10..17], &[10..17], false)]);
    let among = plan(&[
        (&[0..10], &[0..10], false),
        (&[10..17], &[10..17], false),
        (&[17..40], &[17..40], true),
    ]);
    let rows = |plan| {
        self_attention(&qkv, plan, &ScoreRule::scaled(4, 4))
            .unwrap()
            .narrow(0, 10, 7)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap()
    };
    assert!(rows(&alone) == rows(&among));
}

#[test]
fn rows_outside_the_tensor_are_an_error_in_every_implementation() {
    let qkv = random(&[4, 12], 7);
    let beyond = plan(&[(&[0..4], &[0..9], false)]);
    assert!(self_attention(&qkv, &beyond, &ScoreRule::scaled(2, 2)).is_err());
    let part = |i| qkv.narrow(1, i * 4usize, 4).unwrap();
    assert!(reference::attend(&part(0), &part(1), &part(2), &beyond, &ScoreRule::scaled(2, 2)).is_err());
}

#[test]
fn a_bias_by_distance_equals_the_reference_in_value_and_gradient() {
    let (heads, head) = (3, 4);
    let d = heads * head;
    let table = random(&[8, heads], 8);
    for bidirectional in [true, false] {
        let scoring = ScoreRule {
            heads,
            scale: 1.0,
            bias: Some(Arc::new(RelativeBias::new(&table, 6, bidirectional).unwrap())),
        };
        let causal = !bidirectional;
        let plan = plan(&[(&[0..11], &[0..11], causal), (&[11..14], &[11..14], causal)]);
        let qkv = Var::from_tensor(&random(&[14, 3 * d], 9)).unwrap();
        let fast = self_attention(&qkv, &plan, &scoring).unwrap();
        let part = |i| qkv.narrow(1, i * d, d).unwrap();
        let slow = reference::attend(&part(0), &part(1), &part(2), &plan, &scoring).unwrap();
        assert_close("value", &fast, &slow, 1e-5);
        let weight = random(&[14, d], 10);
        let gradient = |y: Tensor| (y * &weight).unwrap().sum_all().unwrap().backward().unwrap();
        let (fast, slow) = (gradient(fast), gradient(slow));
        assert_close("gradient", fast.get(&qkv).unwrap(), slow.get(&qkv).unwrap(), 1e-4);
    }
}
