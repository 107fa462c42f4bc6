//! The encoder on slices of a CPU's memory, in f32, some rows at a time.
//!
//! All but attention treats each row by itself, and attention each query, so the numbers are the same bits
//! however a pass is sliced. Between the operations of a part, rows lie in scratch buffers that stay in the
//! CPU's cache.

use std::cell::Cell;
use std::ops::Range;

use candle_core::{Device, Result, Tensor, bail};

use super::{Encoder, EncoderForm, EncoderLayer, WritingStep};
use crate::batch::EncoderBatch;
use crate::error::ForwardError;
use crate::hook::{HookPoint, Observe};
use crate::kernels::CacheType;
use crate::kernels::access::{host, with_slice};
use crate::kernels::plan::{AttentionPlan, QueryTile, TILE_ROWS};
use crate::kernels::pool;
use crate::kernels::rows::{KvLayout, KvRows};
use crate::kernels::tile::{Attention, Columns, KvSource};
use crate::layers::attention::RowSplit;
use crate::layers::host::{Host, HostLinear, HostNorm};
use crate::layers::of_experts;
use crate::layers::scratch::LayerScratch;
use crate::memory::{KvCache, KvLayers, StepScratch, slot_rows};

/// Rows of a chunk whose operations run one after another, each on all threads.
const ROWS: usize = 192;

/// Rows of a chunk that one thread takes through all operations, where there are enough for all threads.
const OWN_ROWS: usize = 96;

/// Packed rows on their way through the encoder's layers.
#[derive(Debug)]
pub(crate) struct HostPass {
    plan: AttentionPlan,
    tiles: Vec<QueryTile>,
    /// How many rows are vision rows.
    split: usize,
    /// How many rows there are, N.
    count: usize,
    /// The residual stream: input of the present layer, and its output for the rows that are done, `[N, D]`.
    x: Vec<f32>,
    buffers: Buffers,
    layer: usize,
    part: Part,
    /// How many rows of the present part are done, or tiles of attention.
    done: usize,
    keep: bool,
    /// Keys and values of each layer, `[N, 2 H Dh]`, where `keep` says so.
    kept: Vec<Tensor>,
}

/// The buffers of a layer that hold all rows.
#[derive(Debug, Default)]
struct Buffers {
    /// Queries, keys and values of the present layer, `[N, 3 H Dh]`.
    qkv: Vec<f32>,
    /// Its attended rows, `[N, H Dh]`.
    attended: Vec<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Embed,
    /// Norm and projection to queries, keys and values.
    Project,
    /// Attention, tile by tile.
    Attend,
    /// Everything after attention.
    Finish,
    /// The last norm.
    Norm,
}

thread_local! {
    /// Scratch buffers between the operations of a part, for at most [`ROWS`] rows.
    static SCRATCH: Cell<LayerScratch> = Cell::default();
}

impl EncoderForm for Host {
    type Pass = Box<HostPass>;

    fn begin(encoder: &Encoder<Self>, batch: &EncoderBatch, keep: bool) -> Result<Box<HostPass>> {
        let plan = batch.segments.plan(encoder.pattern);
        let (count, tiles) = (batch.segments.rows(), plan.tiles());
        check(&tiles, count)?;
        Ok(Box::new(HostPass {
            tiles,
            plan,
            split: batch.segments.vision_rows,
            count,
            x: vec![0.0; count * encoder.text_embed.width()?], // [N, D]
            buffers: Buffers::default(),
            layer: 0,
            part: Part::Embed,
            done: 0,
            keep,
            kept: Vec::new(),
        }))
    }

    /// Takes at most `rows` rows through a part of a layer, or one tile of attention where that has more.
    fn advance(
        encoder: &Encoder<Self>,
        pass: &mut Box<HostPass>,
        batch: &EncoderBatch,
        rows: usize,
        observe: Option<Observe>,
    ) -> Result<Option<Tensor>> {
        let all = if pass.part == Part::Attend {
            pass.attend(encoder, batch, rows)?;
            pass.tiles.len()
        } else {
            let end = pass.done.saturating_add(rows.max(1)).min(pass.count);
            pass.run(encoder, batch, pass.done..end)?;
            pass.done = end;
            pass.count
        };
        if pass.done < all {
            return Ok(None);
        }
        pass.done = 0;
        pass.next(encoder, observe)
    }

