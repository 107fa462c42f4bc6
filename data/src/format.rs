//! One reader for each format.

mod delimited;
mod folder;
mod jsonl;
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
            _ => return None,
        };
        Some((format, gzipped))
    }

    /// Opens a file, and counts in `read` how many of its bytes were read.
    pub(crate) fn open(
        self,
        path: &Path,
        gzipped: bool,
        limit: u64,
        read: &Arc<AtomicU64>,
    ) -> io::Result<Rows> {
        if self == Self::Pictures {
            return folder::rows(path, read);
        }
        let file = Counted::new(File::open(path)?, Arc::clone(read));
        let bytes: Box<dyn Read + Send> = if gzipped {
            Box::new(MultiGzDecoder::new(BufReader::new(file)))
        } else {
            Box::new(file)
        };
        Ok(match self {
            Self::Jsonl => jsonl::rows(bytes, limit),
            Self::Delimited(delimiter) => delimited::rows(bytes, delimiter, limit),
            Self::Tar | Self::Pictures => webdataset::rows(bytes, limit),
        })
    }
}
