//! Linear layers whose rows do not influence each other, not even in the last bit.
//!
//! A general matrix multiplication picks its algorithm by the number of rows, and different algorithms sum in
//! different orders; so a request's numbers would depend on the requests that happen to share its batch.
//! [`PackedLinear`] fixes the order instead. Of weights in `f32`, each output element is, by definition,
//!
//! ```text
//! acc = 0;  for k in 0..in { acc = fma(x[row, k], weight[output, k], acc) };  y[row, output] = acc
//! ```
//!
//! with one rounding per step, whatever the number of rows, the position of the row, the instruction set and the
//! number of threads. Vector lanes run over outputs, never over `k`, so that no sum is ever split. Weights in `bf16`
//! are rounded to it and then summed in the same way (`bfloat`); in 8 bits, sums are exact (`int8`).
//!
//! The weight is stored as panels of `PANEL` outputs, `[out / PANEL, lines, PANEL]`, zero-padded. A line is 64 bytes and
//! has of each output one `f32`, two `bf16` or four 8-bit weights of neighbouring inputs. A tile of rows by panels lives
//! in registers. All instruction sets read the same panels, so that they can be kept in a file ([`LAYOUT`]).
//!
//! Instruction sets are chosen at run time: AVX-512, AVX2 with FMA, and for 8 bits AMX, AVX-512-VNNI, AVX-VNNI and AVX2.
//! Elsewhere a portable form runs, which the compiler vectorises; NEON has no form of its own yet.
//!
//! Source: the register-tile scheme of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication"
//! (ACM TOMS 34(3), 2008), section 4, without its blocking of `k`.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod bfloat;
mod int8;
mod kernel;
mod panels;
mod product;
mod single;
#[cfg(test)]
mod tests;

use std::fmt;

use super::access::with_slice;
use candle_core::{DType, Device, Result, Tensor, bail};
use kernel::Kernel;
pub(crate) use kernel::{Line, PANEL};
use panels::Panels;
pub(crate) use panels::SharedBytes;
use product::Operands;
use rayon::prelude::*;

/// From how many values on packing is worth several threads.
const PARALLEL_PACK: usize = 1 << 18;

/// The version of how panels are laid out, for those that are kept in files: another layout needs another number.
pub(crate) const LAYOUT: u32 = 1;

/// How the weights of a linear layer are stored on the CPU.
///
/// # Accuracy
///
/// Errors are shares of the root mean square of what other people's code gives for the small random models of `tests/parity`, the
/// worst of all cases. A layer of T5 that reads what theirs reads is off by at most 1.6 % in `bf16` and 7.9 % in 8 bits, three
/// layers of BEiT-3 one after the other by 1.4 % and 6.9 %. Their attention was made sharp, which magnifies errors:
/// beside `f32`, the six encoder layers of the embedded model are off by at most 1.3 % in 8 bits, its decoder by 2.4 %, and its
/// logits by 2.7 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightType {
    /// As they are, in 32 bits.
    #[default]
    F32,
    /// Rounded to the nearest `bf16`, in 16 bits; activations and sums stay `f32`.
    Bf16,
    /// In 8 bits with a scale per output; activations in 8 bits with a scale per row; sums are exact.
    Int8,
}

