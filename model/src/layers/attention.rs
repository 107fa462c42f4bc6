//! The projections around attention, and how it scores.

use super::linear::Linear;
use super::{Weights, by_expert, of_experts};
use crate::config::{Positions, StackConfig};
use crate::kernels::bias::{RelativeBias, Scoring};
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// One or two sets of fused query, key and value projections with an output projection.
#[derive(Debug)]
pub(crate) struct SelfAttentionProjections {
    qkv: Vec<Linear>,
    out: Vec<Linear>,
}

fn names(prefix: &str, parts: &[&str]) -> Vec<String> {
    parts
        .iter()
        .map(|part| format!("{prefix}.{part}.weight"))
        .collect()
}

impl SelfAttentionProjections {
    /// Loads a set for each of `prefixes`: one shared by all rows, or one per expert.
    pub(crate) fn load(weights: &Weights, prefixes: &[String]) -> Result<Self> {
        let qkv = prefixes
            .iter()
            .map(|p| Linear::load(weights, &names(p, &["q_proj", "k_proj", "v_proj"])));
        let out = prefixes
            .iter()
            .map(|p| Linear::load(weights, &names(p, &["out_proj"])));
        Ok(Self {
            qkv: qkv.collect::<Result<_>>()?,
            out: out.collect::<Result<_>>()?,
        })
    }

    /// Returns the projections of rows that all have the same set: to queries, keys and values, and back.
    pub(crate) fn only(&self) -> Option<(&Linear, &Linear)> {
        match (self.qkv.as_slice(), self.out.as_slice()) {
            ([qkv], [out]) => Some((qkv, out)),
            _ => None,
        }
    }

    /// Tells whether [`SelfAttentionProjections::qkv_into`] and [`SelfAttentionProjections::out_into`] can be used.
    pub(crate) fn takes_slices(&self) -> bool {
        self.qkv.iter().chain(&self.out).all(Linear::takes_slices)
    }

    /// Counts the numbers of a row of queries, keys and values side by side.
    pub(crate) fn width(&self) -> Result<usize> {
        self.qkv.first().map_or(Ok(0), Linear::outputs)
    }

    /// Projects rows `[rows, D]`, the first `split` of them vision rows, to queries, keys and values side by side, `[rows, 3 H Dh]`.
    pub(crate) fn qkv_into(&self, x: &[f32], shape: [usize; 2], y: &mut [f32]) -> Result<()> {
        multiply(&self.qkv, x, shape, y)
    }

    /// Projects what attention gave, `[rows, H Dh]`, the first `split` of them vision rows, to `[rows, D]`.
    pub(crate) fn out_into(&self, x: &[f32], shape: [usize; 2], y: &mut [f32]) -> Result<()> {
        multiply(&self.out, x, shape, y)
    }

    /// Projects `[N, D]` to queries, keys and values side by side, `[N, 3D]`.
    pub(crate) fn qkv(&self, x: &Tensor, split: usize) -> Result<Tensor> {
        by_expert(x, split, &self.qkv, Linear::forward)
    }

    /// Projects what attention gave, `[N, D]`.
    pub(crate) fn out(&self, x: &Tensor, split: usize) -> Result<Tensor> {
        by_expert(x, split, &self.out, Linear::forward)
    }
}

/// Multiplies each expert's rows with its matrix.
fn multiply(experts: &[Linear], x: &[f32], [rows, split]: [usize; 2], y: &mut [f32]) -> Result<()> {
    let (inputs, outputs) = (x.len() / rows.max(1), y.len() / rows.max(1));
    for (expert, own) in of_experts(experts, rows, split) {
        let (x, y) = (
            &x[own.start * inputs..own.end * inputs],
            &mut y[own.start * outputs..own.end * outputs],
        );
        expert.multiply_into(x, own.len(), y)?;
    }
    Ok(())
}

/// The projections of a decoder's cross-attention.
#[derive(Debug)]
pub(crate) struct CrossAttentionProjections {
    pub(crate) q: Linear,
    pub(crate) kv: Linear,
    pub(crate) out: Linear,
}

impl CrossAttentionProjections {
    pub(crate) fn load(weights: &Weights, prefix: &str) -> Result<Self> {
        Ok(Self {
            q: Linear::load(weights, &names(prefix, &["q_proj"]))?,
            kv: Linear::load(weights, &names(prefix, &["k_proj", "v_proj"]))?,
            out: Linear::load(weights, &names(prefix, &["out_proj"]))?,
        })
    }
}

/// Loads how the layers of a stack score keys: those with a bias of their own, and those that have the first's.
pub(crate) fn scorings(weights: &Weights, layer: &StackConfig, stack: &str) -> Result<Vec<Scoring>> {
    let mut scoring = Scoring::scaled(layer.heads, layer.head_size);
    if !layer.scaled {
        scoring.scale = 1.0;
    }
    let mut all = Vec::with_capacity(layer.layers);
    for index in 0..layer.layers {
        if let Positions::Relative {
            max_distance,
            every_layer,
            ..
        } = layer.positions
            && (index == 0 || every_layer)
        {
            let table = weights.get(&format!("{stack}.layers.{index}.position_bias.weight"))?; // [buckets, H]
            let bias = RelativeBias::new(&table, max_distance, stack == "encoder")?;
            scoring.bias = Some(Arc::new(bias));
        }
        all.push(scoring.clone());
    }
    Ok(all)
}