    fn into_keys_values(pass: Box<HostPass>) -> Vec<Tensor> {
        pass.kept
    }

    fn keep(encoder: &Encoder<Self>, keys_values: &[Tensor], sample: &[Range<usize>]) -> Result<KvLayers> {
        let layout = encoder.layout();
        let count = sample.iter().map(ExactSizeIterator::len).sum();
        let layer = |kv: &Tensor| {
            let mut rows = KvRows::zeros(layout, count, 1);
            with_slice(kv, |kv| {
                let own = sample.iter().flat_map(Clone::clone);
                let own = own.map(|row| &kv[row * layout.width()..(row + 1) * layout.width()]);
                own.enumerate().try_for_each(|(row, kv)| rows.write(row, kv))
            })?;
            Ok(rows)
        };
        Ok(KvLayers::Host(
            keys_values.iter().map(layer).collect::<Result<_>>()?,
        ))
    }

    fn write(
        encoder: &Encoder<Self>,
        words: &HostLinear,
        step: &WritingStep,
        cache: &mut KvCache,
        logits: &mut Vec<f32>,
    ) -> std::result::Result<(), ForwardError> {
        let mut scratch = cache.take_scratch();
        let written = encoder.write_with(words, step, cache, &mut scratch, logits);
        cache.return_scratch(scratch);
        written
    }
}

impl Encoder<Host> {
    /// Returns the layout of a row of keys and values, for writing through the encoder: attention in tiles
    /// reads whole rows.
    pub(crate) fn layout(&self) -> KvLayout {
        KvLayout {
            cache_type: CacheType::F32,
            heads: 1,
            head_size: self.inner_size,
        }
    }

    fn write_with(
        &self,
        words: &HostLinear,
        step: &WritingStep,
        cache: &mut KvCache,
        scratch: &mut StepScratch,
        logits: &mut Vec<f32>,
    ) -> std::result::Result<(), ForwardError> {
        let (slots, count) = (step.batch.slots(), step.batch.rows.len());
        cache.reserve_into(slots.clone(), &mut scratch.positions)?;
        cache.list_rows(slots, scratch)?;
        let tokens = step.tokens(self.text_embed.count()?)?;
        let positions: Vec<u32> = scratch.positions.iter().flat_map(|p| [*p, p + 1]).collect();
        let embedded = self.embed_text(&tokens, &positions)?; // [2B, D]
        with_slice(&embedded, |embedded| {
            scratch.x.clear();
            scratch.x.extend_from_slice(embedded);
            Ok(())
        })?;
        let rows = RowSplit {
            rows: 2 * count,
            split: 0,
        };
        let pools = cache.host()?;
        for (index, (layer, pool)) in self.layers.iter().zip(pools).enumerate() {
            let StepScratch {
                x,
                layer: rest,
                attended,
                ranges,
                ends,
                ..
            } = &mut *scratch;
            layer.attention_norm.forward_into(x, 0, &mut rest.normed); // [2B, D]
            rest.wide.resize(rows.rows * 3 * self.inner_size, 0.0); // [2B, 3 H Dh]
            layer.projections.qkv_into(&rest.normed, rows, &mut rest.wide)?;
            attended.resize(rows.rows * self.inner_size, 0.0); // [2B, H Dh]
            let pairs = rest.wide.chunks_exact(6 * self.inner_size);
            let outputs = attended.chunks_exact_mut(2 * self.inner_size);
            for (row, ((qkv, out), sequence)) in pairs.zip(outputs).zip(step.batch.rows).enumerate() {
                let written = Written {
                    prompt: sequence.memory.host(index)?,
                    pool,
                    ranges: slot_rows(ranges, ends, row),
                };
                layer.attend_written(qkv, written, out)?;
            }
            layer.finish_into(x, attended, rows, rest)?; // [2B, D]
        }
        let StepScratch { x, layer: rest, .. } = scratch;
        let hidden = HostNorm::where_any(self.norm.as_ref(), x, 0, &mut rest.normed); // [2B, D]
        let width = hidden.len() / rows.rows.max(1);
        rest.added.clear();
        let masks = hidden.chunks_exact(width.max(1)).skip(1).step_by(2);
        masks.for_each(|row| rest.added.extend_from_slice(row)); // [B, D]
        Ok(words.forward_into(&rest.added, count, logits)?) // [B, V]
    }
}

