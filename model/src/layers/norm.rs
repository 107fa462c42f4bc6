//! RMSNorm and LayerNorm with one scale per expert.
//!
//! Source: Zhang and Sennrich 2019 (arXiv 1910.07467); Ba et al. 2016 (arXiv 1607.06450).

use super::{Weights, by_expert};
use crate::kernels::access::{is_cpu_f32, with_slice};
use crate::kernels::norm::{LayerNorm, RmsNorm as Kernel, add_norm, layer_norm, rms_norm};
use candle_core::{DType, Result, Tensor, bail};

/// Normalises rows and scales them, each expert with its own scale: by their root mean square, or, where there is a
/// bias to add, by mean and deviation.
#[derive(Debug)]
pub(crate) struct Norm {
    /// One `[1, D]` per expert, which may view variables; or all of them stacked, `[E, D]`, for inference.
    scales: Vec<Tensor>,
    /// As the scales; empty for RMSNorm.
    biases: Vec<Tensor>,
    /// Scales and biases, `[2, E, D]`, where they are stacked.
    both: Option<Tensor>,
    eps: f64,
}

impl Norm {
    /// Loads scales by their names, `PREFIX.weight`, and the biases beside them, `PREFIX.bias`, where there are any.
    pub(crate) fn load(weights: &Weights, names: &[String], eps: f64) -> Result<Self> {
        let stack = |names: &[String]| -> Result<Vec<Tensor>> {
            let rows = names.iter().map(|name| weights.get(name)?.unsqueeze(0));
            let rows = rows.collect::<Result<Vec<_>>>()?; // each [1, D]
            if weights.packed.is_some() && !rows.is_empty() {
                return Ok(vec![Tensor::cat(&rows, 0)?]); // [E, D]
            }
            Ok(rows)
        };
        let (scales, biases) = (stack(names)?, stack(&weights.biases(names))?);
        let both = match (scales.as_slice(), biases.as_slice()) {
            ([scale], [bias]) if weights.packed.is_some() => Some(Tensor::stack(&[scale, bias], 0)?),
            _ => None,
        };
        Ok(Self {
            scales,
            biases,
            both,
            eps,
        })
    }

    /// Tells whether [`Norm::forward_into`] can do it.
    pub(crate) fn takes_slices(&self) -> bool {
        let is_whole = self.biases.is_empty() || self.both.is_some();
        is_whole && matches!(self.scales.as_slice(), [only] if is_cpu_f32(only))
    }

    /// Normalises rows `[rows, D]`, of which the first `split` belong to the first expert, into `y`.
    pub(crate) fn forward_into(&self, x: &[f32], split: usize, y: &mut Vec<f32>) -> Result<()> {
        y.resize(x.len(), 0.0); // [rows, D]
        self.with_slices(|d, scale, shift, eps| match shift {
            Some(shift) => layer_norm(x, [scale, shift], y, d, split, eps),
            None => rms_norm(x, scale, y, d, split, eps),
        })
    }

    /// Normalises rows as [`Norm::forward_into`] does where there is a norm, and returns them; else returns `x`.
    pub(crate) fn where_any<'a>(
        norm: Option<&Self>,
        x: &'a [f32],
        split: usize,
        y: &'a mut Vec<f32>,
    ) -> Result<&'a [f32]> {
        match norm {
            Some(norm) => norm.forward_into(x, split, y).map(|()| y.as_slice()),
            None => Ok(x),
        }
    }

    /// Adds to rows `[rows, D]`, and normalises them into `y` as [`Norm::forward_into`] does.
    pub(crate) fn add_forward_into(
        &self,
        x: &mut [f32],
        added: &[f32],
        split: usize,
        y: &mut Vec<f32>,
    ) -> Result<()> {
        y.resize(x.len(), 0.0); // [rows, D]
        self.with_slices(|d, scale, shift, eps| add_norm(x, added, (scale, shift), y, d, (split, eps)))
    }

    /// Calls `f` with the width, the scales and the shifts of all experts, `[E, D]` each, and the term that avoids division by
    /// zero.
    fn with_slices(&self, f: impl FnOnce(usize, &[f32], Option<&[f32]>, f32)) -> Result<()> {
        #[expect(clippy::cast_possible_truncation, reason = "the kernels compute in f32")]
        let eps = self.eps as f32;
        match (self.scales.as_slice(), &self.both) {
            ([scale], Some(both)) => {
                let d = scale.dim(1)?;
                with_slice(both, |both| {
                    let (scale, shift) = both.split_at(both.len() / 2);
                    f(d, scale, Some(shift), eps);
                    Ok(())
                })
            }
            ([scale], None) if self.biases.is_empty() => {
                let d = scale.dim(1)?;
                with_slice(scale, |scale| {
                    f(d, scale, None, eps);
                    Ok(())
                })
            }
            _ => bail!("only stacked norms take slices"),
        }
    }

    /// Takes `[N, D]`, of which the first `split` rows belong to the first expert.
    pub(crate) fn forward(&self, x: &Tensor, split: usize) -> Result<Tensor> {
        let whole = |parts: &[Tensor]| match parts {
            [only] => Ok(only.clone()),
            _ => Tensor::cat(parts, 0), // [E, D]
        };
        let weight = whole(&self.scales)?;
        #[expect(clippy::cast_possible_truncation, reason = "the kernels compute in f32")]
        let eps = self.eps as f32;
        if let Some(both) = &self.both
            && is_cpu_f32(x)
            && !x.track_op()
        {
            return x.contiguous()?.apply_op2_no_bwd(both, &LayerNorm { eps, split });
        }
        if !self.biases.is_empty() {
            return composed_layer_norm(x, &weight, &whole(&self.biases)?, split, self.eps);
        }
        if is_cpu_f32(x) {
            return x.contiguous()?.apply_op2(&weight, Kernel { eps, split });
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
