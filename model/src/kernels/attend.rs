//! Attention of single queries: one row of a decoding step against the keys and values of one sequence, where they lie.
//!
//! Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1, for one query; a bias on the scores as in Raffel et al. 2020
//! (arXiv 1910.10683), section 2.1.

use super::pool;
use super::simd::{dot, exp, multiversion, sum};
use crate::attention::Scoring;
use candle_core::{Result, bail};
use std::ops::Range;

/// Multiplications from which heads are shared out over threads.
const PARALLEL: usize = 1 << 16;

/// The keys and values that one query sees: rows of `width` numbers, a head's keys from `keys` on and its values from
/// `values` on.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) rows: &'a [f32],
    pub(crate) width: usize,
    pub(crate) ranges: &'a [Range<usize>],
}

impl Seen<'_> {
    pub(crate) fn count(&self) -> usize {
        self.ranges.iter().map(ExactSizeIterator::len).sum()
    }

    fn check(&self) -> Result<()> {
        let rows = self.rows.len() / self.width.max(1);
        match self.ranges.iter().find(|range| range.end > rows) {
            Some(range) => bail!("attention: rows {range:?} of {rows}"),
            None if self.count() == 0 => bail!("attention: a query without keys"),
            None => Ok(()),
        }
    }
}

multiversion! {
    /// Attends from one query of one head; `scores` holds the bias of each key, and is overwritten.
    #[expect(clippy::too_many_arguments, reason = "one pass over what a head has")]
    fn head(
        q: &[f32],
        rows: &[f32],
        width: usize,
        keys: usize,
        values: usize,
        ranges: &[Range<usize>],
        scale: f32,
        scores: &mut [f32],
        out: &mut [f32],
    ) {
        let dh = q.len();
        let all = ranges.iter().flat_map(Clone::clone);
        let mut max = f32::NEG_INFINITY;
        for (score, row) in scores.iter_mut().zip(all) {
            let start = row * width + keys;
            *score = dot(q, &rows[start..start + dh]).mul_add(scale, *score);
            max = max.max(*score);
        }
        for score in scores.iter_mut() {
            *score = exp(*score - max);
        }
        let inverse = 1.0 / sum(scores);
        let mut done = 0;
        for columns in out.chunks_mut(64) {
            let first = values + done;
            match <&mut [f32; 64]>::try_from(&mut *columns) {
                // Sums of a common size stay in registers.
                Ok(columns) => weigh(rows, width, first, ranges, scores, columns),
                Err(_) => weigh_any(rows, width, first, ranges, scores, columns),
            }
            for column in columns.iter_mut() {
                *column *= inverse;
            }
            done += columns.len();
        }
    }
}

#[inline(always)]
fn weigh(
    rows: &[f32],
    width: usize,
    first: usize,
    ranges: &[Range<usize>],
    weights: &[f32],
    out: &mut [f32; 64],
) {
    let mut sums = [0.0f32; 64];
    let all = ranges.iter().flat_map(Clone::clone);
    for (weight, row) in weights.iter().zip(all) {
        let start = row * width + first;
        let values = &rows[start..start + 64];
        for i in 0..64 {
            sums[i] = weight.mul_add(values[i], sums[i]);
        }
    }
    *out = sums;
}

#[inline(always)]
fn weigh_any(
    rows: &[f32],
    width: usize,
    first: usize,
    ranges: &[Range<usize>],
    weights: &[f32],
    out: &mut [f32],
) {
    out.fill(0.0);
    let all = ranges.iter().flat_map(Clone::clone);
    for (weight, row) in weights.iter().zip(all) {
        let start = row * width + first;
        let values = &rows[start..start + out.len()];
        for (sum, value) in out.iter_mut().zip(values) {
            *sum = weight.mul_add(*value, *sum);
        }
    }
}

/// Calls back with what query `B` of a batch sees.
pub(crate) type Look<'a> = dyn Fn(usize, &mut dyn FnMut(Seen) -> Result<()>) -> Result<()> + Sync + 'a;

/// Writes what is added to the scores of query `B` in a head.
pub(crate) type Bias<'a> = dyn Fn(usize, usize, &mut [f32]) + Sync + 'a;

/// Attends from queries to what each sees.
pub(crate) struct Queries<'a> {
    /// `[B, stride]`, the query in the first H Dh columns.
    q: &'a [f32],
    stride: usize,
    heads: usize,
    head_size: usize,
    scale: f32,
}

impl<'a> Queries<'a> {
    /// Takes queries of `d` numbers each from the first columns of rows that are `stride` long.
    pub(crate) fn new(q: &'a [f32], stride: usize, d: usize, scoring: &Scoring) -> Self {
        Self {
            q,
            stride,
            heads: scoring.heads,
            head_size: d / scoring.heads.max(1),
            scale: scoring.scale,
        }
    }

