//! The feed-forward network: gated or not, with an inner norm or without.
//!
//! Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.3; GEGLU, Shazeer 2020 (arXiv 2002.05202); the
//! inner norm is Sub-LN, Wang et al. 2022 (arXiv 2210.06423).

use candle_core::{Result, Tensor};

use super::Weights;
use super::form::{Form, LinearLayer, NormLayer};
use super::fused::ExpertLayers;
use super::graph::Graph;
use super::host::Host;
use crate::config::{Activation, StackConfig};
use crate::kernels::access::is_cpu_f32;
use crate::kernels::gated::{self, GatedGelu, GeluErf};

/// One expert: `[N, D]` to `[N, D]` by way of F.
#[derive(Debug)]
pub(crate) struct FeedForward<F: Form> {
    /// Gate and up side by side, or up alone.
    input: F::Linear,
    activation: Activation,
    inner_norm: Option<F::Norm>,
    down: F::Linear,
}

impl<F: Form> FeedForward<F> {
    pub(crate) fn load(weights: &Weights, prefix: &str, layer: &StackConfig, eps: f64) -> Result<Self> {
        let name = |part: &str| format!("{prefix}.{part}.weight");
        let input = match layer.activation {
            Activation::GatedGelu if weights.has(&name("gate_up")) => vec![name("gate_up")],
            Activation::GatedGelu => vec![name("gate"), name("up")],
            Activation::Relu | Activation::Gelu => vec![name("up")],
        };
        let inner_norm = layer
            .sub_norm
            .then(|| F::Norm::load(weights, &[name("inner_norm")], eps));
        Ok(Self {
            input: F::Linear::load(weights, &input)?,
            activation: layer.activation,
            inner_norm: inner_norm.transpose()?,
            down: F::Linear::load(weights, &[format!("{prefix}.down.weight")])?,
        })
    }

    /// Takes `[N, D]` and returns `[N, D]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let input = self.input.forward(x)?; // [N, 2F] or [N, F]
        let mut hidden = match self.activation {
            Activation::GatedGelu => gated_gelu(&input)?, // [N, F]
            Activation::Relu => input.relu()?,            // [N, F]
            Activation::Gelu => gelu(&input)?,            // [N, F]
        };
        if let Some(norm) = &self.inner_norm {
            hidden = norm.forward(&hidden, 0)?; // [N, F]
        }
        self.down.forward(&hidden) // [N, D]
    }
}

impl FeedForward<Graph> {
    /// Lists the layers of a network that is gated: gate and up, and down.
    pub(crate) fn gated(&self) -> Option<ExpertLayers<'_>> {
        let is_gated = self.activation == Activation::GatedGelu;
        is_gated.then(|| ExpertLayers {
            linears: vec![&self.input, &self.down],
            inner: self.inner_norm.as_ref(),
        })
    }
}

/// Bytes of what lies between the two products, for the rows that go through both of them at a time: they
/// stay in the cores' own caches.
const BLOCK_BYTES: usize = 2 << 20;

/// A block has at least so many rows, lest the weights be read too often, and a multiple of it, so that its
/// tiles are tall.
const LEAST_ROWS: usize = 48;

impl FeedForward<Host> {
    /// Takes rows `[rows, D]` and writes `[rows, D]` into `y`; `wide` and `hidden` are scratch.
    pub(crate) fn forward_into(
        &self,
        x: &[f32],
        rows: usize,
        wide: &mut Vec<f32>,
        hidden: &mut Vec<f32>,
        y: &mut [f32],
    ) -> Result<()> {
        let block = self.block_rows(rows).max(1);
        let (inputs, outputs) = (x.len() / rows.max(1), self.down.outputs());
        for first in (0..rows).step_by(block) {
            let count = block.min(rows - first);
            let range = |width: usize| first * width..(first + count) * width;
            if let (Some(x), Some(y)) = (x.get(range(inputs)), y.get_mut(range(outputs))) {
                self.block_into(x, count, wide, hidden, y)?;
            }
        }
        Ok(())
    }

