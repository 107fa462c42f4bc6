//! The end of a file: its columns, and where its row groups are.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use parquet::file::metadata::{
    ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy,
};

use super::guard::guarded;
use super::thrift::{LIST, STRUCT, Thrift, ThriftError};

/// The most bytes of a description; what it becomes in memory is some twenty times as large.
const MAX_BYTES: u64 = 16 << 20;

/// How deep columns may be in each other.
const MAX_DEPTH: usize = 32;

/// The most columns and groups of columns.
const MAX_ELEMENTS: u64 = 100_000;

const MAGIC: &[u8; 4] = b"PAR1";
const ENCRYPTED: &[u8; 4] = b"PARE";

/// Reads the description of a file.
///
/// # Errors
///
/// When the file cannot be read; the inner error says what is wrong with its bytes.
pub(super) fn read(file: &mut File) -> io::Result<Result<ParquetMetaData, String>> {
    let length = file.metadata()?.len();
    let wrong = |reason: &str| Ok(Err(format!("expected a Parquet file: {reason}")));
    let mut tail = [0; 8];
    if length < 12 {
        return wrong("it has fewer than 12 bytes");
    }
    file.seek(SeekFrom::Start(length - 8))?;
    file.read_exact(&mut tail)?;
    let [a, b, c, d, magic @ ..] = tail;
    if magic == *ENCRYPTED {
        let message = "the file is encrypted, which is not read: write it without encryption";
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    if magic != *MAGIC {
        return wrong("it does not end in 'PAR1'");
    }
    let size = u64::from(u32::from_le_bytes([a, b, c, d]));
    if size > length - 12 {
        return wrong("its description is longer than the file");
    }
    if size > MAX_BYTES {
        return Ok(Err(format!(
            "its description has {size} bytes, and at most {MAX_BYTES} are read: write fewer columns or row groups"
        )));
    }
    file.seek(SeekFrom::Start(length - 8 - size))?;
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes)?;
    Ok(decode(&bytes))
}

fn decode(bytes: &[u8]) -> Result<ParquetMetaData, String> {
    check(bytes).map_err(|problem| format!("expected a Parquet file: its description {problem}"))?;
    let mut options = ParquetMetaDataOptions::default();
    options.set_column_stats_policy(ParquetStatisticsPolicy::SkipAll);
    options.set_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll);
    options.set_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    guarded(|| ParquetMetaDataReader::decode_metadata_with_options(bytes, Some(&options)))
}

/// Checks the columns before anything is built of them: building is recursive, and allocates what they say.
fn check(bytes: &[u8]) -> Result<(), String> {
    let ended = |error| match error {
        ThriftError::End => "is cut".to_owned(),
        ThriftError::Wrong => "is damaged".to_owned(),
    };
    let mut thrift = Thrift::new(bytes);
    let mut id = 0;
    while let Some(field) = thrift.field(id).map_err(ended)? {
        id = field.id;
        if (field.id, field.kind) != (2, LIST) {
            thrift.skip(field.kind).map_err(ended)?;
            continue;
        }
        let (kind, count) = thrift.list().map_err(ended)?;
        if kind != STRUCT || count > MAX_ELEMENTS {
            return Err(format!(
                "has {count} columns, and at most {MAX_ELEMENTS} are read"
            ));
        }
        check_tree(&mut thrift, count)?;
    }
    Ok(())
}

/// Checks that the elements of a schema, which say how many children each has, are a tree that is not too
/// deep.
fn check_tree(thrift: &mut Thrift, count: u64) -> Result<(), String> {
    // How many children are still to come, for each element that holds the next one.
    let mut open: Vec<u64> = Vec::new();
    for element in 0..count {
        while open.pop_if(|left| *left == 0).is_some() {}
        if let Some(left) = open.last_mut() {
            *left -= 1;
        } else if element > 0 {
            return Err("has columns outside of its root".to_owned());
        }
        let numbers = thrift.numbers().map_err(|_| "is damaged".to_owned())?;
        let [_, _, _, _, _, children, ..] = numbers;
        let children = u64::try_from(children.unwrap_or(0)).unwrap_or(u64::MAX);
        if children > count - element - 1 {
            return Err("has fewer columns than it says".to_owned());
        }
        if children > 0 {
            open.push(children);
        }
        if open.len() > MAX_DEPTH {
            return Err(format!(
                "has columns that are more than {MAX_DEPTH} deep in each other"
            ));
        }
    }
    Ok(())
}
