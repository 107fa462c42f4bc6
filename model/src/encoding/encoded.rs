//! The results of encoding a batch.

use crate::memory::PromptMemory;
use crate::output::EncoderOutput;
use crate::prefix::ImagePrefix;

/// What to compute of an encoded batch besides its rows, by the numbers of samples in the batch.
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
