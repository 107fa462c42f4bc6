//! Cross-entropy over a vocabulary, forward and backward, without a second copy of the logits.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::access::{slice, with_slice};
use super::rank::log_total;
use super::simd::{exp, multiversion};

/// Sums weight x -log softmax(logits)[target] over rows `[N, V]`, with label smoothing.
pub(crate) struct CrossEntropy {
    pub(crate) targets: Arc<Vec<u32>>,
    pub(crate) weights: Arc<Vec<f32>>,
    /// The share of probability spread evenly over the vocabulary, 0 to 1.
    pub(crate) smoothing: f32,
}

/// Returns the logarithm of the sum of exponentials.
#[expect(clippy::cast_possible_truncation, reason = "the numbers are f32")]
fn log_sum_exp(row: &[f32]) -> f32 {
    log_total(row).map_or(f32::NAN, |total| total as f32)
}

multiversion! {
    fn gradient(row: &[f32], out: &mut [f32], lse: f32, scale: f32, uniform: f32) {
        for (o, x) in out.iter_mut().zip(row) {
            *o = scale * (exp(x - lse) - uniform);
        }
    }
}

impl CrossEntropy {
    fn check(&self, layout: &Layout) -> Result<(usize, usize)> {
        let (n, v) = layout.shape().dims2()?;
        if self.targets.len() != n || self.weights.len() != n {
            bail!(
                "cross-entropy: {n} rows, {} targets, {} weights",
                self.targets.len(),
                self.weights.len()
            );
        }
        match self.targets.iter().find(|t| **t as usize >= v) {
            Some(target) => bail!("cross-entropy: target {target} is not below {v}"),
            None => Ok((n, v)),
        }
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, v) = self.check(layout)?;
        let logits = slice(x, layout)?;
        let mut total = 0.0f64;
        for ((row, target), weight) in logits
            .chunks_exact(v)
            .zip(self.targets.iter())
            .zip(self.weights.iter())
        {
            let mean = if self.smoothing > 0.0 {
                row.iter().sum::<f32>() / v as f32
            } else {
                0.0
            };
            let at_target = row[*target as usize];
            let expected = at_target + self.smoothing * (mean - at_target);
            total += f64::from(weight * (log_sum_exp(row) - expected));
        }
        #[expect(clippy::cast_possible_truncation, reason = "the loss is reported in f32")]
        let total = total as f32;
        Ok((CpuStorage::F32(vec![total]), Shape::from(())))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let (n, v) = self.check(x.layout())?;
        let g = g.to_scalar::<f32>()?;
        let mut dx = vec![0.0; n * v]; // [N, V]
        with_slice(x, |logits| {
            let rows = logits.chunks_exact(v).zip(dx.chunks_exact_mut(v));
            for ((row, out), (target, weight)) in rows.zip(self.targets.iter().zip(self.weights.iter())) {
                let scale = g * weight;
                gradient(row, out, log_sum_exp(row), scale, self.smoothing / v as f32);
                out[*target as usize] -= scale * (1.0 - self.smoothing);
            }
            Ok(())
        })?;
        Ok(Some(Tensor::from_vec(dx, (n, v), x.device())?))
    }
}
