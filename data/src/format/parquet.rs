//! Parquet, row group by row group.
//!
//! Pages are read, bounded and decompressed here, before `parquet` decodes what is in them: it trusts the
//! sizes that a file declares, and may give up on bytes that are none of its own. A row group in which a page
//! cannot be read is lost from that row on; the next one is read.

mod cell;
mod column;
mod footer;
mod guard;
mod page;
mod pages;
mod thrift;
mod tree;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ::parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use indexmap::IndexMap;

use crate::limited::most_values;
use crate::row::{Row, Rows};

use column::Column;
use guard::guarded;
use pages::{ColumnChunk, Held, Pages};
use tree::{Node, RowBudget};

/// What to do with a file that is written in a way that is not read.
const WRITE_AGAIN: &str = "write the file again with Snappy, Zstandard, LZ4 (raw), gzip or no compression, such as \
    `pyarrow.parquet.write_table(pyarrow.parquet.read_table('old.parquet'), 'new.parquet', compression='snappy')`";

/// How many times the largest record the pages may have that are held at a time.
const PAGES_OF_RECORD: u64 = 4;

/// Opens a file, and passes over the row groups that are wholly within the first `skip` rows.
///
/// # Errors
///
/// When the file cannot be read, or is written in a way that is not read. What is damaged is a row.
pub(super) fn rows(path: &Path, limit: u64, skip: u64, read: &Arc<AtomicU64>) -> io::Result<(Rows, u64)> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let opened = footer::read(&mut file)?.and_then(|metadata| {
        let schema = metadata.file_metadata().schema_descr().root_schema();
        let fields = tree::fields(schema)?;
        Ok((metadata, fields))
    });
    let (metadata, fields) = match opened {
        Ok((_, fields)) if fields.is_empty() => {
            return Ok((broken("the file has no columns".to_owned()), 0));
        }
        Ok(opened) => opened,
        Err(reason) => return Ok((broken(reason), 0)),
    };
    check_kinds(&metadata)?;
    let mut rows = ParquetRows {
        file: Arc::new(Mutex::new(file)),
        bytes,
        total: metadata
            .row_groups()
            .iter()
            .map(count)
            .fold(0, u64::saturating_add),
        metadata,
        fields,
        limit,
        folder: path.parent().unwrap_or(Path::new("")).to_owned(),
        next_group: 0,
        open: None,
        done: 0,
        read: Arc::clone(read),
    };
    rows.skip_groups(skip);
    let done = rows.done;
    Ok((Box::new(rows), done))
}

fn broken(reason: String) -> Rows {
    Box::new(std::iter::once(Row::Broken(reason)))
}

/// Counts the rows of a group.
fn count(group: &RowGroupMetaData) -> u64 {
    u64::try_from(group.num_rows()).unwrap_or(0)
}

