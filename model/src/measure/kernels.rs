//! Each kernel alone, at the shapes of a model.

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor};

use super::cost::layout;
use super::{Cost, Machine, median, seconds};
use crate::attention::self_attention;
use crate::config::{Activation, ModelConfig, StackConfig};
use crate::decoder::host::{PromptQueries, attend_to_prompts};
use crate::kernels::bias::ScoreRule;
use crate::kernels::gated::GatedGelu;
use crate::kernels::norm::RmsNorm;
use crate::kernels::plan::AttentionPlan;
use crate::kernels::rows::KvRows;
use crate::kernels::{CacheType, PackedLinear, WeightType};
use crate::memory::{KvLayers, PromptMemory};
use crate::step::DecoderRow;

/// How much memory the weights of a kernel take in all, in bytes: more than caches hold, so that they come
/// from memory as they do in a model.
const ROTATED_BYTES: f64 = (256u32 << 20) as f64;

/// The most copies of what comes from memory: below, calls cost more than reading does.
const MOST_COPIES: usize = 1024;

/// About how many operations a round has at most: where there are more, it is not memory that counts.
const ROUND_OPERATIONS: f64 = 2e10;

/// How many calls make a round where nothing comes from memory.
const CACHED_CALLS: usize = 4;

/// How much of a model's work is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// How many prompts are encoded, and how many texts are written, at a time.
    pub batch: usize,
    /// How many rows a prompt has, patches of pictures included.
    pub source: usize,
    /// The type of the weights of linear layers.
    pub weights: WeightType,
    /// The element type of the KV cache.
    pub cache: CacheType,
    /// How often each kernel is timed; the median counts.
    pub repeats: usize,
}

/// The latency of a kernel, and its cost.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct KernelTiming {
    /// Whether it stands in the encoder or in the decoder.
    pub stage: &'static str,
    /// What it is for.
    pub kernel: &'static str,
    /// The sizes that matter, rows first.
    pub shape: Vec<usize>,
    /// The latency of a call, in seconds.
    pub seconds: f64,
    /// What it must do at least.
    pub cost: Cost,
}

impl KernelTiming {
    /// Returns the share of the roofline: the time that a machine needs at least, by the time that was taken.
    #[must_use]
    pub fn share(&self, machine: &Machine) -> f64 {
        self.cost.seconds(machine) / self.seconds
    }
}

/// Times the kernels of a model's encoder and, where it has one, its decoder, on the threads of the installed
/// [`Pool`](crate::kernels::Pool).
///
/// # Errors
/// Where a kernel refuses its shape, or there is no memory.
pub fn kernels(config: &ModelConfig, work: Workload) -> Result<Vec<KernelTiming>> {
    let encoder = Stage {
        name: "encode",
        width: config.hidden_size,
        hidden: config.intermediate_size,
        layer: config.encoder,
        rows: work.batch * work.source,
        work,
    };
    let mut timings = encoder.layer()?;
    timings.push(encoder.self_attention()?);
    if let Some(layer) = config.decoder {
        let decoder = Stage {
            name: "decode",
            layer,
            rows: work.batch,
            ..encoder
        };
        let (width, inner) = (decoder.width, decoder.inner());
        // Of the encoder's rows, but of the decoder's shape: what `Model::prompt_memory` does in each layer.
        timings.push(encoder.linear("cross_keys_values", width, 2 * inner)?);
        timings.extend(decoder.layer()?);
        timings.push(decoder.linear("cross_query", width, inner)?);
        timings.push(decoder.cross_attention()?);
        timings.push(decoder.linear("logits", width, config.vocab_size)?);
    }
    Ok(timings)
}

/// One kind of layer, and how many rows go through it.
#[derive(Clone, Copy)]
struct Stage {
    name: &'static str,
    width: usize,
    hidden: usize,
    layer: StackConfig,
    rows: usize,
    work: Workload,
}

impl Stage {
    /// Returns the width of all heads together.
    fn inner(&self) -> usize {
        self.layer.heads * self.layer.head_size
    }

    /// Times the kernels that every layer has.
    fn layer(&self) -> Result<Vec<KernelTiming>> {
        let (width, inner, hidden) = (self.width, self.inner(), self.hidden);
        let gated = self.layer.activation == Activation::GatedGelu;
        let mut timings = vec![
            self.norm()?,
            self.linear("query_key_value", width, 3 * inner)?,
            self.linear("attention_output", inner, width)?,
            self.linear("feed_forward_up", width, if gated { 2 * hidden } else { hidden })?,
        ];
        if gated {
            timings.push(self.gated_gelu()?);
        }
        timings.push(self.linear("feed_forward_down", hidden, width)?);
        Ok(timings)
    }

