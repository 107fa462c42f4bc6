//! The encoder's input: samples packed into rows, vision first.

mod builder;
mod segments;
mod target;

use crate::image::ProcessedImage;
use crate::prefix::ImagePrefix;
pub use builder::EncoderBatchBuilder;
pub(crate) use builder::check_shareable;
pub use segments::{SampleSegments, Segments};
pub use target::TargetBatch;

/// One sample: its pictures and its text.
#[derive(Clone, Copy, Debug)]
pub struct EncoderSample<'a> {
    /// The pictures, in the order in which the prompt names them.
    pub images: &'a [ProcessedImage],
    /// The token ids, the closing `</s>` included.
    pub tokens: &'a [u32],
}

/// A patch that is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Its place in the picture, row by row from the top left.
    pub index: usize,
    /// Whether the mask token stands in for its pixels.
    pub masked: bool,
}

/// A picture, some of whose patches may be masked or left out, as training does.
#[derive(Clone, Copy, Debug)]
pub struct PatchedImage<'a> {
    /// Normalised pixels, `[3, S, S]`.
    pub pixels: &'a [f32],
    /// The patches to encode; those not listed are left out.
    pub patches: &'a [Patch],
}

/// Samples laid out for the encoder.
#[derive(Clone, Debug, Default)]
pub struct EncoderBatch {
    /// Pixels of the patches that are not masked, `[patches, 3 * p * p]`.
    pub(crate) pixels: Vec<f32>,
    /// For each vision row where it comes from: 0 the class token, 1 the mask token, 2 + i patch i of
    /// `pixels`.
    pub(crate) sources: Vec<u32>,
    /// For each vision row its position: 0 the class row, 1 + i the i-th patch.
    pub(crate) positions: Vec<u32>,
    /// For each vision row which picture of its sample it belongs to.
    pub(crate) image_indices: Vec<u32>,
    /// The token of each text row.
    pub(crate) tokens: Vec<u32>,
    /// The position of each text row.
    pub(crate) token_positions: Vec<u32>,
    pub(crate) segments: Segments,
    /// Image prefixes, in the order in which their rows stand behind the packed ones.
    pub(crate) prefixes: Vec<ImagePrefix>,
}

impl EncoderBatch {
    /// Tells which rows belong to which sample.
    #[must_use]
    pub fn segments(&self) -> &Segments {
        &self.segments
    }
}
