//! A linear layer whose rows do not influence each other, not even in the last bit.
//!
//! A general matrix multiplication picks its algorithm by the number of rows, and different algorithms sum in
//! different orders; so a request's numbers would depend on the requests that happen to share its batch.
//! [`PackedLinear`] fixes the order instead. Each output element is, by definition,
//!
//! ```text
//! acc = 0;  for k in 0..in { acc = fma(x[row, k], weight[output, k], acc) };  y[row, output] = acc
//! ```
//!
//! with one rounding per step, whatever the number of rows, the position of the row, the instruction set and the
//! number of threads. Vector lanes run over outputs, never over `k`, so that no sum is ever split.
//!
//! The weight is stored as panels of [`PANEL`] outputs, `[out / PANEL, in, PANEL]`, zero-padded: one step of `k` is
//! one contiguous vector load per panel. A tile of rows by panels lives in registers.
//!
//! Source: the register-tile scheme of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication"
//! (ACM TOMS 34(3), 2008), section 4, without its blocking of `k`.

#[cfg(test)]
mod tests;
mod tile;

use super::access::with_slice;
use candle_core::{DType, Device, Result, Tensor, bail};
use rayon::prelude::*;
use tile::{Isa, Operands, PANEL};

/// From how many values on packing is worth several threads.
const PARALLEL_PACK: usize = 1 << 18;

/// Multiplies rows by a fixed `f32` weight on the CPU, each row giving the same bits alone or in any batch.
///
/// # Examples
/// ```
/// use multiway_model::kernels::PackedLinear;
///
/// # fn main() -> candle_core::Result<()> {
/// let linear = PackedLinear::new(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2)?; // [out, in]
/// let mut y = [0.0; 3]; // [rows, out]
/// linear.forward(&[1.0, 10.0], 1, &mut y)?;
/// assert_eq!(y, [21.0, 43.0, 65.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PackedLinear {
    panels: Vec<f32>, // [ceil(out / PANEL), in, PANEL]
    outputs: usize,
    inputs: usize,
    isa: Isa,
}

impl std::fmt::Debug for PackedLinear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            outputs, inputs, isa, ..
        } = self;
        write!(
            f,
            "PackedLinear {{ outputs: {outputs}, inputs: {inputs}, isa: {isa:?} }}"
        )
    }
}

impl PackedLinear {
    /// Packs a weight of shape `[outputs, inputs]`, row-major as checkpoints store it.
    ///
    /// # Errors
    /// When `weight` does not hold `outputs * inputs` values.
    pub fn new(weight: &[f32], outputs: usize, inputs: usize) -> Result<Self> {
        if outputs.checked_mul(inputs) != Some(weight.len()) {
            bail!(
                "a linear weight of [{outputs}, {inputs}] needs as many values, found {}",
                weight.len()
            );
        }
        let mut packed = Self::empty(outputs, inputs);
        packed.pack(weight, 0);
        Ok(packed)
    }

    /// Packs a weight tensor of shape `[outputs, inputs]`, converted to `f32` on the CPU.
    ///
    /// # Errors
    /// When the tensor has another rank or cannot be read.
    pub fn from_tensor(weight: &Tensor) -> Result<Self> {
        Self::stacked(std::slice::from_ref(weight))
    }

    /// Packs weights of the same `inputs`, `[outputs, inputs]` each, one below the other.
    ///
    /// # Errors
    /// When a tensor has another rank or width, or cannot be read.
    pub fn stacked(weights: &[Tensor]) -> Result<Self> {
        let shapes = weights.iter().map(Tensor::dims2).collect::<Result<Vec<_>>>()?;
        let inputs = shapes.first().map_or(0, |(_, inputs)| *inputs);
        if let Some((_, found)) = shapes.iter().find(|(_, width)| *width != inputs) {
            bail!("weights of {inputs} and of {found} inputs cannot be stacked");
        }
        let mut packed = Self::empty(shapes.iter().map(|(outputs, _)| outputs).sum(), inputs);
        let mut first = 0;
        for (weight, (outputs, _)) in weights.iter().zip(shapes) {
            let weight = weight.to_device(&Device::Cpu)?.to_dtype(DType::F32)?; // [out, in]
            with_slice(&weight, |values| {
                packed.pack(values, first);
                Ok(())
            })?;
            first += outputs;
        }
        Ok(packed)
    }

