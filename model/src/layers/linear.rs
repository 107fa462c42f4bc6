//! Linear layers without bias.

use super::Weights;
use crate::kernels::PackedLinear;
use candle_core::{Result, Tensor};

/// Multiplies rows `[N, in]` with a weight `[out, in]`.
#[derive(Debug)]
pub(crate) enum Linear {
    /// Differentiable: weights that may be variables, stacked anew at each use so that updates are seen.
    Plain(Vec<Tensor>),
    /// For inference on the CPU: a row's result is the same bits in any batch.
    Packed(PackedLinear),
}

impl Linear {
    /// Stacks one or several weights of the same input width into one layer.
    pub(crate) fn load(weights: &Weights, names: &[String]) -> Result<Self> {
        let parts = names
            .iter()
            .map(|name| weights.get(name))
            .collect::<Result<Vec<_>>>()?;
        if weights.packed {
            return Ok(Self::Packed(PackedLinear::from_tensor(&Tensor::cat(&parts, 0)?)?));
        }
        Ok(Self::Plain(parts))
    }

    /// Returns the width of the rows that it takes.
    pub(crate) fn inputs(&self) -> Result<usize> {
        match self {
            Self::Plain(parts) => parts.first().map_or(Ok(1), |w| w.dim(1)),
            Self::Packed(packed) => Ok(packed.inputs()),
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Plain(parts) => match parts.as_slice() {
                [only] => x.matmul(&only.t()?),              // [N, out]
                _ => x.matmul(&Tensor::cat(parts, 0)?.t()?), // [N, out]
            },
            Self::Packed(packed) => packed.apply(x), // [N, out]
        }
    }
}