/// The visible keys of a token that is written through the encoder: its prompt, and the tokens of its slot,
/// its own the last.
struct Written<'a> {
    prompt: &'a KvRows,
    pool: &'a mut KvRows,
    ranges: &'a [Range<usize>],
}

impl EncoderLayer<Host> {
    /// Stores the keys and values of the first of two rows `qkv` `[2, 3 H Dh]`, a token and the mask behind
    /// it, and attends from both: to the prompt, to what was written, and causally to each other. The mask is
    /// forgotten.
    fn attend_written(&self, qkv: &[f32], written: Written, out: &mut [f32]) -> Result<()> {
        let Written { prompt, pool, ranges } = written;
        let d = qkv.len() / 6;
        let (token, mask) = qkv.split_at(3 * d);
        match ranges.last().and_then(|range| range.end.checked_sub(1)) {
            Some(place) => pool.write(place, &token[d..])?,
            None => bail!("the cache has no row for a new token"),
        }
        let (mut sources, mut keys, mut first) = (Vec::new(), Vec::new(), 0);
        let whole = 0..prompt.count();
        for (rows, ranges) in [(prompt, std::slice::from_ref(&whole)), (&*pool, ranges)] {
            for run in rows.runs(ranges) {
                let [k, v] = rows.matrices(run, d)?.map(|values| Columns {
                    values,
                    width: d,
                    offset: 0,
                }); // [count, D] each
                sources.push(KvSource {
                    first,
                    keys: k,
                    values: v,
                });
                keys.push(first..first + run.count);
                first += run.count;
            }
        }
        let columns = |values, place| Columns {
            values,
            width: 3 * d,
            offset: place * d,
        };
        sources.push(KvSource {
            first,
            keys: columns(mask, 1),
            values: columns(mask, 2),
        });
        keys.push(first..first + 1);
        let mut plan = AttentionPlan::default();
        plan.push(vec![0..2], keys, true);
        let attention = Attention {
            queries: columns(qkv, 0),
            sources: &sources,
            scoring: &self.scoring,
            width: d,
        };
        attention.attend(&plan, &plan.tiles(), out)
    }

    /// Takes rows `x` `[n, D]` through the rest of the layer, given their attended rows `[n, H Dh]`.
    fn finish_into(
        &self,
        x: &mut [f32],
        attended: &[f32],
        rows: RowSplit,
        scratch: &mut LayerScratch,
    ) -> Result<()> {
        let LayerScratch {
            normed,
            wide,
            hidden,
            added,
        } = scratch;
        let gathered = HostNorm::where_any(self.inner_norm.as_ref(), attended, rows.split, normed); // [n, H Dh]
        added.resize(x.len(), 0.0); // [n, D]
        self.projections.out_into(gathered, rows, added)?;
        self.ffn_norm.add_forward_into(x, added, rows.split, normed); // [n, D]
        let width = x.len() / rows.rows.max(1);
        for (expert, own) in of_experts(&self.experts, rows.rows, rows.split) {
            let columns = own.start * width..own.end * width;
            let (x, y) = (&normed[columns.clone()], &mut added[columns]);
            expert.forward_into(x, own.len(), wide, hidden, y)?; // [n, D]
        }
        pool::add(x, added);
        Ok(())
    }
}

