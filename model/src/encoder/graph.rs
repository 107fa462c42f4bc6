//! The encoder on tensors, on any device: the specification of the encoder on slices.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::{Encoder, EncoderForm, EncoderLayer, WritingStep};
use crate::attention::{cross_attention, self_attention};
use crate::batch::EncoderBatch;
use crate::error::ForwardError;
use crate::hook::{HookPoint, Observe};
use crate::kernels::bias::ScoreRule;
use crate::kernels::plan::AttentionPlan;
use crate::layers::feed_forward::FeedForward;
use crate::layers::form::{LinearLayer, NormLayer};
use crate::layers::graph::Graph;
use crate::layers::{by_expert, copy_rows, fused};
use crate::memory::{KvCache, KvLayers};
use crate::prefix::{ImagePrefix, with_prefixes};
use crate::step::DecoderRow;

/// Rows that go through a layer at a time, differentiably where the weights are variables.
#[derive(Debug)]
pub(crate) struct GraphPass {
    plan: Arc<AttentionPlan>,
    /// The input of the present layer, `[N, D]`.
    x: Tensor,
    layer: usize,
    keep: bool,
    kept: Vec<Tensor>,
}

impl EncoderForm for Graph {
    type Pass = GraphPass;

    fn begin(encoder: &Encoder<Self>, batch: &EncoderBatch, keep: bool) -> Result<GraphPass> {
        Ok(GraphPass {
            plan: Arc::new(batch.segments.plan(encoder.pattern)),
            x: encoder.embed(batch, &(0..batch.segments.rows()))?, // [N, D]
            layer: 0,
            keep,
            kept: Vec::new(),
        })
    }

    /// Takes all rows through a layer at a time.
    fn advance(
        encoder: &Encoder<Self>,
        pass: &mut GraphPass,
        batch: &EncoderBatch,
        _: usize,
        observe: Option<Observe>,
    ) -> Result<Option<Tensor>> {
        let split = batch.segments.vision_rows;
        let mut ignore = |_, _: &Tensor| Ok(());
        let observe = observe.unwrap_or(&mut ignore);
        if pass.layer == 0 {
            observe(HookPoint::Embedded, &pass.x)?;
        }
        let Some(layer) = encoder.layers.get(pass.layer) else {
            let hidden = match &encoder.norm {
                Some(norm) => norm.forward(&pass.x, split)?, // [N, D]
                None => pass.x.clone(),
            };
            observe(HookPoint::Output, &hidden)?;
            return Ok(Some(hidden));
        };
        let fused = match pass.keep || !batch.prefixes.is_empty() {
            true => None,
            false => layer.attend_fused(&pass.x, split, &pass.plan),
        };
        pass.x = match fused {
            Some(x) => layer.feed(&x?, split)?, // [N, D]
            None => {
                let qkv = layer.project(&pass.x, split)?; // [N, 3D]
                if pass.keep {
                    pass.kept.push(keys_values(&qkv)?); // [N, 2D]
                }
                let attended = attend(&qkv, pass.layer, &batch.prefixes, &pass.plan, &layer.scoring)?; // [N, D]
                layer.finish(&pass.x, &attended, split)? // [N, D]
            }
        };
        observe(HookPoint::Layer(pass.layer), &pass.x)?;
        pass.layer += 1;
        Ok(None)
    }

    fn into_keys_values(pass: GraphPass) -> Vec<Tensor> {
        pass.kept
    }

    fn keep(_: &Encoder<Self>, keys_values: &[Tensor], sample: &[Range<usize>]) -> Result<KvLayers> {
        let layers = keys_values.iter().map(|kv| copy_rows(kv, sample)); // [S, 2D]
        Ok(KvLayers::Graph(layers.collect::<Result<_>>()?))
    }

    fn write(
        encoder: &Encoder<Self>,
        words: &Self::Linear,
        step: &WritingStep,
        cache: &mut KvCache,
        logits: &mut Vec<f32>,
    ) -> std::result::Result<(), ForwardError> {
        let slots: Vec<usize> = step.batch.slots().collect();
        let positions = cache.reserve(&slots)?;
        let tokens = step.tokens(encoder.text_embed.count()?)?;
        let positions: Vec<u32> = positions.into_iter().flat_map(|p| [p, p + 1]).collect();
        let mut x = encoder.embed_text(&tokens, &positions)?; // [2B, D]
        for (index, layer) in encoder.layers.iter().enumerate() {
            let qkv = layer.project(&x, 0)?; // [2B, 3D]
            let attended = attend_written(cache, index, &qkv, step.batch.rows, &layer.scoring)?; // [2B, D]
            x = layer.finish(&x, &attended, 0)?; // [2B, D]
        }
        if let Some(norm) = &encoder.norm {
            x = norm.forward(&x, 0)?; // [2B, D]
        }
        let (rows, width) = x.dims2()?;
        let masks = x.reshape((rows / 2, 2, width))?.narrow(1, 1, 1)?.squeeze(1)?; // [B, D]
        let all = words.forward(&masks.contiguous()?)?; // [B, V]
        *logits = all.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(())
    }
}

