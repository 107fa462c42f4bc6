//! The operations and bytes of kernels, by their shapes: the roofline model.

use super::Machine;
use crate::config::StackConfig;
use crate::kernels::rows::KvLayout;
use crate::kernels::{CacheType, WeightType};

/// The least operations and memory traffic of a call of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Cost {
    /// The operations, a multiplication and an addition counting as two.
    pub operations: f64,
    /// What is multiplied.
    pub factors: WeightType,
    /// The bytes that come from memory: weights, keys and values.
    pub memory_bytes: f64,
    /// The bytes of activations that are read and written.
    pub cache_bytes: f64,
}

impl Cost {
    /// Returns the least time that a machine needs: to move the bytes, or to do the operations, whichever
    /// takes longer.
    #[must_use]
    pub fn seconds(&self, machine: &Machine) -> f64 {
        let moving = self.memory_bytes / machine.memory_bytes + self.cache_bytes / machine.cache_bytes;
        let narrow = match self.factors {
            WeightType::F32 => None,
            WeightType::Bf16 => machine.bf16_operations,
            WeightType::Int8 => machine.int8_operations,
        };
        // An instruction for narrow numbers can be the slower one.
        let peak = narrow.unwrap_or_default().max(machine.f32_operations);
        moving.max(self.operations / peak)
    }

    /// Returns the cost of a linear layer, whose weight is read once for all rows.
    pub(super) fn linear(rows: usize, inputs: usize, outputs: usize, weights: WeightType) -> Self {
        let panels: usize = weights.panel_shape(outputs, inputs).iter().product();
        Self {
            operations: 2.0 * (rows * inputs * outputs) as f64,
            factors: weights,
            memory_bytes: panels as f64,
            cache_bytes: bytes(rows * (inputs + outputs)),
        }
    }

    /// Returns the cost of a norm of rows.
    pub(super) fn norm(rows: usize, width: usize) -> Self {
        Self {
            operations: 4.0 * (rows * width) as f64,
            cache_bytes: bytes(2 * rows * width),
            ..Self::default()
        }
    }

    /// Returns the cost of the activation between the two halves of a feed-forward network: `inputs` numbers
    /// of a row give `hidden`.
    pub(super) fn activation(rows: usize, inputs: usize, hidden: usize) -> Self {
        Self {
            cache_bytes: bytes(rows * (inputs + hidden)),
            ..Self::default()
        }
    }

    /// Returns the cost of attention of `batch` prompts of `source` rows to themselves.
    pub(super) fn self_attention(batch: usize, source: usize, inner: usize) -> Self {
        Self {
            operations: 4.0 * (batch * source * source * inner) as f64,
            cache_bytes: bytes(4 * batch * source * inner),
            ..Self::default()
        }
    }

    /// Returns the cost of attention of one row of each of `batch` sequences to `length` rows of its KV
    /// cache.
    pub(super) fn kept_attention(batch: usize, length: f64, layout: KvLayout) -> Self {
        let rows = length * batch as f64;
        Self {
            // Of keys and of values two for each number.
            operations: 2.0 * rows * layout.width() as f64,
            memory_bytes: rows * layout.row_bytes() as f64,
            cache_bytes: bytes(batch * layout.width()),
            ..Self::default()
        }
    }
}

/// Returns the layout of a layer's keys and values.
pub(super) fn layout(layer: &StackConfig, cache_type: CacheType) -> KvLayout {
    KvLayout {
        cache_type,
        heads: layer.heads,
        head_size: layer.head_size,
    }
}

/// Counts the bytes of activations.
fn bytes(numbers: usize) -> f64 {
    (numbers * size_of::<f32>()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::PackedLinear;

    fn machine() -> Machine {
        Machine {
            threads: 1,
            memory_bytes: 100.0,
            cache_bytes: 1000.0,
            f32_operations: 10_000.0,
            bf16_operations: Some(20_000.0),
            int8_operations: Some(40_000.0),
        }
    }

    #[test]
    fn the_least_time_is_that_of_the_ceiling_that_is_reached_first() {
        let cost = Cost {
            operations: 10_000.0,
            factors: WeightType::F32,
            memory_bytes: 100.0,
            cache_bytes: 1000.0,
        };
        // Memory takes one second and the caches another, operations one second.
        assert!((cost.seconds(&machine()) - 2.0).abs() < 1e-9);
        let operations = 30_000.0;
        let many = Cost { operations, ..cost };
        assert!((many.seconds(&machine()) - 3.0).abs() < 1e-9);
        for (factors, operations) in [(WeightType::Bf16, 60_000.0), (WeightType::Int8, 120_000.0)] {
            let narrow = Cost {
                factors,
                operations,
                ..cost
            };
            assert!((narrow.seconds(&machine()) - 3.0).abs() < 1e-9);
        }
        let unmeasured = Machine {
            bf16_operations: None,
            ..machine()
        };
        let factors = WeightType::Bf16;
        assert!((Cost { factors, ..many }.seconds(&unmeasured) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_weight_is_weighed_as_it_is_packed() {
        for weights in WeightType::ALL {
            let linear = PackedLinear::new(&[0.5; 35 * 19], 35, 19, weights).unwrap();
            let cost = Cost::linear(3, 19, 35, weights);
            assert!(
                cost.memory_bytes.total_cmp(&(linear.bytes() as f64)).is_eq(),
                "{weights}"
            );
        }
    }
}
