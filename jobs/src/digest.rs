//! Digests that tell jobs and pictures apart.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Returns the SHA-256 of bytes, in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let bytes = Sha256::digest(bytes);
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
