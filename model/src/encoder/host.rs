//! Encoding on slices: what the layers do, on a CPU in f32, without tensors, some rows at a time.
//!
//! All but attention treats each row by itself, and attention each query, so the numbers are the same bits however a pass is
//! cut. What lies between the operations of a part is scratch that stays in the cache.

use super::{Encoder, EncoderLayer};
use crate::batch::EncoderBatch;
use crate::hook::{HookPoint, Observe};
use crate::kernels::access::{host, with_slice};
use crate::kernels::plan::{AttentionPlan, TILE_ROWS, Tile};
use crate::kernels::pool;
use crate::kernels::tile::{Attention, Columns, Source};
use crate::layers::feed_forward::FeedForward;
use crate::layers::norm::Norm;
use crate::layers::of_experts;
use candle_core::{Device, Result, Tensor, bail};
use std::cell::Cell;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Rows that go through the operations of a part together, each operation on all threads.
const ROWS: usize = 192;

/// Rows that one thread takes through all operations of a part, where there are enough for all threads.
const OWN_ROWS: usize = 96;

/// Numbers of buffers that an encoder keeps for the next pass, at most: 64 MiB.
const KEPT: usize = 16 << 20;

/// Packed rows on their way through the encoder's layers.
#[derive(Debug)]
pub(crate) struct Pass {
    plan: AttentionPlan,
    tiles: Vec<Tile>,
    /// How many rows are vision rows.
    split: usize,
    /// How many rows there are, N.
    count: usize,
    /// What the present layer reads, and where it is done what it gives, `[N, D]`.
    x: Vec<f32>,
    buffers: Buffers,
    layer: usize,
    part: Part,
    /// How many rows of the present part are done, or tiles of attention.
    done: usize,
    keep: bool,
    /// Keys and values of each layer, `[N, 2 H Dh]`, where they are kept.
    kept: Vec<Tensor>,
}

/// What a layer needs of all rows; from one pass to the next it keeps its size.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// Queries, keys and values of the present layer, `[N, 3 H Dh]`.
    qkv: Vec<f32>,
    /// What its attention gave, `[N, H Dh]`.
    attended: Vec<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Embed,
    /// Norm and projection to queries, keys and values.
    Project,
    /// Attention, tile by tile.
    Attend,
    /// Everything behind attention.
    Rest,
    /// The last norm.
    Norm,
}

/// What lies between the operations of a part, for at most [`ROWS`] rows.
#[derive(Debug, Default)]
struct Scratch {
    /// Normed rows, `[n, D]`.
    normed: Vec<f32>,
    /// Gate and up, `[n, 2F]`.
    wide: Vec<f32>,
    /// Between the projections of a feed-forward network, `[n, F]`.
    hidden: Vec<f32>,
    /// What is added to the rows, `[n, D]`.
    added: Vec<f32>,
}

/// Buffers of a pass that is done, for the next one.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Option<Buffers>>);

impl Spare {
    fn take(&self) -> Option<Buffers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, buffers: Buffers) {
        if buffers.qkv.capacity() + buffers.attended.capacity() <= KEPT {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(buffers);
        }
    }
}

thread_local! {
    /// Memory that keeps its size from one call to the next.
    static SCRATCH: Cell<Scratch> = Cell::default();
}

impl Pass {
    pub(super) fn begin(
        encoder: &Encoder,
        batch: &EncoderBatch,
        plan: AttentionPlan,
        keep: bool,
    ) -> Result<Self> {
        let (count, tiles) = (batch.segments.rows(), plan.tiles());
        check(&tiles, count)?;
        Ok(Self {
            tiles,
            plan,
            split: batch.segments.vision_rows,
            count,
            x: vec![0.0; count * encoder.text_embed.width()?], // [N, D]
            buffers: encoder.spare.take().unwrap_or_default(),
            layer: 0,
            part: Part::Embed,
            done: 0,
            keep,
            kept: Vec::new(),
        })
    }

    /// Does a slice, at most `rows` rows of one part of a layer, or one tile of attention where that has more; gives the final
    /// rows, `[N, D]`, with the last.
    pub(super) fn advance(
        &mut self,
        encoder: &Encoder,
        batch: &EncoderBatch,
        rows: usize,
        observe: Option<Observe>,
    ) -> Result<Option<Tensor>> {
        if self.part == Part::Attend {
            self.attend(encoder, batch, rows)?;
        } else {
            let end = self.done.saturating_add(rows.max(1)).min(self.count);
            self.take(encoder, batch, self.done..end)?;
            self.done = end;
        }
        let all = if self.part == Part::Attend {
            self.tiles.len()
        } else {
            self.count
        };
        if self.done < all {
            return Ok(None);
        }
        self.done = 0;
        self.next(encoder, observe)
    }

    /// Takes the keys and values of each layer, `[N, 2D]`; none where they were not to be kept.
    pub(super) fn into_kept(self) -> Vec<Tensor> {
        self.kept
    }