impl EncoderLayer<Graph> {
    /// Makes queries, keys and values, side by side, `[N, 3D]`.
    fn project(&self, x: &Tensor, split: usize) -> Result<Tensor> {
        let h = self.attention_norm.forward(x, split)?; // [N, D]
        self.projections.qkv(&h, split) // [N, 3D]
    }

    /// Takes rows `x` through the rest of the layer, given their attended rows `[N, H Dh]`.
    fn finish(&self, x: &Tensor, attended: &Tensor, split: usize) -> Result<Tensor> {
        let h = match &self.inner_norm {
            Some(norm) => norm.forward(attended, split)?, // [N, H Dh]
            None => attended.clone(),
        };
        let x = (x + self.projections.out(&h, split)?)?; // [N, D]
        self.feed(&x, split)
    }

    /// Adds attention, where it can be one operation.
    fn attend_fused(&self, x: &Tensor, split: usize, plan: &Arc<AttentionPlan>) -> Option<Result<Tensor>> {
        let experts = self.projections.experts();
        let inner = self.inner_norm.as_ref();
        let rule = (plan, &self.scoring);
        fused::attention(x, &self.attention_norm, inner, split, &experts, rule)
    }

    /// Adds the feed-forward network of each expert.
    fn feed(&self, x: &Tensor, split: usize) -> Result<Tensor> {
        let experts = self.experts.iter().map(FeedForward::gated);
        if let Some(experts) = experts.collect::<Option<Vec<_>>>()
            && let Some(fed) = fused::feed_forward(x, &self.ffn_norm, split, &experts)
        {
            return fed;
        }
        let h = self.ffn_norm.forward(x, split)?; // [N, D]
        x + by_expert(&h, split, &self.experts, FeedForward::forward)? // [N, D]
    }
}

/// Returns the keys and values `[N, 2D]` of a fused projection `[N, 3D]`.
fn keys_values(qkv: &Tensor) -> Result<Tensor> {
    let d = qkv.dim(1)? / 3;
    qkv.narrow(1, d, 2 * d)
}

/// Attends from the rows of `qkv` `[N, 3D]` to themselves and, where the batch has any, to those of its
/// prefixes, `[N, D]`.
fn attend(
    qkv: &Tensor,
    layer: usize,
    prefixes: &[ImagePrefix],
    plan: &Arc<AttentionPlan>,
    scoring: &ScoreRule,
) -> Result<Tensor> {
    if prefixes.is_empty() {
        return self_attention(qkv, plan, scoring);
    }
    let q = qkv.narrow(1, 0, qkv.dim(1)? / 3)?; // [N, D]
    let kv = with_prefixes(Some(keys_values(qkv)?), prefixes, |prefix| prefix.layer(layer))?; // [N + R, 2D]
    cross_attention(&q, &kv, plan, scoring)
}

/// Stores the first of each two rows of `qkv` `[2B, 3D]`, a token and the mask behind it, and attends from
/// both: to the prompt, to what was written, and causally to each other. The mask is forgotten.
fn attend_written(
    cache: &KvCache,
    layer: usize,
    qkv: &Tensor,
    rows: &[DecoderRow],
    scoring: &ScoreRule,
) -> std::result::Result<Tensor, ForwardError> {
    let d = qkv.dim(1)? / 3;
    let pool = cache.graph(layer)?;
    let mut attended = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let own = qkv.narrow(0, 2 * index, 2)?; // [2, 3D]
        let kv = own.narrow(1, d, 2 * d)?.contiguous()?; // [2, 2D]
        let written = cache.store(pool, &kv.narrow(0, 0, 1)?, row.slot)?;
        let mut parts = vec![row.memory.graph(layer)?.clone()]; // [S, 2D]
        for range in written {
            parts.push(pool.narrow(0, range.start, range.len())?); // [rows, 2D]
        }
        parts.push(kv.narrow(0, 1, 1)?); // [1, 2D]
        let kv = Tensor::cat(&parts, 0)?; // [S + L + 1, 2D]
        let mut plan = AttentionPlan::default();
        plan.push(vec![0..2], vec![0..kv.dim(0)?], true);
        let q = own.narrow(1, 0, d)?.contiguous()?; // [2, D]
        attended.push(cross_attention(&q, &kv, &Arc::new(plan), scoring)?); // [2, D]
    }
    Ok(Tensor::cat(&attended, 0)?) // [2B, D]
}
