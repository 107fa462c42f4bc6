//! What stands behind a picture.

use rand_chacha::rand_core::Rng;

use super::pixel::Pixel;
use crate::random::{below, between, unit};

/// Cells along each side of a background of soft spots.
const SPOTS: usize = 5;

/// Puts the picture on white, as the product does with alpha, and splits it into planes.
pub(super) fn compose_on_white(image: &[Pixel]) -> Vec<f32> {
    compose(image, |_| [1.0; 3])
}

/// Puts the picture on one colour, a gradient between two, or soft spots of many.
pub(super) fn compose_on_random(image: &[Pixel], size: usize, rng: &mut impl Rng) -> Vec<f32> {
    let [first, second] = [random_colour(rng), random_colour(rng)];
    match below(rng, 4) {
        0 | 1 => compose(image, |_| first),
        2 => {
            let (sin, cos) = between(rng, 0.0, std::f32::consts::TAU).sin_cos();
            let scale = 1.0 / size as f32;
            compose(image, |index| {
                let (x, y) = (
                    (index % size) as f32 * scale - 0.5,
                    (index / size) as f32 * scale - 0.5,
                );
                mix(first, second, (0.5 + 0.7 * (x * cos + y * sin)).clamp(0.0, 1.0))
            })
        }
        _ => {
            let spots: [[[f32; 3]; SPOTS]; SPOTS] =
                std::array::from_fn(|_| std::array::from_fn(|_| mix(first, random_colour(rng), 0.6)));
            let scale = (SPOTS - 1) as f32 / size as f32;
            compose(image, |index| {
                spot_colour(
                    &spots,
                    (index % size) as f32 * scale,
                    (index / size) as f32 * scale,
                )
            })
        }
    }
}

fn compose(image: &[Pixel], behind: impl Fn(usize) -> [f32; 3]) -> Vec<f32> {
    let mut planes = vec![0.0; image.len() * 3];
    let (red, rest) = planes.split_at_mut(image.len());
    let (green, blue) = rest.split_at_mut(image.len());
    for (index, ((pixel, red), (green, blue))) in
        image.iter().zip(red).zip(green.iter_mut().zip(blue)).enumerate()
    {
        let clear = 1.0 - pixel[3];
        let behind = behind(index);
        *red = pixel[0] + clear * behind[0];
        *green = pixel[1] + clear * behind[1];
        *blue = pixel[2] + clear * behind[2];
    }
    planes
}

fn random_colour(rng: &mut impl Rng) -> [f32; 3] {
    // Light colours are more common behind pictures than dark ones.
    let light = unit(rng).sqrt();
    let colour = [unit(rng), unit(rng), unit(rng)];
    mix(colour, [light; 3], unit(rng))
}

fn mix(from: [f32; 3], to: [f32; 3], share: f32) -> [f32; 3] {
    std::array::from_fn(|channel| from[channel] + share * (to[channel] - from[channel]))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to SPOTS - 1; `as` saturates"
)]
fn spot_colour(spots: &[[[f32; 3]; SPOTS]; SPOTS], x: f32, y: f32) -> [f32; 3] {
    let (column, row) = ((x as usize).min(SPOTS - 2), (y as usize).min(SPOTS - 2));
    let (right, down) = (x - column as f32, y - row as f32);
    let above = mix(spots[row][column], spots[row][column + 1], right);
    let under = mix(spots[row + 1][column], spots[row + 1][column + 1], right);
    mix(above, under, down)
}
