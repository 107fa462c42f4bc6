use std::sync::Arc;

use candle_core::Tensor;

use super::*;
use crate::attention::reference;
use crate::kernels::CacheType;
use crate::kernels::bias::RelativeBias;
use crate::kernels::plan::AttentionPlan;
use crate::testing::{assert_close, random};

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// Three queries, one of which sees a single key.
fn ranges() -> [Vec<Range<usize>>; 3] {
    [vec![3..20, 40..90], vec![0..1], vec![16..32, 0..16, 64..70]]
}

/// Keeps rows in blocks of five.
fn rows(kept: CacheType, kv: &[f32], heads: usize, head_size: usize) -> KvRows {
    blocks(5, kept, kv, heads, head_size)
}

fn blocks(block: usize, kept: CacheType, kv: &[f32], heads: usize, head_size: usize) -> KvRows {
    let layout = KvLayout {
        cache_type: kept,
        heads,
        head_size,
    };
    let count = kv.len() / layout.width();
    let mut rows = KvRows::zeros(layout, block, count / block);
    for (row, kv) in kv.chunks(layout.width()).take(rows.count()).enumerate() {
        rows.write(row, kv).unwrap();
    }
    rows
}

fn attend(q: &[f32], kv: &KvRows, scoring: &ScoreRule, dh: usize) -> Result<Vec<f32>> {
    let ranges = ranges();
    let d = scoring.heads * dh;
    let queries = Queries::new(q, 3 * d, d, scoring);
    let bias = scoring.bias.clone().map(|bias| {
        move |_: usize, head: usize, scores: &mut [f32]| {
            let at = scores.len() - 1;
            for (score, bias) in scores.iter_mut().zip(bias.row(head, at, at + 1)) {
                *score = bias;
            }
        }
    });
    let bias = bias.as_ref().map(|bias| bias as &Bias);
    let mut out = vec![f32::NAN; 3 * scoring.heads * dh];
    let seen = |row: usize, see: &mut dyn FnMut(VisibleKeys) -> Result<()>| {
        see(VisibleKeys {
            rows: kv,
            ranges: &ranges[row],
        })
    };
    queries.attend(67, &mut Vec::new(), &mut out, &seen, bias)?;
    Ok(out)
}

/// What a head of a query gathers of widened rows, step by step as [`gather`] says it, in f64.
fn specified(q: &[f32], rows: &[(Vec<f32>, Vec<f32>)], scale: f32) -> Vec<f64> {
    let dot = |key: &[f32]| -> f64 {
        q.iter()
            .zip(key)
            .map(|(q, k)| f64::from(*q) * f64::from(*k))
            .sum()
    };
    let scores: Vec<f64> = rows.iter().map(|(key, _)| dot(key) * f64::from(scale)).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let all: f64 = weights.iter().sum();
    let column = |i: usize| -> f64 {
        let values = rows.iter().map(|(_, value)| f64::from(value[i]));
        weights
            .iter()
            .zip(values)
            .map(|(weight, value)| weight * value)
            .sum()
    };
    (0..q.len()).map(|i| column(i) / all).collect()
}

const SHAPES: [(usize, usize); 6] = [(1, 64), (2, 64), (3, 16), (2, 80), (1, 130), (4, 3)];

#[test]
fn single_queries_gather_what_the_reference_says() {
    for (heads, dh) in SHAPES {
        let d = heads * dh;
        let (qkv, kv) = (random(&[3, 3 * d], 1), random(&[90, 2 * d], 2));
        let bias = Arc::new(RelativeBias::new(&random(&[8, heads], 3), 9, false).unwrap());
        for bias in [None, Some(bias)] {
            let scoring = ScoreRule {
                bias,
                ..ScoreRule::scaled(heads, dh)
            };
            let kept = rows(CacheType::F32, &values(&kv), heads, dh);
            let found = attend(&values(&qkv), &kept, &scoring, dh).unwrap();
            let mut plan = AttentionPlan::default();
            for (row, keys) in ranges().into_iter().enumerate() {
                plan.push(vec![row..row + 1], keys, false);
            }
            let (k, v) = (kv.narrow(1, 0, d).unwrap(), kv.narrow(1, d, d).unwrap());
            let q = qkv.narrow(1, 0, d).unwrap();
            let expected = reference::attend(&q, &k, &v, &plan, &scoring).unwrap();
            let found = Tensor::from_vec(found, (3, d), kv.device()).unwrap();
            assert_close("gathered", &found, &expected, 1e-5);
        }
    }
}