impl HostPass {
    /// Goes on to the next part.
    fn next(&mut self, encoder: &Encoder<Host>, observe: Option<Observe>) -> Result<Option<Tensor>> {
        let shown = match self.part {
            Part::Embed => Some(HookPoint::Embedded),
            Part::Finish => Some(HookPoint::Layer(self.layer)),
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
        self.layer += usize::from(self.part == Part::Finish);
        self.part = match self.part {
            Part::Project => Part::Attend,
            Part::Attend => Part::Finish,
            Part::Embed | Part::Finish if self.layer < encoder.layers.len() => Part::Project,
            Part::Embed | Part::Finish => Part::Norm,
            Part::Norm => {
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
    fn run(&mut self, encoder: &Encoder<Host>, batch: &EncoderBatch, rows: Range<usize>) -> Result<()> {
        let count = RowSplit {
            rows: rows.len(),
            split: self.split.clamp(rows.start, rows.end) - rows.start,
        };
        let x = part(&mut self.x, &rows, self.count);
        match (self.part, encoder.layers.get(self.layer)) {
            (Part::Embed, _) => embed(encoder, batch, rows, x),
            (Part::Project, Some(layer)) => {
                let width = layer.projections.width();
                self.buffers.qkv.resize(self.count * width, 0.0); // [N, 3 H Dh]
                let qkv = part(&mut self.buffers.qkv, &rows, self.count);
                share_out(count, x, qkv, &|own, x, qkv, LayerScratch { normed, .. }| {
                    layer.attention_norm.forward_into(x, own.split, normed); // [n, D]
                    layer.projections.qkv_into(normed, own, qkv)
                })
            }
            (Part::Finish, Some(layer)) => {
                let attended = part(&mut self.buffers.attended, &rows, self.count);
                share_out(count, x, attended, &|own, x, attended, scratch| {
                    layer.finish_into(x, attended, own, scratch)
                })
            }
            (Part::Norm, _) => share_out(count, x, &mut [], &|own, x, _, LayerScratch { normed, .. }| {
                if let Some(norm) = &encoder.norm {
                    norm.forward_into(x, own.split, normed); // [n, D]
                    x.copy_from_slice(normed);
                }
                Ok(())
            }),
            (Part::Project | Part::Finish | Part::Attend, _) => bail!("there is no layer {}", self.layer),
        }
    }

    /// Attends from the next tiles of at most `rows` rows, but one at least.
    fn attend(&mut self, encoder: &Encoder<Host>, batch: &EncoderBatch, rows: usize) -> Result<()> {
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
        let mut sources = vec![KvSource {
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
            sources.push(KvSource { first, keys, values });
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

fn embed(encoder: &Encoder<Host>, batch: &EncoderBatch, rows: Range<usize>, x: &mut [f32]) -> Result<()> {
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

/// Takes some rows of two slices through a part; of the rows, the first are vision rows.
type Work<'a> = dyn Fn(RowSplit, &mut [f32], &mut [f32], &mut LayerScratch) -> Result<()> + Sync + 'a;

/// Cuts rows, of which the first `split` are vision rows, and does a part with them.
///
/// Where there are many rows, each thread takes some through all operations, without barriers and with
/// scratch buffers that stay in its cache. Few rows go through one operation after another, each on all
/// threads.
fn share_out(
    RowSplit { rows: count, split }: RowSplit,
    x: &mut [f32],
    y: &mut [f32],
    work: &Work,
) -> Result<()> {
    let threads = pool::threads();
    let is_shared = threads > 1 && count >= 2 * threads * OWN_ROWS;
    let most = if is_shared { OWN_ROWS } else { ROWS };
    let rows = count.div_ceil(count.div_ceil(most).max(1)).max(1);
    let (wide, beside) = (x.len() / count.max(1) * rows, y.len() / count.max(1) * rows);
    let own = |first: usize| {
        let rows = rows.min(count - first);
        RowSplit {
            rows,
            split: split.saturating_sub(first).min(rows),
        }
    };
    let run = |index: usize, x: &mut [f32], y: &mut [f32]| {
        let mut scratch = SCRATCH.take();
        let done = work(own(index * rows), x, y, &mut scratch);
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

/// Checks that tiles have each row once: what none of them writes would be what an earlier layer left.
fn check(tiles: &[QueryTile], count: usize) -> Result<()> {
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
fn next_tiles(tiles: &[QueryTile], rows: usize) -> &[QueryTile] {
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
