//! What a build has finished, in a file beside the index, so that a build that is killed goes on.
//!
//! A head of 40 bytes, `MWINDEXJ` and the SHA-256 of what the index is to be; then a record for each vector
//! in the order in which they were finished: the length of its entry (4 bytes), the entry, its row, its
//! scale, and the SHA-256 of these. A record that was torn is cut off.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::entry::MAX_ENTRY_BYTES;
use crate::error::IndexError;
use crate::file::{Bytes, map};

const MAGIC: &[u8; 8] = b"MWINDEXJ";
const HEAD_BYTES: usize = 40;
const DIGEST_BYTES: usize = 32;

/// Where a record is in the journal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    /// Where its entry starts.
    at: u64,
    entry_bytes: u32,
}

/// The journal of a build, which no other program may have open.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    stride: usize,
    end: u64,
}

/// Calls what takes the entry and the place of each record that was found.
type Found<'a> = &'a mut dyn FnMut(&[u8], Record);

impl Journal {
    /// Opens the journal of an index, or starts one: of another index than `id` names nothing is kept.
    pub(crate) fn open(
        index: &Path,
        id: &[u8; DIGEST_BYTES],
        stride: usize,
        found: Found<'_>,
    ) -> Result<Self, IndexError> {
        let mut name = index.file_name().unwrap_or_default().to_owned();
        name.push(".journal");
        let path = index.with_file_name(name);
        let written = |source| IndexError::Write {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(written)?;
        // Where the system knows no locks, there is nothing to tell.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(IndexError::Busy { path });
        }
        let mut journal = Self {
            file,
            stride,
            end: 0,
            path: path.clone(),
        };
        let mut head = [0; HEAD_BYTES];
        let length = journal.read_head(&mut head).map_err(written)?;
        let head = head.get(..length).unwrap_or_default();
        if !MAGIC.starts_with(head.get(..MAGIC.len()).unwrap_or(head)) {
            return Err(IndexError::NoJournal { path });
        }
        if head.len() == HEAD_BYTES && head.ends_with(id) {
            journal.end = HEAD_BYTES as u64;
            journal.read_records(found).map_err(written)?;
        } else {
            journal.restart(id).map_err(written)?;
        }
        Ok(journal)
    }

    fn read_head(&mut self, head: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        while let Some(rest) = head.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match self.file.read(rest)? {
                0 => break,
                more => length += more,
            }
        }
        Ok(length)
    }

    fn restart(&mut self, id: &[u8]) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(&[MAGIC, id].concat())?;
        self.end = HEAD_BYTES as u64;
        Ok(())
    }

    /// Reads the records that are whole, and cuts off what is behind them.
    fn read_records(&mut self, found: Found<'_>) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.end))?;
        let mut reader = BufReader::with_capacity(1 << 20, &self.file);
        let mut record = Vec::new();
        while let Some(entry_bytes) = read_record(&mut reader, self.stride, &mut record)? {
            let at = self.end + 4;
            self.end += record.len() as u64;
            let entry = record.get(4..).and_then(|rest| rest.get(..entry_bytes as usize));
            found(entry.unwrap_or_default(), Record { at, entry_bytes });
        }
        self.file.set_len(self.end)?;
        self.file.seek(SeekFrom::Start(self.end))?;
        Ok(())
    }

    /// Adds a record. It is in the hands of the system when this returns, so that no kill loses it.
    pub(crate) fn append(&mut self, entry: &[u8], row: &[u8], scale: f32) -> Result<Record, IndexError> {
        let written = |source| IndexError::Write {
            path: self.path.clone(),
            source,
        };
        let entry_bytes = u32::try_from(entry.len()).map_err(|error| written(io::Error::other(error)))?;
        let mut record = [&entry_bytes.to_le_bytes(), entry, row, &scale.to_le_bytes()].concat();
        let digest = Sha256::digest(&record);
        record.extend_from_slice(&digest);
        self.file.write_all(&record).map_err(written)?;
        let at = self.end + 4;
        self.end += record.len() as u64;
        Ok(Record { at, entry_bytes })
    }

    /// Maps the records.
    pub(crate) fn map(&self) -> Result<Records, IndexError> {
        let bytes = map(&self.file).map_err(|source| IndexError::Read {
            path: self.path.clone(),
            source,
        })?;
        Ok(Records {
            bytes,
            stride: self.stride,
        })
    }

    /// Removes the journal of a build that is done.
    pub(crate) fn remove(self) -> Result<(), IndexError> {
        fs::remove_file(&self.path).map_err(|source| IndexError::Write {
            path: self.path,
            source,
        })
    }
}

/// Reads a whole record, and returns the length of its entry; nothing where the rest of the file is none.
fn read_record(reader: &mut impl Read, stride: usize, record: &mut Vec<u8>) -> io::Result<Option<u32>> {
    record.clear();
    reader.take(4).read_to_end(record)?;
    let Some(entry_bytes) = record.first_chunk().map(|length| u32::from_le_bytes(*length)) else {
        return Ok(None);
    };
    if entry_bytes as usize > MAX_ENTRY_BYTES {
        return Ok(None);
    }
    let rest = entry_bytes as usize + stride + 4 + DIGEST_BYTES;
    let read = reader.take(rest as u64).read_to_end(record)?;
    let Some((body, digest)) = record.split_last_chunk::<DIGEST_BYTES>() else {
        return Ok(None);
    };
    let is_whole = read == rest && Sha256::digest(body).as_slice() == digest;
    Ok(is_whole.then_some(entry_bytes))
}

/// The records of a journal, memory-mapped.
#[derive(Debug)]
pub(crate) struct Records {
    bytes: Bytes,
    stride: usize,
}

impl Records {
    /// Returns the entry of a record.
    pub(crate) fn entry(&self, record: Record) -> &[u8] {
        self.part(record.at, record.entry_bytes as usize)
    }

    /// Returns the row of a record, and its scale.
    pub(crate) fn row(&self, record: Record) -> (&[u8], f32) {
        let at = record.at + u64::from(record.entry_bytes);
        let both = self.part(at, self.stride + 4);
        both.split_last_chunk()
            .map_or((&[], 0.0), |(row, scale)| (row, f32::from_le_bytes(*scale)))
    }

    fn part(&self, at: u64, length: usize) -> &[u8] {
        let rest = usize::try_from(at).ok().and_then(|at| self.bytes.get(at..));
        rest.and_then(|rest| rest.get(..length)).unwrap_or_default()
    }
}
