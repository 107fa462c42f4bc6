//! Linear layers, with a bias or without.

use super::Weights;
use crate::kernels::PackedLinear;
use candle_core::{Result, Tensor, bail};

/// Multiplies rows `[N, in]` with a weight `[out, in]`, and adds a bias `[out]` where there is one.
#[derive(Debug)]
pub(crate) struct Linear {
    matrix: Matrix,
    /// In the parts of the matrix; empty where there is none.
    bias: Vec<Tensor>,
}

#[derive(Debug)]
enum Matrix {
    /// Differentiable: weights that may be variables, stacked anew at each use so that updates are seen.
    Plain(Vec<Tensor>),
    /// For inference on the CPU: a row's result is the same bits in any batch.
    Packed(PackedLinear),
}

impl Linear {
    /// Stacks one or several weights of the same input width, `PREFIX.weight`, into one layer, with the biases beside
    /// them, `PREFIX.bias`. A kernel of a convolution without overlap is a matrix too: its last dimensions are joined.
    pub(crate) fn load(weights: &Weights, names: &[String]) -> Result<Self> {
        let bias = weights
            .biases(names)
            .iter()
            .map(|name| weights.get(name))
            .collect::<Result<Vec<_>>>()?;
        let matrix = if weights.packed {
            let parts = names.iter().map(|name| weights.take(name)?.flatten_from(1));
            Matrix::Packed(PackedLinear::stacked(&parts.collect::<Result<Vec<_>>>()?)?)
        } else {
            let parts = names.iter().map(|name| weights.get(name)?.flatten_from(1));
            Matrix::Plain(parts.collect::<Result<_>>()?)
        };
        Ok(Self { matrix, bias })
    }

    /// Returns the width of the rows that it takes.
    pub(crate) fn inputs(&self) -> Result<usize> {
        match &self.matrix {
            Matrix::Plain(parts) => parts.first().map_or(Ok(1), |w| w.dim(1)),
            Matrix::Packed(packed) => Ok(packed.inputs()),
        }
    }

    /// Tells whether [`Linear::forward_into`] can do it.
    pub(crate) fn takes_slices(&self) -> bool {
        matches!(self.matrix, Matrix::Packed(_)) && self.bias.is_empty()
    }

    /// Multiplies rows `[rows, in]` of a packed layer without a bias, into `y`, `[rows, out]`.
    pub(crate) fn forward_into(&self, x: &[f32], rows: usize, y: &mut Vec<f32>) -> Result<()> {
        let Matrix::Packed(packed) = &self.matrix else {
            bail!("only a packed layer multiplies slices")
        };
        // Everything is overwritten: only what is new needs to be set.
        y.resize(rows * packed.outputs(), 0.0); // [rows, out]
        packed.forward(x, rows, y)
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.matrix {
            Matrix::Plain(parts) => match parts.as_slice() {
                [only] => x.matmul(&only.t()?)?,              // [N, out]
                _ => x.matmul(&Tensor::cat(parts, 0)?.t()?)?, // [N, out]
            },
            Matrix::Packed(packed) => packed.apply(x)?, // [N, out]
        };
        match self.bias.as_slice() {
            [] => Ok(y),
            [only] => y.broadcast_add(only),
            parts => y.broadcast_add(&Tensor::cat(parts, 0)?),
        }
    }
}
