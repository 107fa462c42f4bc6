//! Parquet, as others write it, and damaged.
#![cfg(feature = "parquet")]
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use multiway_data::{Cursor, DataError, DataOptions, DataSource, Field, Record};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

const KINDS: [&str; 5] = ["snappy", "zstd", "gzip", "lz4", "none"];

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    folder.join(format!("{name}.parquet"))
}

fn options(max_corrupt: usize, max_record_bytes: u64) -> DataOptions {
    let mut options = DataOptions::default();
    options.max_corrupt = max_corrupt;
    options.max_record_bytes = max_record_bytes;
    options
}

/// Reads at most 200 records, and what could not be read before them.
fn read(path: &Path, options: DataOptions) -> (Vec<Record>, Vec<String>) {
    let source = DataSource::open(&[path], options).unwrap();
    let mut records = source.records(None).unwrap();
    let found = records.by_ref().take(200).map(Result::unwrap).collect();
    let corrupt = records.corrupt().iter().map(ToString::to_string).collect();
    (found, corrupt)
}

fn all(path: &Path) -> (Vec<Record>, Vec<String>) {
    read(path, options(usize::MAX, 64 << 20))
}

fn write(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// A text for a number, a long one for 3.
fn text(number: i32) -> String {
    let length = if number == 3 { 400 } else { 0 };
    format!("text {number}{}", "!".repeat(length))
}

/// Writes numbers and texts, so many rows to a group.
fn table(rows: i32, rows_of_group: i32, compression: Compression) -> Vec<u8> {
    let schema = "message rows { required int32 number; optional binary text (UTF8); repeated int32 list; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
    for first in (0..rows).step_by(usize::try_from(rows_of_group).unwrap()) {
        let numbers: Vec<i32> = (first..rows.min(first + rows_of_group)).collect();
        let texts: Vec<ByteArray> = numbers
            .iter()
            .map(|number| text(*number).as_str().into())
            .collect();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<Int32Type>()
            .write_batch(&numbers, None, None)
            .unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let there = vec![1; numbers.len()];
        column
            .typed::<ByteArrayType>()
            .write_batch(&texts, Some(&there), None)
            .unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let twice: Vec<i32> = numbers.iter().flat_map(|number| [*number, -number]).collect();
        let repetitions: Vec<i16> = numbers.iter().flat_map(|_| [0, 1]).collect();
        let definitions = vec![1; twice.len()];
        let typed = column.typed::<Int32Type>();
        typed
            .write_batch(&twice, Some(&definitions), Some(&repetitions))
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    bytes
}

fn values(record: &Record) -> Value {
    let fields = record.fields().filter_map(|(name, field)| match field {
        Field::Value(value) => Some((name.to_owned(), value.clone())),
        _ => None,
    });
    Value::Object(fields.collect())
}

fn pictures(record: &Record, field: &str) -> Vec<(String, Vec<u8>)> {
    let pictures = record.pictures(field).unwrap().into_iter();
    pictures
        .map(|picture| (picture.name().to_owned(), picture.read().unwrap_or_default()))
        .collect()
}

#[test]
fn files_of_another_writer_are_read_whatever_their_codec_and_encoding() {
    for name in KINDS {
        let (records, corrupt) = all(&fixture(name));
        assert_eq!((records.len(), corrupt.len()), (3, 0), "{name}: {corrupt:?}");
        assert_eq!(records[0].id(), format!("{name}.parquet#1"));
        let expected = json!({
            "question": "how many?",
            "answers": ["one", null, "two"],
            "nested": [[1, 2], [], null, [3]],
            "people": [{"name": "Ada", "ages": [1, 2]}, {"name": null, "ages": []}],
            "scores": {"a": 1.5, "b": null},
            "price": "12.50",
            "day": "2024-02-29",
            "count": 9_223_372_036_854_775_808_u64,
            "half": 0.5,
            "is_good": true,
            "token": "AAEC/w==",
        });
        assert_eq!(values(&records[0]), expected, "{name}");
        assert!(
            values(&records[1])
                .as_object()
                .unwrap()
                .values()
                .all(Value::is_null),
            "{name}"
        );
        let expected = json!({
            "images": [],
            "binary": "plain text",
            "question": "",
            "answers": [],
            "nested": [],
            "people": [],
            "scores": {},
            "price": "-0.05",
            "day": "1970-01-01",
            "count": 0,
            "half": -2.0,
            "is_good": false,
            "token": "abcd",
        });
        assert_eq!(values(&records[2]), expected, "{name}");
    }
}

#[test]
fn pictures_are_bytes_or_else_paths() {
    for name in KINDS {
        let (records, _) = all(&fixture(name));
        let one = (String::from("image"), b"\x89PNG\r\n\x1a\none".to_vec());
        assert_eq!(pictures(&records[0], "image"), [one]);
        let several = pictures(&records[0], "images");
        assert_eq!(several[0], ("a.png".to_owned(), b"\x89PNG\r\n\x1a\n".to_vec()));
        assert_eq!(several[1].0, "b.png");
        assert_eq!(pictures(&records[0], "binary")[0].1, b"GIF89a and more");
        assert_eq!(pictures(&records[2], "image")[0].0, "pictures/1.png");
        assert!(records[1].pictures("image").is_none());
    }
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("pictures")).unwrap();
    fs::write(folder.path().join("pictures/1.png"), "one").unwrap();
    let path = write(&folder, "x.parquet", &fs::read(fixture("none")).unwrap());
    let (records, _) = all(&path);
    assert_eq!(records[2].pictures("image").unwrap()[0].read().unwrap(), b"one");
}

#[test]
fn a_codec_or_an_encoding_that_is_not_read_is_named_with_what_to_do() {
    for (name, expected) in [
        ("brotli", "column \"question\" is compressed with Brotli"),
        ("delta", "column \"question\" is encoded as DELTA_BYTE_ARRAY"),
    ] {
        let source = DataSource::open(&[fixture(name)], options(usize::MAX, 1 << 20)).unwrap();
        let error = source.records(None).unwrap().next().unwrap().unwrap_err();
        let DataError::File { source, .. } = error else {
            unreachable!("{error}");
        };
        let message = source.to_string();
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("write the file again with Snappy"), "{message}");
    }
}

