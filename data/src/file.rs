//! A file of a data set.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::DataError;
use crate::format::{Format, pictures_in};
use crate::order::{Shard, Shuffle};

/// How many bytes at the beginning and at the end of a file tell it from another of the same name and size.
const DIGESTED: u64 = 4096;

/// Says how a data set is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DataOptions {
    /// How many rows that cannot be read are passed over; 0 fails at the first.
    pub max_corrupt: usize,
    /// The most bytes of a record. It may have a value, or a column of a table, for each 64 of them, and then
    /// takes at most four times as many bytes in memory.
    pub max_record_bytes: u64,
    pub(crate) shard: Option<Shard>,
    pub(crate) shuffle: Option<Shuffle>,
}

impl DataOptions {
    /// Reads one of `count` shards, which have no record in common and all records together, for programs
    /// that share the work.
    ///
    /// Where there are at least four files for each shard, shards are whole files: file `k` is of shard
    /// `k % count`. With fewer files, row `r` of file `k` is of shard `(k + r) % count`; then every shard
    /// reads all files, and names those that cannot be read to their end.
    ///
    /// # Errors
    ///
    /// When `index` is not below `count`.
    pub fn shard(mut self, index: usize, count: usize) -> Result<Self, DataError> {
        if index >= count {
            return Err(DataError::Shard { index, count });
        }
        self.shard = Some(Shard { index, count });
        Ok(self)
    }

    /// Reads the files in another order, and the records in another order within each piece of `buffer` of
    /// them; a piece ends early where its records have four times the bytes of the largest one.
    ///
    /// The order is the same for the same seed and files, on every machine; take another seed for each epoch.
    /// A [`Cursor`](crate::Cursor) goes on in it from any record.
    #[must_use]
    pub fn shuffle(mut self, seed: u64, buffer: usize) -> Self {
        self.shuffle = Some(Shuffle { seed, buffer });
        self
    }
}

impl Default for DataOptions {
    fn default() -> Self {
        Self {
            max_corrupt: 100,
            max_record_bytes: 64 << 20,
            shard: None,
            shuffle: None,
        }
    }
}

/// A file or a folder of a data set.
#[derive(Debug, Clone)]
pub(crate) struct DataFile {
    pub(crate) path: PathBuf,
    /// What names the file among those of the data set.
    pub(crate) label: String,
    pub(crate) format: Format,
    pub(crate) gzipped: bool,
    pub(crate) bytes: u64,
    /// What tells the contents from others: a digest of a file's ends, or the names and sizes of the pictures
    /// of a folder.
    pub(crate) listing: String,
}

impl DataFile {
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let failed = |source| DataError::File {
            path: path.to_owned(),
            source,
        };
        let metadata = fs::metadata(path).map_err(failed)?;
        let Some((format, gzipped)) = Format::of(path) else {
            let path = path.to_owned();
            return Err(DataError::Format { path });
        };
        let mut file = Self {
            label: name(path),
            path: path.to_owned(),
            format,
            gzipped,
            bytes: metadata.len(),
            listing: String::new(),
        };
        if format == Format::Pictures {
            file.list(pictures_in(path).map_err(failed)?)?;
        } else if metadata.is_file() {
            file.listing = ends(path).map_err(failed)?;
        }
        Ok(file)
    }

    /// Notes which pictures a folder holds.
    fn list(&mut self, pictures: Vec<PathBuf>) -> Result<(), DataError> {
        if pictures.is_empty() {
            let path = self.path.clone();
            return Err(DataError::Nothing { path });
        }
        self.bytes = 0;
        for picture in pictures {
            let size = fs::metadata(&picture).map_or(0, |found| found.len());
            self.bytes += size;
            let name = picture.strip_prefix(&self.path).unwrap_or(&picture);
            // Writing to a text never fails.
            let _ = writeln!(self.listing, "{name:?} {size}");
        }
        Ok(())
    }
}

/// Names a file without the folders that it is in.
fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// Digests the beginning and the end of a file.
fn ends(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.by_ref().take(DIGESTED).read_to_end(&mut bytes)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(DIGESTED)))?;
    file.take(DIGESTED).read_to_end(&mut bytes)?;
    Ok(format!("{:?}", Sha256::digest(&bytes)))
}

/// Gives files of the same name their paths as labels, and a number where even these are the same.
pub(crate) fn label(files: &mut [DataFile]) {
    let mut names: HashMap<String, usize> = HashMap::new();
    for file in files.iter() {
        *names.entry(file.label.clone()).or_default() += 1;
    }
    let mut paths: HashMap<String, usize> = HashMap::new();
    for file in files {
        if names.get(&file.label).is_some_and(|count| *count > 1) {
            let path = file.path.display().to_string();
            let count = paths.entry(path.clone()).or_default();
            *count += 1;
            file.label = if *count == 1 {
                path
            } else {
                format!("{path} ({count})")
            };
        }
    }
}
