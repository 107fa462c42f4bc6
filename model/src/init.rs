//! Fresh weights, for training and for tests.

use candle_core::{Device, Result, Tensor};

use crate::config::ModelConfig;

/// A small counter-based generator (SplitMix64), so that the same seed gives the same weights everywhere.
///
/// Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 16.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws from the open interval (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Draws from the standard normal distribution by the method of Box and Muller.
    #[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
    fn normal(&mut self) -> f32 {
        let (a, b) = (self.uniform(), self.uniform());
        ((-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
    }
}

/// Draws fresh weights for every tensor of a configuration, in the order of [`ModelConfig::tensors`].
///
/// Norm scales are one; projections are normal with variance 1 / fan-in, those that write to the residual
/// stream smaller by the square root of twice the number of layers; positions are two-dimensional sines and
/// cosines, from where training moves them.
///
/// # Errors
/// Where a tensor cannot be made.
pub fn initialise(config: &ModelConfig, seed: u64, device: &Device) -> Result<Vec<(String, Tensor)>> {
    let mut random = SplitMix(seed);
    let make = |(name, shape): (String, Vec<usize>)| {
        let count: usize = shape.iter().product();
        let values = if name.ends_with("norm.weight") {
            vec![1.0; count]
        } else if name == "vision_embed.position.weight" {
            grid_positions(config)
        } else {
            let std = deviation(config, &name, &shape);
            (0..count).map(|_| random.normal() * std).collect()
        };
        let tensor = Tensor::from_vec(values, shape, device)?;
        Ok((name, tensor))
    };
    config.tensors().into_iter().map(make).collect()
}

fn deviation(config: &ModelConfig, name: &str, shape: &[usize]) -> f32 {
    let fan_in = shape.last().copied().unwrap_or(1) as f32;
    let base = fan_in.powf(-0.5);
    if name.ends_with("out_proj.weight") || name.ends_with("down.weight") {
        let layers = match config.decoder {
            Some(decoder) if !name.starts_with("encoder") => 3 * decoder.layers,
            _ => 2 * config.encoder.layers,
        };
        return base / (layers as f32).sqrt();
    }
    if name.starts_with("language_embed") {
        return 0.3;
    }
    if name.starts_with("vision_embed.image_index") || name.ends_with("_token") {
        return 0.1;
    }
    base
}

/// Tabulates sines and cosines of row and column for the patches; the class row is zero. `[P + 1, D]`
#[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
fn grid_positions(config: &ModelConfig) -> Vec<f32> {
    let (d, grid) = (config.hidden_size, config.grid());
    let quarter = (d / 4).max(1);
    let mut table = vec![0.0; d];
    for patch in 0..config.patches() {
        let place = [(patch / grid) as f64, (patch % grid) as f64];
        table.extend((0..d).map(|i| {
            let (axis, rest) = ((i / (2 * quarter)).min(1), i % (2 * quarter));
            let angle = place[axis] / 100f64.powf((rest % quarter) as f64 / quarter as f64);
            (0.5 * if rest < quarter { angle.sin() } else { angle.cos() }) as f32
        }));
    }
    table
}
