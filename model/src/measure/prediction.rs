//! A lower bound on the latency of a decoding step, or of encoding.

use super::cost::layout;
use super::{Cost, Machine};
use crate::config::{Activation, ModelConfig, StackConfig};
use crate::kernels::{CacheType, WeightType};

/// What a step, or an encoding, does on a CPU: its kernels, and how often each is called.
///
/// A machine is predicted to take, over all kernels,
///
/// ```text
/// sum of calls * max(memory bytes / memory bandwidth + cache bytes / cache bandwidth, operations / peak)
/// ```
///
/// - Memory bytes are those of weights, read once for all rows of a call; of a step also each row's keys and
///   values, which the rows do not share: those of its prompt in each layer, and of what it has written, at
///   their mean length.
/// - Cache bytes are those of activations, which go into each kernel and out of it.
/// - The peak is that of `f32`, but for linear layers with weights in 8 bits that of `int8`.
///
/// It is a floor and not an estimate: that threads wait for each other, that a row is made 8-bit, the
/// exponentials of a softmax and all else are left out. Only where caches keep weights after all, as of small
/// models, can less time be taken.
///
/// Prompts are taken to be text alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction(Vec<(usize, Cost)>);

/// A step of decoding, one row for each text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepWork {
    /// How many texts are written at a time.
    pub batch: usize,
    /// How many rows the prompt of each has.
    pub source: usize,
    /// How many tokens are written in all: the step stands for the mean of as many.
    pub new_tokens: usize,
    /// The type of the weights of linear layers.
    pub weights: WeightType,
    /// The element type of the KV cache.
    pub cache: CacheType,
}

impl Prediction {
    /// Lists the kernels of the mean step of a decoder; none where there is none.
    #[must_use]
    pub fn decode_step(config: &ModelConfig, work: StepWork) -> Self {
        let Some(decoder) = config.decoder else {
            return Self(Vec::new());
        };
        let stack = Stack {
            width: config.hidden_size,
            hidden: config.intermediate_size,
            layer: decoder,
            weights: work.weights,
            rows: work.batch,
        };
        let (batch, inner) = (work.batch, stack.inner());
        let layout = layout(&stack.layer, work.cache);
        // The first token sees itself, and the last sees all.
        let written = (work.new_tokens + 1) as f64 / 2.0;
        let mut layer = stack.layer();
        layer.extend([
            Cost::kept_attention(batch, written, layout),
            stack.norm(),
            stack.linear(stack.width, inner),
            Cost::kept_attention(batch, work.source as f64, layout),
            stack.linear(inner, stack.width),
        ]);
        let mut calls = each(decoder.layers, layer);
        let end = vec![stack.norm(), stack.linear(stack.width, config.vocab_size)];
        calls.extend(each(1, end));
        Self(calls)
    }

    /// Lists the kernels of encoding `batch` prompts of `source` rows, with the projection to
    /// cross-attention.
    #[must_use]
    pub fn encoding(config: &ModelConfig, weights: WeightType, batch: usize, source: usize) -> Self {
        let stack = Stack {
            width: config.hidden_size,
            hidden: config.intermediate_size,
            layer: config.encoder,
            weights,
            rows: batch * source,
        };
        let mut layer = stack.layer();
        layer.push(Cost::self_attention(batch, source, stack.inner()));
        let mut calls = each(config.encoder.layers, layer);
        calls.push((1, stack.norm()));
        if let Some(decoder) = config.decoder {
            let keys_values = 2 * decoder.inner_size();
            calls.push((decoder.layers, stack.linear(stack.width, keys_values)));
        }
        Self(calls)
    }

    /// Returns the lower bound for a machine, in seconds.
    #[must_use]
    pub fn seconds(&self, machine: &Machine) -> f64 {
        let kernels = self.0.iter();
        kernels
            .map(|(calls, cost)| *calls as f64 * cost.seconds(machine))
            .sum()
    }
}

/// Layers of one kind, and how many rows go through them.
struct Stack {
    width: usize,
    hidden: usize,
    layer: StackConfig,
    weights: WeightType,
    rows: usize,
}

impl Stack {
    fn inner(&self) -> usize {
        self.layer.heads * self.layer.head_size
    }

    fn norm(&self) -> Cost {
        Cost::norm(self.rows, self.width)
    }

    fn linear(&self, inputs: usize, outputs: usize) -> Cost {
        Cost::linear(self.rows, inputs, outputs, self.weights)
    }

