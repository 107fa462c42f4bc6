//! Pieces that are pasted into a picture.

use rand_chacha::rand_core::Rng;

use super::Augmentation;
use super::background;
use super::pixel::Pixel;
use super::place::{self, Placement};
use crate::random::{between, chance};

/// Opacity from which a pixel counts as seen.
const SEEN: f32 = 0.25;

/// A piece, ready to be pasted: a square of its own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pasted {
    pixels: Vec<Pixel>,
    side: usize,
}

/// Makes a square picture of RGBA bytes with straight alpha a piece of `size` pixels, turned a little and, if
/// it is `styled`, drawn as another artist would; none where the bytes are no square or the piece has no
/// pixels.
pub(crate) fn paste_ready(rgba: &[u8], size: usize, styled: bool, rng: &mut impl Rng) -> Option<Pasted> {
    let side = (rgba.len() / 4).isqrt();
    if side == 0 || size == 0 || side * side * 4 != rgba.len() {
        return None;
    }
    let scale = between(rng, 0.92, 1.0);
    let turn = between(rng, -0.15, 0.15) * between(rng, 0.0, 1.0);
    let placement = Placement::new([scale, scale], turn, 0.0, [0.0, 0.0]);
    let mut pixels = place::draw(rgba, side, &placement, size);
    if styled {
        Augmentation::training(size).restyle(&mut pixels, rng);
    }
    Some(Pasted { pixels, side: size })
}

impl Pasted {
    pub(crate) fn side(&self) -> usize {
        self.side
    }

    /// Finds the smallest rectangle around what is seen: left, top, and behind right and bottom.
    pub(crate) fn seen(&self) -> Option<[usize; 4]> {
        let mut found: Option<[usize; 4]> = None;
        for (index, pixel) in self.pixels.iter().enumerate() {
            if pixel[3] < SEEN {
                continue;
            }
            let (x, y) = (index % self.side, index / self.side);
            let [left, top, right, bottom] = found.unwrap_or([x, y, x + 1, y + 1]);
            found = Some([left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)]);
        }
        found
    }

    /// Pastes it into planes of a square of `canvas` pixels, its upper left corner at `at`.
    pub(crate) fn onto(&self, planes: &mut [f32], canvas: usize, at: (usize, usize)) {
        for (channel, plane) in planes.chunks_exact_mut(canvas * canvas).enumerate() {
            let rows = plane.chunks_exact_mut(canvas).skip(at.1);
            for (row, pixels) in rows.zip(self.pixels.chunks_exact(self.side)) {
                for (value, pixel) in row.iter_mut().skip(at.0).zip(pixels) {
                    *value = pixel[channel] + (1.0 - pixel[3]) * *value;
                }
            }
        }
    }
}

/// Draws a background: mostly white or light, now and then of any colour. Planes of red, green and blue.
pub(crate) fn random_background(side: usize, rng: &mut impl Rng) -> Vec<f32> {
    let clear = vec![[0.0; 4]; side * side];
    if chance(rng, 0.5) {
        return background::compose_on_white(&clear);
    }
    let mut planes = background::compose_on_random(&clear, side, rng);
    if chance(rng, 0.8) {
        planes.iter_mut().for_each(|value| *value = 0.72 + 0.28 * *value);
    }
    planes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::fork;

    #[test]
    fn a_piece_covers_what_is_under_it_and_no_more() {
        let mut rgba = vec![0; 40 * 40 * 4];
        for y in 10..30 {
            for x in 5..35 {
                rgba[(y * 40 + x) * 4..][..4].copy_from_slice(&[255, 0, 0, 255]);
            }
        }
        let piece = paste_ready(&rgba, 20, false, &mut fork(1, &[])).unwrap();
        let [left, top, right, bottom] = piece.seen().unwrap();
        assert!(
            right - left > bottom - top && right <= 20 && bottom <= 20,
            "{left} {top} {right} {bottom}"
        );
        let mut planes = vec![1.0; 3 * 50 * 50];
        piece.onto(&mut planes, 50, (30, 4));
        let green = |x: usize, y: usize| planes[2500 + y * 50 + x];
        assert!(green(30 + 10, 4 + 10) < 0.01);
        assert!((green(10, 10) - 1.0).abs() < f32::EPSILON && (green(49, 49) - 1.0).abs() < f32::EPSILON);
        assert!(paste_ready(&rgba[1..], 20, false, &mut fork(1, &[])).is_none());
    }
}
