//! A column: the values of one row at a time, with their levels.
//!
//! The definition level of a value says how many of the optional and repeated groups around it are there,
//! its repetition level in which of the lists around it it is a further item.
//!
//! Source: Melnik et al., "Dremel: Interactive Analysis of Web-Scale Datasets" (2010), section 4.

use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::page::PageReader;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{
    BoolType, ByteArrayType, DataType, DoubleType, FixedLenByteArray, FixedLenByteArrayType, FloatType,
    Int32Type, Int64Type, Int96Type,
};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::record::Field;
use parquet::schema::types::ColumnDescPtr;

use super::cell::Cell;

/// The values of a row in a column.
pub(super) struct Column {
    name: String,
    values: Box<dyn Values>,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
    most: i16,
    /// How many levels the row has, and which is next.
    levels: usize,
    at: usize,
    /// The next value: levels that are too low have none.
    next_value: usize,
}

/// The values of a row, whatever their type.
trait Values: Send {
    /// Reads the next row; returns how many rows and values were read.
    fn read(
        &mut self,
        definitions: &mut Vec<i16>,
        repetitions: &mut Vec<i16>,
    ) -> ParquetResult<(usize, usize)>;

    /// Returns a value of the row.
    fn get(&self, place: usize) -> Option<ParquetResult<Cell>>;
}

struct Typed<T: DataType> {
    descr: ColumnDescPtr,
    reader: ColumnReaderImpl<T>,
    values: Vec<T::T>,
    cell: fn(&ColumnDescPtr, &T::T) -> ParquetResult<Cell>,
}

impl<T: DataType> Values for Typed<T> {
    fn read(
        &mut self,
        definitions: &mut Vec<i16>,
        repetitions: &mut Vec<i16>,
    ) -> ParquetResult<(usize, usize)> {
        self.values.clear();
        let (rows, values, _) =
            self.reader
                .read_records(1, Some(definitions), Some(repetitions), &mut self.values)?;
        Ok((rows, values))
    }

    fn get(&self, place: usize) -> Option<ParquetResult<Cell>> {
        let value = self.values.get(place)?;
        Some((self.cell)(&self.descr, value))
    }
}

fn typed<T: DataType>(
    descr: ColumnDescPtr,
    pages: Box<dyn PageReader>,
    cell: fn(&ColumnDescPtr, &T::T) -> ParquetResult<Cell>,
) -> Box<dyn Values> {
    let reader = ColumnReaderImpl::<T>::new(descr.clone(), pages);
    let values = Vec::new();
    Box::new(Typed {
        descr,
        reader,
        values,
        cell,
    })
}

impl Column {
    pub(super) fn new(descr: ColumnDescPtr, pages: Box<dyn PageReader>) -> Self {
        let most = descr.max_def_level();
        let name = descr.path().string();
        let values = match descr.physical_type() {
            Type::BOOLEAN => typed::<BoolType>(descr, pages, |descr, value| {
                json(&Field::convert_bool(descr, *value))
            }),
            Type::INT32 => typed::<Int32Type>(descr, pages, |descr, value| {
                json(&Field::convert_int32(descr, *value))
            }),
            Type::INT64 => typed::<Int64Type>(descr, pages, |descr, value| {
                json(&Field::convert_int64(descr, *value))
            }),
            Type::INT96 => typed::<Int96Type>(descr, pages, |descr, value| {
                json(&Field::convert_int96(descr, *value))
            }),
            Type::FLOAT => typed::<FloatType>(descr, pages, |descr, value| {
                json(&Field::convert_float(descr, *value))
            }),
            Type::DOUBLE => typed::<DoubleType>(descr, pages, |descr, value| {
                json(&Field::convert_double(descr, *value))
            }),
            Type::BYTE_ARRAY => {
                typed::<ByteArrayType>(descr, pages, |descr, value| match descr.converted_type() {
                    ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON => {
                        match value.as_utf8() {
                            Ok(text) => Ok(Cell::Value(text.into())),
                            Err(_) => Err(ParquetError::General("expected UTF-8".to_owned())),
                        }
                    }
                    ConvertedType::DECIMAL => json(&Field::convert_byte_array(descr, value.clone())?),
                    _ => Ok(Cell::Bytes(value.clone())),
                })
            }
            Type::FIXED_LEN_BYTE_ARRAY => typed::<FixedLenByteArrayType>(descr, pages, fixed),
        };
        Self {
            name,
            values,
            definitions: Vec::new(),
            repetitions: Vec::new(),
            most,
            levels: 0,
            at: 0,
            next_value: 0,
        }
    }

    /// Reads the next row.
    pub(super) fn read(&mut self) -> Result<(), String> {
        self.definitions.clear();
        self.repetitions.clear();
        (self.at, self.next_value) = (0, 0);
        let read = self.values.read(&mut self.definitions, &mut self.repetitions);
        let (rows, values) = read.map_err(|error| self.named(error))?;
        self.levels = if self.most > 0 {
            self.definitions.len()
        } else {
            values
        };
        if rows != 1 || self.levels == 0 {
            return Err(format!("the column '{}' ends before the rows do", self.name));
        }
        Ok(())
    }

    /// Tells whether all of the row is taken.
    pub(super) fn is_over(&self) -> bool {
        self.at >= self.levels
    }

    /// Returns the definition level of what is next.
    pub(super) fn definition(&self) -> Option<i16> {
        if self.most > 0 {
            return self.definitions.get(self.at).copied();
        }
        (!self.is_over()).then_some(0)
    }

    /// Returns the repetition level of what is next.
    pub(super) fn repetition(&self) -> i16 {
        self.repetitions.get(self.at).copied().unwrap_or(0)
    }

    /// Takes what is next; nothing where a group around it is not there.
    pub(super) fn take(&mut self) -> Option<Result<Cell, String>> {
        let is_there = self.definition()? == self.most;
        self.at += 1;
        if !is_there {
            return Some(Ok(Cell::Value(serde_json::Value::Null)));
        }
        let value = self.values.get(self.next_value);
        self.next_value += 1;
        value.map(|cell| cell.map_err(|error| self.named(error)))
    }

    fn named(&self, error: ParquetError) -> String {
        match error {
            ParquetError::General(message) => format!("the column '{}': {message}", self.name),
            other => format!("the column '{}': {other}", self.name),
        }
    }
}

fn json(field: &Field) -> ParquetResult<Cell> {
    Ok(Cell::Value(field.to_json_value()))
}

fn fixed(descr: &ColumnDescPtr, value: &FixedLenByteArray) -> ParquetResult<Cell> {
    let is_half = descr.logical_type_ref() == Some(&LogicalType::Float16);
    if is_half || descr.converted_type() == ConvertedType::DECIMAL {
        return json(&Field::convert_byte_array(descr, value.clone().into())?);
    }
    Ok(Cell::Bytes(value.clone().into()))
}
