//! What holds for a file of any bytes that is read as data.

use std::fs;

use multiway_data::{DataError, DataOptions, DataSource, Record};

/// The formats, by the names of files.
pub(crate) const NAMES: [&str; 8] = [
    "x.jsonl",
    "x.csv",
    "x.tsv",
    "x.tar",
    "x.parquet",
    "x.jsonl.gz",
    "x.csv.gz",
    "x.tgz",
];

/// The largest record: inputs are small, and what is out of bounds must be within reach.
const LIMIT: u64 = 64 << 10;

/// How many records are read of a file: some bytes are a billion nulls.
const MOST: usize = 300;

/// Reads bytes as the file of a format, which the first byte says.
pub(crate) fn check(bytes: &[u8]) {
    if let Some((name, bytes)) = bytes.split_first() {
        check_file(NAMES[usize::from(*name) % NAMES.len()], bytes);
    }
}

/// Reads bytes as a file of a name: every record is within bounds, and reading goes on from any place to the
/// same rest, in the order of the file and in another.
pub(crate) fn check_file(name: &str, bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let mut options = DataOptions::default();
    options.max_corrupt = usize::MAX;
    options.max_record_bytes = LIMIT;
    let source = DataSource::open(&[&path], options).unwrap();
    check_order(&source);
    let shuffled = DataSource::open(&[&path], options.shuffle(bytes.len() as u64, 7)).unwrap();
    check_order(&shuffled);
    let found = |source: &DataSource| {
        source
            .records(None)
            .unwrap()
            .take(MOST)
            .filter(Result::is_ok)
            .count()
    };
    assert_eq!(found(&source), found(&shuffled));
}

fn check_order(source: &DataSource) {
    let mut records = source.records(None).unwrap();
    let first = read(records.by_ref().take(MOST / 2));
    let cursor = records.cursor();
    let rest = read(records.by_ref().take(MOST / 2));
    assert!((0.0..=1.0).contains(&records.fraction()));
    let resumed = source.records(Some(&cursor)).unwrap();
    if first.len() == MOST / 2 {
        assert_eq!(read(resumed.take(MOST / 2)), rest);
    }
    for record in first.iter().chain(&rest) {
        assert!(!record.id().is_empty());
        let text: usize = record
            .fields()
            .filter_map(|(name, _)| record.text(name))
            .map(|text| text.len())
            .sum();
        assert!(text as u64 <= LIMIT * 2, "{text}");
    }
}

/// Reads records up to the first error, which says that the file is written in a way that is not read.
fn read(records: impl Iterator<Item = Result<Record, DataError>>) -> Vec<Record> {
    let read = records.map_while(|record| match record {
        Ok(record) => Some(record),
        Err(DataError::File { .. }) => None,
        Err(error) => unreachable!("{error}"),
    });
    read.collect()
}
