//! Pastes things into a picture.

use rand_chacha::ChaCha8Rng;

use super::Art;
use super::shapes::{Colour, Shape};
use crate::augment::{Pasted, paste_ready, random_background};
use crate::random::{below, between, shuffle};

/// Side of a shape before it is resampled, in pixels.
const SHAPE_SIDE: usize = 64;
/// How often a place for a thing is sought before it is left out.
const TRIES: usize = 40;
/// Room between two things, as a share of the picture's side.
const ROOM: f32 = 0.02;

/// A rectangle of a picture, as shares of its width and height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// Its left side.
    pub left: f32,
    /// Its upper side.
    pub top: f32,
    /// Its right side.
    pub right: f32,
    /// Its lower side.
    pub bottom: f32,
}

impl Frame {
    /// Returns its middle: across, down.
    #[must_use]
    pub fn middle(&self) -> (f32, f32) {
        ((self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0)
    }

    pub(super) fn touches(&self, other: &Self) -> bool {
        self.left < other.right + ROOM
            && other.left < self.right + ROOM
            && self.top < other.bottom + ROOM
            && other.top < self.bottom + ROOM
    }
}

/// What is pasted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wanted {
    /// A thing of the art.
    Drawn(usize),
    /// A plain shape.
    Plain(Shape, Colour),
}

/// A thing in a scene.
#[derive(Debug, Clone, PartialEq)]
pub struct Thing {
    /// Its name in the singular, a shape's with its colour: "cat", "red circle".
    pub name: String,
    /// Where it is: the smallest rectangle around what is seen of it.
    pub frame: Frame,
}

/// A picture, and what is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// Red, green and blue planes, from 0 to 1.
    ///
    /// # Shapes
    ///
    /// `[3, S, S]`
    pub pixels: Vec<f32>,
    /// What was pasted, in no certain order. A thing for which there was no place is not among them.
    pub things: Vec<Thing>,
}

/// Pastes things side by side on a background; none lies over another.
pub(super) fn compose(wanted: &[Wanted], art: &dyn Art, side: usize, rng: &mut ChaCha8Rng) -> Scene {
    let mut pixels = random_background(side, rng);
    let mut things: Vec<Thing> = Vec::new();
    let mut order: Vec<&Wanted> = wanted.iter().collect();
    shuffle(rng, &mut order);
    // The more there are, the smaller they are.
    let most = (0.62 / (wanted.len().max(1) as f32).sqrt()).clamp(0.17, 0.5);
    let common = between(rng, most * 0.72, most);
    for wanted in order {
        let size = (common * between(rng, 0.85, 1.12)).clamp(0.15, 0.5);
        let pasted = draw(wanted, art, size, side, rng);
        let Some(pasted) = pasted else { continue };
        for _ in 0..TRIES {
            let Some((frame, at)) = place(&pasted, side, rng) else {
                break;
            };
            if things.iter().any(|other| frame.touches(&other.frame)) {
                continue;
            }
            pasted.onto(&mut pixels, side, at);
            things.push(Thing {
                name: name(wanted, art),
                frame,
            });
            break;
        }
    }
    Scene { pixels, things }
}

/// Names what is wanted.
pub(super) fn name(wanted: &Wanted, art: &dyn Art) -> String {
    match wanted {
        Wanted::Drawn(thing) => art.name(*thing).to_owned(),
        Wanted::Plain(shape, colour) => format!("{} {}", colour.name(), shape.name()),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of the side, between 0 and the side"
)]
fn draw(wanted: &Wanted, art: &dyn Art, size: f32, side: usize, rng: &mut ChaCha8Rng) -> Option<Pasted> {
    let size = (size * side as f32).round() as usize;
    match wanted {
        Wanted::Drawn(thing) => paste_ready(&art.draw(*thing, rng), size, art.styles(), rng),
        Wanted::Plain(shape, colour) => {
            let near = colour.rgb().map(|value| {
                let moved = i32::from(value) + i32::try_from(below(rng, 31)).unwrap_or(0) - 15;
                u8::try_from(moved.clamp(0, 255)).unwrap_or(value)
            });
            paste_ready(&shape.draw(near, SHAPE_SIDE), size, false, rng)
        }
    }
}

/// Draws a place for something pasted: its frame, and its upper left corner in pixels. None where it does not
/// fit or nothing of it is seen.
fn place(pasted: &Pasted, side: usize, rng: &mut ChaCha8Rng) -> Option<(Frame, (usize, usize))> {
    let [left, top, right, bottom] = pasted.seen()?;
    let room = side.checked_sub(pasted.side())?;
    let at = (below(rng, room + 1), below(rng, room + 1));
    let share = |pixel: usize| pixel as f32 / side as f32;
    let frame = Frame {
        left: share(at.0 + left),
        top: share(at.1 + top),
        right: share(at.0 + right),
        bottom: share(at.1 + bottom),
    };
    Some((frame, at))
}
