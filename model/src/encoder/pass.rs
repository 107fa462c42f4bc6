//! The way of packed rows through the layers: on slices where the CPU's kernels take them, else on tensors.

use super::{Encoder, attend, host, keys_values};
use crate::batch::EncoderBatch;
use crate::hook::{HookPoint, Observe};
use crate::kernels::plan::AttentionPlan;
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// Packed rows on their way through the encoder's layers.
#[derive(Debug)]
pub(crate) enum Pass {
    /// Some rows of a part of a layer at a time.
    Slices(Box<host::Pass>),
    /// All rows of a layer at a time.
    Tensors(TensorPass),
}

impl Pass {
    /// Begins; `keep` says that keys and values of every layer are kept.
    pub(super) fn begin(encoder: &Encoder, batch: &EncoderBatch, keep: bool) -> Result<Self> {
        let plan = batch.segments.plan(encoder.pattern);
        if encoder.takes_slices() {
            return Ok(Self::Slices(Box::new(host::Pass::begin(
                encoder, batch, plan, keep,
            )?)));
        }
        Ok(Self::Tensors(TensorPass {
            plan: Arc::new(plan),
            x: encoder.embed(batch, &(0..batch.segments.rows()))?, // [N, D]
            layer: 0,
            keep,
            kept: Vec::new(),
        }))
    }

    /// Goes on, with at most `rows` rows where it goes on slices; gives the final rows, `[N, D]`, with the last.
    pub(super) fn advance(
        &mut self,
        encoder: &Encoder,
        batch: &EncoderBatch,
        rows: usize,
        observe: Option<Observe>,
    ) -> Result<Option<Tensor>> {
        match self {
            Self::Slices(pass) => pass.advance(encoder, batch, rows, observe),
            Self::Tensors(pass) => pass.advance(encoder, batch, observe),
        }
    }

    /// Takes the keys and values of each layer, `[N, 2D]`; none where they were not to be kept.
    pub(super) fn into_kept(self) -> Vec<Tensor> {
        match self {
            Self::Slices(pass) => pass.into_kept(),
            Self::Tensors(pass) => pass.kept,
        }
    }
}

/// Rows that go through a layer at a time, differentiably where the weights are variables.
#[derive(Debug)]
pub(crate) struct TensorPass {
    plan: Arc<AttentionPlan>,
    /// What the present layer reads, `[N, D]`.
    x: Tensor,
    layer: usize,
    keep: bool,
    kept: Vec<Tensor>,
}

impl TensorPass {
    fn advance(
        &mut self,
        encoder: &Encoder,
        batch: &EncoderBatch,
        observe: Option<Observe>,
    ) -> Result<Option<Tensor>> {
        let split = batch.segments.vision_rows;
        let mut ignore = |_, _: &Tensor| Ok(());
        let observe = observe.unwrap_or(&mut ignore);
        if self.layer == 0 {
            observe(HookPoint::Embedded, &self.x)?;
        }
        let Some(layer) = encoder.layers.get(self.layer) else {
            let hidden = match &encoder.norm {
                Some(norm) => norm.forward(&self.x, split)?, // [N, D]
                None => self.x.clone(),
            };
            observe(HookPoint::Output, &hidden)?;
            return Ok(Some(hidden));
        };
        let (keep, kept) = (self.keep, &mut self.kept);
        self.x = layer.forward(&self.x, split, |qkv| {
            if keep {
                kept.push(keys_values(qkv)?); // [N, 2D]
            }
            attend(qkv, self.layer, &batch.prefixes, &self.plan, &layer.scoring)
        })?; // [N, D]
        observe(HookPoint::Layer(self.layer), &self.x)?;
        self.layer += 1;
        Ok(None)
    }
}
