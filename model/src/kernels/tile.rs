//! Attention of many queries: a tile of them and one head at a time, over blocks of keys.
//!
//! The scores of a tile stay in the cache, whatever the number of keys. Of each query only the largest score
//! so far, the sum of the weights and the weighted sum of the values are kept from one block of keys to the
//! next:
//!
//! ```text
//! m' = max(m, max s);  p = exp(s - m');  a = exp(m - m')
//! sum' = a sum + sum(p);  out' = a out + p V;  at the end out / sum
//! ```
//!
//! Both products are those of linear layers, on keys and values packed into panels. The result of a query
//! depends on its visible keys alone: not on the tile that it is in, nor on other queries of the batch.
//!
//! Source: Milakov and Gimelshein 2018 (arXiv 1805.02867), algorithm 3; tiles as in Dao et al. 2022,
//! FlashAttention (arXiv 2205.14135), section 3.1.

use std::cell::Cell;
use std::ops::Range;

use candle_core::{Result, bail};

use super::bias::ScoreRule;
use super::linear::{Line, PANEL, RowView, multiply_rows};
use super::plan::{AttentionPlan, Block, QueryTile, part};
use super::pool;
use super::simd::{exp, multiversion, sum, transpose};

/// Keys of a block: with a tile's scores of them, and their values, they fit into a second-level cache.
const KEYS: usize = 256;

/// Columns `offset..offset + D` of a row-major matrix whose rows are `width` long.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) width: usize,
    pub(crate) offset: usize,
}

impl<'a> Columns<'a> {
    fn rows(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// Views `width` columns of some rows, from column `first` on.
    fn view(&self, rows: &Range<usize>, first: usize, width: usize) -> RowView<'a> {
        let start = rows.start * self.width + self.offset + first;
        RowView {
            values: self.values.get(start..).unwrap_or_default(),
            stride: self.width,
            count: rows.len(),
            width,
        }
    }
}

/// Keys and values of the rows from `first` on.
#[derive(Clone, Copy)]
pub(crate) struct KvSource<'a> {
    pub(crate) first: usize,
    pub(crate) keys: Columns<'a>,
    pub(crate) values: Columns<'a>,
}

impl KvSource<'_> {
    /// Says where it has some rows; none where it does not have them all.
    fn place(&self, rows: &Range<usize>) -> Option<Range<usize>> {
        let (start, end) = (rows.start.checked_sub(self.first)?, rows.end - self.first);
        (end <= self.keys.rows() && end <= self.values.rows()).then_some(start..end)
    }
}

/// Queries, and the keys and values that they may see.
#[derive(Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub(crate) queries: Columns<'a>,
    pub(crate) sources: &'a [KvSource<'a>],
    pub(crate) scoring: &'a ScoreRule,
    /// Width of queries, keys and values, H Dh.
    pub(crate) width: usize,
}

/// The output, shared by the threads that each write their own rows and columns of it.
struct Output {
    rows: *mut f32,
    width: usize,
}

#[expect(
    unsafe_code,
    reason = "disjoint parts of one output are written from several threads"
)]
// SAFETY: the pointer is used only in `Output::write`, whose callers write disjoint parts.
unsafe impl Sync for Output {}

impl Output {
    /// Writes some columns of a row.
    ///
    /// # Safety
    /// The output has such a row and such columns, and no other thread touches them.
    #[expect(
        unsafe_code,
        reason = "disjoint parts of one output are written from several threads"
    )]
    unsafe fn write(&self, row: usize, first: usize, sums: &[f32], inverse: f32) {
        // SAFETY: the caller's promise.
        let place =
            unsafe { std::slice::from_raw_parts_mut(self.rows.add(row * self.width + first), sums.len()) };
        place.iter_mut().zip(sums).for_each(|(y, sum)| *y = sum * inverse);
    }
}

