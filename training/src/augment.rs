//! Draws a picture again, a little different each time: placed, coloured and styled otherwise, on another
//! background.
//!
//! [`Augmentation::training`] aims at one thing: a model that saw a concept drawn by some artists must know
//! it when another artist draws it, with flat colours and black outlines say. [`Augmentation::plain`] is the
//! picture as inference sees it.
//!
//! # Examples
//!
//! ```
//! use multiway_training::{augment::Augmentation, random::fork};
//!
//! let picture = vec![255; 96 * 96 * 4];
//! let augmented = Augmentation::training(64).apply(&picture, &mut fork(1, &[0]))?;
//! assert_eq!(augmented.pixels.len(), 3 * 64 * 64);
//! # Ok::<(), multiway_training::augment::AugmentError>(())
//! ```

mod background;
mod colour;
mod paste;
mod pixel;
mod place;
mod style;

use rand_chacha::rand_core::Rng;

use self::pixel::Pixel;
use crate::random::{below, between, chance};
pub(crate) use paste::{Pasted, paste_ready, random_background};
pub use place::Placement;

/// What can go wrong in augmenting a picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AugmentError {
    /// The bytes are no square picture.
    #[error("a picture is expected as RGBA bytes of a square of at least one pixel, found {bytes} bytes")]
    NotSquare {
        /// Count of bytes.
        bytes: usize,
    },
}

/// How much pictures are changed; each field is a probability where nothing else is said.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Augmentation {
    /// Side of the result in pixels.
    pub size: usize,
    /// Placed elsewhere at all: turned, scaled, moved and sheared.
    pub place: f32,
    /// Largest turn in degrees; most are far smaller.
    pub rotation: f32,
    /// Smallest and largest scale; at 1 the picture fills the result.
    pub scale: (f32, f32),
    /// Mirrored left to right. Off by default: flags, letters and arrows have a left and a right.
    pub flip: f32,
    /// On something other than white.
    pub background: f32,
    /// Brightness, contrast, saturation and hue changed.
    pub colour: f32,
    /// Without colours.
    pub greyscale: f32,
    /// With dark outlines drawn along edges.
    pub outline: f32,
    /// With few shades a colour.
    pub posterise: f32,
    /// Slightly out of focus.
    pub blur: f32,
    /// With noise on every pixel.
    pub noise: f32,
    /// With one rectangle covered.
    pub cutout: f32,
}

/// An augmented picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Augmented {
    /// The pixels: red, green and blue planes, from 0 to 1, before any mean and deviation.
    ///
    /// # Shapes
    ///
    /// `[3, S, S]`
    pub pixels: Vec<f32>,
    /// Where each place of the result comes from.
    pub placement: Placement,
}

/// Writes planes of colours from 0 to 1 as RGB bytes, row-major.
///
/// # Shapes
///
/// `[3, H, W]` to `[H, W, 3]`
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of a byte first"
)]
pub fn to_rgb8(planes: &[f32]) -> Vec<u8> {
    let byte = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
    let (red, rest) = planes.split_at(planes.len() / 3);
    let (green, blue) = rest.split_at(rest.len() / 2);
    red.iter()
        .zip(green.iter().zip(blue))
        .flat_map(|(red, (green, blue))| [byte(*red), byte(*green), byte(*blue)])
        .collect()
}

impl Augmentation {
    /// Changes pictures as much as training wants it.
    #[must_use]
    pub fn training(size: usize) -> Self {
        Self {
            size,
            place: 0.9,
            rotation: 10.0,
            scale: (0.8, 1.05),
            flip: 0.0,
            background: 0.2,
            colour: 0.4,
            greyscale: 0.02,
            outline: 0.3,
            posterise: 0.1,
            blur: 0.1,
            noise: 0.1,
            cutout: 0.05,
        }
    }

    /// Changes pictures as much as leaves true what is said about their colours and where things stand in
    /// them.
    #[must_use]
    pub fn faithful(size: usize) -> Self {
        Self {
            place: 0.9,
            rotation: 8.0,
            scale: (0.8, 1.05),
            blur: 0.15,
            noise: 0.2,
            ..Self::plain(size)
        }
    }