    fn linear(&self, kernel: &'static str, inputs: usize, outputs: usize) -> Result<KernelTiming> {
        let numbers = inputs * outputs;
        let x = self.activations(inputs)?; // [rows, in]
        let weights = self.work.weights;
        let first = PackedLinear::new(&vec![0.01; numbers], outputs, inputs, weights)?; // [out, in]
        let cost = Cost::linear(self.rows, inputs, outputs, weights);
        let copies = vec![first; copies(&cost)];
        let shape = vec![self.rows, inputs, outputs];
        self.time(kernel, shape, cost, copies.len(), |copy| match copies.get(copy) {
            Some(linear) => linear.apply(&x), // [rows, out]
            None => candle_core::bail!("there is no copy {copy} of the weight"),
        })
    }

    fn norm(&self) -> Result<KernelTiming> {
        let x = self.activations(self.width)?; // [rows, D]
        let scale = Tensor::full(1.0f32, (1, self.width), &Device::Cpu)?; // [1, D]
        let cost = Cost::norm(self.rows, self.width);
        let shape = vec![self.rows, self.width];
        self.time("rms_norm", shape, cost, CACHED_CALLS, |_| {
            x.apply_op2_no_bwd(&scale, &RmsNorm { eps: 1e-6, split: 0 }) // [rows, D]
        })
    }

    fn gated_gelu(&self) -> Result<KernelTiming> {
        let x = self.activations(2 * self.hidden)?; // [rows, 2F]
        let cost = Cost::activation(self.rows, 2 * self.hidden, self.hidden);
        let shape = vec![self.rows, self.hidden];
        self.time("gated_gelu", shape, cost, CACHED_CALLS, |_| {
            x.apply_op1_no_bwd(&GatedGelu) // [rows, F]
        })
    }

    /// Times attention of prompts to themselves.
    fn self_attention(&self) -> Result<KernelTiming> {
        let (batch, source, inner) = (self.work.batch, self.work.source, self.inner());
        let qkv = self.activations(3 * inner)?; // [N, 3D]
        let mut plan = AttentionPlan::default();
        for sample in 0..batch {
            let rows = sample * source..(sample + 1) * source;
            plan.push(vec![rows.clone()], vec![rows], false);
        }
        let plan = Arc::new(plan);
        let cost = Cost::self_attention(batch, source, inner);
        let shape = vec![batch, source, self.layer.heads, self.layer.head_size];
        self.time("self_attention", shape, cost, CACHED_CALLS, |_| {
            self_attention(&qkv, &plan, &self.scoring()) // [N, D]
        })
    }

    /// Times attention of written tokens to their prompts.
    fn cross_attention(&self) -> Result<KernelTiming> {
        let (batch, source, inner) = (self.work.batch, self.work.source, self.inner());
        let layout = layout(&self.layer, self.work.cache);
        let cost = Cost::kept_attention(batch, source as f64, layout);
        let layers = copies(&cost);
        let kv = vec![0.01; source * 2 * inner]; // [S, 2D]
        let memories = (0..batch).map(|_| {
            let layers = (0..layers).map(|_| KvRows::from_values(layout, &kv));
            let layers = KvLayers::Host(layers.collect::<Result<_>>()?);
            Ok(PromptMemory::new(layers, source))
        });
        let memories: Vec<PromptMemory> = memories.collect::<Result<_>>()?;
        let row = |(slot, memory)| DecoderRow {
            token: 0,
            slot,
            memory,
        };
        let rows: Vec<DecoderRow> = memories.iter().enumerate().map(row).collect();
        let q = vec![0.5; self.rows * inner]; // [B, D]
        let work = RefCell::new((Vec::new(), vec![0.0; q.len()]));
        let shape = vec![batch, source, self.layer.heads, self.layer.head_size];
        self.time("cross_attention", shape, cost, layers, |layer| {
            let (scores, out) = &mut *work.borrow_mut();
            let queries = PromptQueries {
                rows: &rows,
                layer,
                q: &q,
                scoring: &self.scoring(),
            };
            attend_to_prompts(&queries, scores, out) // [B, D]
        })
    }

