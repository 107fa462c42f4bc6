//! What tells pictures from all others.

use multiway_model::ProcessedImage;
use sha2::{Digest as _, Sha256};

/// The SHA-256 of some pictures' pixels, in their order.
pub(crate) type Digest = [u8; 32];

/// Tells pictures from all others, by their content.
pub(crate) fn digest(images: &[ProcessedImage]) -> Digest {
    let mut hash = Sha256::new();
    let mut bytes = Vec::new();
    for image in images {
        bytes.clear();
        bytes.extend(image.pixels().iter().flat_map(|pixel| pixel.to_le_bytes()));
        hash.update(&bytes);
    }
    hash.finalize().into()
}