impl Attention<'_> {
    /// Attends from the queries of some tiles of a plan, and writes their rows of `out`, `[N, D]`, and no
    /// others.
    pub(crate) fn attend(&self, plan: &AttentionPlan, tiles: &[QueryTile], out: &mut [f32]) -> Result<()> {
        self.check(plan, tiles, out.len())?;
        let heads = self.scoring.heads;
        let output = Output {
            rows: out.as_mut_ptr(),
            width: self.width,
        };
        let failure = pool::Failure::default();
        pool::for_each(tiles.len() * heads, &|task| {
            let (tile, head) = (&tiles[task / heads], task % heads);
            let mut scratch = SCRATCH.take();
            let gathered = self.gather(&plan.blocks[tile.block], tile, head, &mut scratch);
            if gathered.is_ok() {
                scratch.write(tile, head * self.head_size(), self.head_size(), &output);
            }
            failure.note(gathered);
            SCRATCH.set(scratch);
        });
        failure.result()
    }

    fn head_size(&self) -> usize {
        self.width / self.scoring.heads.max(1)
    }

    /// Checks that all rows exist, and that no query row stands in two tiles: each is written by one thread.
    fn check(&self, plan: &AttentionPlan, tiles: &[QueryTile], out: usize) -> Result<()> {
        let (width, heads) = (self.width, self.scoring.heads);
        if heads == 0 || width == 0 || !width.is_multiple_of(heads) {
            bail!("attention: width {width} does not divide into {heads} heads");
        }
        let rows = self.queries.rows().min(out / width);
        let mut asked: Vec<&Range<usize>> = tiles.iter().flat_map(|tile| &tile.queries).collect();
        asked.sort_unstable_by_key(|range| range.start);
        let mut end = 0;
        for range in asked {
            if range.start < end || range.end > rows {
                bail!("attention: queries {range:?} of {rows}, of which those before {end} are taken");
            }
            end = range.end;
        }
        let mut last = None;
        for tile in tiles
            .iter()
            .filter(|tile| last.replace(tile.block) != Some(tile.block))
        {
            match plan.blocks.get(tile.block) {
                Some(block) => self.check_keys(block)?,
                None => bail!(
                    "attention: a plan of {} blocks has no block {}",
                    plan.blocks.len(),
                    tile.block
                ),
            }
        }
        Ok(())
    }

    fn check_keys(&self, block: &Block) -> Result<()> {
        let (queries, keys) = (block.query_rows(), block.key_rows());
        if keys == 0 || (block.causal && queries > keys) {
            bail!("attention: {queries} causal query rows and {keys} key rows");
        }
        block
            .keys
            .iter()
            .try_for_each(|range| self.source(range).map(|_| ()))
    }

    /// Finds the source of some rows, and where it has them.
    fn source(&self, rows: &Range<usize>) -> Result<(&KvSource<'_>, Range<usize>)> {
        let found = self
            .sources
            .iter()
            .find_map(|source| Some((source, source.place(rows)?)));
        match found {
            Some(found) => Ok(found),
            None => bail!("attention: no source has the rows {rows:?}"),
        }
    }

    /// Gathers what the queries of a tile see in one head into `scratch.sums`, not yet divided by the sums of
    /// the weights.
    fn gather(&self, block: &Block, tile: &QueryTile, head: usize, scratch: &mut TileScratch) -> Result<()> {
        let (rows, keys, size) = (tile.rows(), block.key_rows(), self.head_size());
        // The key beside which the first query stands: the block's last query stands at its last key.
        let at = keys.saturating_sub(block.query_rows()) + tile.first;
        scratch.begin(rows, size);
        let end = if block.causal { keys.min(at + rows) } else { keys };
        for first in (0..end).step_by(KEYS) {
            let count = KEYS.min(end - first);
            let stride = count.next_multiple_of(PANEL);
            self.pack(block, first..first + count, head, scratch)?;
            scratch.scores.resize(rows * stride, 0.0); // [Lq, Lk]
            let mut row = 0;
            for range in &tile.queries {
                let queries = self.queries.view(range, head * size, size);
                let scores = &mut scratch.scores[row * stride..];
                multiply_rows(queries, &scratch.keys, scores, stride, stride);
                row += range.len();
            }
            let bias = self.scoring.bias.as_ref().map(|bias| {
                scratch.bias.resize(stride + rows - 1, 0.0);
                bias.fill(head, first, at + rows - 1, &mut scratch.bias);
                scratch.bias.as_slice()
            });
            let view = View {
                stride,
                first,
                keys: count,
                at: block.causal.then_some(at),
                scale: self.scoring.scale,
            };
            weigh(&mut scratch.scores, view, bias, &mut scratch.states);
            let weights = RowView {
                values: &scratch.scores,
                stride,
                count: rows,
                width: count,
            };
            let wide = size.next_multiple_of(PANEL);
            if first == 0 {
                multiply_rows(weights, &scratch.values, &mut scratch.sums, wide, wide);
            } else {
                scratch.added.resize(rows * wide, 0.0); // [Lq, Dh]
                multiply_rows(weights, &scratch.values, &mut scratch.added, wide, wide);
                add(&mut scratch.sums, &scratch.added, wide, &scratch.states);
            }
        }
        Ok(())
    }

    /// Packs a head's keys and values of some of a block's key rows.
    fn pack(&self, block: &Block, keys: Range<usize>, head: usize, scratch: &mut TileScratch) -> Result<()> {
        let size = self.head_size();
        let count = keys.len();
        let empty = Line([0; PANEL]);
        scratch.keys.resize(count.div_ceil(PANEL) * size, empty); // [Lk / PANEL, Dh]
        scratch.values.resize(size.div_ceil(PANEL) * count, empty); // [Dh / PANEL, Lk]
        let mut done = 0;
        for range in part(&block.keys, keys) {
            let (source, range) = self.source(&range)?;
            pack_keys(
                source.keys.view(&range, head * size, size),
                done,
                &mut scratch.keys,
            );
            pack_values(
                source.values.view(&range, head * size, size),
                done,
                count,
                &mut scratch.values,
            );
            done += range.len();
        }
        Ok(())
    }
}

