//! What encoding a batch makes, besides the rows.

use crate::memory::PromptMemory;
use crate::output::EncoderOutput;
use crate::prefix::ImagePrefix;

/// What to make of an encoded batch, besides its rows; samples by their places in the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodingTargets {
    /// Samples to decode from: their [`PromptMemory`].
    pub memories: Vec<usize>,
    /// Samples whose pictures are kept for later prompts: their [`ImagePrefix`].
    pub prefixes: Vec<usize>,
}

/// An encoded batch with its targets.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The rows.
    pub output: EncoderOutput,
    /// Those of [`EncodingTargets::memories`], in the same order.
    pub memories: Vec<PromptMemory>,
    /// Those of [`EncodingTargets::prefixes`], in the same order.
    pub prefixes: Vec<ImagePrefix>,
}
