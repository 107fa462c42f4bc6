//! How a picture is drawn: outlines, focus, noise, covered parts.

use rand_chacha::rand_core::Rng;

use super::colour::LUMINANCE;
use super::pixel::Pixel;
use crate::random::{below, between, chance, unit};

/// Draws a dark line along the border of the shape and along strong edges inside it, as another artist would.
///
/// The line is the difference between the widened and the narrowed shape, so it stands across the border.
pub(super) fn outline(image: &mut [Pixel], size: usize, rng: &mut impl Rng) {
    let darkness = if chance(rng, 0.7) {
        0.0
    } else {
        between(rng, 0.0, 0.3)
    };
    let strength = between(rng, 0.7, 1.0);
    let is_wide = chance(rng, 0.15);
    let inner = if chance(rng, 0.8) {
        between(rng, 0.5, 1.0)
    } else {
        0.0
    };
    let threshold = between(rng, 0.1, 0.25);

    let alpha: Vec<f32> = image.iter().map(|pixel| pixel[3]).collect();
    let luminance: Vec<f32> = image.iter().map(luminance_on_grey).collect();
    let mut border = spread(&alpha, size);
    let edges = spread(&luminance, size);
    if is_wide {
        border = widen(&border, size);
    }
    for (pixel, (border, edge)) in image.iter_mut().zip(border.into_iter().zip(edges)) {
        // Edges of luminance count inside the shape; around it the border decides.
        let inside = ((edge - threshold) * 4.0).clamp(0.0, 1.0) * inner * pixel[3];
        let line = border.max(inside) * strength;
        let colour_share = 1.0 - line;
        for value in &mut pixel[..3] {
            *value = *value * colour_share + line * darkness * (*value).min(0.5);
        }
        pixel[3] = pixel[3] * colour_share + line;
    }
}

fn luminance_on_grey(pixel: &Pixel) -> f32 {
    let clear = 0.5 * (1.0 - pixel[3]);
    LUMINANCE[0] * pixel[0] + LUMINANCE[1] * pixel[1] + LUMINANCE[2] * pixel[2] + clear
}

/// Returns the largest minus the smallest of each value's 3 x 3 neighbourhood.
fn spread(values: &[f32], size: usize) -> Vec<f32> {
    let high = neighbourhood(values, size, f32::max);
    let low = neighbourhood(values, size, f32::min);
    high.into_iter().zip(low).map(|(high, low)| high - low).collect()
}

/// Widens a line by half a pixel on each side.
fn widen(values: &[f32], size: usize) -> Vec<f32> {
    let wide = neighbourhood(values, size, f32::max);
    wide.into_iter()
        .zip(values)
        .map(|(wide, value)| 0.5 * (wide + value))
        .collect()
}

/// Folds each value's 3 x 3 neighbourhood, first along rows, then along columns; sides repeat.
fn neighbourhood(values: &[f32], size: usize, fold: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let mut rows = values.to_vec();
    for (target, source) in rows.chunks_exact_mut(size).zip(values.chunks_exact(size)) {
        for (target, pair) in target.iter_mut().zip(source.windows(2)) {
            *target = fold(*target, pair[1]);
        }
        for (target, pair) in target.iter_mut().skip(1).zip(source.windows(2)) {
            *target = fold(*target, pair[0]);
        }
    }
    let mut result = rows.clone();
    let below = rows.iter().skip(size);
    for (target, below) in result.iter_mut().zip(below) {
        *target = fold(*target, *below);
    }
    for (target, above) in result.iter_mut().skip(size).zip(&rows) {
        *target = fold(*target, *above);
    }
    result
}

/// Moves each value towards the mean of its 3 x 3 neighbourhood, or away from it.
pub(super) fn blur_or_sharpen(planes: &mut [f32], size: usize, rng: &mut impl Rng) {
    let amount = if chance(rng, 0.6) {
        between(rng, 0.3, 1.0)
    } else {
        between(rng, -0.8, -0.2)
    };
    for plane in planes.chunks_exact_mut(size * size) {
        let mean = tent(plane, size);
        for (value, mean) in plane.iter_mut().zip(mean) {
            *value += amount * (mean - *value);
        }
    }
}

/// Averages each value's neighbourhood with weights 1 2 1 along rows and columns; sides repeat.
fn tent(plane: &[f32], size: usize) -> Vec<f32> {
    let last = size.saturating_sub(1);
    let mut rows = Vec::with_capacity(plane.len());
    for row in plane.chunks_exact(size) {
        rows.extend(
            (0..size).map(|x| (row[x.saturating_sub(1)] + 2.0 * row[x] + row[(x + 1).min(last)]) * 0.25),
        );
    }
    let mut result = Vec::with_capacity(plane.len());
    for y in 0..size {
        let row = |y: usize| rows[y * size..(y + 1) * size].iter();
        let neighbours = row(y.saturating_sub(1)).zip(row(y)).zip(row((y + 1).min(last)));
        result.extend(neighbours.map(|((above, here), below)| (above + 2.0 * here + below) * 0.25));
    }
    result
}

/// Adds noise to every value: the sum of two uniform bytes, scaled.
pub(super) fn noise(planes: &mut [f32], rng: &mut impl Rng) {
    let amplitude = between(rng, 0.01, 0.08) / 255.0;
    let mut bytes = vec![0_u8; planes.len() * 2];
    rng.fill_bytes(&mut bytes);
    let (pairs, _) = bytes.as_chunks::<2>();
    for (value, &[first, second]) in planes.iter_mut().zip(pairs) {
        *value += (f32::from(first) + f32::from(second) - 255.0) * amplitude;
    }
}

/// Covers one rectangle of up to a third of each side with one colour.
pub(super) fn cutout(planes: &mut [f32], size: usize, rng: &mut impl Rng) {
    let side = |rng: &mut _| 1 + below(rng, size.div_ceil(3));
    let (width, height) = (side(rng), side(rng));
    let (left, top) = (below(rng, size), below(rng, size));
    let colour = if chance(rng, 0.5) {
        [1.0; 3]
    } else {
        [unit(rng), unit(rng), unit(rng)]
    };
    for (plane, colour) in planes.chunks_exact_mut(size * size).zip(colour) {
        for row in plane.chunks_exact_mut(size).skip(top).take(height) {
            for value in row.iter_mut().skip(left).take(width) {
                *value = colour;
            }
        }
    }
}
