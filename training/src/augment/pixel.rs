//! What pictures are made of while they are augmented.

/// Red, green, blue and alpha, the colours multiplied by alpha.
pub(super) type Pixel = [f32; 4];