    /// Counts the rows that go through the network at a time: blocks of about the same height.
    fn block_rows(&self, rows: usize) -> usize {
        let row_bytes = (self.input.outputs() * size_of::<f32>()).max(1);
        let most = (BLOCK_BYTES / row_bytes).next_multiple_of(LEAST_ROWS);
        rows.div_ceil(rows.div_ceil(most).max(1))
            .next_multiple_of(LEAST_ROWS)
    }

    fn block_into(
        &self,
        x: &[f32],
        rows: usize,
        wide: &mut Vec<f32>,
        hidden: &mut Vec<f32>,
        y: &mut [f32],
    ) -> Result<()> {
        self.input.forward_into(x, rows, wide)?; // [rows, 2F] or [rows, F]
        match self.activation {
            Activation::GatedGelu => {
                hidden.resize(wide.len() / 2, 0.0); // [rows, F]
                gated::gated_gelu(wide, hidden, wide.len() / 2 / rows.max(1));
            }
            Activation::Relu => {
                hidden.clear();
                hidden.extend(wide.iter().map(|x| x.max(0.0))); // [rows, F]
            }
            Activation::Gelu => {
                hidden.resize(wide.len(), 0.0); // [rows, F]
                gated::gelu(wide, hidden);
            }
        }
        if let Some(norm) = &self.inner_norm {
            norm.forward_into(hidden, 0, wide); // [rows, F]
            return self.down.multiply_into(wide, rows, y); // [rows, D]
        }
        self.down.multiply_into(hidden, rows, y) // [rows, D]
    }
}

fn gelu(x: &Tensor) -> Result<Tensor> {
    if is_cpu_f32(x) && !x.track_op() {
        return x.contiguous()?.apply_op1_no_bwd(&GeluErf);
    }
    x.gelu_erf() // [N, F]
}

fn gated_gelu(x: &Tensor) -> Result<Tensor> {
    if is_cpu_f32(x) {
        return x.contiguous()?.apply_op1(GatedGelu);
    }
    let f = x.dim(1)? / 2;
    x.narrow(1, 0, f)?.gelu()? * x.narrow(1, f, f)? // [N, F]
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::kernels::WeightType;
    use crate::testing::{random, tiny_config};

    /// So wide that a block has the least rows.
    const WIDE: usize = 6_000;

    #[test]
    fn rows_are_the_same_bits_alone_and_in_blocks() {
        let (config, width) = (tiny_config(), 8);
        let read = |name: &str| match name {
            name if name.ends_with("gate_up.weight") => Ok(random(&[2 * WIDE, width], 1)),
            name if name.ends_with("down.weight") => Ok(random(&[width, WIDE], 2)),
            _ => Tensor::ones(WIDE, candle_core::DType::F32, &Device::Cpu),
        };
        for weights in WeightType::ALL {
            let weights = Weights::new(&config, weights, read);
            let prefix = "encoder.layers.0.vision.ffn";
            let layer = FeedForward::<Host>::load(&weights, prefix, &config.encoder, 1e-6).unwrap();
            assert_eq!((layer.block_rows(100), layer.block_rows(10_000)), (48, 48));
            let rows = 100;
            let x: Vec<f32> = random(&[rows * width], 3).to_vec1().unwrap();
            let forward = |x: &[f32], rows: usize| {
                let (mut wide, mut hidden, mut y) = (Vec::new(), Vec::new(), vec![f32::NAN; x.len()]);
                layer
                    .forward_into(x, rows, &mut wide, &mut hidden, &mut y)
                    .unwrap();
                y.iter().map(|y| y.to_bits()).collect::<Vec<_>>()
            };
            let alone: Vec<u32> = x.chunks(width).flat_map(|x| forward(x, 1)).collect();
            assert_eq!(forward(&x, rows), alone);
            assert!(forward(&[], 0).is_empty());
        }
    }
}
