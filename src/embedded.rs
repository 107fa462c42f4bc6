//! The default checkpoint, carried in the binary.

use multiway_model::{Checkpoint, LoadError};

macro_rules! files {
    ($($file:literal),*) => {
        &[$(($file, include_bytes!(concat!("../checkpoints/default/", $file)))),*]
    };
}

/// The files of the default checkpoint.
static FILES: &[(&str, &[u8])] = files![
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer.model",
    "README.md"
];

/// Opens the checkpoint that the binary carries. Its card, `README.md`, says what it was trained on and what it cannot do.
///
/// # Errors
///
/// When the carried files are wrong, which a test excludes.
pub fn embedded_checkpoint() -> Result<Checkpoint, LoadError> {
    Checkpoint::from_static("embedded", FILES)
}
