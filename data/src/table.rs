//! Tables of texts, written as Parquet.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

/// How many rows a row group has, unless their texts are long.
const ROWS_OF_GROUP: usize = 10_000;

/// After how many bytes of texts a row group ends.
const BYTES_OF_GROUP: usize = 16 << 20;

/// Writes a table of texts as Parquet, with memory bounded by a row group.
///
/// The same rows give the same bytes.
///
/// # Examples
///
/// ```
/// use multiway_data::TableWriter;
///
/// let mut table = TableWriter::new(Vec::new(), &["id", "text"])?;
/// table.push(&[Some("1".into()), None])?;
/// let bytes = table.finish()?;
/// assert!(bytes.starts_with(b"PAR1"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TableWriter<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    /// The texts of the open row group, by column; a column that is shorter than others is null from there.
    columns: Vec<TextColumn>,
    rows: usize,
    bytes: usize,
}

#[derive(Default)]
struct TextColumn {
    texts: Vec<ByteArray>,
    /// For each row, whether it has a text.
    are_there: Vec<i16>,
}

impl<W: Write + Send> std::fmt::Debug for TableWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableWriter")
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl<W: Write + Send> TableWriter<W> {
    /// Begins a table whose columns have these names.
    ///
    /// # Errors
    ///
    /// When `out` cannot be written to.
    pub fn new(out: W, names: &[&str]) -> io::Result<Self> {
        let schema = schema(names).map_err(io::Error::other)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::None)
            .build();
        let writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties));
        Ok(Self {
            writer: writer.map_err(io::Error::other)?,
            columns: names.iter().map(|_| TextColumn::default()).collect(),
            rows: 0,
            bytes: 0,
        })
    }

    /// Adds a row: a text or none for each column.
    ///
    /// # Errors
    ///
    /// When the row has another number of columns, and when the table cannot be written.
    pub fn push(&mut self, row: &[Option<String>]) -> io::Result<()> {
        if row.len() != self.columns.len() {
            let (expected, found) = (self.columns.len(), row.len());
            let message = format!("expected a row of {expected} texts, found {found}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        for (column, text) in self.columns.iter_mut().zip(row) {
            column.are_there.push(i16::from(text.is_some()));
            if let Some(text) = text {
                self.bytes += text.len();
                column.texts.push(text.as_str().into());
            }
        }
        self.rows += 1;
        if self.rows >= ROWS_OF_GROUP || self.bytes >= BYTES_OF_GROUP {
            self.end_group()?;
        }
        Ok(())
    }

    /// Writes what is left, and returns what was written to.
    ///
    /// # Errors
    ///
    /// When the table cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        if self.rows > 0 {
            self.end_group()?;
        }
        self.writer.into_inner().map_err(io::Error::other)
    }

    fn end_group(&mut self) -> io::Result<()> {
        self.write_group().map_err(io::Error::other)?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let column = std::mem::take(column);
            let Some(mut writer) = group.next_column()? else {
                break;
            };
            let typed = writer.typed::<ByteArrayType>();
            typed.write_batch(&column.texts, Some(&column.are_there), None)?;
            writer.close()?;
        }
        group.close().map(|_| ())
    }
}

fn schema(names: &[&str]) -> Result<Type, ParquetError> {
    let columns = names.iter().map(|name| {
        let column = Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(Some(LogicalType::String));
        column.build().map(Arc::new)
    });
    let columns = columns.collect::<Result<_, _>>()?;
    Type::group_type_builder("rows").with_fields(columns).build()
}
