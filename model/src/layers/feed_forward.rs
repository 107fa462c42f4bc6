//! The gated feed-forward network with an inner norm.
//!
//! Source: GEGLU, Shazeer 2020 (arXiv 2002.05202); the inner norm is Sub-LN, Wang et al. 2022 (arXiv 2210.06423).

use super::Weights;
use super::linear::Linear;
use super::norm::RmsNorm;
use crate::kernels::access::is_cpu_f32;
use crate::kernels::gated::GatedGelu;
use candle_core::{Result, Tensor};

/// One expert: `[N, D]` to `[N, D]` by way of F.
#[derive(Debug)]
pub(crate) struct FeedForward {
    gate_up: Linear,
    inner_norm: RmsNorm,
    down: Linear,
}

impl FeedForward {
    pub(crate) fn load(weights: &Weights, prefix: &str, eps: f64) -> Result<Self> {
        Ok(Self {
            gate_up: Linear::load(weights, &[format!("{prefix}.gate_up.weight")])?,
            inner_norm: RmsNorm::load(weights, &[format!("{prefix}.inner_norm.weight")], eps)?,
            down: Linear::load(weights, &[format!("{prefix}.down.weight")])?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let gate_up = self.gate_up.forward(x)?; // [N, 2F]
        let hidden = gated_gelu(&gate_up)?; // [N, F]
        self.down.forward(&self.inner_norm.forward(&hidden, 0)?) // [N, D]
    }
}

fn gated_gelu(x: &Tensor) -> Result<Tensor> {
    if is_cpu_f32(x) {
        return x.contiguous()?.apply_op1(GatedGelu);
    }
    let f = x.dim(1)? / 2;
    x.narrow(1, 0, f)?.gelu()? * x.narrow(1, f, f)? // [N, F]
}
