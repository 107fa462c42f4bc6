//! Pictures at the size of a tile, and heat over their patches.

use multiway::image::Rgb8Picture;

use super::super::font::WHITE;

/// Points of a scale of colors from low to high, which is ordered in lightness too.
///
/// Source: Smith and van der Walt 2015, `inferno` of matplotlib, at every quarter.
const SCALE: [[u8; 3]; 5] = [
    [0, 0, 4],
    [87, 16, 110],
    [188, 55, 84],
    [249, 142, 9],
    [252, 255, 164],
];

/// How much of a tile is heat; the rest is the picture in grey.
const HEAT: f32 = 0.6;

/// The part of a picture that the encoder sees, as fractions of its sides: left, top, right, bottom.
pub(super) type Visible = [f64; 4];

/// Heat over the patches of a picture.
#[derive(Clone, Copy)]
pub(super) struct Heat<'a> {
    /// How many patches there are along a side.
    pub(super) grid: usize,
    /// A value for each patch, row by row.
    pub(super) patches: &'a [f32],
    /// The value that is drawn hottest.
    pub(super) most: f32,
}

/// Gives the color of a value from 0 to 1.
pub(super) fn color(value: f32) -> [u8; 3] {
    let place = value.clamp(0.0, 1.0) * 4.0;
    let below = place.floor().min(3.0);
    let index = whole(below);
    let (Some(from), Some(to)) = (SCALE.get(index), SCALE.get(index + 1)) else {
        return WHITE;
    };
    mixed(*from, *to, place - below)
}

/// Mixes `share` of a color into another.
fn mixed(from: [u8; 3], to: [u8; 3], share: f32) -> [u8; 3] {
    let mut all = from;
    for (out, to) in all.iter_mut().zip(to) {
        *out = byte(f32::from(*out) * (1.0 - share) + f32::from(to) * share);
    }
    all
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is clamped to the range of a byte"
)]
fn byte(value: f32) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "places in a grid are small, and negative ones are cut to 0"
)]
fn whole(value: f32) -> usize {
    value.max(0.0) as usize
}

/// Colors a tile by the heat of the patch that each pixel lies in; what the encoder does not see is white.
pub(super) fn heated(tile: &Rgb8Picture, visible: Visible, heat: Heat) -> Rgb8Picture {
    let (width, height) = (tile.width as usize, tile.height as usize);
    let columns = places(width, visible[0], visible[2], heat.grid);
    let rows = places(height, visible[1], visible[3], heat.grid);
    let mut pixels = tile.pixels.clone();
    for (index, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let place = columns
            .get(index % width.max(1))
            .zip(rows.get(index / width.max(1)));
        let patch = place.and_then(|(column, row)| (*row)?.checked_mul(heat.grid)?.checked_add((*column)?));
        let drawn = match patch.and_then(|patch| heat.patches.get(patch)) {
            Some(value) if heat.most > 0.0 => mixed(grey(pixel), color(value / heat.most), HEAT),
            Some(_) => mixed(grey(pixel), color(0.0), HEAT),
            None => mixed(grey(pixel), WHITE, HEAT),
        };
        pixel.copy_from_slice(&drawn);
    }
    Rgb8Picture { pixels, ..*tile }
}

/// Tells for each of `count` pixels which of `grid` parts between two fractions it lies in.
#[expect(
    clippy::cast_possible_truncation,
    reason = "fractions are exact enough in 32 bits"
)]
fn places(count: usize, from: f64, to: f64, grid: usize) -> Vec<Option<usize>> {
    let place = |pixel: usize| {
        let fraction = ((pixel as f64 + 0.5) / count.max(1) as f64 - from) / (to - from);
        let is_inside = (0.0..1.0).contains(&fraction);
        is_inside.then(|| whole((fraction * grid as f64) as f32).min(grid.saturating_sub(1)))
    };
    (0..count).map(place).collect()
}

/// Gives the lightness of a pixel.
///
/// Source: ITU-R BT.601, as Pillow's mode `L`.
fn grey(pixel: &[u8]) -> [u8; 3] {
    let weighed = pixel.iter().zip([0.299, 0.587, 0.114]);
    let light: f32 = weighed.map(|(value, weight)| f32::from(*value) * weight).sum();
    [byte(light); 3]
}

