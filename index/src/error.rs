//! What can go wrong with an index.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Says why an index could not be read, built or searched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The file cannot be read.
    #[error("cannot read the index '{path}'")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the index '{path}'")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no index, is damaged, or lies about its contents.
    #[error("'{path}' is not a usable index: expected {expected}, found {found}; index again")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The file is an index of another version of the format.
    #[error(
        "'{path}' is an index of format {found}, and this program reads format {expected}: remove it, and index \
         again"
    )]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// The version that is read.
        expected: u32,
        /// The version of the file.
        found: u32,
    },
    /// A vector has another width than the index, has a number that is not finite, or no direction.
    #[error("the index holds vectors of {expected} finite numbers that are not all zero, found one {found}")]
    Vector {
        /// The width of the index.
        expected: usize,
        /// What was found.
        found: String,
    },
    /// An index cannot have such vectors or entries.
    #[error("an index has {limit}, found {found}")]
    Limit {
        /// What an index may have.
        limit: String,
        /// What was found.
        found: String,
    },
    /// The index was made with another model.
    #[error(
        "the index was made with another model (fingerprint {expected}) than the one in use ({found}): index \
         again, or use the checkpoint that made it"
    )]
    OtherModel {
        /// The fingerprint in the index.
        expected: String,
        /// The fingerprint of the model in use.
        found: String,
    },
    /// The file beside the index that holds what a build has finished is another kind of file.
    #[error(
        "'{path}' would hold what is finished of the index, and is another kind of file: move it, or choose \
         another name for the index"
    )]
    NoJournal {
        /// The file.
        path: PathBuf,
    },
    /// The index is being built by another program.
    #[error("'{path}' is in use: another program builds this index; wait until it is done")]
    Busy {
        /// The journal.
        path: PathBuf,
    },
    /// The index has no lists for approximate search.
    #[error("the index was built for exact search only: index again with lists for approximate search")]
    NoLists,
}

/// What was expected, and what was found.
pub(crate) type Mismatch = (String, String);

pub(crate) fn mismatch<T>(expected: impl Into<String>, found: impl Into<String>) -> Result<T, Mismatch> {
    Err((expected.into(), found.into()))
}