#[test]
fn reading_goes_on_from_any_row_and_passes_over_whole_groups() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = table(20, 6, Compression::SNAPPY);
    let path = write(&folder, "x.parquet", &bytes);
    let (records, _) = all(&path);
    assert_eq!(
        values(&records[7]),
        json!({"number": 7, "text": "text 7", "list": [7, -7]})
    );
    let source = DataSource::open(&[&path], options(0, 1 << 20)).unwrap();
    let mut cursors = vec![source.records(None).unwrap().cursor()];
    let mut reader = source.records(None).unwrap();
    while reader.next().is_some() {
        cursors.push(reader.cursor());
    }
    assert!((reader.fraction() - 1.0).abs() < 1e-9);
    let ids = |source: &DataSource, from: &Cursor| -> Vec<String> {
        let records = source.records(Some(from)).unwrap();
        records.map(|record| record.unwrap().id().to_owned()).collect()
    };
    let whole: Vec<&str> = records.iter().map(Record::id).collect();
    for (at, cursor) in cursors.iter().take(20).enumerate() {
        assert_eq!(ids(&source, cursor), whole[at..], "{at}");
    }
    // The first group can no longer be read, and nobody looks at it.
    bytes[8..60].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    assert!(source.records(None).unwrap().next().unwrap().is_err());
    assert_eq!(ids(&source, &cursors[6]), whole[6..]);
    assert_eq!(ids(&source, &cursors[13]), whole[13..]);
}

#[test]
fn a_row_group_that_is_damaged_is_lost_and_the_next_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = table(20, 6, Compression::SNAPPY);
    bytes[8..60].fill(0xff);
    let path = write(&folder, "x.parquet", &bytes);
    let (records, corrupt) = all(&path);
    assert_eq!(records.len(), 14);
    assert_eq!(records[0].id(), "x.parquet#7");
    assert_eq!(corrupt.len(), 1);
    assert!(
        corrupt[0].starts_with("x.parquet, row 1: this and 5 rows behind it: "),
        "{corrupt:?}"
    );
    // All six count.
    let mut strict = DataSource::open(&[&path], options(5, 1 << 20))
        .unwrap()
        .records(None)
        .unwrap();
    assert!(matches!(
        strict.next(),
        Some(Err(DataError::TooManyCorrupt { count: 6, .. }))
    ));
}

