//! RMSNorm with one scale per expert, forward and backward in one pass each, and LayerNorm, forward.
//!
//! Source: Zhang and Sennrich 2019 (arXiv 1910.07467): y = x / sqrt(mean(x^2) + eps) * w. Ba et al. 2016
//! (arXiv 1607.06450): y = (x - mean(x)) / sqrt(var(x) + eps) * w + b.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::access::{slice, with_slice};
use super::pool;
use super::simd::{dot, multiversion, sum};

/// Normalises rows `[N, D]`; the first `split` rows use the first row of the weights `[E, D]`, the others the
/// last.
pub(crate) struct RmsNorm {
    pub(crate) eps: f32,
    pub(crate) split: usize,
}

fn dimensions(x: &Layout, w: &Layout) -> Result<(usize, usize, usize)> {
    let (n, d) = x.shape().dims2()?;
    let (experts, width) = w.shape().dims2()?;
    if width != d || experts == 0 || experts > 2 {
        bail!("rms-norm: expected weights [1 or 2, {d}], found [{experts}, {width}]");
    }
    Ok((n, d, experts))
}

multiversion! {
    fn rms(x: &[f32], w: &[f32], y: &mut [f32], d: usize, split: usize, eps: f32) {
        let last = w.len() - d;
        for (n, (row, out)) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).enumerate() {
            let scale = if n < split { &w[..d] } else { &w[last..] };
            let inverse = 1.0 / (dot(row, row) / d as f32 + eps).sqrt();
            for ((o, x), s) in out.iter_mut().zip(row).zip(scale) {
                *o = x * inverse * s;
            }
        }
    }
}

multiversion! {
    fn layer(x: &[f32], w: &[f32], b: &[f32], y: &mut [f32], d: usize, split: usize, eps: f32) {
        let last = w.len() - d;
        for (n, (row, out)) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).enumerate() {
            let offset = if n < split { 0 } else { last };
            let (scale, shift) = (&w[offset..offset + d], &b[offset..offset + d]);
            let mean = sum(row) / d as f32;
            for (o, x) in out.iter_mut().zip(row) {
                *o = x - mean;
            }
            let inverse = 1.0 / (dot(out, out) / d as f32 + eps).sqrt();
            for ((o, s), b) in out.iter_mut().zip(scale).zip(shift) {
                *o = (*o * inverse).mul_add(*s, *b);
            }
        }
    }
}

/// The weights of a norm: of one expert, or of two.
#[derive(Clone, Copy)]
pub(crate) struct NormWeights<'a> {
    /// `[E, D]`.
    pub(crate) scale: &'a [f32],
    /// `[E, D]`; a LayerNorm where there are shifts, and else an RMSNorm.
    pub(crate) shift: Option<&'a [f32]>,
    /// The width of a row, D.
    pub(crate) width: usize,
    /// Added to the mean square, or to the variance.
    pub(crate) eps: f32,
}

impl NormWeights<'_> {
    fn rows(&self, x: &[f32], y: &mut [f32], split: usize) {
        match self.shift {
            Some(shift) => layer(x, self.scale, shift, y, self.width, split, self.eps),
            None => rms(x, self.scale, y, self.width, split, self.eps),
        }
    }
}

/// Normalises rows `[N, D]`; the first `split` by the weights of the first expert, the others by those of the
/// last. On several threads where that pays.
pub(crate) fn normalise(x: &[f32], weights: &NormWeights, split: usize, y: &mut [f32]) {
    let d = weights.width;
    pool::for_each_rows(y, d, &|first, y| {
        if let Some(x) = x.get(first * d..first * d + y.len()) {
            weights.rows(x, y, split.saturating_sub(first));
        }
    });
}

/// Adds rows `[N, D]` to `x`, and normalises the sums as [`normalise`] does.
pub(crate) fn add_normalise(
    x: &mut [f32],
    added: &[f32],
    weights: &NormWeights,
    split: usize,
    y: &mut [f32],
) {
    let d = weights.width;
    pool::for_each_rows_of_two(x, y, d, &|first, x, y| {
        let Some(added) = added.get(first * d..first * d + x.len()) else {
            return;
        };
        let split = split.saturating_sub(first);
        // A row at a time: it is in the cache when it is normalised.
        for (index, ((x, added), y)) in x
            .chunks_exact_mut(d)
            .zip(added.chunks_exact(d))
            .zip(y.chunks_exact_mut(d))
            .enumerate()
        {
            x.iter_mut().zip(added).for_each(|(x, added)| *x += added);
            weights.rows(x, y, split.saturating_sub(index));
        }
    });
}

multiversion! {
    #[expect(clippy::too_many_arguments, reason = "one pass over five arrays")]
    /// Writes the gradient of rows `[N, D]`, and adds that of the scales `[E, D]`.
    pub(crate) fn rms_gradient(x: &[f32], w: &[f32], g: &[f32], dx: &mut [f32], dw: &mut [f32], d: usize, split: usize, eps: f32) {
        let last = w.len() - d;
        let mut scaled = vec![0.0f32; d];
        let rows = x.chunks_exact(d).zip(g.chunks_exact(d)).zip(dx.chunks_exact_mut(d)).enumerate();
        for (n, ((x, g), dx)) in rows {
            let offset = if n < split { 0 } else { last };
            let (scale, dscale) = (&w[offset..offset + d], &mut dw[offset..offset + d]);
            let inverse = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
            for i in 0..d {
                scaled[i] = g[i] * scale[i];
                dscale[i] += g[i] * x[i] * inverse;
            }
            let mean = dot(&scaled, x) / d as f32 * inverse * inverse;
            for i in 0..d {
                dx[i] = inverse * (scaled[i] - x[i] * mean);
            }
        }
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm-experts"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, d, _) = dimensions(lx, lw)?;
        let mut y = vec![0.0; n * d]; // [N, D]
        let weights = NormWeights {
            scale: slice(w, lw)?,
            shift: None,
            width: d,
            eps: self.eps,
        };
        normalise(slice(x, lx)?, &weights, self.split, &mut y);
        Ok((CpuStorage::F32(y), Shape::from((n, d))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (n, d, experts) = dimensions(x.layout(), w.layout())?;
        let (mut dx, mut dw) = (vec![0.0; n * d], vec![0.0; experts * d]); // [N, D], [E, D]
        with_slice(x, |xs| {
            with_slice(w, |ws| {
                with_slice(g, |gs| {
                    rms_gradient(xs, ws, gs, &mut dx, &mut dw, d, self.split, self.eps);
                    Ok(())
                })
            })
        })?;
        let dx = Tensor::from_vec(dx, (n, d), x.device())?;
        let dw = Tensor::from_vec(dw, (experts, d), x.device())?;
        Ok((Some(dx), Some(dw)))
    }
}
