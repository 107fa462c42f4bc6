//! Errors of data sets.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::corrupt::Corrupt;

/// Reports why a data set cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder cannot be opened or listed.
    #[error("cannot read '{path}'")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name of a file says no format that is read.
    #[error(
        "'{path}': expected a folder of pictures or a file that ends in .jsonl, .ndjson, .csv, .tsv or .tar (each also \
         with .gz), in .tgz or in .parquet"
    )]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// There is no file.
    #[error("there is no data in '{path}'")]
    Nothing {
        /// What was named.
        path: PathBuf,
    },
    /// Too many rows cannot be read.
    #[error(
        "{count} rows cannot be read, and at most {most} may be; the first: {}",
        first.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    TooManyCorrupt {
        /// How many were found.
        count: usize,
        /// How many may be.
        most: usize,
        /// The first few.
        first: Vec<Corrupt>,
    },
    /// A cursor belongs to other data.
    #[error(
        "reading cannot go on behind row {rows} of file {}: since the cursor was made, a file has got another name, size \
         or content, or the shard or the order is another; begin anew", file + 1
    )]
    Cursor {
        /// The file where reading should go on, counted from 0.
        file: usize,
        /// How many of its rows were read.
        rows: u64,
    },
    /// There is no such shard.
    #[error("there is no shard {index} of {count}: expected a number below {count}")]
    Shard {
        /// The shard, counted from 0.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A picture cannot be read.
    #[error("picture '{name}': {reason}")]
    Picture {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
}
