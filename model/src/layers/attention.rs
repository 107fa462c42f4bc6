//! The projections around attention, and how it scores.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::form::{Form, LinearLayer};
use super::fused::ExpertLayers;
use super::graph::Graph;
use super::host::{Host, HostLinear};
use super::{Weights, by_expert, of_experts};
use crate::config::{Positions, StackConfig};
use crate::kernels::bias::{RelativeBias, ScoreRule};

/// One or two sets of fused query, key and value projections with an output projection.
#[derive(Debug)]
pub(crate) struct SelfAttentionProjections<F: Form> {
    qkv: Vec<F::Linear>,
    out: Vec<F::Linear>,
}

fn names(prefix: &str, parts: &[&str]) -> Vec<String> {
    parts
        .iter()
        .map(|part| format!("{prefix}.{part}.weight"))
        .collect()
}

impl<F: Form> SelfAttentionProjections<F> {
    /// Loads a set for each of `prefixes`: one shared by all rows, or one per expert.
    pub(crate) fn load(weights: &Weights, prefixes: &[String]) -> Result<Self> {
        let qkv = prefixes
            .iter()
            .map(|p| F::Linear::load(weights, &names(p, &["q_proj", "k_proj", "v_proj"])));
        let out = prefixes
            .iter()
            .map(|p| F::Linear::load(weights, &names(p, &["out_proj"])));
        Ok(Self {
            qkv: qkv.collect::<Result<_>>()?,
            out: out.collect::<Result<_>>()?,
        })
    }

    /// Projects `[N, D]` to queries, keys and values side by side, `[N, 3D]`.
    pub(crate) fn qkv(&self, x: &Tensor, split: usize) -> Result<Tensor> {
        by_expert(x, split, &self.qkv, F::Linear::forward)
    }

    /// Projects attended rows, `[N, H Dh]`, to `[N, D]`.
    pub(crate) fn out(&self, x: &Tensor, split: usize) -> Result<Tensor> {
        by_expert(x, split, &self.out, F::Linear::forward)
    }
}

impl SelfAttentionProjections<Graph> {
    /// Lists the projections of each expert: queries, keys and values, and out.
    pub(crate) fn experts(&self) -> Vec<ExpertLayers<'_>> {
        let experts = self.qkv.iter().zip(&self.out);
        let layers = experts.map(|(qkv, out)| ExpertLayers {
            linears: vec![qkv, out],
            inner: None,
        });
        layers.collect()
    }
}

/// Some rows, of which the first belong to the first expert.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowSplit {
    /// How many rows there are.
    pub(crate) rows: usize,
    /// How many of them belong to the first expert.
    pub(crate) split: usize,
}

impl SelfAttentionProjections<Host> {
    /// Counts the numbers of a row of queries, keys and values side by side.
    pub(crate) fn width(&self) -> usize {
        self.qkv.first().map_or(0, HostLinear::outputs)
    }

    /// Projects rows `[rows, D]` to queries, keys and values side by side, `[rows, 3 H Dh]`.
    pub(crate) fn qkv_into(&self, x: &[f32], rows: RowSplit, y: &mut [f32]) -> Result<()> {
        multiply(&self.qkv, x, rows, y)
    }

    /// Projects attended rows, `[rows, H Dh]`, to `[rows, D]`.
    pub(crate) fn out_into(&self, x: &[f32], rows: RowSplit, y: &mut [f32]) -> Result<()> {
        multiply(&self.out, x, rows, y)
    }
}

/// Multiplies each expert's rows with its matrix.
fn multiply(
    experts: &[HostLinear],
    x: &[f32],
    RowSplit { rows, split }: RowSplit,
    y: &mut [f32],
) -> Result<()> {
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
pub(crate) struct CrossAttentionProjections<F: Form> {
    pub(crate) q: F::Linear,
    pub(crate) kv: F::Linear,
    pub(crate) out: F::Linear,
}

impl<F: Form> CrossAttentionProjections<F> {
    pub(crate) fn load(weights: &Weights, prefix: &str) -> Result<Self> {
        Ok(Self {
            q: F::Linear::load(weights, &names(prefix, &["q_proj"]))?,
            kv: F::Linear::load(weights, &names(prefix, &["k_proj", "v_proj"]))?,
            out: F::Linear::load(weights, &names(prefix, &["out_proj"]))?,
        })
    }
}

/// Loads how the layers of a stack score keys: those with a bias of their own, and those that have the
/// first's.
pub(crate) fn scorings(weights: &Weights, layer: &StackConfig, stack: &str) -> Result<Vec<ScoreRule>> {
    let mut scoring = ScoreRule::scaled(layer.heads, layer.head_size);
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