#[test]
fn narrow_rows_are_attended_to_as_what_they_were_narrowed_to() {
    for (heads, dh) in SHAPES {
        let d = heads * dh;
        let (q, kv) = (values(&random(&[3, 3 * d], 4)), values(&random(&[90, 2 * d], 5)));
        let scoring = ScoreRule::scaled(heads, dh);
        for kept in CacheType::ALL {
            let rows = rows(kept, &kv, heads, dh);
            let found = attend(&q, &rows, &scoring, dh).unwrap();
            for (query, ranges) in ranges().iter().enumerate() {
                let seen: Vec<_> = ranges
                    .iter()
                    .flat_map(Clone::clone)
                    .map(|row| rows.read(row))
                    .collect();
                for head in 0..heads {
                    let part = |row: &Vec<f32>, at: usize| row[at * dh..][..dh].to_vec();
                    let seen: Vec<_> = seen
                        .iter()
                        .map(|row| (part(row, head), part(row, heads + head)))
                        .collect();
                    let q = &q[query * 3 * d + head * dh..][..dh];
                    let expected = specified(q, &seen, scoring.scale);
                    let found = &found[query * d + head * dh..][..dh];
                    for (found, expected) in found.iter().zip(expected) {
                        let error = (f64::from(*found) - expected).abs();
                        assert!(
                            error < 3e-6,
                            "{kept}, {heads} heads of {dh}: {found} and {expected}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn every_instruction_set_gathers_the_same_bits() {
    let (q, kv) = (values(&random(&[64], 6)), values(&random(&[90, 128], 7)));
    let ranges = ranges();
    for kept in CacheType::ALL {
        let rows = rows(kept, &kv, 1, 64);
        let head = Head {
            q: &q,
            keys: VisibleKeys {
                rows: &rows,
                ranges: &ranges[0],
            },
            index: 0,
            scale: 0.125,
            has_next: false,
        };
        let run = |chosen: bool| {
            let (mut scores, mut out) = (vec![0.0; 67], vec![0.0; 64]);
            let (scores, room) = (&mut scores[..], &mut out[..]);
            match (rows.numbers(), chosen) {
                (Numbers::F32(x), true) => head_f32(&head, x, scores, room),
                (Numbers::Bf16(x), true) => head_bf16(&head, x.reinterpret_cast(), scores, room),
                (Numbers::Int8(x, scales), true) => head_int8(&head, x, scales, scores, room),
                (Numbers::F32(x), false) => gather(&head, x.as_slice(), &[], scores, room),
                (Numbers::Bf16(x), false) => {
                    gather::<bf16>(&head, x.reinterpret_cast(), &[], scores, room);
                }
                (Numbers::Int8(x, scales), false) => gather(&head, x.as_slice(), scales, scores, room),
            }
            out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(run(true), run(false), "{kept}");
    }
}

#[test]
fn blocks_change_no_bit() {
    let (heads, dh) = (2, 80);
    let (q, kv) = (
        values(&random(&[3, 3 * heads * dh], 8)),
        values(&random(&[90, 2 * heads * dh], 9)),
    );
    let scoring = ScoreRule::scaled(heads, dh);
    for kept in CacheType::ALL {
        let with = |block| attend(&q, &blocks(block, kept, &kv, heads, dh), &scoring, dh).unwrap();
        let one = with(1);
        assert!([2, 3, 18, 90].iter().all(|block| with(*block) == one), "{kept}");
    }
}

#[test]
fn threads_change_no_bit() {
    let (qkv, kv) = (
        values(&random(&[3, 3 * 512], 1)),
        values(&random(&[90, 2 * 512], 2)),
    );
    let scoring = ScoreRule::scaled(8, 64);
    for kept in CacheType::ALL {
        let rows = rows(kept, &kv, 8, 64);
        let with = |threads| {
            let pool = Arc::new(pool::Pool::new(threads));
            pool.install(|| attend(&qkv, &rows, &scoring, 64).unwrap())
        };
        let one = with(1);
        assert!((2..5).all(|threads| with(threads) == one), "{kept}");
    }
}

#[test]
fn keys_that_do_not_exist_are_an_error() {
    let scoring = ScoreRule::scaled(2, 4);
    let told = |kv: &KvRows| attend(&[0.0; 72], kv, &scoring, 4).unwrap_err().to_string();
    let short = told(&rows(CacheType::F32, &[0.0; 16 * 69], 2, 4));
    assert!(short.starts_with("attention: rows 40..90 of 65"), "{short}");
    let other = told(&rows(CacheType::Int8, &[0.0; 16 * 90], 1, 8));
    let expected = "attention: rows of 1 heads of 8 for 2 heads of 4";
    assert!(other.starts_with(expected), "{other}");
}
