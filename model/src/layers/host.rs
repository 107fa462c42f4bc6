//! Layers on slices of a CPU's memory, packed for inference: a row's result is the same bits in any batch.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::Weights;
use super::form::{Form, LinearLayer, NormLayer};
use crate::kernels::access::with_slice;
use crate::kernels::norm::{NormWeights, add_normalise, normalise};
use crate::kernels::{CacheType, PackedLinear, pool};

/// The form of slices.
#[derive(Debug)]
pub(crate) struct Host;

impl Form for Host {
    type Linear = HostLinear;
    type Norm = HostNorm;
    type CacheType = CacheType;
}

/// Reads a weight as `f32` numbers.
fn numbers(weight: &Tensor) -> Result<Vec<f32>> {
    weight.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// A linear layer whose weight is packed.
#[derive(Debug)]
pub(crate) struct HostLinear {
    weight: PackedLinear,
    /// `[out]`, or empty.
    bias: Vec<f32>,
}

impl LinearLayer for HostLinear {
    fn load(weights: &Weights, names: &[String]) -> Result<Self> {
        let weight = if let Some(packed) = weights.packed(names)? {
            packed
        } else {
            let parts = names.iter().map(|name| weights.read(name)?.flatten_from(1));
            PackedLinear::stacked(&parts.collect::<Result<Vec<_>>>()?, weights.weight_type)
                .map_err(|error| error.context(names.join(", ")))?
        };
        let biases = weights.biases(names);
        let parts = biases.iter().map(|name| numbers(&weights.get(name)?));
        let bias = parts.collect::<Result<Vec<_>>>()?.concat(); // [out]
        if !bias.is_empty() && bias.len() != weight.outputs() {
            bail!("a bias of {} for {} outputs", bias.len(), weight.outputs());
        }
        Ok(Self { weight, bias })
    }

    fn inputs(&self) -> Result<usize> {
        Ok(self.weight.inputs())
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, _) = x.dims2()?;
        let mut y = Vec::new();
        with_slice(x, |x| self.forward_into(x, rows, &mut y))?;
        Tensor::from_vec(y, (rows, self.outputs()), &Device::Cpu) // [N, out]
    }
}

impl HostLinear {
    /// Returns the width of the rows that it gives.
    pub(crate) fn outputs(&self) -> usize {
        self.weight.outputs()
    }

    /// Multiplies rows `[rows, in]` into `y`, `[rows, out]`.
    pub(crate) fn forward_into(&self, x: &[f32], rows: usize, y: &mut Vec<f32>) -> Result<()> {
        // Everything is overwritten: only what is new needs to be set.
        y.resize(rows * self.outputs(), 0.0); // [rows, out]
        self.multiply_into(x, rows, y)
    }

    /// As [`HostLinear::forward_into`], into rows that are there already.
    pub(crate) fn multiply_into(&self, x: &[f32], rows: usize, y: &mut [f32]) -> Result<()> {
        self.weight.forward(x, rows, y)?;
        add(y, &self.bias);
        Ok(())
    }
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

/// A norm whose weights are slices.
#[derive(Debug)]
pub(crate) struct HostNorm {
    /// `[E, D]`.
    scale: Vec<f32>,
    /// `[E, D]`; none for RMSNorm.
    shift: Option<Vec<f32>>,
    /// D.
    width: usize,
    eps: f32,
}

impl NormLayer for HostNorm {
    fn load(weights: &Weights, names: &[String], eps: f64) -> Result<Self> {
        let rows = |names: &[String]| -> Result<Vec<Vec<f32>>> {
            let rows = names.iter().map(|name| numbers(&weights.get(name)?));
            rows.collect()
        };
        let (scale, biases) = (rows(names)?, weights.biases(names));
        let shift = rows(&biases)?;
        let width = scale.first().map_or(0, Vec::len);
        if let Some(row) = scale.iter().chain(&shift).find(|row| row.len() != width) {
            bail!(
                "a norm of {} beside one of {width}: {}",
                row.len(),
                names.join(", ")
            );
        }
        #[expect(clippy::cast_possible_truncation, reason = "the kernels compute in f32")]
        let eps = eps as f32;
        Ok(Self {
            scale: scale.concat(),                              // [E, D]
            shift: (!shift.is_empty()).then(|| shift.concat()), // [E, D]
            width,
            eps,
        })
    }

    fn forward(&self, x: &Tensor, split: usize) -> Result<Tensor> {
        let shape = x.dims2()?;
        let mut y = Vec::new();
        with_slice(x, |x| {
            self.forward_into(x, split, &mut y);
            Ok(())
        })?;
        Tensor::from_vec(y, shape, &Device::Cpu) // [N, D]
    }
}

impl HostNorm {
    fn weights(&self) -> NormWeights<'_> {
        NormWeights {
            scale: &self.scale,
            shift: self.shift.as_deref(),
            width: self.width,
            eps: self.eps,
        }
    }

    /// Normalises rows `[rows, D]`, of which the first `split` belong to the first expert, into `y`.
    pub(crate) fn forward_into(&self, x: &[f32], split: usize, y: &mut Vec<f32>) {
        y.resize(x.len(), 0.0); // [rows, D]
        normalise(x, &self.weights(), split, y);
    }

    /// Normalises rows as [`HostNorm::forward_into`] does where there is a norm, and returns them; else
    /// returns `x`.
    pub(crate) fn where_any<'a>(
        norm: Option<&Self>,
        x: &'a [f32],
        split: usize,
        y: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        match norm {
            Some(norm) => {
                norm.forward_into(x, split, y);
                y
            }
            None => x,
        }
    }

    /// Adds to rows `[rows, D]`, and normalises them into `y` as [`HostNorm::forward_into`] does.
    pub(crate) fn add_forward_into(&self, x: &mut [f32], added: &[f32], split: usize, y: &mut Vec<f32>) {
        y.resize(x.len(), 0.0); // [rows, D]
        add_normalise(x, added, &self.weights(), split, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_config;

    #[test]
    fn a_norm_whose_experts_have_other_widths_is_refused() {
        let names = ["vision", "language"].map(|expert| format!("encoder.{expert}.norm.weight"));
        let load = |language: usize| {
            let width = move |name: &str| if name.contains("language") { language } else { 8 };
            let weights = Weights::new(&tiny_config(), Default::default(), move |name| {
                Tensor::ones(width(name), DType::F32, &Device::Cpu)
            });
            HostNorm::load(&weights, &names, 1e-6)
        };
        assert_eq!(load(8).unwrap().width, 8);
        let refused = load(9).unwrap_err().to_string();
        assert!(refused.contains("a norm of 9 beside one of 8"), "{refused}");
    }
}
