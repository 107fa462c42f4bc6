//! A linear layer whose weight is packed into panels.

use std::fmt;

use candle_core::{DType, Device, Result, Tensor, bail};
use rayon::prelude::*;

use super::kernel::{Kernel, Line, PANEL};
use super::panels::{Panels, SharedBytes};
use super::product::Operands;
use super::weight_type::WeightType;
use super::words::with_words;
use super::{bfloat, int8};
use crate::kernels::access::with_slice;

/// Values from which packing is distributed over threads.
const PARALLEL_PACK: usize = 1 << 18;

/// Multiplies rows by a fixed weight on the CPU, each row giving the same bits alone or in any batch.
///
/// # Examples
/// ```
/// use multiway_model::kernels::{PackedLinear, WeightType};
///
/// # fn main() -> candle_core::Result<()> {
/// let weight = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // [out, in]
/// let linear = PackedLinear::new(&weight, 3, 2, WeightType::F32)?;
/// let mut y = [0.0; 3]; // [rows, out]
/// linear.forward(&[1.0, 10.0], 1, &mut y)?;
/// assert_eq!(y, [21.0, 43.0, 65.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PackedLinear {
    pub(super) panels: Panels, // [ceil(out / PANEL), lines]
    outputs: usize,
    inputs: usize,
    weights: WeightType,
    pub(super) kernel: &'static Kernel,
}

impl fmt::Debug for PackedLinear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedLinear")
            .field("outputs", &self.outputs)
            .field("inputs", &self.inputs)
            .field("weights", &self.weights)
            .field("kernel", &self.kernel)
            .finish_non_exhaustive()
    }
}

impl PackedLinear {
    /// Packs a weight of shape `[outputs, inputs]`, row-major as checkpoints store it.
    ///
    /// # Errors
    /// When `weight` does not hold `outputs * inputs` values; of 8-bit weights, when there are more than
    /// 65536 inputs.
    pub fn new(weight: &[f32], outputs: usize, inputs: usize, weights: WeightType) -> Result<Self> {
        if outputs.checked_mul(inputs) != Some(weight.len()) {
            bail!(
                "a linear weight of [{outputs}, {inputs}] needs as many values, found {}",
                weight.len()
            );
        }
        let mut packed = Self::empty(outputs, inputs, weights)?;
        packed.pack(weight, 0);
        Ok(packed)
    }

    /// Packs a weight tensor of shape `[outputs, inputs]`, read as `f32` on the CPU.
    ///
    /// # Errors
    /// When the tensor has another rank or cannot be read; of 8-bit weights, when there are more than 65536
    /// inputs.
    pub fn from_tensor(weight: &Tensor, weights: WeightType) -> Result<Self> {
        Self::stacked(std::slice::from_ref(weight), weights)
    }

    /// Packs weight tensors of the same `inputs`, `[outputs, inputs]` each, one below the other.
    ///
    /// # Errors
    /// When a tensor has another rank or width, or cannot be read; of 8-bit weights, when there are more than
    /// 65536 inputs.
    pub fn stacked(tensors: &[Tensor], weights: WeightType) -> Result<Self> {
        let shapes = tensors.iter().map(Tensor::dims2).collect::<Result<Vec<_>>>()?;
        let inputs = shapes.first().map_or(0, |(_, inputs)| *inputs);
        if let Some((_, found)) = shapes.iter().find(|(_, width)| *width != inputs) {
            bail!("weights of {inputs} and of {found} inputs cannot be stacked");
        }
        let outputs = shapes.iter().map(|(outputs, _)| outputs).sum();
        let mut packed = Self::empty(outputs, inputs, weights)?;
        let mut first = 0;
        for (tensor, (outputs, _)) in tensors.iter().zip(shapes) {
            let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?; // [out, in]
            with_slice(&tensor, |values| {
                packed.pack(values, first);
                Ok(())
            })?;
            first += outputs;
        }
        Ok(packed)
    }

    fn empty(outputs: usize, inputs: usize, weights: WeightType) -> Result<Self> {
        let kernel = weights.kernel_for(inputs)?;
        let [panels, lines, _] = weights.panel_shape(outputs, inputs);
        Ok(Self {
            panels: Panels::zeros(panels * lines), // [out / PANEL, lines]
            outputs,
            inputs,
            weights,
            kernel,
        })
    }

