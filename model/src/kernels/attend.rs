//! Attention of single queries: one row of a decoding step against the keys and values of one sequence, in
//! place.
//!
//! Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1, for one query; a bias on the scores as in
//! Raffel et al. 2020 (arXiv 1910.10683), section 2.1.

use std::array::from_fn;
use std::ops::Range;

use candle_core::{Result, bail};
use half::bf16;
use half::slice::HalfBitsSliceExt;

use super::bias::ScoreRule;
use super::pool;
use super::rows::{KvLayout, KvRows, Numbers};
use super::simd::{exp, multiversion, prefetch, sum};

/// Multiplications from which heads are distributed over threads.
const PARALLEL: usize = 1 << 16;

/// The keys and values that are visible to one query.
#[derive(Clone, Copy)]
pub(crate) struct VisibleKeys<'a> {
    pub(crate) rows: &'a KvRows,
    pub(crate) ranges: &'a [Range<usize>],
}

impl VisibleKeys<'_> {
    pub(crate) fn count(&self) -> usize {
        self.ranges.iter().map(ExactSizeIterator::len).sum()
    }

    fn check(&self, heads: usize, head_size: usize) -> Result<()> {
        let (rows, layout) = (self.rows.count(), self.rows.layout());
        if let Some(range) = self.ranges.iter().find(|range| range.end > rows) {
            bail!("attention: rows {range:?} of {rows}")
        }
        if self.count() == 0 {
            bail!("attention: a query without keys")
        }
        if (layout.heads, layout.head_size) != (heads, head_size) {
            let KvLayout {
                heads: h,
                head_size: dh,
                ..
            } = layout;
            bail!("attention: rows of {h} heads of {dh} for {heads} heads of {head_size}")
        }
        Ok(())
    }
}

/// A number of a row.
trait Number: Copy {
    /// Whether rows have scales.
    const SCALED: bool;

    fn widen(self) -> f32;
}

impl Number for f32 {
    const SCALED: bool = false;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Number for bf16 {
    const SCALED: bool = false;

    /// As `to_f32` does, but for marking NaN, which keeps loops from being vectorised.
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Number for i8 {
    const SCALED: bool = true;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }
}

/// One head of one query, and its visible keys.
struct Head<'a> {
    q: &'a [f32], // [Dh]
    keys: VisibleKeys<'a>,
    index: usize,
    scale: f32,
    /// Whether the next head of this query is computed next.
    has_next: bool,
}

multiversion! {
    fn head_f32(head: &Head<'_>, numbers: &[f32], scores: &mut [f32], out: &mut [f32]) {
        gather(head, numbers, &[], scores, out);
    }
}

multiversion! {
    fn head_bf16(head: &Head<'_>, numbers: &[bf16], scores: &mut [f32], out: &mut [f32]) {
        gather(head, numbers, &[], scores, out);
    }
}

multiversion! {
    fn head_int8(head: &Head<'_>, numbers: &[i8], scales: &[f32], scores: &mut [f32], out: &mut [f32]) {
        gather(head, numbers, scales, scores, out);
    }
}

