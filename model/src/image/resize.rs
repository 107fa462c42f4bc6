//! Squashing to a square, to the bit as Pillow does it.
//!
//! Two passes of 8-bit fixed-point convolution, along the rows and then along the columns, each rounded and
//! clipped to 0..=255. The order and the clipping are part of the result: at hard edges the other order
//! differs by up to a tenth of the range. It is Pillow's order for all pictures up to version 12; from 13 on
//! Pillow begins with the columns where that is faster, which is when `height - S > 2 (width - S)` and
//! `height > S`.
//!
//! Source: Pillow's `src/libImaging/Resample.c`: `bicubic_filter`, `precompute_coeffs`,
//! `normalize_coeffs_8bpc`, `ImagingResampleHorizontal_8bpc` and `ImagingResampleVertical_8bpc`.

use std::ops::Range;

use super::limits::CHANNELS;

/// Bits behind the binary point of a weight: 8 fewer than 32 for the pixel, and 2 for the sum and its sign.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// How far the filter reaches to each side, in target pixels when reducing and in source pixels when
/// enlarging.
const SUPPORT: f64 = 2.0;

/// Which source pixels make up one target pixel, and with what weights.
struct Window {
    start: usize,
    weights: Vec<i32>,
}

/// Resizes RGB pixels to `side` x `side` as Pillow's `resize((side, side), BICUBIC)` does.
///
/// # Shapes
/// `rgb`: `[height, width, 3]`; the result: `[side, side, 3]`.
pub(super) fn squash(width: usize, height: usize, rgb: &[u8], side: usize) -> Vec<u8> {
    resize(width, height, rgb, (side, side), side)
}

/// Resizes RGB pixels so that the shorter side is `side`, and takes the square in the middle: what
/// `torchvision`'s `Resize(side, BICUBIC)` and `CenterCrop(side)` make of a Pillow picture.
///
/// # Shapes
/// `rgb`: `[height, width, 3]`; the result: `[side, side, 3]`.
pub(super) fn crop(width: usize, height: usize, rgb: &[u8], side: usize) -> Vec<u8> {
    let shorter = width.min(height).max(1);
    let scaled = |length: usize| side * length / shorter;
    resize(width, height, rgb, (scaled(width), scaled(height)), side)
}

/// Returns which part of a picture [`crop`] keeps, in pixels of that picture: left, top, right, bottom.
pub(super) fn visible(width: usize, height: usize, side: usize) -> [f64; 4] {
    let shorter = width.min(height).max(1);
    let edges = |length: usize| {
        let target = side * length / shorter;
        let kept = middle(target, side);
        let scale = length as f64 / target.max(1) as f64;
        (kept.start as f64 * scale, kept.end as f64 * scale)
    };
    let ((left, right), (top, bottom)) = (edges(width), edges(height));
    [left, top, right, bottom]
}

/// Resizes to `target` (width, height), of which only the square of `side` in the middle is computed.
fn resize(width: usize, height: usize, rgb: &[u8], target: (usize, usize), side: usize) -> Vec<u8> {
    let narrow = if width == side && target.0 == side {
        rgb.to_vec()
    } else {
        along_rows(rgb, width, &windows(width, target.0, middle(target.0, side)))
    }; // [height, side, 3]
    if height == side && target.1 == side {
        narrow
    } else {
        let windows = windows(height, target.1, middle(target.1, side));
        along_columns(&narrow, side * CHANNELS, &windows)
    } // [side, side, 3]
}

/// Finds the middle of a side; of two middles the one whose start is even, as Python rounds.
fn middle(length: usize, side: usize) -> Range<usize> {
    let rest = length.saturating_sub(side);
    let start = if rest % 4 == 3 { rest / 2 + 1 } else { rest / 2 };
    start..start + side
}

/// The bicubic filter with a = -0.5.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Computes the windows of some of `target` pixels over `source` pixels along one axis.
fn windows(source: usize, target: usize, wanted: Range<usize>) -> Vec<Window> {
    let scale = source as f64 / target as f64;
    let reduction = scale.max(1.0); // enlarging needs no wider filter
    let support = SUPPORT * reduction;
    let window = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let start = pixel(centre - support + 0.5, source);
        let end = pixel(centre + support + 0.5, source);
        let weight = |x: usize| bicubic((x as f64 - centre + 0.5) * (1.0 / reduction));
        let mut weights: Vec<f64> = (start..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        if sum != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        Window {
            start,
            weights: weights.into_iter().map(fixed).collect(),
        }
    };
    wanted.map(window).collect()
}

/// Truncates a coordinate to a pixel's index, within the picture.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=size first"
)]
fn pixel(coordinate: f64, size: usize) -> usize {
    coordinate.clamp(0.0, size as f64) as usize
}

/// Rounds a weight, which is below 2 in size, to fixed point.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a weight of at most 2 has at most 24 bits"
)]
fn fixed(weight: f64) -> i32 {
    (weight * f64::from(1 << PRECISION_BITS)).round() as i32
}

/// Rounds a sum of weighted pixels, and clips it.
fn clip(sum: i32) -> u8 {
    ((sum + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Convolves along each row: `[height, width, 3]` to `[height, windows, 3]`.
fn along_rows(rgb: &[u8], width: usize, windows: &[Window]) -> Vec<u8> {
    let mut result = Vec::with_capacity(rgb.len() / width * windows.len());
    for row in rgb.chunks_exact(width * CHANNELS) {
        let (row, _) = row.as_chunks::<CHANNELS>();
        for window in windows {
            let mut sums = [0_i32; CHANNELS];
            for (pixel, weight) in row.iter().skip(window.start).zip(&window.weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            result.extend(sums.map(clip));
        }
    }
    result
}

/// Convolves along each column: `[height, row_bytes]` to `[windows, row_bytes]`.
fn along_columns(bytes: &[u8], row_bytes: usize, windows: &[Window]) -> Vec<u8> {
    let mut result = Vec::with_capacity(windows.len() * row_bytes);
    for window in windows {
        let mut sums = vec![0_i32; row_bytes];
        for (row, weight) in bytes
            .chunks_exact(row_bytes)
            .skip(window.start)
            .zip(&window.weights)
        {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        result.extend(sums.into_iter().map(clip));
    }
    result
}
