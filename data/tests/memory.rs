//! What a record takes in memory, whatever its bytes are.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::fs;
use std::sync::{Mutex, PoisonError};

use multiway_data::{DataOptions, DataSource};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The largest record.
const LIMIT: usize = 2 << 20;

/// How many times its bytes a record may take: what docs/data.md says.
const FACTOR: usize = 4;

/// One test at a time is measured.
static TURN: Mutex<()> = Mutex::new(());

/// Reads the only record of a file, and returns whether it could be read, and what that took.
fn read(name: &str, bytes: &[u8]) -> (bool, usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let mut options = DataOptions::default();
    options.max_record_bytes = LIMIT as u64;
    let source = DataSource::open(&[&path], options).unwrap();
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let mut records = source.records(None).unwrap();
    let is_read = records.next().is_some_and(|record| record.is_ok());
    (is_read, ALLOCATOR.peak_usage().saturating_sub(before))
}

/// Repeats `item` between `start` and `end`, as often as the largest record has room for, and at most `most`
/// times.
fn repeated(start: &str, item: &str, end: &str, most: usize) -> String {
    let times = ((LIMIT - start.len() - end.len()) / item.len()).min(most);
    [start, &item.repeat(times), end].concat()
}

#[test]
fn a_record_takes_a_few_times_its_largest_size_whatever_its_values() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let values = LIMIT / 64;
    for (item, values_of_item) in [
        ("0,", 1),
        ("[],", 2),
        ("{},", 2),
        ("[0],", 3),
        ("{\"\":0},", 3),
        ("{\"\":{\"\":{}}},", 5),
    ] {
        let most = (values - 10) / values_of_item;
        for times in [most, usize::MAX] {
            let json = repeated("{\"a\":[", item, "0]}", times);
            let (is_read, took) = read("x.jsonl", json.as_bytes());
            assert_eq!(is_read, times == most, "{item}");
            assert!(took < FACTOR * LIMIT, "{item}: {took}");
        }
    }
    // Text is one value, of any length.
    let (is_read, took) = read(
        "x.jsonl",
        repeated("{\"a\":\"", "[0,", "\"}", usize::MAX).as_bytes(),
    );
    assert!(is_read && took < FACTOR * LIMIT, "{took}");
    let (is_read, took) = read("x.jsonl", "[".repeat(LIMIT).as_bytes());
    assert!(!is_read && took < FACTOR * LIMIT, "{took}");
}

#[test]
fn columns_and_members_of_a_tar_are_bounded_together() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let header = ",".repeat(LIMIT - 10);
    let (is_read, took) = read("x.csv", format!("{header}\n{header}\n").as_bytes());
    assert!(!is_read && took < FACTOR * LIMIT, "{took}");
    let mut tar = tar::Builder::new(Vec::new());
    for part in 0..8 {
        let json = format!("{{\"{part}\":[{}0]}}", "0,".repeat(LIMIT / 64 / 4));
        let mut header = tar::Header::new_gnu();
        header.set_size(json.len() as u64);
        // Members that end in `.json` are one for each record; further ones have the same name.
        tar.append_data(&mut header, "a.json", json.as_bytes()).unwrap();
    }
    let (is_read, took) = read("x.tar", &tar.into_inner().unwrap());
    assert!(!is_read && took < FACTOR * LIMIT, "{took}");
}

#[cfg(feature = "parquet")]
#[test]
fn lists_of_parquet_are_bounded_too() {
    use parquet::data_type::Int32Type;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for (length, expected) in [
        (LIMIT / 64 - 10, true),
        (LIMIT / 64 + 1, false),
        (3_000_000, false),
    ] {
        let schema = Arc::new(parse_message_type("message rows { repeated int32 list; }").unwrap());
        let mut bytes = Vec::new();
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let mut repetitions = vec![1; length];
        repetitions[0] = 0;
        let typed = column.typed::<Int32Type>();
        typed
            .write_batch(&vec![7; length], Some(&vec![1; length]), Some(&repetitions))
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        let (is_read, took) = read("x.parquet", &bytes);
        assert_eq!(is_read, expected, "{length}");
        assert!(took < FACTOR * LIMIT, "{length}: {took}");
    }
}
