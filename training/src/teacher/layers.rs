//! Convolutions over pictures that lie pixel by pixel, all channels of a pixel together.
//!
//! Every layer has its batch normalisation folded in.

use crate::matmul::{Right, add_product};

/// Channels that a depthwise convolution sums at once, in registers.
pub(super) const LANES: usize = 16;
/// Pixels that a pointwise convolution takes at once, so that they stay in the cache.
const PIXEL_BLOCK: usize = 512;

/// A square picture of features: `[side, side, channels]`.
#[derive(Debug, Clone)]
pub(super) struct FeatureMap {
    pub(super) side: usize,
    pub(super) channels: usize,
    pub(super) values: Vec<f32>,
}

/// A 1 x 1 convolution, which is a matrix product.
#[derive(Debug, Clone)]
pub(super) struct Pointwise {
    /// `[input channels, output channels]`
    pub(super) weights: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) has_relu6: bool,
}

impl Pointwise {
    pub(super) fn apply(&self, input: &FeatureMap) -> FeatureMap {
        let channels = self.bias.len();
        let pixels = input.side * input.side;
        let mut values = Vec::with_capacity(pixels * channels);
        for block in input.values.chunks(PIXEL_BLOCK * input.channels) {
            let start = values.len();
            for _ in 0..block.len() / input.channels {
                values.extend_from_slice(&self.bias);
            }
            let (_, output) = values.split_at_mut(start);
            add_product(
                output,
                block,
                &self.weights,
                (input.channels, channels),
                Right::Plain,
            );
            if self.has_relu6 {
                output.iter_mut().for_each(|value| *value = value.clamp(0.0, 6.0));
            }
        }
        FeatureMap {
            side: input.side,
            channels,
            values,
        } // [side, side, channels]
    }
}

/// A convolution of each channel alone, padded as TensorFlow's SAME, followed by ReLU6.
#[derive(Debug, Clone)]
pub(super) struct Depthwise {
    pub(super) kernel: usize,
    pub(super) stride: usize,
    /// By blocks of channels, then by taps of the kernel, row by row.
    pub(super) weights: Vec<[f32; LANES]>,
    /// By blocks of channels.
    pub(super) bias: Vec<[f32; LANES]>,
}

impl Depthwise {
    pub(super) fn apply(&self, input: &FeatureMap) -> FeatureMap {
        let side = input.side.div_ceil(self.stride);
        let mut values = Vec::with_capacity(side * side * input.channels);
        for y in 0..side {
            let rows = taps(y, self.stride, self.kernel, input.side);
            for x in 0..side {
                let columns = taps(x, self.stride, self.kernel, input.side);
                self.sum_taps(input, &rows, &columns, &mut values);
            }
        }
        FeatureMap {
            side,
            channels: input.channels,
            values,
        } // [side / stride, side / stride, channels]
    }

    /// Appends one pixel of the output.
    fn sum_taps(&self, input: &FeatureMap, rows: &Taps, columns: &Taps, values: &mut Vec<f32>) {
        let taps = self.kernel * self.kernel;
        let (pixels, _) = input.values.as_chunks::<LANES>();
        let blocks = self.bias.len();
        for ((block, weights), bias) in self.weights.chunks_exact(taps).enumerate().zip(&self.bias) {
            let mut sum = *bias;
            for row in 0..rows.count {
                let pixel = ((rows.input + row) * input.side + columns.input) * blocks + block;
                let tap = (rows.kernel + row) * self.kernel + columns.kernel;
                let inputs = pixels.iter().skip(pixel).step_by(blocks).take(columns.count);
                for (value, weight) in inputs.zip(weights.iter().skip(tap)) {
                    for lane in 0..LANES {
                        sum[lane] += value[lane] * weight[lane];
                    }
                }
            }
            values.extend(sum.map(|value| value.clamp(0.0, 6.0)));
        }
    }
}

/// The part of a kernel, along one side, that lies on the input.
struct Taps {
    /// First place in the input.
    input: usize,
    /// First place in the kernel.
    kernel: usize,
    count: usize,
}

/// Finds the taps at one place of the output. SAME padding puts the smaller half before.
fn taps(place: usize, stride: usize, kernel: usize, side: usize) -> Taps {
    let output = side.div_ceil(stride);
    let padding = ((output - 1) * stride + kernel).saturating_sub(side);
    let before = padding / 2;
    let start = place * stride;
    let first = before.saturating_sub(start);
    let input = (start + first) - before;
    let count = (kernel - first).min(side.saturating_sub(input));
    Taps {
        input,
        kernel: first,
        count,
    }
}

