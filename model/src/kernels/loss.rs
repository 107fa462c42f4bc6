//! Cross-entropy over a vocabulary, forward and backward, without a second copy of the logits.
//!
//! With soft targets, a share `a` of the target distribution is that of a teacher:
//!
//! ```text
//! p = (1 - a) ((1 - s) onehot(target) + s / V) + a softmax(teacher);  loss = log_sum_exp(z) - p . z
//! dz = softmax(z) - p
//! ```
//!
//! Source: Li et al. 2021, ALBEF (arXiv 2107.07651), section 3.3, equation 7.

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
    pub(crate) soft: Option<SoftTargets>,
}

/// What a teacher makes of the rows.
pub(crate) struct SoftTargets {
    /// The teacher's logits, `[N, V]`.
    pub(crate) logits: Arc<Vec<f32>>,
    /// The share of the target distribution that is the teacher's, 0 to 1.
    pub(crate) share: f32,
}

impl SoftTargets {
    /// Returns the share, and the teacher's logits of each row of `width`.
    fn rows(&self, width: usize) -> impl Iterator<Item = (f32, &[f32])> {
        self.logits
            .chunks_exact(width.max(1))
            .map(|row| (self.share, row))
    }
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

multiversion! {
    /// Takes a teacher's probabilities off a gradient.
    fn take_soft(teacher: &[f32], out: &mut [f32], lse: f32, scale: f32) {
        for (o, t) in out.iter_mut().zip(teacher) {
            *o -= scale * exp(t - lse);
        }
    }
}

multiversion! {
    /// Returns the mean of a row by a teacher's probabilities.
    fn mean_by(teacher: &[f32], row: &[f32], lse: f32) -> f32 {
        let mut lanes = [0.0_f32; 16];
        let (teachers, teacher_rest) = teacher.as_chunks::<16>();
        let (rows, row_rest) = row.as_chunks::<16>();
        for (t, x) in teachers.iter().zip(rows) {
            for i in 0..16 {
                lanes[i] = exp(t[i] - lse).mul_add(x[i], lanes[i]);
            }
        }
        let rest: f32 = teacher_rest.iter().zip(row_rest).map(|(t, x)| exp(t - lse) * x).sum();
        lanes.iter().sum::<f32>() + rest
    }
}

impl CrossEntropy {
    /// The teacher's share and logits of each row; none without a teacher.
    fn soft_rows(&self, width: usize) -> impl Iterator<Item = Option<(f32, &[f32])>> {
        let rows = self.soft.iter().flat_map(move |soft| soft.rows(width));
        rows.map(Some).chain(std::iter::repeat(None))
    }

    fn check(&self, layout: &Layout) -> Result<(usize, usize)> {
        let (n, v) = layout.shape().dims2()?;
        if self.targets.len() != n || self.weights.len() != n {
            bail!(
                "cross-entropy: {n} rows, {} targets, {} weights",
                self.targets.len(),
                self.weights.len()
            );
        }
        if let Some(soft) = self.soft.as_ref().filter(|soft| soft.logits.len() != n * v) {
            bail!(
                "cross-entropy: [{n}, {v}] logits, {} of the teacher",
                soft.logits.len()
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
        for (((row, target), weight), soft) in logits
            .chunks_exact(v)
            .zip(self.targets.iter())
            .zip(self.weights.iter())
            .zip(self.soft_rows(v))
        {
            let mean = if self.smoothing > 0.0 {
                row.iter().sum::<f32>() / v as f32
            } else {
                0.0
            };
            let at_target = row[*target as usize];
            let mut expected = at_target + self.smoothing * (mean - at_target);
            if let Some((share, teacher)) = soft {
                expected += share * (mean_by(teacher, row, log_sum_exp(teacher)) - expected);
            }
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
            let asked = self.targets.iter().zip(self.weights.iter());
            for (((row, out), (target, weight)), soft) in rows.zip(asked).zip(self.soft_rows(v)) {
                let scale = g * weight;
                let hard = 1.0 - soft.map_or(0.0, |(share, _)| share);
                gradient(
                    row,
                    out,
                    log_sum_exp(row),
                    scale,
                    hard * self.smoothing / v as f32,
                );
                out[*target as usize] -= scale * hard * (1.0 - self.smoothing);
                if let Some((share, teacher)) = soft {
                    take_soft(teacher, out, log_sum_exp(teacher), scale * share);
                }
            }
            Ok(())
        })?;
        Ok(Some(Tensor::from_vec(dx, (n, v), x.device())?))
    }
}