/// Attends from one query of one head; `scores` holds the bias of each key, and is overwritten.
///
/// With keys `k` and values `v` as they are stored, their scales `s` and `t` (1 where there are none), and
/// the bias `b`:
///
/// ```text
/// score[j] = (q . k[j]) * (scale * s[j]) + b[j];  weight[j] = exp(score[j] - max);
/// out = sum of weight[j] t[j] v[j] / sum of weight[j]
/// ```
///
/// Values are prefetched while scores are summed, and the next head's keys while values are: what a head
/// reads is too short for the hardware prefetcher.
#[inline(always)]
fn gather<T: Number>(head: &Head<'_>, numbers: &[T], scales: &[f32], scores: &mut [f32], out: &mut [f32]) {
    match <&[f32; 64]>::try_from(head.q) {
        Ok(q) => score(q, head, numbers, scales, scores),
        Err(_) => score(head.q, head, numbers, scales, scores),
    }
    let max = scores
        .iter()
        .fold(f32::NEG_INFINITY, |max, score| max.max(*score));
    for score in scores.iter_mut() {
        *score = exp(*score - max);
    }
    let inverse = 1.0 / sum(scores);
    if T::SCALED {
        let rows = head.keys.rows;
        let mut done = 0;
        for run in rows.runs(head.keys.ranges) {
            let scales = &scales[rows.scales(run, rows.layout().heads + head.index)];
            for (weight, scale) in scores[done..][..run.count].iter_mut().zip(scales) {
                *weight *= scale;
            }
            done += run.count;
        }
    }
    let mut first = 0;
    for columns in out.chunks_mut(64) {
        match <&mut [f32; 64]>::try_from(&mut *columns) {
            // Sums of a common size stay in registers.
            Ok(columns) => weigh(head, numbers, first, scores, columns),
            Err(_) => weigh_any(head, numbers, first, scores, columns),
        }
        for column in columns.iter_mut() {
            *column *= inverse;
        }
        first += columns.len();
    }
}

#[inline(always)]
fn score<T: Number, Q: Query + ?Sized>(
    q: &Q,
    head: &Head<'_>,
    numbers: &[T],
    scales: &[f32],
    scores: &mut [f32],
) {
    let rows = head.keys.rows;
    let mut done = 0;
    for run in rows.runs(head.keys.ranges) {
        let keys = numbers[rows.piece(run, head.index)].chunks_exact(head.q.len());
        let values = numbers[rows.piece(run, rows.layout().heads + head.index)].chunks_exact(head.q.len());
        let pairs = scores[done..][..run.count].iter_mut().zip(keys).zip(values);
        if T::SCALED {
            for (((score, key), value), scale) in pairs.zip(&scales[rows.scales(run, head.index)]) {
                prefetch(value);
                *score = q.dot(key).mul_add(head.scale * scale, *score);
            }
        } else {
            for ((score, key), value) in pairs {
                prefetch(value);
                *score = q.dot(key).mul_add(head.scale, *score);
            }
        }
        done += run.count;
    }
}

/// Sums products in groups of 64, each by halves, in an order that depends on the length alone.
///
/// Loops of this length are vectorised one by one; shorter ones, or one sum in lanes, become scalar code for
/// narrow numbers.
trait Query {
    fn dot<T: Number>(&self, key: &[T]) -> f32;
}

/// Queries of a common size, which stay in registers.
impl Query for [f32; 64] {
    #[inline(always)]
    fn dot<T: Number>(&self, key: &[T]) -> f32 {
        let key = &key[..64];
        let mut products = [0.0; 64];
        for i in 0..64 {
            products[i] = self[i] * key[i].widen();
        }
        sum_by_halves(&products)
    }
}

impl Query for [f32] {
    #[inline(always)]
    fn dot<T: Number>(&self, key: &[T]) -> f32 {
        let (whole, rest) = self.as_chunks::<64>();
        let mut total = 0.0;
        for (q, key) in whole.iter().zip(key.chunks_exact(64)) {
            total += q.dot(key);
        }
        if rest.is_empty() {
            return total;
        }
        let mut products = [0.0; 64];
        for (product, (q, number)) in products.iter_mut().zip(rest.iter().zip(&key[64 * whole.len()..])) {
            *product = q * number.widen();
        }
        total + sum_by_halves(&products)
    }
}

#[inline(always)]
fn sum_by_halves(x: &[f32; 64]) -> f32 {
    let mut x32 = [0.0; 32];
    for i in 0..32 {
        x32[i] = x[i] + x[i + 32];
    }
    let x16: [f32; 16] = from_fn(|i| x32[i] + x32[i + 16]);
    let x8: [f32; 8] = from_fn(|i| x16[i] + x16[i + 8]);
    let x4: [f32; 4] = from_fn(|i| x8[i] + x8[i + 4]);
    (x4[0] + x4[2]) + (x4[1] + x4[3])
}

