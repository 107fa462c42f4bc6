//! RMSNorm with one scale per expert.

use super::{Weights, by_expert};
use crate::kernels::access::is_cpu_f32;
use crate::kernels::norm::RmsNorm as Kernel;
use candle_core::{DType, Result, Tensor};

/// Normalises rows by their root mean square and scales them, each expert with its own scale.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    /// One `[1, D]` per expert, which may view variables; or all of them stacked, `[E, D]`, for inference.
    scales: Vec<Tensor>,
    eps: f64,
}

impl RmsNorm {
    pub(crate) fn load(weights: &Weights, names: &[String], eps: f64) -> Result<Self> {
        let rows = names
            .iter()
            .map(|name| weights.get(name)?.unsqueeze(0))
            .collect::<Result<Vec<_>>>()?;
        let scales = if weights.packed {
            vec![Tensor::cat(&rows, 0)?]
        } else {
            rows
        };
        Ok(Self { scales, eps })
    }

    /// Takes `[N, D]`, of which the first `split` rows belong to the first expert.
    pub(crate) fn forward(&self, x: &Tensor, split: usize) -> Result<Tensor> {
        let weight = match self.scales.as_slice() {
            [only] => only.clone(),
            _ => Tensor::cat(&self.scales, 0)?, // [E, D]
        };
        if is_cpu_f32(x) {
            #[expect(clippy::cast_possible_truncation, reason = "the kernel computes in f32")]
            let eps = self.eps as f32;
            return x.contiguous()?.apply_op2(&weight, Kernel { eps, split });
        }
        composed_rms_norm(x, &weight, split, self.eps)
    }
}

/// The specification, composed of candle's operations: computed in f32 whatever the storage is.
pub(crate) fn composed_rms_norm(x: &Tensor, weight: &Tensor, split: usize, eps: f64) -> Result<Tensor> {
    let experts = (0..weight.dim(0)?)
        .map(|e| weight.narrow(0, e, 1))
        .collect::<Result<Vec<_>>>()?; // each [1, D]
    by_expert(x, split, &experts, |w, x| {
        let wide = x.to_dtype(DType::F32)?;
        let mean = wide.sqr()?.mean_keepdim(1)?; // [N, 1]
        let normed = wide.broadcast_div(&(mean + eps)?.sqrt()?)?; // [N, D]
        normed.to_dtype(x.dtype())?.broadcast_mul(w)
    })
}
