//! Records in the order of the files and their rows.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::corrupt::Corrupt;
use crate::error::DataError;
use crate::file::{DataFile, DataOptions};
use crate::record::Record;
use crate::row::{Row, Rows};

/// How many corrupt rows an error lists.
const LISTED: usize = 3;

/// Where a reader stands: the rows before it are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The file, counted from 0 in the order in which they are read.
    pub(crate) file: usize,
    /// How many of its rows are read, those that cannot be read included.
    pub(crate) rows: u64,
    /// How many rows of all files could not be read.
    pub(crate) corrupt: usize,
}

/// Reads the records of some files.
pub(crate) struct Reader {
    /// The files, each with its place in the data set.
    files: Vec<(usize, DataFile)>,
    options: DataOptions,
    pub(crate) position: Position,
    /// The rows of the file that is being read.
    open: Option<Rows>,
    pub(crate) corrupt: Vec<Corrupt>,
    /// The bytes that were read of the open file.
    read: Arc<AtomicU64>,
    /// Whether records of other shards are in the same files.
    is_mixed: bool,
    /// Whether keys may be those of other files too.
    has_several: bool,
}

impl Reader {
    pub(crate) fn new(files: &[DataFile], options: DataOptions, position: Position) -> Self {
        let has_several = files.len() > 1;
        let whole = options.shard.filter(|shard| shard.has_whole_files(files.len()));
        let mut files: Vec<(usize, DataFile)> = files.iter().cloned().enumerate().collect();
        files.retain(|(file, _)| whole.is_none_or(|shard| shard.has_file(*file)));
        if let Some(shuffle) = options.shuffle {
            shuffle.files(&mut files);
        }
        Self {
            files,
            options,
            position,
            open: None,
            corrupt: Vec::new(),
            read: Arc::default(),
            is_mixed: whole.is_none(),
            has_several,
        }
    }

    /// Returns the share of the bytes that are read, from 0 to 1.
    pub(crate) fn fraction(&self) -> f64 {
        let total: u64 = self.files.iter().map(|(_, file)| file.bytes).sum();
        let files = self.files.iter().take(self.position.file);
        let read = files.map(|(_, file)| file.bytes).sum::<u64>() + self.read.load(Ordering::Relaxed);
        if total == 0 {
            1.0
        } else {
            (read as f64 / total as f64).min(1.0)
        }
    }

    /// Reads the next record of the shard.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, DataError> {
        loop {
            let Some(row) = self.next_row()? else {
                return Ok(None);
            };
            let Some((place, file)) = self.files.get(self.position.file) else {
                return Ok(None);
            };
            let number = self.position.rows;
            self.position.rows = number.saturating_add(row.count());
            let shard = self.options.shard.filter(|_| self.is_mixed);
            let is_ours = shard.is_none_or(|shard| shard.has_row(*place, number));
            match row {
                Row::Fields(..) | Row::Corrupt(_) if !is_ours => {}
                Row::Fields(key, fields) => {
                    let label = &file.label;
                    let id = match key {
                        Some(key) if !self.has_several => key,
                        Some(key) => format!("{label}#{key}"),
                        None => format!("{label}#{}", number + 1),
                    };
                    let folder: Arc<Path> = file.path.parent().unwrap_or(Path::new("")).into();
                    return Ok(Some(Record::new(id, fields, folder)));
                }
                Row::Corrupt(reason) | Row::Lost(reason, 1) => self.note(reason, 1)?,
                Row::Broken(reason) => self.note(format!("nothing behind this can be read: {reason}"), 1)?,
                Row::Lost(reason, rows) => {
                    let reason = format!("this and {} rows behind it: {reason}", rows.saturating_sub(1));
                    self.note(reason, rows)?;
                }
            }
        }
    }

    /// Reads the next row, of the next file if need be.
    fn next_row(&mut self) -> Result<Option<Row>, DataError> {
        loop {
            if self.open.is_none() {
                self.open = self.open()?;
            }
            let Some(rows) = &mut self.open else {
                return Ok(None);
            };
            if let Some(row) = rows.next() {
                return Ok(Some(row));
            }
            self.open = None;
            self.position.file += 1;
            self.position.rows = 0;
            self.read = Arc::default();
        }
    }

    /// Opens the file where the position is, and passes over the rows that are read.
    fn open(&mut self) -> Result<Option<Rows>, DataError> {
        let Some((_, file)) = self.files.get(self.position.file) else {
            return Ok(None);
        };
        self.read = Arc::default();
        let (limit, skip) = (self.options.max_record_bytes, self.position.rows);
        let rows = file
            .format
            .open(&file.path, file.gzipped, limit, skip, &self.read);
        let (mut rows, mut passed) = rows.map_err(|source| DataError::File {
            path: file.path.clone(),
            source,
        })?;
        while passed < skip {
            let Some(row) = rows.next() else {
                break;
            };
            passed = passed.saturating_add(row.count());
        }
        Ok(Some(rows))
    }

    /// Notes rows that cannot be read, the last of which was the last that was read.
    fn note(&mut self, reason: String, rows: u64) -> Result<(), DataError> {
        let Position { file, rows: last, .. } = self.position;
        let file = self.files.get(file).map(|(_, file)| file.label.clone());
        self.corrupt.push(Corrupt {
            file: file.unwrap_or_default(),
            row: last.saturating_sub(rows).saturating_add(1),
            reason,
        });
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        let count = self.position.corrupt.saturating_add(rows);
        self.position.corrupt = count;
        if count <= self.options.max_corrupt {
            return Ok(());
        }
        Err(DataError::TooManyCorrupt {
            count,
            most: self.options.max_corrupt,
            first: self.corrupt.iter().take(LISTED).cloned().collect(),
        })
    }
}