    fn empty(outputs: usize, inputs: usize) -> Self {
        Self {
            panels: vec![0.0; outputs.div_ceil(PANEL) * inputs * PANEL], // [out / PANEL, in, PANEL]
            outputs,
            inputs,
            isa: Isa::detect(),
        }
    }

    /// Puts rows `[.., inputs]` into their places, the first of them at output `first`.
    fn pack(&mut self, rows: &[f32], first: usize) {
        let inputs = self.inputs;
        if inputs == 0 || rows.is_empty() {
            return;
        }
        let last = first + rows.len() / inputs;
        let touched = first / PANEL..last.div_ceil(PANEL);
        let whole = touched.start * inputs * PANEL..touched.end * inputs * PANEL;
        let Some(panels) = self.panels.get_mut(whole) else {
            return;
        };
        let fill = |(panel, values): (usize, &mut [f32])| {
            let start = (touched.start + panel) * PANEL;
            for lane in 0..PANEL {
                let output = start + lane;
                if (first..last).contains(&output) {
                    let row = rows.chunks_exact(inputs).nth(output - first).unwrap_or_default();
                    for (slot, value) in values.iter_mut().skip(lane).step_by(PANEL).zip(row) {
                        *slot = *value;
                    }
                }
            }
        };
        if rows.len() < PARALLEL_PACK {
            panels.chunks_exact_mut(inputs * PANEL).enumerate().for_each(fill);
        } else {
            panels
                .par_chunks_exact_mut(inputs * PANEL)
                .enumerate()
                .for_each(fill);
        }
    }

    /// The number of outputs of each row.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The number of inputs of each row.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Computes `y = x W^T`, on the current rayon pool when the work is large.
    ///
    /// # Shapes
    /// `x`: `[rows, inputs]`; `y`: `[rows, outputs]`, overwritten.
    ///
    /// # Errors
    /// When a slice has another length.
    pub fn forward(&self, x: &[f32], rows: usize, y: &mut [f32]) -> Result<()> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        if rows.checked_mul(inputs) != Some(x.len()) {
            bail!(
                "a linear layer of {inputs} inputs needs x [{rows}, {inputs}], found {} values",
                x.len()
            );
        }
        if rows.checked_mul(outputs) != Some(y.len()) {
            bail!(
                "a linear layer of {outputs} outputs needs y [{rows}, {outputs}], found {} values",
                y.len()
            );
        }
        Operands {
            isa: self.isa,
            x,
            panels: &self.panels,
            rows,
            inputs,
            outputs,
        }
        .multiply_into(y);
        Ok(())
    }

    /// Applies the layer to the last dimension of an `f32` CPU tensor, read in place where it is contiguous.
    ///
    /// # Shapes
    /// `x`: `[.., inputs]`; the result: `[.., outputs]`.
    ///
    /// # Errors
    /// When the tensor is on another device, is not `f32`, or its last dimension is not `inputs`.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let mut dims = x.dims().to_vec();
        match dims.last_mut() {
            Some(last) if *last == self.inputs => *last = self.outputs,
            _ => bail!(
                "a linear layer of {} inputs cannot read a tensor of {:?}",
                self.inputs,
                x.dims()
            ),
        }
        let rows = dims.iter().rev().skip(1).product::<usize>();
        let mut y = vec![0.0; rows * self.outputs]; // [rows, out]
        with_slice(x, |values| self.forward(values, rows, &mut y))?;
        Tensor::from_vec(y, dims, &Device::Cpu) // [.., out]
    }
}
