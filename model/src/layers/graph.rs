//! Layers of tensors, differentiable, on any device.

use candle_core::{DType, Result, Tensor};

use super::form::{Form, LinearLayer, NormLayer};
use super::{Weights, by_expert};
use crate::kernels::Products;
use crate::kernels::access::is_cpu_f32;
use crate::kernels::norm::RmsNorm;

/// The form of tensors.
#[derive(Debug)]
pub(crate) struct Graph;

impl Form for Graph {
    type Linear = GraphLinear;
    type Norm = GraphNorm;
    type CacheType = ();
}

/// A linear layer of tensors.
#[derive(Debug)]
pub(crate) struct GraphLinear {
    /// `[out, in]` each, which may be variables: stacked anew at each use, so that updates are seen.
    pub(super) weights: Vec<Tensor>,
    /// `[out]` each; empty where there is no bias.
    pub(super) biases: Vec<Tensor>,
    /// How it multiplies in training, fused with what is around it; none where each operation is candle's.
    pub(super) products: Option<Products>,
}

impl GraphLinear {
    /// Returns the width of the rows that it makes.
    pub(super) fn outputs(&self) -> Option<usize> {
        self.weights.iter().map(|weight| weight.dim(0).ok()).sum()
    }
}

impl LinearLayer for GraphLinear {
    fn load(weights: &Weights, names: &[String]) -> Result<Self> {
        let biases = weights.biases(names);
        let biases = biases.iter().map(|name| weights.get(name));
        let parts = names.iter().map(|name| weights.get(name)?.flatten_from(1));
        Ok(Self {
            biases: biases.collect::<Result<_>>()?,
            weights: parts.collect::<Result<_>>()?,
            products: weights.products,
        })
    }

    fn inputs(&self) -> Result<usize> {
        self.weights.first().map_or(Ok(1), |weight| weight.dim(1))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let products = self.products.unwrap_or_default();
        let y = match self.weights.as_slice() {
            [only] => products.multiply(x, only)?,                   // [N, out]
            parts => products.multiply(x, &Tensor::cat(parts, 0)?)?, // [N, out]
        };
        match self.biases.as_slice() {
            [] => Ok(y),
            [only] => y.broadcast_add(only),
            parts => y.broadcast_add(&Tensor::cat(parts, 0)?),
        }
    }
}

/// A norm of tensors.
#[derive(Debug)]
pub(crate) struct GraphNorm {
    /// One `[1, D]` per expert, which may view variables.
    pub(super) scales: Vec<Tensor>,
    /// As the scales; empty for RMSNorm.
    pub(super) biases: Vec<Tensor>,
    pub(super) eps: f64,
}

impl GraphNorm {
    /// Stacks the scales of the experts, `[E, D]`.
    pub(super) fn stacked(&self) -> Result<Tensor> {
        stacked(&self.scales)
    }
}

/// Stacks rows `[1, D]`.
fn stacked(rows: &[Tensor]) -> Result<Tensor> {
    match rows {
        [only] => Ok(only.clone()),
        _ => Tensor::cat(rows, 0), // [E, D]
    }
}

impl NormLayer for GraphNorm {
    fn load(weights: &Weights, names: &[String], eps: f64) -> Result<Self> {
        let rows = |names: &[String]| -> Result<Vec<Tensor>> {
            let rows = names.iter().map(|name| weights.get(name)?.unsqueeze(0));
            rows.collect() // each [1, D]
        };
        Ok(Self {
            scales: rows(names)?,
            biases: rows(&weights.biases(names))?,
            eps,
        })
    }

    fn forward(&self, x: &Tensor, split: usize) -> Result<Tensor> {
        let weight = self.stacked()?; // [E, D]
        if !self.biases.is_empty() {
            return composed_layer_norm(x, &weight, &stacked(&self.biases)?, split, self.eps);
        }
        if is_cpu_f32(x) {
            #[expect(clippy::cast_possible_truncation, reason = "the kernel computes in f32")]
            let eps = self.eps as f32;
            return x.contiguous()?.apply_op2(&weight, RmsNorm { eps, split });
        }
        composed_rms_norm(x, &weight, split, self.eps)
    }
}

fn experts(rows: &Tensor) -> Result<Vec<Tensor>> {
    (0..rows.dim(0)?).map(|e| rows.narrow(0, e, 1)).collect() // each [1, D]
}

/// The specification, composed of candle's operations: computed in f32 whatever the storage is.
pub(crate) fn composed_layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    split: usize,
    eps: f64,
) -> Result<Tensor> {
    let experts: Vec<_> = experts(weight)?.into_iter().zip(experts(bias)?).collect();
    by_expert(x, split, &experts, |(w, b), x| {
        let wide = x.to_dtype(DType::F32)?;
        let centred = wide.broadcast_sub(&wide.mean_keepdim(1)?)?; // [N, D]
        let variance = centred.sqr()?.mean_keepdim(1)?; // [N, 1]
        let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?; // [N, D]
        normed.to_dtype(x.dtype())?.broadcast_mul(w)?.broadcast_add(b)
    })
}

/// The specification, composed of candle's operations: computed in f32 whatever the storage is.
pub(crate) fn composed_rms_norm(x: &Tensor, weight: &Tensor, split: usize, eps: f64) -> Result<Tensor> {
    by_expert(x, split, &experts(weight)?, |w, x| {
        let wide = x.to_dtype(DType::F32)?;
        let mean = wide.sqr()?.mean_keepdim(1)?; // [N, 1]
        let normed = wide.broadcast_div(&(mean + eps)?.sqrt()?)?; // [N, D]
        normed.to_dtype(x.dtype())?.broadcast_mul(w)
    })
}
