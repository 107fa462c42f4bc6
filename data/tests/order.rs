//! Shards, other orders, and reading that goes on in them.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use multiway_data::{Cursor, DataError, DataOptions, DataSource};
use proptest::prelude::*;
use tempfile::TempDir;

/// Writes files of so many rows, of which those in the places of `corrupt` cannot be read.
fn files(rows: &[usize], corrupt: &[usize]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (file, rows) in rows.iter().enumerate() {
        let lines = (0..*rows).map(|row| match corrupt.contains(&row) {
            true => "wrong\n".to_owned(),
            false => format!("{{\"row\": {row}}}\n"),
        });
        let lines: String = lines.collect();
        fs::write(folder.path().join(format!("{file:02}.jsonl")), lines).unwrap();
    }
    folder
}

fn options() -> DataOptions {
    let mut options = DataOptions::default();
    options.max_corrupt = 999;
    options
}

fn open(folder: &TempDir, options: DataOptions) -> DataSource {
    DataSource::open(&[folder.path().join("*.jsonl")], options).unwrap()
}

/// Reads the records from a cursor on: their names, and the rows that could not be read.
fn read(source: &DataSource, from: Option<&Cursor>) -> (Vec<String>, Vec<String>) {
    let mut records = source.records(from).unwrap();
    let ids = records
        .by_ref()
        .map(|record| record.unwrap().id().to_owned())
        .collect();
    let corrupt = records.corrupt().iter().map(ToString::to_string).collect();
    (ids, corrupt)
}

fn ids(folder: &TempDir, options: DataOptions) -> Vec<String> {
    read(&open(folder, options), None).0
}

#[test]
fn many_files_are_shared_out_whole() {
    let folder = files(&[3; 9], &[]);
    for (index, expected) in [
        (0, ["00", "02", "04", "06", "08"].as_slice()),
        (1, &["01", "03", "05", "07"]),
    ] {
        let ids = ids(&folder, options().shard(index, 2).unwrap());
        let names: Vec<String> = expected
            .iter()
            .flat_map(|name| (1..4).map(move |row| format!("{name}.jsonl#{row}")))
            .collect();
        assert_eq!(ids, names);
    }
    let source = open(&folder, options().shard(0, 2).unwrap());
    assert_eq!(read(&source.all_shards(), None).0.len(), 27);
    // A file of another shard may be damaged or gone.
    fs::remove_file(folder.path().join("01.jsonl")).unwrap();
    assert_eq!(read(&source, None).0.len(), 15);
}

#[test]
fn rows_are_shared_out_evenly_where_files_are_few() {
    let folder = files(&[1; 5], &[]);
    for index in 0..2 {
        assert!(ids(&folder, options().shard(index, 2).unwrap()).len() >= 2);
    }
    let folder = files(&[103], &[]);
    for index in 0..10 {
        assert!((10..12).contains(&ids(&folder, options().shard(index, 10).unwrap()).len()));
    }
    let error = options().shard(3, 3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no shard 3 of 3: expected a number below 3"
    );
    assert!(options().shard(0, 0).is_err());
}

#[test]
fn another_seed_is_another_order_and_the_same_is_the_same() {
    let folder = files(&[20, 30, 10, 40], &[3]);
    let order = |seed, buffer| ids(&folder, options().shuffle(seed, buffer));
    let sorted = ids(&folder, options());
    for buffer in [0, 1, 7, 1000] {
        assert_eq!(order(1, buffer), order(1, buffer));
        assert_ne!(order(1, buffer), order(2, buffer));
        let mut found = order(1, buffer);
        found.sort_by_key(|id| sorted.iter().position(|other| other == id));
        assert_eq!(found, sorted);
    }
    // With a buffer of one record only the files are mixed.
    let order = order(1, 1);
    assert_ne!(order, sorted);
    let file = |id: &String| id.split('#').next().unwrap().to_owned();
    let changes = order
        .windows(2)
        .filter(|pair| file(&pair[0]) != file(&pair[1]))
        .count();
    assert_eq!(changes, 3);
}

