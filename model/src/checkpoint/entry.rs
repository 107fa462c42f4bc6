//! What files with weights hold.

use candle_core::DType;

/// One tensor of a checkpoint, as the file stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorEntry {
    /// The name, as in [`ModelConfig::tensors`](crate::ModelConfig::tensors).
    pub name: String,
    /// The size of each dimension.
    pub shape: Vec<usize>,
    /// The type of number that is stored: F32, BF16 or F16; of packed weights U8.
    pub dtype: DType,
    /// How many bytes it takes in the file.
    pub bytes: usize,
    /// Where it starts, counted from the first byte after the header.
    pub(super) start: usize,
    /// Which of the files with weights it is in.
    pub(super) shard: usize,
}