    /// Goes on to the next part.
    fn next(&mut self, encoder: &Encoder, observe: Option<Observe>) -> Result<Option<Tensor>> {
        let shown = match self.part {
            Part::Embed => Some(HookPoint::Embedded),
            Part::Rest => Some(HookPoint::Layer(self.layer)),
            Part::Norm => Some(HookPoint::Output),
            Part::Project | Part::Attend => None,
        };
        if let (Some(observe), Some(place)) = (observe, shown) {
            observe(place, &self.rows(self.x.clone())?)?;
        }
        if self.keep && self.part == Part::Project {
            let qkv = &self.buffers.qkv;
            let width = qkv.len() / self.count / 3;
            let rows = qkv.chunks_exact(3 * width).flat_map(|row| &row[width..]);
            let kept = self.rows(rows.copied().collect())?; // [N, 2 H Dh]
            self.kept.push(kept);
        }
        self.layer += usize::from(self.part == Part::Rest);
        self.part = match self.part {
            Part::Project => Part::Attend,
            Part::Attend => Part::Rest,
            Part::Embed | Part::Rest if self.layer < encoder.layers.len() => Part::Project,
            Part::Embed | Part::Rest => Part::Norm,
            Part::Norm => {
                encoder.spare.put(std::mem::take(&mut self.buffers));
                let x = std::mem::take(&mut self.x);
                return self.rows(x).map(Some);
            }
        };
        Ok(None)
    }

    fn rows(&self, values: Vec<f32>) -> Result<Tensor> {
        let width = values.len() / self.count.max(1);
        Tensor::from_vec(values, (self.count, width), &Device::Cpu)
    }

    /// Takes some rows through a part that treats each row by itself.
    fn take(&mut self, encoder: &Encoder, batch: &EncoderBatch, rows: Range<usize>) -> Result<()> {
        let split = self.split.clamp(rows.start, rows.end) - rows.start;
        let x = part(&mut self.x, &rows, self.count);
        match (self.part, encoder.layers.get(self.layer)) {
            (Part::Embed, _) => embed(encoder, batch, rows, x),
            (Part::Project, Some(layer)) => {
                let width = layer.projections.width()?;
                self.buffers.qkv.resize(self.count * width, 0.0); // [N, 3 H Dh]
                let qkv = part(&mut self.buffers.qkv, &rows, self.count);
                share_out(
                    rows.len(),
                    split,
                    [x, qkv],
                    &|shape, x, qkv, Scratch { normed, .. }| {
                        layer.attention_norm.forward_into(x, shape[1], normed)?; // [n, D]
                        layer.projections.qkv_into(normed, shape, qkv)
                    },
                )
            }
            (Part::Rest, Some(layer)) => {
                let attended = part(&mut self.buffers.attended, &rows, self.count);
                share_out(
                    rows.len(),
                    split,
                    [x, attended],
                    &|shape, x, attended, scratch| layer.finish_into(x, attended, shape, scratch),
                )
            }
            (Part::Norm, _) => share_out(
                rows.len(),
                split,
                [x, &mut []],
                &|shape, x, _, Scratch { normed, .. }| {
                    if let Some(norm) = &encoder.norm {
                        norm.forward_into(x, shape[1], normed)?; // [n, D]
                        x.copy_from_slice(normed);
                    }
                    Ok(())
                },
            ),
            (Part::Project | Part::Rest | Part::Attend, _) => bail!("there is no layer {}", self.layer),
        }
    }

    /// Attends from the next tiles of at most `rows` rows, but one at least.
    fn attend(&mut self, encoder: &Encoder, batch: &EncoderBatch, rows: usize) -> Result<()> {
        let Some(layer) = encoder.layers.get(self.layer) else {
            bail!("there is no layer {}", self.layer)
        };
        let tiles = next_tiles(&self.tiles[self.done..], rows);
        let width = self.buffers.qkv.len() / self.count / 3;
        let columns = |place| Columns {
            values: &self.buffers.qkv,
            width: 3 * width,
            offset: place * width,
        };
        let mut sources = vec![Source {
            first: 0,
            keys: columns(1),
            values: columns(2),
        }];
        let known = batch.prefixes.iter().map(|prefix| prefix.layer(self.layer));
        let known = known.collect::<Result<Vec<_>>>()?; // [R, 2 H Dh] each
        let storages: Vec<_> = known.iter().map(|kv| kv.storage_and_layout()).collect();
        let mut first = self.count;
        for (storage, layout) in &storages {
            let columns = |place| -> Result<Columns> {
                Ok(Columns {
                    values: host(storage, layout)?,
                    width: 2 * width,
                    offset: place * width,
                })
            };
            let (keys, values) = (columns(0)?, columns(1)?);
            sources.push(Source { first, keys, values });
            first += layout.dims().first().copied().unwrap_or(0);
        }
        self.buffers.attended.resize(self.count * width, 0.0); // [N, H Dh]
        let attention = Attention {
            queries: columns(0),
            sources: &sources,
            scoring: &layer.scoring,
            width,
        };
        attention.attend(&self.plan, tiles, &mut self.buffers.attended)?;
        self.done += tiles.len();
        Ok(())
    }
}

