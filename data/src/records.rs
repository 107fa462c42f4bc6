//! The stream of records.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::corrupt::Corrupt;
use crate::error::DataError;
use crate::file::{DataFile, DataOptions};
use crate::record::Record;
use crate::row::{Row, Rows};

/// How many corrupt rows an error lists.
const LISTED: usize = 3;

/// Where reading stands: the rows before it are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The file, counted from 0.
    file: usize,
    /// How many of its rows are read, those that cannot be read included.
    rows: u64,
    /// How many rows of all files could not be read.
    corrupt: usize,
}

/// Reads the records of a data set, one after the other.
pub struct Records {
    files: Vec<DataFile>,
    options: DataOptions,
    cursor: Cursor,
    /// The rows of the file that is being read.
    open: Option<Rows>,
    corrupt: Vec<Corrupt>,
    /// The bytes that were read of the open file.
    read: Arc<AtomicU64>,
    is_over: bool,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl Records {
    pub(crate) fn new(
        files: Vec<DataFile>,
        options: DataOptions,
        from: Option<&Cursor>,
    ) -> Result<Self, DataError> {
        let cursor = from.copied().unwrap_or_default();
        if cursor.file > files.len() {
            return Err(DataError::Cursor {
                file: cursor.file,
                files: files.len(),
            });
        }
        Ok(Self {
            files,
            options,
            cursor,
            open: None,
            corrupt: Vec::new(),
            read: Arc::default(),
            is_over: false,
        })
    }

    /// Returns where reading stands.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Lists the rows that could not be read since reading began.
    pub fn corrupt(&self) -> &[Corrupt] {
        &self.corrupt
    }

    /// Returns the share of the bytes that are read, from 0 to 1.
    pub fn fraction(&self) -> f64 {
        let total: u64 = self.files.iter().map(|file| file.bytes).sum();
        let files = self.files.iter().take(self.cursor.file);
        let read = files.map(|file| file.bytes).sum::<u64>() + self.read.load(Ordering::Relaxed);
        if total == 0 {
            1.0
        } else {
            (read as f64 / total as f64).min(1.0)
        }
    }

    /// Opens the file where the cursor stands, and passes over the rows that are read.
    fn open(&mut self) -> Result<Option<Rows>, DataError> {
        let Some(file) = self.files.get(self.cursor.file) else {
            return Ok(None);
        };
        self.read = Arc::default();
        let limit = self.options.max_record_bytes;
        let rows = file
            .format
            .open(&file.path, file.gzipped, limit, self.cursor.rows, &self.read);
        let (mut rows, mut passed) = rows.map_err(|source| DataError::File {
            path: file.path.clone(),
            source,
        })?;
        while passed < self.cursor.rows {
            let Some(row) = rows.next() else {
                break;
            };
            passed = passed.saturating_add(row.count());
        }
        Ok(Some(rows))
    }

    /// Notes rows that cannot be read, the last of which was the last that was read.
    fn note(&mut self, reason: String, rows: u64) -> Result<(), DataError> {
        let file = self.files.get(self.cursor.file).map(DataFile::name);
        self.corrupt.push(Corrupt {
            file: file.unwrap_or_default(),
            row: self.cursor.rows.saturating_sub(rows).saturating_add(1),
            reason,
        });
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        self.cursor.corrupt = self.cursor.corrupt.saturating_add(rows);
        if self.cursor.corrupt <= self.options.max_corrupt {
            return Ok(());
        }
        Err(DataError::TooManyCorrupt {
            count: self.cursor.corrupt,
            most: self.options.max_corrupt,
            first: self.corrupt.iter().take(LISTED).cloned().collect(),
        })
    }

    fn read_next(&mut self) -> Result<Option<Record>, DataError> {
        loop {
            if self.open.is_none() {
                self.open = self.open()?;
            }
            let Some(rows) = &mut self.open else {
                return Ok(None);
            };
            let Some(row) = rows.next() else {
                self.open = None;
                self.cursor = Cursor {
                    file: self.cursor.file + 1,
                    rows: 0,
                    corrupt: self.cursor.corrupt,
                };
                self.read = Arc::default();
                continue;
            };
            self.cursor.rows = self.cursor.rows.saturating_add(row.count());
            match row {
                Row::Fields(key, fields) => {
                    let Some(file) = self.files.get(self.cursor.file) else {
                        return Ok(None);
                    };
                    let id = key.unwrap_or_else(|| format!("{}#{}", file.name(), self.cursor.rows));
                    let folder: Arc<Path> = file.path.parent().unwrap_or(Path::new("")).into();
                    return Ok(Some(Record::new(id, fields, folder)));
                }
                Row::Corrupt(reason) => self.note(reason, 1)?,
                Row::Broken(reason) => self.note(format!("nothing behind this can be read: {reason}"), 1)?,
                Row::Lost(reason, 1) => self.note(reason, 1)?,
                Row::Lost(reason, rows) => {
                    self.note(format!("this and {} rows behind it: {reason}", rows - 1), rows)?;
                }
            }
        }
    }
}

impl Iterator for Records {
    type Item = Result<Record, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.read_next().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}
