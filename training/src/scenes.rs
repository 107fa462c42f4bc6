//! Scenes: pictures pasted together from drawings, photographs and plain shapes, of which everything is
//! known.
//!
//! A scene is made from a generator's state and the art that it pastes; nothing is stored. Its questions are
//! worded by the task files: counting, positions, colours, comparisons, boxes, statements about two pictures,
//! entailment, words to read.
//!
//! ```
//! use multiway_training::random::fork;
//! use multiway_training::scenes::{Art, SceneKind, ask};
//!
//! struct Dots;
//!
//! impl Art for Dots {
//!     fn things(&self) -> usize {
//!         3
//!     }
//!     fn name(&self, thing: usize) -> &str {
//!         ["ant", "bee", "cow"][thing]
//!     }
//!     fn draw(&self, _: usize, _: &mut rand_chacha::ChaCha8Rng) -> Vec<u8> {
//!         vec![128; 96 * 96 * 4]
//!     }
//! }
//!
//! let question = ask(SceneKind::Count, &Dots, 96, &mut fork(1, &[0])).expect("dots can be counted");
//! assert_eq!(question.pictures[0].len(), 3 * 96 * 96);
//! assert!(question.answer.parse::<u32>().is_ok());
//! ```

mod compose;
mod letters;
mod questions;
mod shapes;
mod wording;

use rand_chacha::ChaCha8Rng;

pub use compose::{Frame, Scene, Thing};
pub use letters::{LetterSplit, Letters};
pub use questions::{SceneKind, SceneQuestion, ask};
pub use shapes::{Colour, Shape};
pub(crate) use wording::is_plain;
pub use wording::plural;

/// What scenes are pasted from.
pub trait Art {
    /// Counts the things that can be drawn.
    fn things(&self) -> usize;

    /// Names a thing in English, in the singular.
    fn name(&self, thing: usize) -> &str;

    /// Draws a thing: RGBA bytes of a square, straight alpha, row-major.
    fn draw(&self, thing: usize, rng: &mut ChaCha8Rng) -> Vec<u8>;

    /// Returns the words and fonts that are written, where there are any.
    fn letters(&self) -> Option<&Letters> {
        None
    }

    /// Tells whether drawings are restyled, as training wants it; a test shows them as they are.
    fn styles(&self) -> bool {
        false
    }
}
