//! A decoding step on slices of a CPU's memory, in f32.
//!
//! A step of one row is a hundred products that each read their weights once, and little else; the
//! allocations and copies of tensors would be a fifth of its time.

use candle_core::{Result, bail};

use super::{Decoder, DecoderForm, DecoderLayer};
use crate::error::ForwardError;
use crate::kernels::attend::{Bias, Queries, VisibleKeys};
use crate::kernels::bias::ScoreRule;
use crate::kernels::pool;
use crate::kernels::rows::{KvLayout, KvRows};
use crate::layers::attention::RowSplit;
use crate::layers::host::{Host, HostNorm};
use crate::layers::scratch::LayerScratch;
use crate::memory::{KvCache, StepScratch, slot_rows};
use crate::step::{DecoderBatch, DecoderRow};

impl DecoderForm for Host {
    fn step(
        decoder: &Decoder<Self>,
        batch: &DecoderBatch,
        cache: &mut KvCache,
        logits: &mut Vec<f32>,
    ) -> std::result::Result<(), ForwardError> {
        let limit = decoder.vocab_size;
        if let Some(row) = batch.rows.iter().find(|row| row.token as usize >= limit) {
            return Err(ForwardError::TokenId {
                found: row.token,
                limit,
            });
        }
        let mut scratch = cache.take_scratch();
        let step = decoder.run(batch, cache, &mut scratch, logits);
        cache.return_scratch(scratch);
        step
    }
}

impl Decoder<Host> {
    /// Returns the layout of a row of keys and values.
    pub(crate) fn layout(&self) -> KvLayout {
        KvLayout {
            cache_type: self.cache,
            heads: self.heads,
            head_size: self.inner_size / self.heads.max(1),
        }
    }

    fn run(
        &self,
        batch: &DecoderBatch,
        cache: &mut KvCache,
        scratch: &mut StepScratch,
        logits: &mut Vec<f32>,
    ) -> std::result::Result<(), ForwardError> {
        let rows = batch.rows;
        cache.reserve_into(batch.slots(), &mut scratch.positions)?;
        cache.list_rows(batch.slots(), scratch)?;
        let pools = cache.host()?;
        self.embed_into(rows, &mut scratch.x)?; // [B, D]
        for (index, (layer, pool)) in self.layers.iter().zip(pools).enumerate() {
            layer.self_attend(self, rows.len(), pool, scratch)?;
            layer.cross_attend(index, rows, scratch)?;
            let StepScratch { x, layer: rest, .. } = &mut *scratch;
            let LayerScratch {
                normed,
                wide,
                hidden,
                added,
            } = rest;
            layer.ffn_norm.add_forward_into(x, added, 0, normed); // [B, D]
            layer.ffn.forward_into(normed, rows.len(), wide, hidden, added)?; // [B, D]
            pool::add(x, added);
        }
        let normed = &mut scratch.layer.normed;
        self.norm.forward_into(&scratch.x, 0, normed); // [B, D]
        if (self.output_scale - 1.0).abs() >= f64::EPSILON {
            #[expect(clippy::cast_possible_truncation, reason = "the numbers are f32")]
            let scale = self.output_scale as f32;
            normed.iter_mut().for_each(|x| *x *= scale);
        }
        Ok(self.output.forward_into(normed, rows.len(), logits)?) // [B, V]
    }

    fn embed_into(&self, rows: &[DecoderRow], x: &mut Vec<f32>) -> Result<()> {
        #[expect(clippy::cast_possible_truncation, reason = "the numbers are f32")]
        let scale = self.text_scale as f32;
        x.clear();
        self.text_embed.append(rows.iter().map(|row| row.token), scale, x)
    }
}