#[test]
fn records_that_are_large_are_mixed_in_smaller_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (0..40)
        .map(|_| format!("{{\"text\": \"{}\"}}", "x".repeat(900)))
        .collect();
    fs::write(folder.path().join("0.jsonl"), lines.join("\n")).unwrap();
    let mut options = options().shuffle(1, 1000);
    options.max_record_bytes = 1000;
    let ids = ids(&folder, options);
    // Four times the largest record have room for five of these.
    for piece in 0..8 {
        let expected: HashSet<String> = (1..6).map(|row| format!("0.jsonl#{}", piece * 5 + row)).collect();
        let found: HashSet<String> = ids[piece * 5..piece * 5 + 5].iter().cloned().collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_cursor_of_other_data_or_of_another_order_is_refused() {
    let folder = files(&[5, 5], &[]);
    let cursor = |options| {
        let mut records = open(&folder, options).records(None).unwrap();
        records.next();
        records.cursor()
    };
    let refused = |options, cursor: &Cursor| {
        let result = open(&folder, options).records(Some(cursor));
        matches!(result, Err(DataError::Cursor { file: 0, .. }))
    };
    let before = cursor(options());
    assert!(!refused(options(), &before));
    assert!(refused(options().shuffle(1, 5), &before));
    assert!(refused(options().shuffle(2, 5), &cursor(options().shuffle(1, 5))));
    assert!(refused(options().shard(0, 2).unwrap(), &before));
    // The same size, with another content.
    let path = folder.path().join("01.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"row\"", "\"wor\"")).unwrap();
    assert!(refused(options(), &before));
    fs::write(&path, &text).unwrap();
    assert!(!refused(options(), &before));
    fs::write(&path, text + "{}").unwrap();
    assert!(refused(options(), &before));
}

/// Writes a tar with a record for each key.
fn tar(path: PathBuf, keys: &[&str]) -> PathBuf {
    let mut builder = tar::Builder::new(Vec::new());
    for key in keys {
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        let name = format!("{key}.json");
        builder.append_data(&mut header, name, &b"{}"[..]).unwrap();
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, builder.into_inner().unwrap()).unwrap();
    path
}

#[test]
fn no_two_records_of_several_files_have_the_same_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (a, b) = (tar(path("a.tar"), &["1", "2"]), tar(path("b.tar"), &["1"]));
    let one = DataSource::open(&[&a], options()).unwrap();
    assert_eq!(read(&one, None).0, ["1", "2"]);
    let two = DataSource::open(&[&a, &b], options()).unwrap();
    assert_eq!(read(&two, None).0, ["a.tar#1", "a.tar#2", "b.tar#1"]);
    let c = tar(path("c/a.tar"), &["1"]);
    let three = DataSource::open(&[&a, &b, &c, &a], options()).unwrap();
    let (ids, _) = read(&three, None);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 6, "{ids:?}");
    assert_eq!(ids[2], "b.tar#1");
    assert_eq!(ids[3], format!("{}#1", c.display()));
    assert_eq!(ids[4], format!("{} (2)#1", a.display()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn shards_have_no_record_in_common_and_all_together(
        rows in proptest::collection::vec(0_usize..7, 1..12), corrupt in proptest::collection::vec(0_usize..7, 0..3),
        count in 1_usize..5, seed in proptest::option::of(any::<u64>()),
    ) {
        let folder = files(&rows, &corrupt);
        let order = |options: DataOptions| match seed {
            Some(seed) => options.shuffle(seed, 4),
            None => options,
        };
        let (mut expected, mut broken) = read(&open(&folder, options()), None);
        let mut found = Vec::new();
        let mut named = Vec::new();
        for index in 0..count {
            let (ids, corrupt) = read(&open(&folder, order(options().shard(index, count).unwrap())), None);
            found.extend(ids);
            named.extend(corrupt);
        }
        for list in [&mut expected, &mut broken, &mut found, &mut named] {
            list.sort();
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(named, broken);
    }

    #[test]
    fn reading_goes_on_in_the_same_order_from_any_record(
        rows in proptest::collection::vec(0_usize..9, 1..5), corrupt in proptest::collection::vec(0_usize..9, 0..3),
        buffer in 0_usize..8, seed in any::<u64>(), stop in 0_usize..30, sharded in any::<bool>(),
    ) {
        let folder = files(&rows, &corrupt);
        let options = options().shuffle(seed, buffer);
        let options = if sharded { options.shard(1, 2).unwrap() } else { options };
        let source = open(&folder, options);
        let (whole, broken) = read(&source, None);
        let mut records = source.records(None).unwrap();
        let first: Vec<String> = records.by_ref().take(stop).map(|record| record.unwrap().id().to_owned()).collect();
        let named: Vec<String> = records.corrupt().iter().map(ToString::to_string).collect();
        // As a job keeps it.
        let cursor = serde_json::to_string(&records.cursor()).unwrap();
        let (rest, more) = read(&source, Some(&serde_json::from_str(&cursor).unwrap()));
        prop_assert_eq!([first, rest].concat(), whole);
        prop_assert_eq!([named, more].concat(), broken);
    }
}
