//! Linear layers, with a bias or without.

use super::Weights;
use crate::kernels::access::with_slice;
use crate::kernels::{PackedLinear, pool};
use candle_core::{DType, Result, Tensor, bail};

/// Multiplies rows `[N, in]` with a weight `[out, in]`, and adds a bias `[out]` where there is one.
#[derive(Debug)]
pub(crate) struct Linear {
    matrix: Matrix,
    /// In the parts of a plain matrix; empty where there is none.
    bias: Vec<Tensor>,
}

#[derive(Debug)]
enum Matrix {
    /// Differentiable: weights that may be variables, stacked anew at each use so that updates are seen.
    Plain(Vec<Tensor>),
    /// For inference on the CPU: a row's result is the same bits in any batch. With the bias of all parts, `[out]`, or none.
    Packed(PackedLinear, Vec<f32>),
}

impl Linear {
    /// Stacks one or several weights of the same input width, `PREFIX.weight`, into one layer, with the biases beside
    /// them, `PREFIX.bias`. A kernel of a convolution without overlap is a matrix too: its last dimensions are joined.
    pub(crate) fn load(weights: &Weights, names: &[String]) -> Result<Self> {
        let mut bias = weights
            .biases(names)
            .iter()
            .map(|name| weights.get(name))
            .collect::<Result<Vec<_>>>()?;
        let matrix = if let Some(kind) = weights.packed {
            let packed = if let Some(packed) = weights.ready(names)? {
                packed
            } else {
                let parts = names.iter().map(|name| weights.take(name)?.flatten_from(1));
                PackedLinear::stacked(&parts.collect::<Result<Vec<_>>>()?, kind)
                    .map_err(|error| error.context(names.join(", ")))?
            };
            let parts = bias
                .iter()
                .map(|part| part.to_dtype(DType::F32)?.flatten_all()?.to_vec1());
            let joined: Vec<f32> = parts.collect::<Result<Vec<_>>>()?.concat(); // [out]
            if !joined.is_empty() && joined.len() != packed.outputs() {
                bail!("a bias of {} for {} outputs", joined.len(), packed.outputs());
            }
            bias.clear();
            Matrix::Packed(packed, joined)
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
            Matrix::Packed(packed, _) => Ok(packed.inputs()),
        }
    }

    /// Tells whether [`Linear::forward_into`] can do it.
    pub(crate) fn takes_slices(&self) -> bool {
        matches!(self.matrix, Matrix::Packed(..))
    }

    /// Returns the width of the rows that it gives.
    pub(crate) fn outputs(&self) -> Result<usize> {
        match &self.matrix {
            Matrix::Plain(parts) => parts.iter().map(|w| w.dim(0)).sum(),
            Matrix::Packed(packed, _) => Ok(packed.outputs()),
        }
    }

    /// Multiplies rows `[rows, in]` with a packed layer, into `y`, `[rows, out]`.
    pub(crate) fn forward_into(&self, x: &[f32], rows: usize, y: &mut Vec<f32>) -> Result<()> {
        // Everything is overwritten: only what is new needs to be set.
        y.resize(rows * self.outputs()?, 0.0); // [rows, out]
        self.multiply_into(x, rows, y)
    }

    /// As [`Linear::forward_into`], into rows that are there already.
    pub(crate) fn multiply_into(&self, x: &[f32], rows: usize, y: &mut [f32]) -> Result<()> {
        let Matrix::Packed(packed, bias) = &self.matrix else {
            bail!("only a packed layer multiplies slices")
        };
        packed.forward(x, rows, y)?;
        add(y, bias);
        Ok(())
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.matrix {
            Matrix::Plain(parts) => match parts.as_slice() {
                [only] => x.matmul(&only.t()?)?,              // [N, out]
                _ => x.matmul(&Tensor::cat(parts, 0)?.t()?)?, // [N, out]
            },
            Matrix::Packed(packed, bias) => return apply(packed, bias, x), // [N, out]
        };
        match self.bias.as_slice() {
            [] => Ok(y),
            [only] => y.broadcast_add(only),
            parts => y.broadcast_add(&Tensor::cat(parts, 0)?),
        }
    }
}

fn apply(packed: &PackedLinear, bias: &[f32], x: &Tensor) -> Result<Tensor> {
    if bias.is_empty() {
        return packed.apply(x); // [N, out]
    }
    let (rows, _) = x.dims2()?;
    let mut y = vec![0.0; rows * packed.outputs()];
    with_slice(x, |x| packed.forward(x, rows, &mut y))?;
    add(&mut y, bias);
    Tensor::from_vec(y, (rows, packed.outputs()), x.device()) // [N, out]
}

/// Adds a bias `[out]` to each row of `y`, on several threads where that pays; an empty one adds nothing.
fn add(y: &mut [f32], bias: &[f32]) {
    let width = bias.len();
    if width == 0 {
        return;
    }
    pool::for_each_rows(y, width, &|_, y| {
        for row in y.chunks_exact_mut(width) {
            row.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
        }
    });
}