    /// Lists what every layer has, but for attention itself.
    fn layer(&self) -> Vec<Cost> {
        let (width, inner, hidden) = (self.width, self.inner(), self.hidden);
        let up = match self.layer.activation {
            Activation::GatedGelu => 2 * hidden,
            Activation::Relu | Activation::Gelu => hidden,
        };
        let mut layer = vec![
            self.norm(),
            self.linear(width, 3 * inner),
            self.linear(inner, width),
            self.norm(),
            self.linear(width, up),
            Cost::activation(self.rows, up, hidden),
            self.linear(hidden, width),
        ];
        if self.layer.sub_norm {
            layer.extend([Cost::norm(self.rows, inner), Cost::norm(self.rows, hidden)]);
        }
        layer
    }
}

/// Calls each of some kernels so often.
fn each(calls: usize, kernels: Vec<Cost>) -> Vec<(usize, Cost)> {
    kernels.into_iter().map(|cost| (calls, cost)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_config;

    const STEP: StepWork = StepWork {
        batch: 2,
        source: 5,
        new_tokens: 7,
        weights: WeightType::F32,
        cache: CacheType::F32,
    };

    /// Takes a second for each byte from memory, and no time for all else.
    fn memory_alone() -> Machine {
        Machine {
            threads: 1,
            memory_bytes: 1.0,
            cache_bytes: f64::INFINITY,
            f32_operations: f64::INFINITY,
            bf16_operations: None,
            int8_operations: None,
        }
    }

    /// Takes a second for each operation, and no time for all else.
    fn operations_alone() -> Machine {
        Machine {
            memory_bytes: f64::INFINITY,
            f32_operations: 1.0,
            ..memory_alone()
        }
    }

    fn step(work: StepWork, machine: &Machine) -> f64 {
        Prediction::decode_step(&tiny_config(), work).seconds(machine)
    }

    #[test]
    fn a_step_reads_weights_once_and_keys_and_values_once_a_row() {
        let config = tiny_config();
        let (width, hidden) = (config.hidden_size, config.intermediate_size);
        // Query, key, value and output, query and output across, up, gate and down.
        let layer = 6 * width * width + 3 * width * hidden;
        let output = width * config.vocab_size.next_multiple_of(16);
        let weights = 4 * (config.decoder_layers() * layer + output);
        // Seven tokens see four on average.
        let row = 4 * config.decoder_layers() * 2 * width * (STEP.source + 4);
        let expected = |batch: usize| (weights + batch * row) as f64;
        for batch in [1, 2, 64] {
            let found = step(StepWork { batch, ..STEP }, &memory_alone());
            assert!(
                (found - expected(batch)).abs() < 1.0,
                "{found} for {}",
                expected(batch)
            );
        }
    }

    #[test]
    fn the_prediction_grows_with_batch_source_and_answer() {
        let more = [
            StepWork { batch: 3, ..STEP },
            StepWork { source: 6, ..STEP },
            StepWork {
                new_tokens: 8,
                ..STEP
            },
        ];
        for machine in [memory_alone(), operations_alone()] {
            for work in more {
                assert!(step(work, &machine) > step(STEP, &machine), "{work:?}");
            }
        }
    }

    #[test]
    fn narrow_weights_and_narrow_keys_and_values_are_read_sooner() {
        let weights = WeightType::Bf16;
        let cache = CacheType::Bf16;
        let wide = step(STEP, &memory_alone());
        let narrow = step(StepWork { weights, ..STEP }, &memory_alone());
        let both = step(
            StepWork {
                weights,
                cache,
                ..STEP
            },
            &memory_alone(),
        );
        assert!(both < narrow && narrow < wide);
        assert!(
            (2.0 * both - wide).abs() < 1.0,
            "half of everything: {both} of {wide}"
        );
    }

    #[test]
    fn operations_of_encoding_grow_with_the_rows_and_those_of_attention_with_their_square() {
        let config = tiny_config();
        let operations = |batch, source| {
            Prediction::encoding(&config, WeightType::F32, batch, source).seconds(&operations_alone())
        };
        assert!((operations(6, 5) - 6.0 * operations(1, 5)).abs() < 1e-3);
        let attention = 4 * config.encoder.layers * config.hidden_size;
        // Of ten rows each, but twice five by five, or ten by ten.
        let more = operations(1, 10) - operations(2, 5);
        assert!((more - (attention * (100 - 50)) as f64).abs() < 1e-3);
    }

    #[test]
    fn a_model_without_a_decoder_projects_no_keys_and_values_for_it() {
        let with = tiny_config();
        let without = ModelConfig {
            decoder: None,
            ..tiny_config()
        };
        let bytes = |config| Prediction::encoding(config, WeightType::F32, 1, 5).seconds(&memory_alone());
        let keys_values = 4 * with.decoder_layers() * 2 * with.hidden_size * with.hidden_size;
        assert!((bytes(&with) - bytes(&without) - keys_values as f64).abs() < 1e-3);
    }
}