#[test]
fn text_that_is_not_utf8_costs_its_row_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = table(4, 4, Compression::UNCOMPRESSED);
    let place = bytes.windows(6).rposition(|window| window == b"text 2").unwrap();
    bytes[place] = 0xff;
    let (records, corrupt) = all(&write(&folder, "x.parquet", &bytes));
    assert_eq!(records.len(), 3);
    assert_eq!(corrupt, ["x.parquet, row 3: the column 'text': expected UTF-8"]);
}

#[test]
fn pages_and_records_that_are_too_large_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "x.parquet", &table(5000, 5000, Compression::SNAPPY));
    let (records, corrupt) = read(&path, options(usize::MAX, 1000));
    assert!(records.is_empty());
    assert!(
        corrupt[0].contains("and at most 4000 are: write the file with smaller pages"),
        "{corrupt:?}"
    );
    let path = write(&folder, "y.parquet", &table(5, 1, Compression::SNAPPY));
    let (records, corrupt) = read(&path, options(usize::MAX, 150));
    assert_eq!(records.len(), 4);
    assert_eq!(corrupt, ["y.parquet, row 4: a record has more than 150 bytes"]);
}

#[test]
fn what_is_no_parquet_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = table(9, 9, Compression::SNAPPY);
    let long = |length: u32| {
        let mut bytes = whole.clone();
        let place = bytes.len() - 8;
        bytes[place..place + 4].copy_from_slice(&length.to_le_bytes());
        bytes
    };
    for (bytes, expected) in [
        (b"PAR1".to_vec(), "fewer than 12 bytes"),
        (vec![b'x'; 5000], "does not end in 'PAR1'"),
        (whole[..whole.len() - 1].to_vec(), "does not end in 'PAR1'"),
        (long(u32::MAX), "its description is longer than the file"),
        (long(3), "Required field version is missing"),
        (b"PAR1PAR1\0\0\0\0PAR1".to_vec(), "its description is cut"),
    ] {
        let (records, corrupt) = all(&write(&folder, "x.parquet", &bytes));
        assert!(records.is_empty());
        assert_eq!(corrupt.len(), 1, "{corrupt:?}");
        assert!(corrupt[0].contains(expected), "{expected}: {corrupt:?}");
    }
}

/// Writes a description of columns that are in each other, as deep as it says.
fn deep(depth: usize, children: u8) -> Vec<u8> {
    let mut description = vec![0x15, 2, 0x19, 0xfc];
    let mut count = depth;
    while count > 0x7f {
        description.push(u8::try_from(count & 0x7f).unwrap() | 0x80);
        count >>= 7;
    }
    description.push(u8::try_from(count).unwrap());
    for _ in 0..depth {
        // repetition_type: required, name: "x", num_children.
        description.extend([0x35, 0, 0x18, 1, b'x', 0x15, children << 1, 0]);
    }
    description.push(0);
    let length = u32::try_from(description.len()).unwrap();
    [b"PAR1", description.as_slice(), &length.to_le_bytes(), b"PAR1"].concat()
}

#[test]
fn columns_that_are_too_deep_or_that_never_come_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (bytes, expected) in [
        (deep(90_000, 1), "more than 32 deep in each other"),
        (deep(20, 1), "has fewer columns than it says"),
        (deep(20, 0), "has columns outside of its root"),
        (deep(200_000, 1), "at most 100000 are read"),
    ] {
        let (records, corrupt) = all(&write(&folder, "x.parquet", &bytes));
        assert!(records.is_empty());
        assert!(corrupt[0].contains(expected), "{corrupt:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damaged_files_are_read_as_far_as_they_go(
        kind in 0_usize..KINDS.len(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::weighted(0.1, any::<proptest::sample::Index>()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = fs::read(fixture(KINDS[kind])).unwrap();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            let cut = cut.index(bytes.len());
            bytes.drain(cut..(cut + 5).min(bytes.len()));
        }
        let path = write(&folder, "x.parquet", &bytes);
        let source = DataSource::open(&[&path], options(usize::MAX, 1 << 20)).unwrap();
        for record in source.records(None).unwrap().take(200) {
            match record {
                Ok(record) => { record.pictures("images"); }
                // A codec that is not read.
                Err(error) => prop_assert!(matches!(error, DataError::File { .. }), "{error}"),
            }
        }
    }
}
