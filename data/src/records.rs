//! The stream of records.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::corrupt::Corrupt;
use crate::error::DataError;
use crate::file::{DataFile, DataOptions};
use crate::order::Shuffle;
use crate::reader::{Position, Reader};
use crate::record::Record;

/// How many times the largest record the records may have that are mixed with each other.
const BUFFER_OF_RECORD: u64 = 4;

/// Where reading stands: the records before it are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The data, and how it is read.
    data: u64,
    /// The file, counted from 0 in the order in which they are read.
    file: usize,
    /// How many of its rows are read, those that cannot be read included.
    rows: u64,
    /// How many rows of all files could not be read.
    corrupt: usize,
    /// How many of the records that are mixed with each other from there on were given.
    given: usize,
}

/// Reads the records of a data set, one after the other.
pub struct Records {
    reader: Reader,
    data: u64,
    shuffle: Option<Shuffled>,
    is_over: bool,
}

/// Records that are mixed with each other.
struct Shuffled {
    shuffle: Shuffle,
    most_bytes: u64,
    /// Where the first of them in the file is.
    start: Position,
    /// How many were given.
    given: usize,
    /// Those that are left, the next one last.
    left: Vec<Record>,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("cursor", &self.cursor())
            .finish_non_exhaustive()
    }
}

impl Records {
    /// Reads `files`, whose digest is `data`.
    pub(crate) fn new(
        files: &[DataFile],
        options: DataOptions,
        data: u64,
        from: Option<&Cursor>,
    ) -> Result<Self, DataError> {
        let start = from.map_or_else(Position::default, Cursor::position);
        let given = from.map_or(0, |cursor| cursor.given);
        if let Some(cursor) = from
            && cursor.data != data
        {
            return Err(DataError::Cursor {
                file: cursor.file,
                rows: cursor.rows,
            });
        }
        let shuffle = options.shuffle.map(|shuffle| Shuffled {
            shuffle,
            most_bytes: options.max_record_bytes.saturating_mul(BUFFER_OF_RECORD),
            start,
            given,
            left: Vec::new(),
        });
        Ok(Self {
            reader: Reader::new(files, options, start),
            data,
            shuffle,
            is_over: false,
        })
    }

    /// Returns where reading stands.
    pub fn cursor(&self) -> Cursor {
        let (position, given) = match &self.shuffle {
            Some(shuffled) => (shuffled.start, shuffled.given),
            None => (self.reader.position, 0),
        };
        Cursor {
            data: self.data,
            file: position.file,
            rows: position.rows,
            corrupt: position.corrupt,
            given,
        }
    }

    /// Lists the rows that could not be read since reading began.
    pub fn corrupt(&self) -> &[Corrupt] {
        &self.reader.corrupt
    }

    /// Returns the share of the bytes that are read, from 0 to 1.
    pub fn fraction(&self) -> f64 {
        self.reader.fraction()
    }
}

impl Cursor {
    fn position(&self) -> Position {
        Position {
            file: self.file,
            rows: self.rows,
            corrupt: self.corrupt,
        }
    }
}

impl Shuffled {
    fn next(&mut self, reader: &mut Reader) -> Result<Option<Record>, DataError> {
        if self.left.is_empty() {
            self.fill(reader)?;
        }
        let record = self.left.pop();
        self.given += 1;
        if self.left.is_empty() {
            (self.start, self.given) = (reader.position, 0);
        }
        Ok(record)
    }

    /// Reads records and mixes them; those that were given before reading began are left out.
    fn fill(&mut self, reader: &mut Reader) -> Result<(), DataError> {
        let mut bytes = 0;
        while self.left.len() < self.shuffle.buffer.max(1) && bytes < self.most_bytes {
            let Some(record) = reader.next()? else {
                break;
            };
            bytes += record.bytes();
            self.left.push(record);
        }
        self.shuffle
            .records(self.start.file, self.start.rows, &mut self.left);
        if self.given > 0 {
            self.left.truncate(self.left.len().saturating_sub(self.given));
            // Whoever had the first of these records was told of the rows between them.
            reader.corrupt.clear();
        }
        Ok(())
    }
}

impl Iterator for Records {
    type Item = Result<Record, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = match &mut self.shuffle {
            Some(shuffled) => shuffled.next(&mut self.reader),
            None => self.reader.next(),
        };
        let next = next.transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}
