//! The way of packed rows through the layers, a slice at a time.
//!
//! All but attention treats each row by itself, and attention each tile of queries, so the numbers are the same bits
//! however a pass is cut into slices.

use super::{Encoder, Observe, Place, attend, keys_values};
use crate::attention::{AttentionPlan, BlockMemory, TILE_ROWS, Tile, takes_tiles, tiles_attention};
use crate::batch::EncoderBatch;
use crate::kernels::pool;
use crate::prefix::with_prefixes;
use candle_core::{Result, Tensor, bail};
use std::ops::Range;
use std::sync::Arc;

/// Packed rows on their way through the encoder's layers.
#[derive(Debug)]
pub(crate) struct Pass {
    plan: Arc<AttentionPlan>,
    /// How many rows are vision rows.
    split: usize,
    /// How many rows there are, N.
    count: usize,
    /// What the present layer reads, `[N, D]`; none before all rows are embedded.
    x: Option<Tensor>,
    layer: usize,
    part: Part,
    /// What the present part has given so far.
    done: Vec<Tensor>,
    /// Whether keys and values are kept.
    keep: bool,
    /// Keys and values of each layer, `[N, 2D]`.
    kept: Vec<Tensor>,
}

/// The parts of a layer.
#[derive(Debug)]
enum Part {
    /// Norm and projection to queries, keys and values.
    Project,
    /// Attention, tile by tile.
    Attend(Attending),
    /// Everything behind attention; holds what attention gave, `[N, H Dh]`.
    Rest(Tensor),
}

#[derive(Debug)]
struct Attending {
    /// Queries, keys and values of the packed rows, `[N, 3D]`.
    qkv: Tensor,
    /// Keys and values with those of the prefixes behind, `[N + R, 2D]`, where the batch has any.
    kv: Option<Tensor>,
    tiles: Vec<Tile>,
    /// How many tiles are done.
    next: usize,
    /// The keys and values of the block that the last tile was of.
    memory: BlockMemory,
}

impl Attending {
    /// Takes the next tiles of at most `rows` rows, but one for each thread at least: side by side they take no longer.
    fn take(&mut self, rows: usize) -> Range<usize> {
        let start = self.next;
        let rows = rows.max(TILE_ROWS * pool::threads());
        let mut taken = 0;
        for tile in &self.tiles[start..] {
            taken += tile.rows();
            if taken > rows && self.next > start {
                break;
            }
            self.next += 1;
        }
        start..self.next
    }
}

impl Pass {
    pub(super) fn begin(encoder: &Encoder, batch: &EncoderBatch, keep: bool) -> Self {
        Self {
            plan: Arc::new(batch.segments.plan(encoder.pattern)),
            split: batch.segments.vision_rows,
            count: batch.segments.rows(),
            x: None,
            layer: 0,
            part: Part::Project,
            done: Vec::new(),
            keep,
            kept: Vec::new(),
        }
    }

    /// Does a slice, at most `rows` rows of one part of a layer; gives the final rows, `[N, D]`, with the last.
    pub(super) fn advance(
        &mut self,
        encoder: &Encoder,
        batch: &EncoderBatch,
        rows: usize,
        observe: Observe,
    ) -> Result<Option<Tensor>> {
        if self.x.is_none() {
            let (range, _) = self.next_rows(rows)?;
            let part = encoder.embed(batch, &range)?; // [n, D]
            if let Some(x) = self.gather(part)? {
                observe(Place::Embedded, &x)?;
                self.x = Some(x);
            }
            return Ok(None);
        }
        let Some(layer) = encoder.layers.get(self.layer) else {
            let hidden = match &encoder.norm {
                Some(norm) => norm.forward(self.x()?, self.split)?, // [N, D]
                None => self.x()?.clone(),
            };
            observe(Place::Output, &hidden)?;
            return Ok(Some(hidden));
        };
        match &mut self.part {
            Part::Project => {
                let (range, split) = self.next_rows(rows)?;
                let part = layer.project(&rows_of(self.x()?, &range)?, split)?; // [n, 3D]
                if let Some(qkv) = self.gather(part)? {
                    self.attend(encoder, batch, qkv, rows)?;
                }
            }
            Part::Attend(attending) => {
                let taken = attending.take(rows);
                let Attending {
                    qkv,
                    kv,
                    tiles,
                    next,
                    memory,
                } = attending;
                let sources = (&*qkv, kv.as_ref());
                let part = tiles_attention(sources, &self.plan, &tiles[taken], &layer.scoring, memory)?; // [n, D]
                self.done.push(part);
                if *next == tiles.len() {
                    let home = Tensor::new(home(tiles, self.count)?, qkv.device())?;
                    let all = Tensor::cat(&std::mem::take(&mut self.done), 0)?; // [N, D], in the order of the tiles
                    self.part = Part::Rest(all.index_select(&home, 0)?); // [N, D]
                }
            }
            Part::Rest(attended) => {
                let attended = attended.clone();
                let (range, split) = self.next_rows(rows)?;
                let x = rows_of(self.x()?, &range)?;
                let part = layer.finish(&x, &rows_of(&attended, &range)?, split)?; // [n, D]
                if let Some(x) = self.gather(part)? {
                    observe(Place::Layer(self.layer), &x)?;
                    self.x = Some(x);
                    self.layer += 1;
                    self.part = Part::Project;
                }
            }
        }
        Ok(None)
    }