/// The scratch buffers of one thread, for a tile of one head.
#[derive(Default)]
struct TileScratch {
    /// Keys in panels of rows, `[Lk / PANEL, Dh]`.
    keys: Vec<Line>,
    /// Values in panels of columns, `[Dh / PANEL, Lk]`.
    values: Vec<Line>,
    /// Scores, then weights, `[Lq, Lk]`.
    scores: Vec<f32>,
    /// Weighted sums of values, `[Lq, Dh]`, rows padded to whole panels.
    sums: Vec<f32>,
    /// The weighted sums of one block of keys, as `sums`.
    added: Vec<f32>,
    /// The bias by distance.
    bias: Vec<f32>,
    states: Vec<SoftmaxState>,
}

thread_local! {
    /// Scratch buffers, warm from one tile to the next.
    static SCRATCH: Cell<TileScratch> = Cell::default();
}

/// The online softmax of a query, carried from one block of keys to the next.
#[derive(Clone, Copy)]
struct SoftmaxState {
    /// The largest score so far.
    largest: f32,
    /// The sum of the weights so far.
    sum: f32,
    /// The factor by which the last block rescaled the sums before it.
    factor: f32,
}

impl TileScratch {
    fn begin(&mut self, rows: usize, size: usize) {
        self.states.clear();
        self.states.resize(
            rows,
            SoftmaxState {
                largest: f32::NEG_INFINITY,
                sum: 0.0,
                factor: 0.0,
            },
        );
        self.sums.resize(rows * size.next_multiple_of(PANEL), 0.0); // [Lq, Dh]
    }

    /// Writes the normalised sums to the tile's rows, from column `first` on.
    fn write(&self, tile: &QueryTile, first: usize, size: usize, output: &Output) {
        let sums = self.sums.chunks_exact(size.next_multiple_of(PANEL));
        let rows = tile.queries.iter().flat_map(Clone::clone);
        for ((row, sums), state) in rows.zip(sums).zip(&self.states) {
            #[expect(
                unsafe_code,
                reason = "disjoint parts of one output are written from several threads"
            )]
            // SAFETY: `Attention::check` has seen that the rows are there and asked for once, and a task has
            // its own head.
            unsafe {
                output.write(row, first, &sums[..size], 1.0 / state.sum);
            }
        }
    }
}

