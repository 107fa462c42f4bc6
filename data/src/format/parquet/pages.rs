//! The pages of a column in a row group, with bounds on what is held of them at a time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};

use super::page::{PageHeader, PageKind};
use super::thrift::ThriftError;

/// How many bytes are tried for a header: those with statistics are long.
const HEADER_BYTES: [u64; 3] = [1 << 10, 64 << 10, 4 << 20];

/// The bytes of a value of a dictionary in memory, beside those of the page.
const BYTES_OF_VALUE: u64 = 32;

/// What the pages of a row group that are held at a time may take together.
#[derive(Debug)]
pub(super) struct Held {
    bytes: Amount,
    values: Amount,
    /// The row that is being read: pages of rows before it are dropped.
    row: AtomicU64,
}

#[derive(Debug)]
struct Amount {
    now: AtomicU64,
    most: u64,
    what: &'static str,
}

impl Amount {
    fn new(most: u64, what: &'static str) -> Self {
        let now = AtomicU64::new(0);
        Self { now, most, what }
    }

    fn add(&self, more: u64) -> Result<()> {
        let now = self.now.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        if now <= self.most {
            return Ok(());
        }
        let (most, what) = (self.most, self.what);
        Err(general(format!(
            "the pages that have to be held at a time have {now} {what}, and at most {most} are: write the file with \
             smaller pages and row groups"
        )))
    }
}

impl Held {
    pub(super) fn new(bytes: u64, values: u64) -> Self {
        Self {
            bytes: Amount::new(bytes, "bytes"),
            values: Amount::new(values, "values of lists"),
            row: AtomicU64::new(0),
        }
    }

    /// Says that the next row is read.
    pub(super) fn next_row(&self) {
        self.row.fetch_add(1, Ordering::Relaxed);
    }
}

/// What decides how the pages of a column are read.
#[derive(Debug, Clone)]
pub(super) struct ColumnChunk {
    pub(super) codec: Compression,
    pub(super) kind: Type,
    /// The bytes of a value of fixed length.
    pub(super) width: u64,
    pub(super) has_definitions: bool,
    pub(super) has_repetitions: bool,
    /// Where its pages are in the file.
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Reads the pages of a column.
pub(super) struct Pages {
    file: Arc<Mutex<File>>,
    chunk: ColumnChunk,
    /// Where the next header is, or behind a header that was read, its page.
    offset: u64,
    ahead: Option<PageHeader>,
    held: Arc<Held>,
    /// The row during which pages were read last, and what they take.
    row: u64,
    bytes: u64,
    values: u64,
}

impl Pages {
    pub(super) fn new(file: Arc<Mutex<File>>, chunk: ColumnChunk, held: Arc<Held>) -> Self {
        Self {
            file,
            offset: chunk.start,
            chunk,
            ahead: None,
            held,
            row: 0,
            bytes: 0,
            values: 0,
        }
    }

