//! The default checkpoint, carried in the program.

use multiway_model::{Checkpoint, LoadError};

/// The files of the default checkpoint.
#[cfg(default_weights)]
static FILES: &[(&str, &[u8])] = {
    macro_rules! files {
        ($($file:literal),*) => {
            &[$(($file, include_bytes!(concat!("../checkpoints/default/", $file)))),*]
        };
    }
    files![
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer.model",
        "README.md"
    ]
};

/// None: a package of the registry has no room for weights.
#[cfg(not(default_weights))]
static FILES: &[(&str, &[u8])] = &[];

/// Opens the checkpoint that the program carries. Its card, `README.md`, says what it was trained on and what
/// it cannot do.
///
/// # Errors
///
/// When the program was built from a package of the registry, which has no room for the weights: build from a
/// checkout of the repository, or use [`Checkpoint::open`].
///
/// # Examples
///
/// ```
/// let checkpoint = multiway::embedded_checkpoint()?;
/// assert_eq!(checkpoint.config().hidden_size, 256);
/// # Ok::<(), multiway::checkpoint::LoadError>(())
/// ```
pub fn embedded_checkpoint() -> Result<Checkpoint, LoadError> {
    Checkpoint::from_static("embedded", FILES)
}
