//! The types in which the weights of a linear layer are stored, and the kernels of each.

use std::fmt;

use candle_core::{Result, bail};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::amx;
use super::kernel::{Kernel, Line, PANEL};
use super::{bfloat, int8, single};

/// The version of the layout of panels in files: another layout needs another number.
pub(crate) const LAYOUT: u32 = 2;

/// The kernels of 8-bit weights, the fastest first. They stand here and not in `int8`, whose parts that of
/// AMX uses.
static INT8_KERNELS: &[&Kernel] = &[
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    &amx::KERNEL,
    #[cfg(target_arch = "x86_64")]
    &int8::avx512vnni::KERNEL,
    #[cfg(target_arch = "x86_64")]
    &int8::avxvnni::KERNEL,
    // The same instruction in the encoding that more machines can test.
    #[cfg(all(test, target_arch = "x86_64"))]
    &int8::avx512vnni_256::KERNEL,
    #[cfg(target_arch = "x86_64")]
    &int8::avx2::KERNEL,
    &int8::portable::KERNEL,
];

/// How the weights of a linear layer are stored on the CPU.
///
/// # Accuracy
///
/// Errors are shares of the root mean square of what other people's code gives for the small random models of
/// `tests/parity`, the worst of all cases. A layer of T5 that reads what theirs reads is off by at most 2.0 %
/// in `bf16` and 7.9 % in 8 bits, three layers of BEiT-3 one after the other by 2.0 % and 6.9 %. Their
/// attention was made sharp, which magnifies errors: beside `f32`, the six encoder layers of the embedded
/// model are off by at most 1.3 % in 8 bits, its decoder by 2.4 %, and its logits by 2.7 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightType {
    /// As they are, in 32 bits.
    #[default]
    F32,
    /// Rounded to the nearest `bf16`, in 16 bits; activations are rounded likewise, sums stay `f32`.
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

    /// Lists the kernels that this machine can run, the fastest first; of `bf16` the first may be slow.
    pub(super) fn kernels(self) -> impl Iterator<Item = &'static Kernel> {
        let all = match self {
            Self::F32 => single::KERNELS,
            Self::Bf16 => bfloat::KERNELS,
            Self::Int8 => INT8_KERNELS,
        };
        all.iter().copied().filter(|kernel| (kernel.detected)())
    }

    /// Finds the fastest kernel of this machine.
    pub(super) fn kernel(self) -> &'static Kernel {
        let portable = match self {
            Self::F32 => &single::portable::KERNEL,
            Self::Bf16 => return bfloat::kernel(),
            Self::Int8 => &int8::portable::KERNEL,
        };
        self.kernels().next().unwrap_or(portable)
    }

    /// Turns a row of weights into a word for each line of its panel.
    pub(super) fn encode(self, row: &[f32]) -> Vec<u32> {
        match self {
            Self::F32 => single::encode(row),
            Self::Bf16 => bfloat::encode(row),
            Self::Int8 => int8::encode(row),
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

    /// Finds the fastest kernel for layers of `inputs` inputs.
    pub(super) fn kernel_for(self, inputs: usize) -> Result<&'static Kernel> {
        if self == Self::Int8 && inputs > int8::MAX_INPUTS {
            bail!(
                "a linear layer of {inputs} inputs is too wide for int8 weights: expected at most {}",
                int8::MAX_INPUTS
            );
        }
        Ok(self.kernel())
    }

    /// Counts the words from one row of `inputs` activations to the next.
    pub(super) fn row_words(self, inputs: usize) -> usize {
        match self {
            Self::F32 => inputs,
            Self::Bf16 => bfloat::row_words(inputs),
            Self::Int8 => int8::row_words(inputs),
        }
    }

    /// Counts the words of a row of `inputs` activations, less the head.
    pub(super) fn depth(self, inputs: usize) -> usize {
        match self {
            Self::F32 => inputs,
            Self::Bf16 => inputs.div_ceil(2),
            Self::Int8 => inputs.div_ceil(4),
        }
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