    fn scoring(&self) -> ScoreRule {
        ScoreRule::scaled(self.layer.heads, self.layer.head_size)
    }

    fn activations(&self, width: usize) -> Result<Tensor> {
        Tensor::full(0.5f32, (self.rows, width), &Device::Cpu)?.force_contiguous()
    }

    /// Calls `call` with each of `copies` in turn, once to warm up and then `repeats` times, and takes the
    /// median.
    fn time<R>(
        &self,
        kernel: &'static str,
        shape: Vec<usize>,
        cost: Cost,
        copies: usize,
        call: impl Fn(usize) -> Result<R>,
    ) -> Result<KernelTiming> {
        let round = || {
            let mut outcome = Ok(());
            let taken = seconds(|| outcome = (0..copies).try_for_each(|copy| call(copy).map(drop)));
            outcome.map(|()| taken / copies as f64)
        };
        round()?;
        let rounds = (0..self.work.repeats).map(|_| round());
        Ok(KernelTiming {
            stage: self.name,
            kernel,
            shape,
            seconds: median(rounds.collect::<Result<_>>()?),
            cost,
        })
    }
}

/// Tells how many copies of what comes from memory no cache holds, unless operations take the time.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of calls, which is small and positive"
)]
fn copies(cost: &Cost) -> usize {
    let uncached = (ROTATED_BYTES / cost.memory_bytes.max(1.0)).ceil() as usize;
    let affordable = (ROUND_OPERATIONS / cost.operations.max(1.0)) as usize;
    uncached.min(affordable).clamp(1, MOST_COPIES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_config;

    const WORK: Workload = Workload {
        batch: 2,
        source: 5,
        weights: WeightType::F32,
        cache: CacheType::F32,
        repeats: 1,
    };

    #[test]
    fn every_kernel_of_both_stages_is_timed_at_its_shape() {
        let timings = kernels(&tiny_config(), WORK).unwrap();
        let find = |stage, kernel| {
            let found = timings
                .iter()
                .find(|timing| (timing.stage, timing.kernel) == (stage, kernel));
            found.unwrap_or_else(|| panic!("{stage} {kernel}"))
        };
        assert_eq!(find("encode", "query_key_value").shape, [10, 32, 96]);
        assert_eq!(find("encode", "cross_keys_values").shape, [10, 32, 64]);
        assert_eq!(find("encode", "self_attention").shape, [2, 5, 4, 8]);
        assert_eq!(find("decode", "feed_forward_up").shape, [2, 32, 96]);
        assert_eq!(find("decode", "cross_attention").shape, [2, 5, 2, 16]);
        let logits = find("decode", "logits");
        assert_eq!(logits.shape, [2, 32, 120]);
        // Outputs are read in panels of 16.
        assert!(logits.cost.memory_bytes.total_cmp(&(4.0 * 32.0 * 128.0)).is_eq());
        assert!(
            logits
                .cost
                .operations
                .total_cmp(&(2.0 * 2.0 * 32.0 * 120.0))
                .is_eq()
        );
        assert!(timings.iter().all(|timing| timing.seconds > 0.0));
    }

    #[test]
    fn a_model_without_decoder_has_no_decoding_kernels() {
        let config = ModelConfig {
            decoder: None,
            ..tiny_config()
        };
        let timings = kernels(&config, WORK).unwrap();
        assert!(!timings.is_empty() && timings.iter().all(|timing| timing.stage == "encode"));
    }

    #[test]
    fn the_share_is_the_least_time_by_the_time_taken() {
        let machine = Machine {
            threads: 1,
            memory_bytes: 100.0,
            cache_bytes: 1000.0,
            f32_operations: 10_000.0,
            bf16_operations: None,
            int8_operations: None,
        };
        let timing = KernelTiming {
            stage: "decode",
            kernel: "logits",
            shape: vec![1],
            seconds: 4.0,
            cost: Cost {
                operations: 30_000.0,
                memory_bytes: 100.0,
                ..Cost::default()
            },
        };
        assert!((timing.share(&machine) - 0.75).abs() < 1e-9);
    }

    #[test]
    fn weights_rotate_unless_operations_take_the_time() {
        let few = Cost {
            operations: 2e6,
            memory_bytes: f64::from(4u32 << 20),
            ..Cost::default()
        };
        assert_eq!(copies(&few), 64);
        let operations = 1e12;
        assert_eq!(copies(&Cost { operations, ..few }), 1);
    }
}