    /// Writes what the queries gather, `[B, H Dh]`. `look` shows what a query sees: keys `[.., H Dh]`, then values. What a query gathers depends on nothing but what it sees.
    ///
    /// `longest` is the most keys that a query sees, and `scores` is scratch.
    pub(crate) fn attend(
        &self,
        longest: usize,
        scores: &mut Vec<f32>,
        out: &mut [f32],
        look: &Look,
        bias: Option<&Bias>,
    ) -> Result<()> {
        let (heads, dh) = (self.heads, self.head_size);
        let count = out.len() / dh.max(1);
        let work = count * longest * dh;
        let tasks = if work < PARALLEL {
            1
        } else {
            count.min(4 * pool::threads())
        };
        let each = count.div_ceil(tasks.max(1)).max(1);
        scores.resize(count.div_ceil(each) * longest, 0.0);
        let failed = pool::Failure::default();
        pool::for_each_chunk(out, each * dh, scores, longest, &|task, out, scores| {
            for (at, out) in out.chunks_exact_mut(dh).enumerate() {
                let (row, head_index) = ((task * each + at) / heads, (task * each + at) % heads);
                let start = row * self.stride + head_index * dh;
                let Some(q) = self.q.get(start..start + dh) else {
                    continue;
                };
                failed.note(look(row, &mut |seen| {
                    seen.check()?;
                    let Some(scores) = scores.get_mut(..seen.count()) else {
                        bail!("attention: {} keys, expected at most {longest}", seen.count())
                    };
                    match bias {
                        Some(bias) => bias(row, head_index, scores),
                        None => scores.fill(0.0),
                    }
                    let (keys, values) = (head_index * dh, (heads + head_index) * dh);
                    if values + dh > seen.width {
                        bail!("attention: rows of {} for {heads} heads of {dh}", seen.width);
                    }
                    head(
                        q,
                        seen.rows,
                        seen.width,
                        keys,
                        values,
                        seen.ranges,
                        self.scale,
                        scores,
                        out,
                    );
                    Ok(())
                }));
            }
        });
        failed.result()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{AttentionPlan, RelativeBias, reference};
    use crate::testing::{assert_close, random};
    use candle_core::Tensor;
    use std::sync::Arc;

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Three queries, one of which sees a single key.
    fn ranges() -> [Vec<Range<usize>>; 3] {
        [vec![3..20, 40..90], vec![0..1], vec![16..32, 0..16, 64..70]]
    }

    fn attend(q: &[f32], kv: &[f32], scoring: &Scoring, dh: usize) -> Result<Vec<f32>> {
        let width = 2 * scoring.heads * dh;
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
        let seen = |row: usize, see: &mut dyn FnMut(Seen) -> Result<()>| {
            see(Seen {
                rows: kv,
                width,
                ranges: &ranges[row],
            })
        };
        queries.attend(67, &mut Vec::new(), &mut out, &seen, bias)?;
        Ok(out)
    }

    #[test]
    fn single_queries_gather_what_the_reference_says() {
        for (heads, dh) in [(1, 64), (2, 64), (3, 16), (2, 80), (1, 130), (4, 3)] {
            let d = heads * dh;
            let (qkv, kv) = (random(&[3, 3 * d], 1), random(&[90, 2 * d], 2));
            let bias = Arc::new(RelativeBias::new(&random(&[8, heads], 3), 9, false).unwrap());
            for bias in [None, Some(bias)] {
                let scoring = Scoring {
                    bias,
                    ..Scoring::scaled(heads, dh)
                };
                let found = attend(&values(&qkv), &values(&kv), &scoring, dh).unwrap();
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
    fn threads_change_no_bit() {
        let (qkv, kv) = (
            values(&random(&[3, 3 * 512], 1)),
            values(&random(&[90, 2 * 512], 2)),
        );
        let scoring = Scoring::scaled(8, 64);
        let with = |threads| {
            let pool = Arc::new(pool::Pool::new(threads));
            pool.install(|| attend(&qkv, &kv, &scoring, 64).unwrap())
        };
        let one = with(1);
        assert!((2..5).all(|threads| with(threads) == one));
    }

    #[test]
    fn keys_that_do_not_exist_are_an_error() {
        let scoring = Scoring::scaled(2, 4);
        let error = attend(&[0.0; 72], &[0.0; 16 * 69], &scoring, 4).unwrap_err();
        assert!(
            error.to_string().starts_with("attention: rows 40..90 of 69"),
            "{error}"
        );
    }
}
