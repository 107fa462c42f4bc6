//! A file of a data set.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::format::{Format, pictures_in};

/// Says how a data set is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DataOptions {
    /// How many rows that cannot be read are passed over; 0 fails at the first.
    pub max_corrupt: usize,
    /// The most bytes of a record. It may have a value, or a column of a table, for each 64 of them, and then
    /// takes at most four times as many bytes in memory.
    pub max_record_bytes: u64,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self {
            max_corrupt: 100,
            max_record_bytes: 64 << 20,
        }
    }
}

/// A file or a folder of a data set.
#[derive(Debug, Clone)]
pub(crate) struct DataFile {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    pub(crate) gzipped: bool,
    pub(crate) bytes: u64,
    /// The names and sizes of the pictures of a folder.
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
            path: path.to_owned(),
            format,
            gzipped,
            bytes: metadata.len(),
            listing: String::new(),
        };
        if format == Format::Pictures {
            file.list(pictures_in(path).map_err(failed)?)?;
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

    /// Names the file without the folders that it is in.
    pub(crate) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        name.to_string_lossy().into_owned()
    }
}