#[inline(always)]
fn weigh<T: Number>(head: &Head<'_>, numbers: &[T], first: usize, weights: &[f32], out: &mut [f32; 64]) {
    let rows = head.keys.rows;
    let (mut sums, mut done) = ([0.0f32; 64], 0);
    for run in rows.runs(head.keys.ranges) {
        let values = numbers[rows.piece(run, rows.layout().heads + head.index)].chunks_exact(head.q.len());
        // Prefetches the keys of the next head; where there is none, these values, which are in the cache: no
        // branch in the loop.
        let next = if head.has_next {
            head.index + 1
        } else {
            rows.layout().heads + head.index
        };
        let next = numbers[rows.piece(run, next)].chunks_exact(head.q.len());
        for ((weight, value), next) in weights[done..].iter().zip(values).zip(next) {
            let value = &value[first..first + 64];
            prefetch(&next[first..first + 64]);
            for i in 0..64 {
                sums[i] = weight.mul_add(value[i].widen(), sums[i]);
            }
        }
        done += run.count;
    }
    *out = sums;
}

#[inline(always)]
fn weigh_any<T: Number>(head: &Head<'_>, numbers: &[T], first: usize, weights: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    let rows = head.keys.rows;
    let mut done = 0;
    for run in rows.runs(head.keys.ranges) {
        let values = &numbers[rows.piece(run, rows.layout().heads + head.index)];
        for (weight, value) in weights[done..].iter().zip(values.chunks_exact(head.q.len())) {
            for (sum, number) in out.iter_mut().zip(&value[first..]) {
                *sum = weight.mul_add(number.widen(), *sum);
            }
        }
        done += run.count;
    }
}

/// Calls back with the visible keys of a query of the batch, by its row.
pub(crate) type KeysOf<'a> =
    dyn Fn(usize, &mut dyn FnMut(VisibleKeys) -> Result<()>) -> Result<()> + Sync + 'a;

/// Writes the bias on the scores of a query, by its row and head.
pub(crate) type Bias<'a> = dyn Fn(usize, usize, &mut [f32]) + Sync + 'a;

/// The queries of a batch, each with keys of its own.
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
    pub(crate) fn new(q: &'a [f32], stride: usize, d: usize, scoring: &ScoreRule) -> Self {
        Self {
            q,
            stride,
            heads: scoring.heads,
            head_size: d / scoring.heads.max(1),
            scale: scoring.scale,
        }
    }

    /// Attends from each query to the keys that `keys_of` shows it, and writes `[B, H Dh]`. The result of a
    /// query is batch-invariant: it depends on nothing but its visible keys.
    ///
    /// `longest` is the largest number of visible keys, and `scores` is scratch.
    pub(crate) fn attend(
        &self,
        longest: usize,
        scores: &mut Vec<f32>,
        out: &mut [f32],
        keys_of: &KeysOf,
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
            let last = (out.len() / dh).saturating_sub(1);
            for (at, out) in out.chunks_exact_mut(dh).enumerate() {
                let (row, head_index) = ((task * each + at) / heads, (task * each + at) % heads);
                let start = row * self.stride + head_index * dh;
                let Some(q) = self.q.get(start..start + dh) else {
                    continue;
                };
                failed.note(keys_of(row, &mut |keys| {
                    keys.check(heads, dh)?;
                    let Some(scores) = scores.get_mut(..keys.count()) else {
                        bail!("attention: {} keys, expected at most {longest}", keys.count())
                    };
                    match bias {
                        Some(bias) => bias(row, head_index, scores),
                        None => scores.fill(0.0),
                    }
                    let head = Head {
                        q,
                        keys,
                        index: head_index,
                        scale: self.scale,
                        has_next: at < last && head_index + 1 < heads,
                    };
                    match keys.rows.numbers() {
                        Numbers::F32(numbers) => head_f32(&head, numbers, scores, out),
                        Numbers::Bf16(bits) => head_bf16(&head, bits.reinterpret_cast(), scores, out),
                        Numbers::Int8(numbers, scales) => head_int8(&head, numbers, scales, scores, out),
                    }
                    Ok(())
                }));
            }
        });
        failed.result()
    }
}

#[cfg(test)]
mod tests;
