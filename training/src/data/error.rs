//! What can go wrong with data.

use std::io;
use std::path::PathBuf;

/// Reports why data could not be prepared, opened or vouched for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A package's folder is not there.
    #[error("no '{package}' in {}: fetch it with scripts/fetch_data.sh", folder.display())]
    PackageMissing {
        /// The package.
        package: &'static str,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A folder holds no prepared data.
    #[error("no prepared data in {}: run 'multiway train prepare'", folder.display())]
    NotPrepared {
        /// The folder.
        folder: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried: "read", "write", ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A JSON document, or a line of one, does not have the expected form.
    #[error("{}{}: {source}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, from 1, where the file is one record a line.
        line: Option<usize>,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A file is well-formed but does not say what it should.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Unexpected {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A data set cannot be read.
    #[error("cannot read the data in {}", folder.display())]
    Records {
        /// Its folder.
        folder: PathBuf,
        /// What the reader said.
        source: multiway_data::DataError,
    },
    /// A bitmap cannot be decoded.
    #[error("{}: cannot decode the picture: {source}", path.display())]
    Bitmap {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        source: image::ImageError,
    },
    /// A vector drawing cannot be rendered.
    #[error("{drawing}: cannot render the drawing: {reason}")]
    Vector {
        /// Which drawing, and in which file.
        drawing: String,
        /// What the renderer said.
        reason: String,
    },
    /// Two concepts that look or sound the same fell on different sides of the split.
    #[error(
        "concepts {first} and {second} share {shared}, but one is trained on and the other held out: \
         put them in one group (SAME_GROUP in training/src/data/split.rs)"
    )]
    SplitConflict {
        /// Key of one concept.
        first: String,
        /// Key of the other.
        second: String,
        /// What they share, such as a name.
        shared: String,
    },
    /// Prepared data would let training see what evaluation holds out.
    #[error("held-out data leaks into training: {leak}: prepare the data again")]
    Leak {
        /// What leaks, and where it was found.
        leak: String,
    },
}

impl DataError {
    /// Wraps an I/O error with what was done to which file.
    pub(super) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