impl DecoderLayer<Host> {
    /// Stores the keys and values of the new tokens, and leaves what self-attention adds in the scratch.
    fn self_attend(
        &self,
        decoder: &Decoder<Host>,
        rows: usize,
        pool: &mut KvRows,
        scratch: &mut StepScratch,
    ) -> Result<()> {
        let StepScratch {
            x,
            layer,
            scores,
            positions,
            ranges,
            ends,
            ..
        } = scratch;
        let LayerScratch {
            normed,
            wide,
            hidden,
            added,
        } = layer;
        let d = decoder.inner_size;
        let count = RowSplit { rows, split: 0 };
        self.self_norm.forward_into(x, 0, normed); // [B, D]
        wide.resize(rows * 3 * d, 0.0); // [B, 3D]
        self.projections.qkv_into(normed, count, wide)?;
        if let Some(table) = &decoder.rotary {
            table.rotate(wide, 3 * d, 2 * d, positions, false)?;
        }
        for (row, qkv) in wide.chunks_exact(3 * d).enumerate() {
            let last = slot_rows(ranges, ends, row).last().map_or(0, |range| range.end);
            match last.checked_sub(1) {
                Some(place) => pool.write(place, &qkv[d..])?,
                None => bail!("the cache has no row for a new token"),
            }
        }
        let longest = positions
            .iter()
            .max()
            .map_or(0, |position| *position as usize + 1);
        let pool = &*pool;
        let keys_of = |row: usize, attend: &mut dyn FnMut(VisibleKeys) -> Result<()>| {
            let ranges = slot_rows(ranges, ends, row);
            attend(VisibleKeys { rows: pool, ranges })
        };
        // The new token is the last that it sees itself.
        let bias = self.scoring.bias.as_ref().map(|bias| {
            move |_: usize, head: usize, scores: &mut [f32]| {
                let at = scores.len().saturating_sub(1);
                for (score, bias) in scores.iter_mut().zip(bias.row(head, at, at + 1)) {
                    *score = bias;
                }
            }
        });
        let bias = bias.as_ref().map(|bias| bias as &Bias);
        hidden.resize(rows * d, 0.0); // [B, D]
        Queries::new(wide, 3 * d, d, &self.scoring).attend(longest, scores, hidden, &keys_of, bias)?;
        let gathered = HostNorm::where_any(self.self_inner_norm.as_ref(), hidden, 0, normed); // [B, D]
        added.resize(x.len(), 0.0); // [B, D]
        self.projections.out_into(gathered, count, added)
    }

    /// Adds what self-attention left, and leaves what cross-attention adds in the scratch.
    fn cross_attend(&self, layer: usize, rows: &[DecoderRow], scratch: &mut StepScratch) -> Result<()> {
        let StepScratch {
            x,
            layer: rest,
            scores,
            ..
        } = scratch;
        let LayerScratch {
            normed,
            wide,
            hidden,
            added,
        } = rest;
        self.cross_norm.add_forward_into(x, added, 0, normed); // [B, D]
        self.cross.q.forward_into(normed, rows.len(), wide)?; // [B, H Dh]
        hidden.resize(wide.len(), 0.0); // [B, H Dh]
        let queries = PromptQueries {
            rows,
            layer,
            q: wide,
            scoring: &self.cross_scoring,
        };
        attend_to_prompts(&queries, scores, hidden)?;
        let gathered = HostNorm::where_any(self.cross_inner_norm.as_ref(), hidden, 0, normed); // [B, H Dh]
        self.cross.out.forward_into(gathered, rows.len(), added) // [B, D]
    }
}

/// The queries of a step, of one decoder layer, for the memories of their prompts.
#[derive(Clone, Copy)]
pub(crate) struct PromptQueries<'a> {
    pub(crate) rows: &'a [DecoderRow<'a>],
    pub(crate) layer: usize,
    /// `[B, H Dh]`.
    pub(crate) q: &'a [f32],
    pub(crate) scoring: &'a ScoreRule,
}

/// Attends from each row's query to the memory of its prompt, and writes `[B, H Dh]`; `scores` is scratch.
pub(crate) fn attend_to_prompts(
    queries: &PromptQueries,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) -> Result<()> {
    let PromptQueries {
        rows,
        layer,
        q,
        scoring,
    } = *queries;
    let d = q.len() / rows.len().max(1);
    let longest = rows.iter().map(|row| row.memory.length()).max();
    let keys_of = |row: usize, attend: &mut dyn FnMut(VisibleKeys) -> Result<()>| match rows.get(row) {
        Some(DecoderRow { memory, .. }) => {
            let all = 0..memory.length();
            let rows = memory.host(layer).map_err(candle_core::Error::wrap)?;
            let ranges = std::slice::from_ref(&all);
            attend(VisibleKeys { rows, ranges })
        }
        None => bail!("a step of {} rows has no row {row}", rows.len()),
    };
    let queries = Queries::new(q, d, d, scoring);
    queries.attend(longest.unwrap_or_default(), scores, out, &keys_of, None)
}
