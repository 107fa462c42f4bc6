//! The projections around attention.

use super::linear::Linear;
use super::{Weights, by_expert};
use candle_core::{Result, Tensor};

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
