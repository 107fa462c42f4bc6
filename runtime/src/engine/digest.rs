//! Content hashes of pictures.

use multiway_model::ProcessedImage;
use sha2::{Digest as _, Sha256};

/// The SHA-256 of some pictures' pixels, in their order.
pub(crate) type Digest = [u8; 32];

/// Hashes the pixels of pictures.
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
