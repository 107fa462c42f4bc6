//! Learned positions of pictures of another size.

use candle_core::{DType, Device, Result, Tensor};

/// Resizes a square grid of positions `[g * g, D]` to `[G * G, D]` by bicubic interpolation.
///
/// Source: `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)`, which BEiT-3's loader
/// uses; the cubic kernel is Keys 1981 with a = -0.75.
pub(crate) fn resize_grid(table: &Tensor, from: usize, to: usize) -> Result<Tensor> {
    let (_, width) = table.dims2()?;
    let rows = table
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F32)?
        .to_vec2::<f32>()?;
    let taps: Vec<[(usize, f32); 4]> = (0..to).map(|place| taps(place, from, to)).collect();
    let mut out = Vec::with_capacity(to * to * width);
    for vertical in &taps {
        for horizontal in &taps {
            let start = out.len();
            out.resize(start + width, 0.0f32);
            for (y, wy) in vertical {
                for (x, wx) in horizontal {
                    for (sum, value) in out[start..].iter_mut().zip(&rows[y * from + x]) {
                        *sum += wy * wx * value;
                    }
                }
            }
        }
    }
    let resized = Tensor::from_vec(out, (to * to, width), &Device::Cpu)?;
    resized.to_dtype(table.dtype())?.to_device(table.device())
}

/// Lists the four places of the source that a place of the result is made of, with their weights.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "places in a grid, cut to its edges"
)]
fn taps(place: usize, from: usize, to: usize) -> [(usize, f32); 4] {
    let centre = (place as f64 + 0.5) * from as f64 / to as f64 - 0.5;
    let (whole, rest) = (centre.floor(), centre - centre.floor());
    [-1.0, 0.0, 1.0, 2.0].map(|offset| {
        let at = (whole + offset).clamp(0.0, (from - 1) as f64) as usize;
        (at, cubic((offset - rest).abs()) as f32)
    })
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.75;
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((x - 5.0) * x + 8.0) * A * x - 4.0 * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_size_changes_nothing_and_a_constant_stays_one() {
        let grid = crate::testing::random(&[9, 2], 1);
        let same = resize_grid(&grid, 3, 3).unwrap();
        crate::testing::assert_close("same", &same, &grid, 1e-6);
        let ones = Tensor::ones((9, 2), DType::F32, &Device::Cpu).unwrap();
        let larger = resize_grid(&ones, 3, 5).unwrap();
        let expected = Tensor::ones((25, 2), DType::F32, &Device::Cpu).unwrap();
        crate::testing::assert_close("ones", &larger, &expected, 1e-6);
    }
}