fn embed(encoder: &Encoder, batch: &EncoderBatch, rows: Range<usize>, x: &mut [f32]) -> Result<()> {
    let width = x.len() / rows.len().max(1);
    for (first, x) in rows.step_by(ROWS).zip(x.chunks_mut(ROWS * width)) {
        let part = encoder.embed(batch, &(first..first + x.len() / width))?; // [n, D]
        with_slice(&part, |part| {
            x.copy_from_slice(part);
            Ok(())
        })?;
    }
    Ok(())
}

/// Does a part with some rows of two slices: how many rows they are, and how many of them vision rows.
type Work<'a> = dyn Fn([usize; 2], &mut [f32], &mut [f32], &mut Scratch) -> Result<()> + Sync + 'a;

/// Cuts rows, of which the first `split` are vision rows, and does a part with them.
///
/// Where there are many, a thread takes some of its own through all operations: it waits for nobody, and what lies between them
/// stays in its cache. A few go through one operation after another, each on all threads.
fn share_out(count: usize, split: usize, [x, y]: [&mut [f32]; 2], work: &Work) -> Result<()> {
    let threads = pool::threads();
    let is_shared = threads > 1 && count >= 2 * threads * OWN_ROWS;
    let most = if is_shared { OWN_ROWS } else { ROWS };
    let rows = count.div_ceil(count.div_ceil(most).max(1)).max(1);
    let (wide, beside) = (x.len() / count.max(1) * rows, y.len() / count.max(1) * rows);
    let shape = |first: usize| {
        let rows = rows.min(count - first);
        [rows, split.saturating_sub(first).min(rows)]
    };
    let run = |index: usize, x: &mut [f32], y: &mut [f32]| {
        let mut scratch = SCRATCH.take();
        let done = work(shape(index * rows), x, y, &mut scratch);
        SCRATCH.set(scratch);
        done
    };
    if is_shared {
        let failure = pool::Failure::default();
        pool::for_each_chunk(x, wide, y, beside, &|index, x, y| failure.note(run(index, x, y)));
        return failure.result();
    }
    let mut y = y.chunks_mut(beside.max(1));
    for (index, x) in x.chunks_mut(wide.max(1)).enumerate() {
        run(index, x, y.next().unwrap_or_default())?;
    }
    Ok(())
}

/// Checks that tiles have each row once: what none of them writes would be what another pass left.
fn check(tiles: &[Tile], count: usize) -> Result<()> {
    let mut asked: Vec<&Range<usize>> = tiles.iter().flat_map(|tile| &tile.queries).collect();
    asked.sort_unstable_by_key(|range| (range.start, range.end));
    let mut end = 0;
    for range in asked {
        if range.start != end {
            bail!("attention: the queries after row {end} begin at {}", range.start);
        }
        end = range.end;
    }
    if end != count {
        bail!("attention: {end} queries for {count} rows");
    }
    Ok(())
}

/// The next tiles of at most `rows` rows, but one at least.
fn next_tiles(tiles: &[Tile], rows: usize) -> &[Tile] {
    let mut taken = 0;
    let count = tiles.iter().take_while(|tile| {
        taken += tile.rows();
        taken <= rows.max(TILE_ROWS)
    });
    let count = count.count().max(1).min(tiles.len());
    &tiles[..count]
}

/// Returns some rows of `count`.
fn part<'a>(values: &'a mut [f32], rows: &Range<usize>, count: usize) -> &'a mut [f32] {
    let width = values.len() / count.max(1);
    &mut values[rows.start * width..rows.end * width]
}

impl Encoder {
    /// Tells whether [`Pass`] can do it.
    pub(super) fn takes_slices(&self) -> bool {
        self.norm.as_ref().is_none_or(Norm::takes_slices)
            && self.layers.iter().all(EncoderLayer::takes_slices)
    }
}

impl EncoderLayer {
    fn takes_slices(&self) -> bool {
        let norms = [&self.attention_norm, &self.ffn_norm];
        norms.into_iter().chain(&self.inner_norm).all(Norm::takes_slices)
            && self.projections.takes_slices()
            && self.experts.iter().all(FeedForward::takes_slices)
    }

    /// Does what comes behind attention, which gave `[n, H Dh]` for the rows `x`, `[n, D]`, of which the first are vision rows.
    fn finish_into(
        &self,
        x: &mut [f32],
        attended: &[f32],
        [count, split]: [usize; 2],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Scratch {
            normed,
            wide,
            hidden,
            added,
        } = scratch;
        let gathered = Norm::where_any(self.inner_norm.as_ref(), attended, split, normed)?; // [n, H Dh]
        added.resize(x.len(), 0.0); // [n, D]
        self.projections.out_into(gathered, [count, split], added)?;
        self.ffn_norm.add_forward_into(x, added, split, normed)?; // [n, D]
        let width = x.len() / count.max(1);
        for (expert, rows) in of_experts(&self.experts, count, split) {
            let columns = rows.start * width..rows.end * width;
            expert.forward_into(
                &normed[columns.clone()],
                rows.len(),
                [wide, hidden],
                &mut added[columns],
            )?; // [n, D]
        }
        pool::add(x, added);
        Ok(())
    }
}
