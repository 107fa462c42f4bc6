//! The gated GELU of a feed-forward layer: `[N, 2F]` (gate, up) to `[N, F]`, forward and backward.
//!
//! Source: Shazeer 2020 (arXiv 2002.05202), GEGLU with the tanh form of GELU.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::access::{slice, with_slice};
use super::pool;
use super::simd::{gelu as gelu_tanh, gelu_erf, multiversion};

/// Multiplies GELU of the first half of each row with the second half.
pub(crate) struct GatedGelu;

multiversion! {
    fn forward(x: &[f32], y: &mut [f32], f: usize) {
        for (row, out) in x.chunks_exact(2 * f).zip(y.chunks_exact_mut(f)) {
            let (gate, up) = row.split_at(f);
            for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
                *o = gelu_tanh(*g).0 * u;
            }
        }
    }
}

multiversion! {
    fn gelu_forward(x: &[f32], y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = gelu_erf(*x);
        }
    }
}

/// Gates rows `[N, 2F]` into `[N, F]`, on several threads where that pays.
pub(crate) fn gated_gelu(x: &[f32], y: &mut [f32], f: usize) {
    pool::for_each_rows(y, f, &|first, y| {
        let start = first * 2 * f;
        if let Some(x) = x.get(start..start + 2 * y.len()) {
            forward(x, y, f);
        }
    });
}

/// Computes the exact GELU of each number, on several threads where that pays.
pub(crate) fn gelu(x: &[f32], y: &mut [f32]) {
    pool::for_each_rows(y, 1, &|first, y| {
        if let Some(x) = x.get(first..first + y.len()) {
            gelu_forward(x, y);
        }
    });
}

/// The exact GELU of each number, without a gradient.
pub(crate) struct GeluErf;

impl CustomOp1 for GeluErf {
    fn name(&self) -> &'static str {
        "gelu-erf"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(x, layout)?;
        let mut y = vec![0.0; x.len()];
        gelu(x, &mut y);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }
}

multiversion! {
    /// Writes the gradient of `[N, 2F]` for that of `[N, F]`.
    pub(crate) fn gated_gelu_gradient(x: &[f32], g: &[f32], dx: &mut [f32], f: usize) {
        for ((row, g), dx) in x.chunks_exact(2 * f).zip(g.chunks_exact(f)).zip(dx.chunks_exact_mut(2 * f)) {
            let (gate, up) = row.split_at(f);
            let (dgate, dup) = dx.split_at_mut(f);
            for i in 0..f {
                let (value, slope) = gelu_tanh(gate[i]);
                dgate[i] = g[i] * up[i] * slope;
                dup[i] = g[i] * value;
            }
        }
    }
}

fn half(layout: &Layout) -> Result<(usize, usize)> {
    let (n, width) = layout.shape().dims2()?;
    if !width.is_multiple_of(2) {
        bail!("gated GELU: expected an even width, found {width}");
    }
    Ok((n, width / 2))
}

impl CustomOp1 for GatedGelu {
    fn name(&self) -> &'static str {
        "gated-gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, f) = half(layout)?;
        let mut y = vec![0.0; n * f]; // [N, F]
        gated_gelu(slice(x, layout)?, &mut y, f);
        Ok((CpuStorage::F32(y), Shape::from((n, f))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let (n, f) = half(x.layout())?;
        let mut dx = vec![0.0; n * 2 * f]; // [N, 2F]
        with_slice(x, |xs| {
            with_slice(g, |gs| {
                gated_gelu_gradient(xs, gs, &mut dx, f);
                Ok(())
            })
        })?;
        Ok(Some(Tensor::from_vec(dx, (n, 2 * f), x.device())?))
    }
}