/// Scales a picture to fit into a square, with its proportions.
pub(super) fn fitted(picture: &Rgb8Picture, side: u32) -> Rgb8Picture {
    let longest = u64::from(picture.width.max(picture.height).max(1));
    let fit = |length: u32| {
        let fitted = (u64::from(length) * u64::from(side) + longest / 2) / longest;
        u32::try_from(fitted).unwrap_or(side).max(1)
    };
    let (width, height) = (fit(picture.width), fit(picture.height));
    let pixels: Vec<f32> = picture.pixels.iter().map(|value| f32::from(*value)).collect();
    let row = picture.width as usize * 3;
    let wide: Vec<f32> = pixels
        .chunks_exact(row.max(1))
        .flat_map(|row| resampled(row, width as usize, 3))
        .collect();
    let all = resampled(&wide, height as usize, width as usize * 3);
    Rgb8Picture {
        width,
        height,
        pixels: all.into_iter().map(byte).collect(),
    }
}

/// Resamples a line of points of `channels` numbers each to `count` points, by a triangle that covers at
/// least what a new point covers of the old ones.
fn resampled(line: &[f32], count: usize, channels: usize) -> Vec<f32> {
    let points: Vec<&[f32]> = line.chunks_exact(channels.max(1)).collect();
    let step = points.len() as f32 / count as f32;
    let reach = step.max(1.0);
    let mut out = Vec::with_capacity(count * channels);
    for index in 0..count {
        let center = (index as f32 + 0.5) * step;
        let (first, last) = (
            whole(center - reach),
            whole(center + reach).min(points.len().saturating_sub(1)),
        );
        let mut sum = vec![0.0; channels];
        let mut total = 0.0;
        for (place, point) in points.iter().enumerate().take(last + 1).skip(first) {
            let weight = (1.0 - (place as f32 + 0.5 - center).abs() / reach).max(0.0);
            total += weight;
            sum.iter_mut()
                .zip(*point)
                .for_each(|(sum, value)| *sum += weight * value);
        }
        out.extend(
            sum.into_iter()
                .map(|sum| sum / f32::max(total, f32::MIN_POSITIVE)),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(width: u32, height: u32, pixel: [u8; 3]) -> Rgb8Picture {
        Rgb8Picture {
            width,
            height,
            pixels: pixel.repeat((width * height) as usize),
        }
    }

    #[test]
    fn a_picture_keeps_its_proportions_and_an_even_one_its_color() {
        for (width, height, fit) in [(64, 64, (96, 96)), (4000, 1000, (96, 24)), (1, 300, (1, 96))] {
            let tile = fitted(&plain(width, height, [10, 200, 30]), 96);
            assert_eq!((tile.width, tile.height), fit);
            assert!(tile.pixels.chunks(3).all(|pixel| pixel == [10, 200, 30]));
        }
    }

    #[test]
    fn a_larger_picture_is_averaged() {
        let stripes: Vec<u8> = (0..64 * 64)
            .flat_map(|i| [if i % 2 == 0 { 0 } else { 255 }; 3])
            .collect();
        let picture = Rgb8Picture {
            width: 64,
            height: 64,
            pixels: stripes,
        };
        let inner = fitted(&picture, 8).pixels[3..21].to_vec();
        assert!(inner.iter().all(|value| (118..=137).contains(value)), "{inner:?}");
    }

    #[test]
    fn the_scale_grows_lighter() {
        let light = |value: f32| grey(&color(value))[0];
        assert!((0..100).all(|i| light(i as f32 / 100.0) <= light((i + 1) as f32 / 100.0)));
        assert_eq!((color(-1.0), color(2.0)), (SCALE[0], SCALE[4]));
    }

    #[test]
    fn each_patch_has_its_own_heat_and_what_is_not_seen_has_none() {
        let tile = plain(8, 4, [100, 100, 100]);
        let patches = [0.0, 0.1, 0.2, 0.4];
        let heat = Heat {
            grid: 2,
            patches: &patches,
            most: 0.4,
        };
        // The middle square of a wide picture.
        let drawn = heated(&tile, [0.25, 0.0, 0.75, 1.0], heat);
        let pixel = |x: usize, y: usize| drawn.pixels[(y * 8 + x) * 3..][..3].to_vec();
        let expected = |value: f32| mixed([100; 3], color(value), HEAT).to_vec();
        assert_eq!((pixel(2, 0), pixel(4, 1)), (expected(0.0), expected(0.25)));
        assert_eq!((pixel(3, 3), pixel(5, 2)), (expected(0.5), expected(1.0)));
        assert_eq!(pixel(0, 0), mixed([100; 3], WHITE, HEAT));
        assert_eq!(pixel(7, 3), pixel(0, 0));
    }
}