    /// Takes the keys and values of each layer, `[N, 2D]`; none where they were not to be kept.
    pub(super) fn into_kept(self) -> Vec<Tensor> {
        self.kept
    }

    /// Goes on from projected rows `[N, 3D]`: attends at once where all rows are done at a time.
    fn attend(&mut self, encoder: &Encoder, batch: &EncoderBatch, qkv: Tensor, rows: usize) -> Result<()> {
        if self.keep {
            self.kept.push(keys_values(&qkv)?); // [N, 2D]
        }
        if rows >= qkv.dim(0)? || !takes_tiles(&qkv) {
            let scoring = &encoder.layers[self.layer].scoring;
            let attended = attend(&qkv, self.layer, &batch.prefixes, &self.plan, scoring)?; // [N, D]
            self.part = Part::Rest(attended);
            return Ok(());
        }
        let known = |kv| with_prefixes(Some(kv), &batch.prefixes, |prefix| prefix.layer(self.layer)); // [N + R, 2D]
        let kv = (!batch.prefixes.is_empty()).then(|| keys_values(&qkv).and_then(known));
        self.part = Part::Attend(Attending {
            kv: kv.transpose()?,
            tiles: self.plan.tiles(),
            next: 0,
            memory: BlockMemory::default(),
            qkv,
        });
        Ok(())
    }

    /// Says which rows of the present part come next, and how many of them are vision rows.
    fn next_rows(&self, rows: usize) -> Result<(Range<usize>, usize)> {
        let mut start = 0;
        for part in &self.done {
            start += part.dim(0)?;
        }
        let end = start.saturating_add(rows.max(1)).min(self.count);
        let split = self.split.clamp(start, end) - start;
        Ok((start..end, split))
    }

    fn x(&self) -> Result<&Tensor> {
        match &self.x {
            Some(x) => Ok(x),
            None => bail!("the rows are not embedded"),
        }
    }

    /// Adds what a slice gave; all of it together once nothing is missing.
    fn gather(&mut self, part: Tensor) -> Result<Option<Tensor>> {
        self.done.push(part);
        let mut rows = 0;
        for part in &self.done {
            rows += part.dim(0)?;
        }
        if rows < self.count {
            return Ok(None);
        }
        let done = std::mem::take(&mut self.done);
        match done.as_slice() {
            [only] => Ok(Some(only.clone())),
            parts => Tensor::cat(parts, 0).map(Some),
        }
    }
}

fn rows_of(x: &Tensor, range: &Range<usize>) -> Result<Tensor> {
    if range.len() == x.dim(0)? {
        return Ok(x.clone());
    }
    x.narrow(0, range.start, range.len())
}

/// Says for each packed row where the tiles in their order have it.
fn home(tiles: &[Tile], rows: usize) -> Result<Vec<u32>> {
    let order = tiles
        .iter()
        .flat_map(|tile| tile.queries.iter().flat_map(Clone::clone));
    let mut home = vec![u32::MAX; rows];
    for (at, row) in (0..).zip(order) {
        if let Some(home) = home.get_mut(row) {
            *home = at;
        }
    }
    match home.iter().position(|at| *at == u32::MAX) {
        Some(row) => bail!("attention: row {row} is in no block"),
        None => Ok(home),
    }
}
