//! One reader for each format.

mod delimited;
mod folder;
mod jsonl;
#[cfg(feature = "parquet")]
mod parquet;
mod webdataset;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use flate2::read::MultiGzDecoder;

use crate::limited::Counted;
use crate::row::Rows;

pub(crate) use folder::pictures_in;

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Jsonl,
    Delimited(u8),
    Tar,
    Parquet,
    Pictures,
}

impl Format {
    /// Tells the format by the name of a file, and whether it is gzipped.
    pub(crate) fn of(path: &Path) -> Option<(Self, bool)> {
        if path.is_dir() {
            return Some((Self::Pictures, false));
        }
        let name = path.file_name()?.to_str()?.to_lowercase();
        if let Some(stem) = name.strip_suffix(".tgz") {
            return (!stem.is_empty()).then_some((Self::Tar, true));
        }
        let (name, gzipped) = match name.strip_suffix(".gz") {
            Some(name) => (name, true),
            None => (name.as_str(), false),
        };
        let format = match name.rsplit_once('.')?.1 {
            "jsonl" | "ndjson" => Self::Jsonl,
            "csv" => Self::Delimited(b','),
            "tsv" => Self::Delimited(b'\t'),
            "tar" => Self::Tar,
            "parquet" if !gzipped => Self::Parquet,
            _ => return None,
        };
        Some((format, gzipped))
    }

    /// Opens a file, and counts in `read` how many of its bytes were read. Passes over up to `skip` rows
    /// where that is cheaper than to read them, and returns over how many.
    pub(crate) fn open(
        self,
        path: &Path,
        gzipped: bool,
        limit: u64,
        skip: u64,
        read: &Arc<AtomicU64>,
    ) -> io::Result<(Rows, u64)> {
        match self {
            Self::Pictures => return Ok((folder::rows(path, read)?, 0)),
            Self::Parquet => return parquet(path, limit, skip, read),
            _ => {}
        }
        let file = Counted::new(File::open(path)?, Arc::clone(read));
        let bytes: Box<dyn Read + Send> = if gzipped {
            Box::new(MultiGzDecoder::new(BufReader::new(file)))
        } else {
            Box::new(file)
        };
        let rows = match self {
            Self::Jsonl => jsonl::rows(bytes, limit),
            Self::Delimited(delimiter) => delimited::rows(bytes, delimiter, limit),
            _ => webdataset::rows(bytes, limit),
        };
        Ok((rows, 0))
    }
}

#[cfg(feature = "parquet")]
fn parquet(path: &Path, limit: u64, skip: u64, read: &Arc<AtomicU64>) -> io::Result<(Rows, u64)> {
    parquet::rows(path, limit, skip, read)
}

#[cfg(not(feature = "parquet"))]
fn parquet(_: &Path, _: u64, _: u64, _: &Arc<AtomicU64>) -> io::Result<(Rows, u64)> {
    let message = "this program reads no Parquet: build it with the feature `parquet` of multiway-data";
    Err(io::Error::new(io::ErrorKind::Unsupported, message))
}