    /// Changes photographs as much as training wants it: other crops and other light.
    #[must_use]
    pub fn photograph(size: usize) -> Self {
        Self {
            place: 0.95,
            rotation: 8.0,
            scale: (1.0, 1.6),
            flip: 0.5,
            colour: 0.6,
            greyscale: 0.1,
            blur: 0.1,
            noise: 0.1,
            cutout: 0.1,
            ..Self::plain(size)
        }
    }

    /// Changes nothing: resizes on white.
    #[must_use]
    pub fn plain(size: usize) -> Self {
        Self {
            size,
            place: 0.0,
            rotation: 0.0,
            scale: (1.0, 1.0),
            flip: 0.0,
            background: 0.0,
            colour: 0.0,
            greyscale: 0.0,
            outline: 0.0,
            posterise: 0.0,
            blur: 0.0,
            noise: 0.0,
            cutout: 0.0,
        }
    }

    /// Augments a square picture of RGBA bytes with straight alpha. The same generator state gives the same
    /// bits.
    ///
    /// # Errors
    ///
    /// Fails where the bytes are no square picture.
    pub fn apply(&self, rgba: &[u8], rng: &mut impl Rng) -> Result<Augmented, AugmentError> {
        let side = (rgba.len() / 4).isqrt();
        if side == 0 || side * side * 4 != rgba.len() {
            return Err(AugmentError::NotSquare { bytes: rgba.len() });
        }
        let placement = self.choose_placement(rng);
        if self.size == 0 {
            return Ok(Augmented {
                pixels: Vec::new(),
                placement,
            });
        }
        let mut image = place::draw(rgba, side, &placement, self.size);
        self.restyle(&mut image, rng);
        let mut planes = if chance(rng, self.background) {
            background::compose_on_random(&image, self.size, rng)
        } else {
            background::compose_on_white(&image)
        };
        self.degrade(&mut planes, rng);
        Ok(Augmented {
            pixels: planes,
            placement,
        })
    }

    fn choose_placement(&self, rng: &mut impl Rng) -> Placement {
        let mirrored = chance(rng, self.flip);
        if !chance(rng, self.place) {
            return if mirrored {
                Placement::IDENTITY.mirrored()
            } else {
                Placement::IDENTITY
            };
        }
        let scale = between(rng, self.scale.0, self.scale.1);
        let stretch = between(rng, -0.08, 0.08).exp();
        // The product of two uniform draws is mostly small.
        let turn = between(rng, -1.0, 1.0) * between(rng, 0.0, 1.0) * self.rotation.to_radians();
        let shear = between(rng, -1.0, 1.0) * between(rng, 0.0, 0.12);
        // What does not fill the result moves inside it, and what is larger behind it; both a little beyond.
        let room = ((1.0 - scale) * 0.5).abs() + 0.05;
        let shift = [between(rng, -room, room), between(rng, -room, room)];
        let placement = Placement::new([scale * stretch, scale / stretch], turn, shear, shift);
        if mirrored { placement.mirrored() } else { placement }
    }

    fn restyle(&self, image: &mut [Pixel], rng: &mut impl Rng) {
        let has_outline = chance(rng, self.outline);
        let greyscale = chance(rng, self.greyscale);
        if chance(rng, self.colour) || greyscale {
            colour::jitter(image, greyscale, rng);
        }
        // An outlined style is mostly a flat one.
        let posterise = if has_outline {
            0.5_f32.max(self.posterise).min(self.posterise * 8.0)
        } else {
            self.posterise
        };
        if chance(rng, posterise) {
            colour::posterise(image, 3 + below(rng, 4));
        }
        if has_outline {
            style::outline(image, self.size, rng);
        }
    }

    fn degrade(&self, planes: &mut [f32], rng: &mut impl Rng) {
        if chance(rng, self.blur) {
            style::blur_or_sharpen(planes, self.size, rng);
        }
        if chance(rng, self.noise) {
            style::noise(planes, rng);
        }
        if chance(rng, self.cutout) {
            style::cutout(planes, self.size, rng);
        }
        for value in planes {
            *value = value.clamp(0.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests;