impl WeightType {
    /// Every weight type, the largest first.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// Returns the name, as `--dtype` of the command line takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// Lists the kernels that this machine can run, the fastest first.
    fn kernels(self) -> impl Iterator<Item = &'static Kernel> {
        let all = match self {
            Self::F32 => single::KERNELS,
            Self::Bf16 => bfloat::KERNELS,
            Self::Int8 => int8::KERNELS,
        };
        all.iter().copied().filter(|kernel| (kernel.detected)())
    }

    /// Finds the fastest kernel of this machine.
    fn kernel(self) -> &'static Kernel {
        let portable = match self {
            Self::F32 => &single::portable::KERNEL,
            Self::Bf16 => &bfloat::portable::KERNEL,
            Self::Int8 => &int8::portable::KERNEL,
        };
        self.kernels().next().unwrap_or(portable)
    }

    /// Turns a row of weights into a word for each line of its panel.
    fn encode(self, row: &[f32]) -> Vec<u32> {
        match self {
            Self::F32 => single::encode(row),
            Self::Bf16 => bfloat::encode(row),
            Self::Int8 => int8::encode(row),
        }
    }

    /// Puts the word of one output into a line.
    fn place(self, line: &mut Line, lane: usize, word: u32) {
        match self {
            Self::F32 | Self::Int8 => {
                if let Some(slot) = line.0.get_mut(lane) {
                    *slot = word;
                }
            }
            Self::Bf16 => bfloat::place(line, lane, word),
        }
    }

    /// Reads the word of one output from a line.
    fn word(self, line: &Line, lane: usize) -> u32 {
        match self {
            Self::F32 | Self::Int8 => line.0.get(lane).copied().unwrap_or_default(),
            Self::Bf16 => bfloat::word(line, lane),
        }
    }

    /// Finds a weight type by its name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|weights| weights.name() == name)
    }

    /// Counts the panels of a weight `[outputs, inputs]`, the lines of each, and the bytes of a line.
    pub(crate) fn panel_shape(self, outputs: usize, inputs: usize) -> [usize; 3] {
        let lines = self.kernel().format.lines(self.depth(inputs));
        [outputs.div_ceil(PANEL), lines, size_of::<Line>()]
    }

    /// Finds the fastest kernel for layers of so many inputs.
    fn kernel_for(self, inputs: usize) -> Result<&'static Kernel> {
        if self == Self::Int8 && inputs > int8::MAX_INPUTS {
            bail!(
                "a linear layer of {inputs} inputs is too wide for int8 weights: expected at most {}",
                int8::MAX_INPUTS
            );
        }
        Ok(self.kernel())
    }

    /// Counts the words from one row of `inputs` activations to the next.
    fn row_words(self, inputs: usize) -> usize {
        match self {
            Self::F32 | Self::Bf16 => inputs,
            Self::Int8 => int8::row_words(inputs),
        }
    }

    /// Counts the words of a row of `inputs` activations, less the head.
    fn depth(self, inputs: usize) -> usize {
        match self {
            Self::F32 | Self::Bf16 => inputs,
            Self::Int8 => inputs.div_ceil(4),
        }
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Rows of `f32` numbers that do not touch each other.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) values: &'a [f32],
    /// How far apart rows begin.
    pub(crate) stride: usize,
    pub(crate) count: usize,
    /// How many numbers of a row count.
    pub(crate) width: usize,
}

/// Multiplies rows with panels of `f32`, `[ceil(out / PANEL), width]`, on this thread, as a [`PackedLinear`] does: the numbers of
/// a row depend on that row alone. Writes rows of `outputs` numbers that are `stride` apart.
///
/// # Panics
/// When a slice is shorter than its shape says.
pub(crate) fn multiply_rows(x: Rows, panels: &[Line], y: &mut [f32], outputs: usize, stride: usize) {
    Operands {
        kernel: WeightType::F32.kernel(),
        x: bytemuck::cast_slice(x.values),
        panels,
        rows: x.count,
        row_words: x.stride,
        depth: x.width,
        outputs,
        stride,
    }
    .multiply_here(y);
}

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
    panels: Panels, // [ceil(out / PANEL), lines]
    outputs: usize,
    inputs: usize,
    weights: WeightType,
    kernel: &'static Kernel,
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
    /// When `weight` does not hold `outputs * inputs` values; of 8-bit weights, when there are more than 65536 inputs.
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
    /// When the tensor has another rank or cannot be read; of 8-bit weights, when there are more than 65536 inputs.
    pub fn from_tensor(weight: &Tensor, weights: WeightType) -> Result<Self> {
        Self::stacked(std::slice::from_ref(weight), weights)
    }

    /// Packs weight tensors of the same `inputs`, `[outputs, inputs]` each, one below the other.
    ///
    /// # Errors
    /// When a tensor has another rank or width, or cannot be read; of 8-bit weights, when there are more than 65536
    /// inputs.
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
                    weights.place(line, output - start, word);
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
        let mut multiply = |x: &[u32]| {
            Operands {
                kernel: self.kernel,
                x,
                panels: &self.panels,
                rows,
                row_words: self.weights.row_words(inputs),
                depth: self.weights.depth(inputs),
                outputs,
                stride: outputs,
            }
            .multiply_into(y);
        };
        match self.weights {
            WeightType::F32 | WeightType::Bf16 => multiply(bytemuck::cast_slice(x)),
            WeightType::Int8 => int8::with_quantised(x, rows, inputs, multiply),
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
