//! Rotary positions applied in place of the leading columns of a fused projection, forward and backward.
//!
//! Source: Su et al. 2021 (arXiv 2104.09864), pairing dimension i with i + Dh/2 as GPT-NeoX does.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::access::{slice, with_slice};

/// Cosines and sines `[positions, Dh/2]`.
#[derive(Debug)]
pub(crate) struct RotaryTable {
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
    pub(crate) half: usize,
}

impl RotaryTable {
    /// Tabulates the angles position / theta^(2i/Dh).
    #[expect(
        clippy::cast_possible_truncation,
        reason = "cosines and sines are stored in f32"
    )]
    pub(crate) fn new(positions: usize, head: usize, theta: f64) -> Self {
        let half = head / 2;
        let angles = (0..positions * half).map(|i| {
            let (position, pair) = ((i / half) as f64, (i % half) as f64);
            position * theta.powf(-pair / half as f64)
        });
        let (cos, sin) = angles.map(|a| (a.cos() as f32, a.sin() as f32)).unzip();
        Self { cos, sin, half }
    }

    /// Rotates the first `columns` columns of rows `[N, width]` in place, head by head, by each row's
    /// position.
    pub(crate) fn rotate(
        &self,
        y: &mut [f32],
        width: usize,
        columns: usize,
        positions: &[u32],
        inverse: bool,
    ) -> Result<()> {
        let half = self.half;
        if columns > width || !columns.is_multiple_of(2 * half) || positions.len() * width != y.len() {
            bail!(
                "rotary: {columns} columns of {width}, {} positions do not fit",
                positions.len()
            );
        }
        for (row, position) in y.chunks_exact_mut(width).zip(positions) {
            let at = *position as usize * half;
            let (Some(cos), Some(sin)) = (self.cos.get(at..at + half), self.sin.get(at..at + half)) else {
                bail!("rotary: position {position} is beyond the table")
            };
            for head in row[..columns].chunks_exact_mut(2 * half) {
                let (a, b) = head.split_at_mut(half);
                for (((a, b), c), s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                    let s = if inverse { -s } else { *s };
                    (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                }
            }
        }
        Ok(())
    }
}

/// Rotates the first `columns` columns of rows `[N, W]`, head by head, by each row's position.
pub(crate) struct Rotary {
    pub(crate) table: Arc<RotaryTable>,
    pub(crate) positions: Arc<Vec<u32>>,
    pub(crate) columns: usize,
    /// Rotates backwards: the transpose of a rotation, which is its gradient.
    pub(crate) inverse: bool,
}

impl Rotary {
    fn rotate(&self, x: &[f32], width: usize) -> Result<Vec<f32>> {
        let mut y = x.to_vec();
        self.table
            .rotate(&mut y, width, self.columns, &self.positions, self.inverse)?;
        Ok(y)
    }
}

impl Rotary {
    /// The same rotation composed of candle's operations, for devices without a kernel.
    pub(crate) fn composed(&self, x: &Tensor) -> Result<Tensor> {
        let (n, width) = x.dims2()?;
        let half = self.table.half;
        let heads = self.columns / (2 * half);
        let (cos, sin) = (self.angles(&self.table.cos, x)?, self.angles(&self.table.sin, x)?); // [N, 1, Dh/2]
        let turned = x.narrow(1, 0, self.columns)?.reshape((n, heads, 2 * half))?; // [N, H, Dh]
        let (a, b) = (turned.narrow(2, 0, half)?, turned.narrow(2, half, half)?); // [N, H, Dh/2]
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        let turned = Tensor::cat(&[first, second], 2)?.reshape((n, self.columns))?;
        Tensor::cat(&[turned, x.narrow(1, self.columns, width - self.columns)?], 1) // [N, W]
    }

    fn angles(&self, table: &[f32], like: &Tensor) -> Result<Tensor> {
        let half = self.table.half;
        let rows = self.positions.iter().map(|p| {
            let at = *p as usize * half;
            table
                .get(at..at + half)
                .ok_or_else(|| candle_core::Error::msg(format!("rotary: no position {p}")))
        });
        let values = rows.collect::<Result<Vec<_>>>()?.concat();
        Tensor::from_vec(values, (self.positions.len(), 1, half), like.device())?.to_dtype(like.dtype())
    }
}

impl CustomOp1 for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = layout.shape().dims2()?;
        let y = self.rotate(slice(x, layout)?, width)?;
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let back = Self {
            table: Arc::clone(&self.table),
            positions: Arc::clone(&self.positions),
            columns: self.columns,
            inverse: !self.inverse,
        };
        let (n, width) = x.dims2()?;
        let dx = with_slice(g, |gs| back.rotate(gs, width))?;
        Ok(Some(Tensor::from_vec(dx, (n, width), x.device())?))
    }
}
