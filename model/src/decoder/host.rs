//! A decoding step on slices: what [`Decoder::step`] does, on a CPU in f32, without tensors.
//!
//! A step of one row is a hundred products that each read their weights once, and little else; what tensors cost beside them,
//! in memory asked for and in copies, would be a fifth of it.

use candle_core::{Result, bail};

use super::{Decoder, DecoderLayer};
use crate::error::ForwardError;
use crate::kernels::attend::{Bias, Queries, Seen};
use crate::kernels::bias::Scoring;
use crate::kernels::pool;
use crate::kernels::rows::{Layout, Rows};
use crate::layers::norm::Norm;
use crate::memory::{KvCache, Scratch};
use crate::step::{DecoderBatch, DecoderRow};

impl Decoder {
    /// Tells whether [`Decoder::step_on_slices`] can do it.
    pub(crate) fn takes_slices(&self) -> bool {
        self.text_embed.takes_slices()
            && self.norm.takes_slices()
            && self.output.takes_slices()
            && self.layers.iter().all(DecoderLayer::takes_slices)
    }

    /// Tells how keys and values are kept between steps on slices, where these can be done.
    pub(crate) fn layout(&self) -> Option<Layout> {
        self.takes_slices().then_some(self.rows)
    }

    /// Advances each row by one token, and writes the logits of the next, `[B * V]`.
    pub(crate) fn step_on_slices(
        &self,
        batch: &DecoderBatch,
        cache: &mut KvCache,
        logits: &mut Vec<f32>,
    ) -> std::result::Result<(), ForwardError> {
        let limit = self.vocab_size;
        if let Some(row) = batch.rows.iter().find(|row| row.token as usize >= limit) {
            return Err(ForwardError::TokenId {
                found: row.token,
                limit,
            });
        }
        let mut scratch = cache.take_scratch();
        let step = self.run(batch.rows, cache, &mut scratch, logits);
        cache.return_scratch(scratch);
        step
    }

    fn run(
        &self,
        rows: &[DecoderRow],
        cache: &mut KvCache,
        scratch: &mut Scratch,
        logits: &mut Vec<f32>,
    ) -> std::result::Result<(), ForwardError> {
        let slots = || rows.iter().map(|row| row.slot);
        cache.reserve_into(slots(), &mut scratch.positions)?;
        cache.list_rows(slots(), (&mut scratch.ranges, &mut scratch.ends))?;
        let pools = cache.host()?;
        self.embed_into(rows, &mut scratch.x)?; // [B, D]
        for (index, (layer, pool)) in self.layers.iter().zip(pools).enumerate() {
            layer.self_attend(self, rows.len(), pool, scratch)?;
            layer.cross_attend(index, rows, scratch)?;
            let Scratch {
                x,
                normed,
                wide,
                hidden,
                added,
                ..
            } = &mut *scratch;
            layer.ffn_norm.add_forward_into(x, added, 0, normed)?; // [B, D]
            layer
                .ffn
                .forward_into(normed, rows.len(), [wide, hidden], added)?; // [B, D]
            pool::add(x, added);
        }
        let Scratch { x, normed, .. } = scratch;
        self.norm.forward_into(x, 0, normed)?; // [B, D]
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

impl DecoderLayer {
    fn takes_slices(&self) -> bool {
        let norms = [&self.self_norm, &self.cross_norm, &self.ffn_norm];
        let inner = [&self.self_inner_norm, &self.cross_inner_norm];
        let linears = [&self.cross.q, &self.cross.out];
        norms.into_iter().all(Norm::takes_slices)
            && inner.into_iter().flatten().all(Norm::takes_slices)
            && linears.into_iter().all(|linear| linear.takes_slices())
            && self
                .projections
                .only()
                .is_some_and(|(qkv, out)| qkv.takes_slices() && out.takes_slices())
            && self.ffn.takes_slices()
    }

    /// Stores the keys and values of the new tokens, and leaves what they gather from what was written to be added.
    fn self_attend(
        &self,
        decoder: &Decoder,
        rows: usize,
        pool: &mut Rows,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Scratch {
            x,
            normed,
            wide,
            hidden,
            added,
            scores,
            positions,
            ranges,
            ends,
        } = scratch;
        let Some((qkv, out)) = self.projections.only() else {
            bail!("a decoder has one set of projections")
        };
        let d = decoder.inner_size;
        self.self_norm.forward_into(x, 0, normed)?; // [B, D]
        qkv.forward_into(normed, rows, wide)?; // [B, 3D]
        if let Some(table) = &decoder.rotary {
            table.rotate(wide, 3 * d, 2 * d, positions, false)?;
        }
        let own = |row: usize| {
            let start = row.checked_sub(1).and_then(|before| ends.get(before)).copied();
            ranges.get(start.unwrap_or(0)..ends.get(row).copied()?)
        };
        for (row, qkv) in wide.chunks_exact(3 * d).enumerate() {
            let last = own(row).and_then(<[_]>::last).map_or(0, |range| range.end);
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
        let seen = |row: usize, see: &mut dyn FnMut(Seen) -> Result<()>| {
            let ranges = own(row).unwrap_or_default();
            see(Seen { rows: pool, ranges })
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
        Queries::new(wide, 3 * d, d, &self.scoring).attend(longest, scores, hidden, &seen, bias)?;
        let gathered = Norm::where_any(self.self_inner_norm.as_ref(), hidden, 0, normed)?; // [B, D]
        out.forward_into(gathered, rows, added) // [B, D]
    }

    /// Adds what was left to be added, and leaves what the new tokens gather from their prompts.
    fn cross_attend(&self, index: usize, rows: &[DecoderRow], scratch: &mut Scratch) -> Result<()> {
        let Scratch {
            x,
            normed,
            wide,
            hidden,
            added,
            scores,
            ..
        } = scratch;
        let count = rows.len();
        self.cross_norm.add_forward_into(x, added, 0, normed)?; // [B, D]
        self.cross.q.forward_into(normed, count, wide)?; // [B, H Dh]
        hidden.resize(wide.len(), 0.0); // [B, H Dh]
        let scoring = &self.cross_scoring;
        attend_to_prompts(
            &PromptQueries {
                rows,
                layer: index,
                q: wide,
                scoring,
            },
            scores,
            hidden,
        )?;
        let gathered = Norm::where_any(self.cross_inner_norm.as_ref(), hidden, 0, normed)?; // [B, H Dh]
        self.cross.out.forward_into(gathered, count, added) // [B, D]
    }
}

/// The queries of a step, of one decoder layer, for the memories of their prompts.
#[derive(Clone, Copy)]
pub(crate) struct PromptQueries<'a> {
    pub(crate) rows: &'a [DecoderRow<'a>],
    pub(crate) layer: usize,
    /// `[B, H Dh]`.
    pub(crate) q: &'a [f32],
    pub(crate) scoring: &'a Scoring,
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
    let look = |row: usize, see: &mut dyn FnMut(Seen) -> Result<()>| match rows.get(row) {
        Some(DecoderRow { memory, .. }) => {
            let all = 0..memory.length();
            let rows = memory.host(layer).map_err(candle_core::Error::wrap)?;
            let ranges = std::slice::from_ref(&all);
            see(Seen { rows, ranges })
        }
        None => bail!("a step of {} rows has no row {row}", rows.len()),
    };
    let queries = Queries::new(q, d, d, scoring);
    queries.attend(longest.unwrap_or_default(), scores, out, &look, None)
}
