//! Changes of colour, on pixels multiplied by alpha.

use rand_chacha::rand_core::Rng;

use super::pixel::Pixel;
use crate::random::{between, chance};

/// How much red, green and blue give to luminance (Rec. 709).
pub(super) const LUMINANCE: [f32; 3] = [0.213, 0.715, 0.072];

/// A change of colour: three rows of factors for red, green and blue, and an offset.
type ColourMatrix = [[f32; 4]; 3];

/// Changes brightness, contrast, saturation, hue and each channel's gain, together as one matrix.
pub(super) fn jitter(image: &mut [Pixel], greyscale: bool, rng: &mut impl Rng) {
    let saturation = if greyscale { 0.0 } else { between(rng, 0.6, 1.5) };
    let turn = if chance(rng, 0.5) {
        between(rng, -0.2, 0.2)
    } else {
        0.0
    };
    let contrast = between(rng, 0.7, 1.3);
    let brightness = between(rng, -0.12, 0.12) + 0.5 * (1.0 - contrast);
    let gains = [
        between(rng, 0.88, 1.12),
        between(rng, 0.88, 1.12),
        between(rng, 0.88, 1.12),
    ];
    let hue = hue_and_saturation(turn, saturation);
    let mut matrix = ColourMatrix::default();
    for ((row, hue), gain) in matrix.iter_mut().zip(hue).zip(gains) {
        for (factor, hue) in row.iter_mut().zip(hue) {
            *factor = hue * gain * contrast;
        }
        row[3] = brightness * gain;
    }
    for pixel in image {
        let [red, green, blue, alpha] = *pixel;
        for (value, row) in pixel.iter_mut().zip(&matrix) {
            let changed = row[0] * red + row[1] * green + row[2] * blue + row[3] * alpha;
            *value = changed.clamp(0.0, alpha);
        }
    }
}

/// Turns the hue by an angle and scales the saturation, keeping luminance.
///
/// Source: W3C Filter Effects Module Level 1, section 9.5 (`hueRotate` and `saturate`), in one matrix.
fn hue_and_saturation(turn: f32, saturation: f32) -> [[f32; 3]; 3] {
    // What a turn by 90 degrees gives, beyond luminance.
    const QUARTER: [[f32; 3]; 3] = [
        [-0.213, -0.715, 0.928],
        [0.143, 0.140, -0.283],
        [-0.787, 0.715, 0.072],
    ];
    let (sin, cos) = turn.sin_cos();
    let mut matrix = [[0.0; 3]; 3];
    for (row, (values, quarter)) in matrix.iter_mut().zip(QUARTER).enumerate() {
        for (column, value) in values.iter_mut().enumerate() {
            let identity = if row == column { 1.0 } else { 0.0 };
            *value = LUMINANCE[column]
                + saturation * (cos * (identity - LUMINANCE[column]) + sin * quarter[column]);
        }
    }
    matrix
}

/// Rounds every colour to a few levels a channel.
pub(super) fn posterise(image: &mut [Pixel], levels: usize) {
    let steps = levels.max(1) as f32;
    for pixel in image {
        let alpha = pixel[3];
        if alpha > 0.0 {
            let (in_steps, out_of_steps) = (steps / alpha, alpha / steps);
            for value in &mut pixel[..3] {
                *value = (*value * in_steps + 0.5).floor() * out_of_steps;
            }
        }
    }
}
