//! The projections around attention, and how it scores.

use super::linear::Linear;
use super::{Weights, by_expert};
use crate::attention::{RelativeBias, Scoring};
use crate::config::{LayerConfig, Positions};
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

    /// Projects `[N, D]` to queries, keys and values side by side, `[N, 3D]`.
    pub(crate) fn qkv(&self, x: &Tensor, split: usize) -> Result<Tensor> {
        by_expert(x, split, &self.qkv, Linear::forward)
    }

    /// Projects what attention gave, `[N, D]`.
    pub(crate) fn out(&self, x: &Tensor, split: usize) -> Result<Tensor> {
        by_expert(x, split, &self.out, Linear::forward)
    }
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
pub(crate) fn scorings(
    weights: &Weights,
    layer: &LayerConfig,
    stack: &str,
    layers: usize,
) -> Result<Vec<Scoring>> {
    let mut scoring = Scoring::scaled(layer.heads, layer.head_size);
    if !layer.scaled {
        scoring.scale = 1.0;
    }
    let mut all = Vec::with_capacity(layers);
    for index in 0..layers {
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