    fn read(&self, bytes: u64) -> io::Result<Vec<u8>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.offset))?;
        let mut read = Vec::new();
        file.by_ref().take(bytes).read_to_end(&mut read)?;
        Ok(read)
    }

    /// Reads the header of the next page, unless it was read already.
    fn header(&mut self) -> Result<Option<PageHeader>> {
        loop {
            if self.ahead.is_some() || self.offset >= self.chunk.end {
                return Ok(self.ahead);
            }
            let header = self.find_header()?;
            self.offset += header.header as u64;
            if header.compressed as u64 > self.chunk.end.saturating_sub(self.offset) {
                return Err(general("a page is longer than its column".to_owned()));
            }
            if matches!(header.kind, PageKind::Other) {
                self.offset += header.compressed as u64;
            } else {
                self.ahead = Some(header);
            }
        }
    }

    fn find_header(&self) -> Result<PageHeader> {
        for most in HEADER_BYTES {
            let bytes = self.read(most.min(self.chunk.end - self.offset))?;
            match PageHeader::read(&bytes) {
                Ok(header) => return Ok(header),
                Err(ThriftError::End) if bytes.len() as u64 == most => {}
                Err(_) => break,
            }
        }
        Err(general("the header of a page is damaged".to_owned()))
    }

    /// Counts a page before it is read, and drops what was counted for rows before.
    fn count(&mut self, header: &PageHeader) -> Result<()> {
        let row = self.held.row.load(Ordering::Relaxed);
        if row != self.row {
            self.row = row;
            self.held.bytes.now.fetch_sub(self.bytes, Ordering::Relaxed);
            self.held.values.now.fetch_sub(self.values, Ordering::Relaxed);
            (self.bytes, self.values) = (0, 0);
        }
        let bytes = header.size.max(header.compressed) as u64;
        match header.kind {
            // Kept for as long as the column is read.
            PageKind::Dictionary { values, .. } => {
                self.check_dictionary(values, header.size)?;
                self.held.bytes.add(bytes + u64::from(values) * BYTES_OF_VALUE)
            }
            PageKind::Data { values, .. } | PageKind::DataV2 { values, .. } => {
                let values = u64::from(values) * u64::from(self.chunk.has_repetitions);
                self.bytes += bytes;
                self.values += values;
                self.held.bytes.add(bytes)?;
                self.held.values.add(values)
            }
            PageKind::Other => Ok(()),
        }
    }

    /// Checks that a dictionary has bytes for its values, since memory is allocated for all of them.
    fn check_dictionary(&self, values: u32, size: usize) -> Result<()> {
        let width = match self.chunk.kind {
            Type::BOOLEAN => return Err(general("a dictionary of booleans".to_owned())),
            Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
            Type::INT64 | Type::DOUBLE => 8,
            Type::INT96 => 12,
            Type::FIXED_LEN_BYTE_ARRAY => self.chunk.width.max(1),
        };
        if u64::from(values).saturating_mul(width) <= size as u64 {
            return Ok(());
        }
        Err(general(format!(
            "a dictionary of {values} values has {size} bytes"
        )))
    }

    /// Checks the encoding of a page's values; some allocate what the bytes say.
    fn check_values(&self, encoding: Encoding, values: u32, bytes: &[u8], levels: usize) -> Result<()> {
        match encoding {
            Encoding::PLAIN
            | Encoding::PLAIN_DICTIONARY
            | Encoding::RLE_DICTIONARY
            | Encoding::RLE
            | Encoding::DELTA_BINARY_PACKED
            | Encoding::BYTE_STREAM_SPLIT => Ok(()),
            Encoding::DELTA_LENGTH_BYTE_ARRAY if self.chunk.kind == Type::BYTE_ARRAY => {
                match lengths(bytes.get(levels..).unwrap_or_default()) {
                    Some(lengths) if lengths <= u64::from(values) => Ok(()),
                    _ => Err(general(
                        "a page has another number of lengths than of values".to_owned(),
                    )),
                }
            }
            other => Err(general(format!(
                "a page has the encoding {other}, which the column is not said to have, or which is not read"
            ))),
        }
    }

    /// Returns how many bytes the levels before the values of a page take.
    fn level_bytes(&self, kind: PageKind, bytes: &[u8]) -> usize {
        match kind {
            PageKind::DataV2 {
                definition_bytes,
                repetition_bytes,
                ..
            } => (definition_bytes as usize).saturating_add(repetition_bytes as usize),
            _ => {
                let lists = usize::from(self.chunk.has_definitions) + usize::from(self.chunk.has_repetitions);
                (0..lists).fold(0_usize, |start, _| {
                    let length = bytes.get(start..).and_then(|rest| rest.first_chunk());
                    let length = length.map_or(0, |length| u32::from_le_bytes(*length));
                    start.saturating_add(4).saturating_add(length as usize)
                })
            }
        }
    }
}

/// Reads how many lengths the encoding says that there are: the third of the numbers that it begins with.
fn lengths(bytes: &[u8]) -> Option<u64> {
    let mut numbers = bytes.split_inclusive(|byte| byte & 0x80 == 0);
    let digits = numbers.nth(2).filter(|digits| digits.len() <= 9)?;
    let number = digits.iter().rev();
    Some(number.fold(0, |value, digit| value << 7 | u64::from(digit & 0x7f)))
}

fn general(message: String) -> ParquetError {
    ParquetError::General(message)
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let Some(header) = self.header()? else {
            return Ok(None);
        };
        self.count(&header)?;
        let bytes = self.read(header.compressed as u64)?;
        if bytes.len() != header.compressed {
            return Err(general("a page is cut".to_owned()));
        }
        self.ahead = None;
        self.offset += header.compressed as u64;
        let bytes = header.decompress(bytes, self.chunk.codec).map_err(general)?;
        if let PageKind::Data { values, encoding, .. } | PageKind::DataV2 { values, encoding, .. } =
            header.kind
        {
            self.check_values(encoding, values, &bytes, self.level_bytes(header.kind, &bytes))?;
        }
        Ok(page(header.kind, bytes.into()))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        Ok(self.header()?.map(|header| {
            let (num_rows, num_levels, is_dict) = match header.kind {
                PageKind::Data { values, .. } => (None, Some(values as usize), false),
                PageKind::DataV2 { values, rows, .. } => (Some(rows as usize), Some(values as usize), false),
                PageKind::Dictionary { .. } | PageKind::Other => (None, None, true),
            };
            PageMetadata {
                num_rows,
                num_levels,
                is_dict,
            }
        }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        if let Some(header) = self.header()? {
            self.ahead = None;
            self.offset += header.compressed as u64;
        }
        Ok(())
    }
}

fn page(kind: PageKind, buf: Bytes) -> Option<Page> {
    match kind {
        PageKind::Dictionary { values, encoding } => Some(Page::DictionaryPage {
            buf,
            num_values: values,
            encoding,
            is_sorted: false,
        }),
        PageKind::Data {
            values,
            encoding,
            definition,
            repetition,
        } => Some(Page::DataPage {
            buf,
            num_values: values,
            encoding,
            def_level_encoding: definition,
            rep_level_encoding: repetition,
            statistics: None,
        }),
        PageKind::DataV2 {
            values,
            nulls,
            rows,
            encoding,
            definition_bytes,
            repetition_bytes,
            is_compressed,
        } => Some(Page::DataPageV2 {
            buf,
            num_values: values,
            encoding,
            num_nulls: nulls,
            num_rows: rows,
            def_levels_byte_len: definition_bytes,
            rep_levels_byte_len: repetition_bytes,
            is_compressed,
            statistics: None,
        }),
        PageKind::Other => None,
    }
}