multiversion! {
    /// Puts rows of keys into panels, the first of them at place `at`.
    fn pack_keys(rows: RowView<'_>, at: usize, lines: &mut [Line]) {
        let mut first = 0;
        while (at + first).is_multiple_of(PANEL) && first + PANEL <= rows.count {
            let panel = &mut lines[(at + first) / PANEL * rows.width..][..rows.width];
            for (index, lines) in panel.chunks_mut(PANEL).enumerate() {
                let mut block = [[0; PANEL]; PANEL];
                for (row, words) in block.iter_mut().enumerate() {
                    let values = &rows.values[(first + row) * rows.stride + index * PANEL..][..lines.len()];
                    if let Ok(values) = <&[f32; PANEL]>::try_from(values) {
                        *words = values.map(f32::to_bits);
                    } else {
                        words.iter_mut().zip(values).for_each(|(word, value)| *word = value.to_bits());
                    }
                }
                transpose(&mut block);
                for (line, words) in lines.iter_mut().zip(block) {
                    line.0 = words;
                }
            }
            first += PANEL;
        }
        for (row, place) in (at + first..at + rows.count).enumerate() {
            let row = first + row;
            let values = &rows.values[row * rows.stride..][..rows.width];
            let panel = &mut lines[place / PANEL * rows.width..][..rows.width];
            let lane = place % PANEL;
            for (line, value) in panel.iter_mut().zip(values) {
                line.0[lane] = value.to_bits();
            }
        }
    }
}

multiversion! {
    /// Puts rows of values into panels of `count` lines, the first of them at line `at`.
    fn pack_values(rows: RowView<'_>, at: usize, count: usize, lines: &mut [Line]) {
        for row in 0..rows.count {
            let values = &rows.values[row * rows.stride..][..rows.width];
            let (whole, rest) = values.as_chunks::<PANEL>();
            for (panel, values) in whole.iter().enumerate() {
                lines[panel * count + at + row].0 = values.map(f32::to_bits);
            }
            if !rest.is_empty() {
                let line = &mut lines[whole.len() * count + at + row].0;
                for (word, value) in line.iter_mut().zip(rest) {
                    *word = value.to_bits();
                }
            }
        }
    }
}

/// How a tile sees a block of keys.
#[derive(Clone, Copy)]
struct View {
    /// How far apart rows of scores are.
    stride: usize,
    /// How many keys come before the block.
    first: usize,
    /// How many keys the block has.
    keys: usize,
    /// The key beside which the first query stands, where a query sees none behind its own.
    at: Option<usize>,
    scale: f32,
}

multiversion! {
    /// Turns scores `[Lq, Lk]` into weights relative to the largest so far. `bias` is that of the last query,
    /// by key; a query before it has the same one key further on.
    fn weigh(scores: &mut [f32], view: View, bias: Option<&[f32]>, states: &mut [SoftmaxState]) {
        let View { stride, first, keys, at, scale } = view;
        let rows = states.len();
        for (index, (row, state)) in scores.chunks_exact_mut(stride).zip(states).enumerate() {
            let seen = at.map_or(keys, |at| (at + 1 + index).saturating_sub(first).min(keys));
            if let Some(bias) = bias {
                // One loop: two of them, over panels and their lanes, become gathers and scatters.
                for (score, bias) in row.iter_mut().zip(&bias[rows - 1 - index..][..stride]) {
                    *score = score.mul_add(scale, *bias);
                }
            } else {
                for score in row.iter_mut() {
                    *score *= scale;
                }
            }
            row[seen..].fill(f32::NEG_INFINITY);
            let (chunks, _) = row.as_chunks_mut::<PANEL>();
            let mut lanes = [f32::NEG_INFINITY; PANEL];
            for scores in chunks.iter() {
                for (lane, score) in lanes.iter_mut().zip(scores) {
                    *lane = if *score > *lane { *score } else { *lane };
                }
            }
            let largest = lanes.iter().copied().fold(state.largest, f32::max);
            for score in chunks.as_flattened_mut() {
                *score = exp(*score - largest);
            }
            state.factor = exp(state.largest - largest);
            state.sum = state.sum.mul_add(state.factor, sum(row));
            state.largest = largest;
        }
    }
}

multiversion! {
    /// Adds what a block of keys gives to rows `width` apart, multiplying what was before by each row's
    /// factor.
    fn add(sums: &mut [f32], added: &[f32], width: usize, states: &[SoftmaxState]) {
        let rows = sums.chunks_exact_mut(width).zip(added.chunks_exact(width));
        for ((sums, added), state) in rows.zip(states) {
            for (sum, added) in sums.iter_mut().zip(added) {
                *sum = sum.mul_add(state.factor, *added);
            }
        }
    }
}