/// Gathers each 3 x 3 neighbourhood, stride 2 and padded as SAME, so that the stem is a pointwise
/// convolution.
pub(super) fn gather_neighbourhoods(input: &FeatureMap) -> FeatureMap {
    const KERNEL: usize = 3;
    let side = input.side.div_ceil(2);
    let channels = KERNEL * KERNEL * input.channels;
    let mut values = vec![0.0; side * side * channels];
    for (index, neighbourhood) in values.chunks_exact_mut(channels).enumerate() {
        let rows = taps(index / side, 2, KERNEL, input.side);
        let columns = taps(index % side, 2, KERNEL, input.side);
        for row in 0..rows.count {
            let from = ((rows.input + row) * input.side + columns.input) * input.channels;
            let to = ((rows.kernel + row) * KERNEL + columns.kernel) * input.channels;
            let length = columns.count * input.channels;
            if let (Some(target), Some(source)) = (
                neighbourhood.get_mut(to..to + length),
                input.values.get(from..from + length),
            ) {
                target.copy_from_slice(source);
            }
        }
    }
    FeatureMap {
        side,
        channels,
        values,
    } // [side / 2, side / 2, 9 * channels]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{fork, normal};

    /// Convolves one channel as the definition says, on an input that is padded for real.
    fn convolve(input: &[f32], side: usize, kernel: &[f32], size: usize, stride: usize) -> Vec<f32> {
        let output = side.div_ceil(stride);
        let padding = ((output - 1) * stride + size).saturating_sub(side);
        let padded_side = side + padding;
        let before = padding / 2;
        let mut padded = vec![0.0; padded_side * padded_side];
        for (index, value) in input.iter().enumerate() {
            padded[(index / side + before) * padded_side + index % side + before] = *value;
        }
        let at = |y: usize, x: usize| -> f32 {
            (0..size * size)
                .map(|tap| {
                    kernel[tap] * padded[(y * stride + tap / size) * padded_side + x * stride + tap % size]
                })
                .sum()
        };
        (0..output * output)
            .map(|index| at(index / output, index % output))
            .collect()
    }

    #[test]
    fn depthwise_convolution_equals_its_definition() {
        let mut rng = fork(1, &[]);
        for (side, kernel, stride) in [
            (8, 3, 1),
            (8, 3, 2),
            (8, 5, 2),
            (8, 5, 1),
            (7, 3, 2),
            (7, 5, 2),
            (3, 5, 1),
        ] {
            let channels = 2 * LANES;
            let mut random = |count: usize| (0..count).map(|_| normal(&mut rng)).collect::<Vec<f32>>();
            let input = FeatureMap {
                side,
                channels,
                values: random(side * side * channels),
            };
            let weights = random(kernel * kernel * channels);
            let (weights, _) = weights.as_chunks::<LANES>();
            let layer = Depthwise {
                kernel,
                stride,
                weights: weights.to_vec(),
                bias: vec![[0.5; LANES]; 2],
            };
            let output = layer.apply(&input);
            for channel in 0..channels {
                let plane: Vec<f32> = input
                    .values
                    .iter()
                    .skip(channel)
                    .step_by(channels)
                    .copied()
                    .collect();
                let taps = kernel * kernel;
                let own: Vec<f32> = (0..taps)
                    .map(|tap| weights[channel / LANES * taps + tap][channel % LANES])
                    .collect();
                let expected = convolve(&plane, side, &own, kernel, stride);
                let found: Vec<f32> = output
                    .values
                    .iter()
                    .skip(channel)
                    .step_by(channels)
                    .copied()
                    .collect();
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(expected) {
                    assert!(
                        (found - (expected + 0.5).clamp(0.0, 6.0)).abs() < 1e-4,
                        "{side} {kernel} {stride}"
                    );
                }
            }
        }
    }

    #[test]
    fn gathered_neighbourhoods_make_a_convolution() {
        let mut rng = fork(2, &[]);
        for side in [6, 7] {
            let values: Vec<f32> = (0..side * side).map(|_| normal(&mut rng)).collect();
            let kernel: Vec<f32> = (0..9).map(|_| normal(&mut rng)).collect();
            let expected = convolve(&values, side, &kernel, 3, 2);
            let gathered = gather_neighbourhoods(&FeatureMap {
                side,
                channels: 1,
                values,
            });
            let layer = Pointwise {
                weights: kernel,
                bias: vec![0.0],
                has_relu6: false,
            };
            for (found, expected) in layer.apply(&gathered).values.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-4);
            }
        }
    }
}