/// Refuses codecs and encodings that are not read, so that not every row of such a file is called damaged.
fn check_kinds(metadata: &ParquetMetaData) -> io::Result<()> {
    let columns = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
    for column in columns {
        let name = column.column_path();
        let refused = match page::refused(column.compression()) {
            Some(codec) => Some(format!("compressed with {codec}")),
            None => column
                .encodings()
                .find(|encoding| page::is_refused(*encoding))
                .map(|encoding| format!("encoded as {encoding}")),
        };
        if let Some(refused) = refused {
            let message = format!("the column {name} is {refused}, which is not read: {WRITE_AGAIN}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
    }
    Ok(())
}

/// The rows of a file.
struct ParquetRows {
    file: Arc<Mutex<File>>,
    /// The length of the file, of which as much counts as read as rows are.
    bytes: u64,
    total: u64,
    metadata: ParquetMetaData,
    fields: Vec<Node>,
    limit: u64,
    folder: PathBuf,
    next_group: usize,
    open: Option<Group>,
    /// The rows that were read, those that are lost included.
    done: u64,
    read: Arc<AtomicU64>,
}

/// A row group that is being read.
struct Group {
    columns: Vec<Column>,
    held: Arc<Held>,
    left: u64,
}

impl Group {
    /// Reads the next row of each column.
    fn advance(&mut self) -> Result<(), String> {
        self.held.next_row();
        for column in &mut self.columns {
            column.read()?;
        }
        Ok(())
    }
}

impl ParquetRows {
    fn skip_groups(&mut self, skip: u64) {
        while let Some(group) = self.metadata.row_groups().get(self.next_group) {
            let rows = count(group);
            if rows > skip - self.done {
                break;
            }
            self.done += rows;
            self.next_group += 1;
        }
        self.tell();
    }

    /// Says how far reading has come.
    fn tell(&self) {
        let share = self.done as f64 / self.total.max(1) as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of the bytes"
        )]
        self.read
            .store((share * self.bytes as f64) as u64, Ordering::Relaxed);
    }

    fn open_group(&self, group: &RowGroupMetaData) -> Result<Group, String> {
        let bytes = self.limit.saturating_mul(PAGES_OF_RECORD);
        let values = most_values(self.limit) as u64 * PAGES_OF_RECORD;
        let held = Arc::new(Held::new(bytes, values));
        let columns = guarded(|| {
            let columns = group.columns().iter();
            let columns = columns.map(|column| {
                let chunk = self.chunk(column)?;
                let pages = Pages::new(Arc::clone(&self.file), chunk, Arc::clone(&held));
                Ok::<_, String>(Column::new(column.column_descr_ptr(), Box::new(pages)))
            });
            columns.collect::<Result<Vec<_>, _>>()
        })?;
        let left = count(group);
        Ok(Group { columns, held, left })
    }

    /// Checks where the pages of a column are.
    fn chunk(&self, column: &ColumnChunkMetaData) -> Result<ColumnChunk, String> {
        let name = column.column_path();
        if column.file_path().is_some() {
            return Err(format!("the column {name} is in another file"));
        }
        let first = column.data_page_offset();
        // Some write 0 where there is no dictionary.
        let dictionary = column
            .dictionary_page_offset()
            .filter(|offset| (1..first).contains(offset));
        let start = u64::try_from(dictionary.unwrap_or(first));
        let length = u64::try_from(column.compressed_size());
        let (Ok(start), Ok(length)) = (start, length) else {
            return Err(format!("the column {name} has no place in the file"));
        };
        let end = start.saturating_add(length);
        if end > self.bytes {
            return Err(format!("the column {name} is cut"));
        }
        let descr = column.column_descr();
        Ok(ColumnChunk {
            codec: column.compression(),
            kind: column.column_type(),
            width: u64::try_from(descr.type_length()).unwrap_or(0),
            has_definitions: descr.max_def_level() > 0,
            has_repetitions: descr.max_rep_level() > 0,
            start,
            end,
        })
    }

    /// Reads a row of the open group.
    fn row(&self, group: &mut Group) -> Result<Row, String> {
        guarded(|| group.advance())?;
        let mut budget = RowBudget {
            values: most_values(self.limit),
            bytes: self.limit,
            limit: self.limit,
        };
        // All columns stand at the next row, whatever is wrong with the values of this one.
        let fields = guarded(|| {
            let fields = self.fields.iter().map(|field| {
                let cell = field.read(&mut group.columns, &mut budget)?;
                Ok((field.name.clone(), cell.into_field(&field.name, &self.folder)))
            });
            let fields = fields.collect::<Result<IndexMap<_, _>, String>>()?;
            match group.columns.iter().all(Column::is_over) {
                true => Ok(fields),
                false => Err("the columns do not fit together".to_owned()),
            }
        });
        Ok(match fields {
            Ok(fields) => Row::Fields(None, fields),
            Err(reason) => Row::Corrupt(reason),
        })
    }
}

impl Iterator for ParquetRows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let mut group = match self.open.take() {
            Some(group) => group,
            None => {
                let next = loop {
                    let group = self.metadata.row_groups().get(self.next_group)?;
                    self.next_group += 1;
                    if count(group) > 0 {
                        break group;
                    }
                };
                match self.open_group(next) {
                    Ok(group) => group,
                    Err(reason) => return Some(self.lost(reason, count(next))),
                }
            }
        };
        let row = match self.row(&mut group) {
            Ok(row) => row,
            Err(reason) => {
                return Some(self.lost(reason, group.left));
            }
        };
        self.done += 1;
        self.tell();
        group.left -= 1;
        self.open = Some(group).filter(|group| group.left > 0);
        Some(row)
    }
}

impl ParquetRows {
    /// Counts the rows that are lost with the rest of their group.
    fn lost(&mut self, reason: String, rows: u64) -> Row {
        self.done = self.done.saturating_add(rows);
        self.tell();
        Row::Lost(reason, rows)
    }
}