    /// Puts rows `[.., inputs]` into their places, the first of them at output `first`.
    fn pack(&mut self, rows: &[f32], first: usize) {
        let (inputs, weights) = (self.inputs, self.weights);
        let lines = self.kernel.format.lines(weights.depth(inputs));
        if inputs == 0 || rows.is_empty() {
            return;
        }
        let last = first + rows.len() / inputs;
        let touched = first / PANEL..last.div_ceil(PANEL);
        let whole = touched.start * lines..touched.end * lines;
        let Some(panels) = self.panels.own_mut().get_mut(whole) else {
            return;
        };
        let fill = |(panel, lines): (usize, &mut [Line])| {
            let start = (touched.start + panel) * PANEL;
            for output in start.max(first)..(start + PANEL).min(last) {
                let row = rows.chunks_exact(inputs).nth(output - first);
                let words = weights.encode(row.unwrap_or_default());
                for (line, word) in lines.iter_mut().zip(words) {
                    place(line, output - start, word);
                }
            }
        };
        if rows.len() < PARALLEL_PACK {
            panels.chunks_exact_mut(lines).enumerate().for_each(fill);
        } else {
            panels.par_chunks_exact_mut(lines).enumerate().for_each(fill);
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

    /// How the weights are stored.
    #[must_use]
    pub fn weights(&self) -> WeightType {
        self.weights
    }

    /// Counts the bytes that the weights take, padding and scales included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.panels.len() * size_of::<Line>()
    }

    /// Computes `y = x W^T`, on several threads when the work is large.
    ///
    /// With 8-bit weights, a row with a NaN or an infinity gives nothing but NaN.
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
        let width = self.weights.row_words(inputs);
        let mut multiply = |x: &[u32]| {
            Operands {
                kernel: self.kernel,
                x,
                panels: &self.panels,
                rows,
                row_words: width,
                depth: self.weights.depth(inputs),
                outputs,
                stride: outputs,
            }
            .multiply_into(y);
        };
        match self.weights {
            WeightType::F32 => multiply(bytemuck::cast_slice(x)),
            WeightType::Bf16 => with_words(x, [rows, inputs, width], &bfloat::round_row, multiply),
            WeightType::Int8 => with_words(x, [rows, inputs, width], &int8::quantize_row, multiply),
        }
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

impl PackedLinear {
    /// Takes a weight `[outputs, inputs]` that is packed already, as [`PackedLinear::panels`] gives it, where
    /// it is.
    pub(crate) fn from_panels(
        bytes: SharedBytes,
        outputs: usize,
        inputs: usize,
        weights: WeightType,
    ) -> Result<Self> {
        let kernel = weights.kernel_for(inputs)?;
        let [expected, lines, _] = weights.panel_shape(outputs, inputs);
        let panels = Panels::of(bytes); // [out / PANEL, lines]
        if panels.len() != expected * lines {
            bail!(
                "a packed weight of [{outputs}, {inputs}] needs {} lines, found {}",
                expected * lines,
                panels.len()
            );
        }
        Ok(Self {
            panels,
            outputs,
            inputs,
            weights,
            kernel,
        })
    }

    /// Puts packed weights of the same `inputs` one below the other: where they already lie so and fill whole
    /// panels, as they are, and else in a copy.
    pub(crate) fn joined(parts: &[Self]) -> Result<Self> {
        let Some((first, rest)) = parts.split_first() else {
            bail!("no weights to join")
        };
        let (inputs, weights) = (first.inputs, first.weights);
        if let Some(other) = rest
            .iter()
            .find(|part| (part.inputs, part.weights) != (inputs, weights))
        {
            let (width, kind) = (other.inputs, other.weights);
            bail!("{weights} weights of {inputs} inputs and {kind} weights of {width} cannot be joined");
        }
        let outputs = parts.iter().map(|part| part.outputs).sum();
        let ends = parts.iter().rev().skip(1).all(|part| part.outputs % PANEL == 0);
        let join = |panels: Option<Panels>, part: &Self| panels?.with(&part.panels);
        let panels = rest.iter().fold(ends.then(|| first.panels.clone()), join);
        if let Some(panels) = panels {
            return Ok(Self {
                panels,
                outputs,
                inputs,
                weights,
                kernel: first.kernel,
            });
        }
        let mut joined = Self::empty(outputs, inputs, weights)?;
        let mut to = 0;
        for part in parts {
            for from in 0..part.outputs {
                joined.copy_output(to, part, from);
                to += 1;
            }
        }
        Ok(joined)
    }

    /// Copies the words of an output of another layer of the same width.
    fn copy_output(&mut self, to: usize, part: &Self, from: usize) {
        let lines = self.kernel.format.lines(self.weights.depth(self.inputs)).max(1);
        let source = part.panels.chunks_exact(lines).nth(from / PANEL);
        let target = self.panels.own_mut().chunks_exact_mut(lines).nth(to / PANEL);
        for (target, source) in target.into_iter().flatten().zip(source.into_iter().flatten()) {
            let word = source.0.get(from % PANEL).copied().unwrap_or_default();
            place(target, to % PANEL, word);
        }
    }

    /// Returns the panels as bytes, `[out / PANEL, lines, 64]`, each number with its lowest byte first.
    pub(crate) fn panels(&self) -> &[u8] {
        bytemuck::cast_slice(&self.panels)
    }
}

/// Puts the word of one output into a line.
fn place(line: &mut Line, lane: usize, word: u32) {
    if let Some(slot) = line.0.get_mut(lane) {
        *slot = word;
    }
}
