//! Prepares a picture for the network: on white, enlarged.

use super::network::INPUT_SIDE;

/// Composes a square RGBA picture of straight alpha on white and enlarges it with Catmull-Rom interpolation.
///
/// # Shapes
///
/// `[side, side, 4]` to `[INPUT_SIDE, INPUT_SIDE, 3]`, from 0 to 255
#[must_use]
pub fn enlarge_on_white(rgba: &[u8]) -> Vec<f32> {
    let side = (rgba.len() / 4).isqrt();
    let (pixels, _) = rgba.as_chunks::<4>();
    let on_white = |&[red, green, blue, alpha]: &[u8; 4]| {
        let opacity = f32::from(alpha) / 255.0;
        [red, green, blue].map(|value| 255.0 + (f32::from(value) - 255.0) * opacity)
    };
    let source: Vec<[f32; 3]> = pixels.iter().map(on_white).collect(); // [side, side, 3]
    let taps: Vec<Taps> = (0..INPUT_SIDE).map(|place| Taps::at(place, side)).collect();
    let wide: Vec<[f32; 3]> = source
        .chunks_exact(side.max(1))
        .flat_map(|row| taps.iter().map(move |taps| taps.sum(|at| row.get(at))))
        .collect(); // [side, INPUT_SIDE, 3]
    let mut output = Vec::with_capacity(INPUT_SIDE * INPUT_SIDE * 3);
    for taps in &taps {
        for column in 0..INPUT_SIDE {
            let sum = taps.sum(|at| wide.get(at * INPUT_SIDE + column));
            output.extend(sum.map(|value| value.clamp(0.0, 255.0)));
        }
    }
    output // [INPUT_SIDE, INPUT_SIDE, 3]
}

/// Four neighbours along one side, and how much each counts.
struct Taps {
    places: [usize; 4],
    weights: [f32; 4],
}

impl Taps {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the picture before"
    )]
    fn at(place: usize, side: usize) -> Self {
        let centre = (place as f32 + 0.5) * side as f32 / INPUT_SIDE as f32 - 0.5;
        let first = centre.floor();
        let t = centre - first;
        let last = side.saturating_sub(1) as f32;
        let places = [-1.0, 0.0, 1.0, 2.0].map(|offset: f32| (first + offset).clamp(0.0, last) as usize);
        // Keys 1981 with a = -0.5.
        let weights = [
            ((-0.5 * t + 1.0) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1.0,
            ((-1.5 * t + 2.0) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ];
        Self { places, weights }
    }

    fn sum<'a>(&self, pixel: impl Fn(usize) -> Option<&'a [f32; 3]>) -> [f32; 3] {
        let mut sum = [0.0; 3];
        for (place, weight) in self.places.iter().zip(self.weights) {
            if let Some(pixel) = pixel(*place) {
                for (sum, value) in sum.iter_mut().zip(pixel) {
                    *sum += weight * value;
                }
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_pictures_stay_flat_and_alpha_shows_white() {
        let half: Vec<u8> = [0, 100, 200, 51].repeat(96 * 96);
        let enlarged = enlarge_on_white(&half);
        assert_eq!(enlarged.len(), INPUT_SIDE * INPUT_SIDE * 3);
        for pixel in enlarged.chunks(3) {
            for (found, expected) in pixel.iter().zip([204.0, 224.0, 244.0]) {
                assert!((found - expected).abs() < 0.01);
            }
        }
    }

    #[test]
    fn a_ramp_stays_a_ramp() {
        let ramp: Vec<u8> = (0..64 * 64)
            .flat_map(|at| [u8::try_from(at % 64 * 2).unwrap(), 0, 0, 255])
            .collect();
        let enlarged = enlarge_on_white(&ramp);
        for x in 8..INPUT_SIDE - 8 {
            let expected = ((x as f32 + 0.5) * 64.0 / INPUT_SIDE as f32 - 0.5) * 2.0;
            assert!((enlarged[x * 3] - expected).abs() < 0.01);
        }
    }
}
