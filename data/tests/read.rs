//! Every format, whole and damaged.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use multiway_data::{Cursor, DataError, DataOptions, DataSource, Record};
use proptest::prelude::*;
use tempfile::TempDir;

fn options(max_corrupt: usize) -> DataOptions {
    let mut options = DataOptions::default();
    options.max_corrupt = max_corrupt;
    options
}

fn limited(max_record_bytes: u64) -> DataOptions {
    let mut options = options(9);
    options.max_record_bytes = max_record_bytes;
    options
}

fn write(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn source(path: &Path, most: usize) -> DataSource {
    DataSource::open(&[path], options(most)).unwrap()
}

fn ids(source: &DataSource, from: Option<&Cursor>) -> Vec<String> {
    let records = source.records(from).unwrap();
    records.map(|record| record.unwrap().id().to_owned()).collect()
}

/// Reads all, and returns the records and what could not be read.
fn all(source: &DataSource) -> (Vec<Record>, Vec<String>) {
    let mut records = source.records(None).unwrap();
    let found = records.by_ref().map(Result::unwrap).collect();
    let corrupt = records.corrupt().iter().map(ToString::to_string).collect();
    (found, corrupt)
}

fn opened(path: &Path, options: DataOptions) -> (Vec<Record>, Vec<String>) {
    all(&DataSource::open(&[path], options).unwrap())
}

#[test]
fn lines_of_json_are_records_and_wrong_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = b"\xEF\xBB\xBF{\"a\": 1, \"b\": {\"c\": [true, \"x\"]}}\r\n\n[1]\n{\"a\":\n{\"a\": \"\xff\"}\n{\"a\": 2}";
    for (name, bytes) in [("x.jsonl", text.to_vec()), ("x.ndjson.gz", gzipped(text))] {
        let (records, corrupt) = all(&source(&write(&folder, name, bytes), 9));
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].text("a").as_deref(), Some("1"));
        assert_eq!(records[0].text("b.c.0").as_deref(), Some("true"));
        assert_eq!(records[0].text("b.c.1").as_deref(), Some("x"));
        assert_eq!(records[0].text("b.c"), None);
        assert_eq!(records[0].text("b.c.2"), None);
        assert_eq!(corrupt.len(), 3, "{corrupt:?}");
        let first = format!("{name}, row 2: expected a JSON object, found another value");
        assert_eq!(corrupt[0], first);
        assert!(
            corrupt[2].contains("row 4: expected a JSON object"),
            "{corrupt:?}"
        );
    }
}

#[test]
fn more_corrupt_rows_than_the_limit_are_an_error_that_lists_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "x.jsonl", "1\n{}\n2\n3\n");
    let mut records = source(&path, 1).records(None).unwrap();
    assert!(records.next().unwrap().is_ok());
    let cursor = records.cursor();
    let error = records.next().unwrap().unwrap_err();
    assert!(matches!(
        error,
        DataError::TooManyCorrupt {
            count: 2,
            most: 1,
            ..
        }
    ));
    assert!(error.to_string().contains("x.jsonl, row 1:"), "{error}");
    assert!(records.next().is_none());
    // Going on does not start the count again.
    let mut resumed = source(&path, 1).records(Some(&cursor)).unwrap();
    assert!(resumed.next().unwrap().is_err());
}

#[test]
fn a_line_that_is_too_long_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{{\"a\": \"{}\"}}\n{{\"a\": 2}}\n", "x".repeat(5000));
    let (records, corrupt) = opened(&write(&folder, "x.jsonl", text), limited(100));
    assert_eq!(records[0].text("a").as_deref(), Some("2"));
    assert_eq!(corrupt, ["x.jsonl, row 1: the line has more than 100 bytes"]);
}

#[test]
fn values_with_commas_are_records_and_rows_of_another_width_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "x.csv", "\u{feff}a,b\n\"1, 2\",three\nfour\n5,6\n");
    let (records, corrupt) = all(&source(&path, 9));
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].text("a").as_deref(), Some("1, 2"));
    assert_eq!(corrupt, ["x.csv, row 2: expected 2 values, found 1"]);
    let path = write(&folder, "x.tsv.gz", gzipped(b"a\tb\n1\t2\n"));
    assert_eq!(all(&source(&path, 0)).0[0].text("b").as_deref(), Some("2"));
}

#[test]
fn a_quote_that_never_ends_does_not_fill_the_memory_and_a_column_is_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "x.csv", format!("a\n1\n\"{}", "x\n".repeat(100_000)));
    let (records, corrupt) = opened(&path, limited(20_000));
    assert_eq!(records.len(), 1);
    assert!(
        corrupt[0].contains("a record has more than 20000 bytes"),
        "{corrupt:?}"
    );
    let (records, corrupt) = all(&source(&write(&folder, "x.csv", "a,b,a\n1,2,3\n"), 9));
    assert!(records.is_empty() && corrupt[0].contains("the column 'a' twice"));
}

#[test]
fn members_of_one_key_are_one_record() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = tar(&[
        ("a/1.webp", b"picture"),
        ("a/1.json", b"{\"name\": \"cat\"}"),
        ("a/2.txt", b"a dog\n"),
        ("a/2.seg.png", b"mask"),
        ("a/2.png", b"dog"),
        ("a/3.json", b"{"),
        ("a/4.json", b"{}"),
        ("a/5.bin", b"\xff"),
    ]);
    for (name, bytes) in [
        ("x.tar", bytes.clone()),
        ("x.tar.gz", gzipped(&bytes)),
        ("x.tgz", gzipped(&bytes)),
    ] {
        let (records, corrupt) = all(&source(&write(&folder, name, bytes), 9));
        let ids: Vec<&str> = records.iter().map(Record::id).collect();
        assert_eq!(ids, ["a/1", "a/2", "a/4"]);
        assert_eq!(records[0].text("name").as_deref(), Some("cat"));
        let picture = &records[0].pictures("image").unwrap()[0];
        assert_eq!(picture.read().unwrap(), b"picture");
        assert_eq!(records[1].text("txt").as_deref(), Some("a dog"));
        assert_eq!(records[1].pictures("image").unwrap()[0].name(), "a/2.png");
        assert_eq!(corrupt.len(), 2);
        assert!(corrupt[0].contains("row 3: 'a/3.json': expected a JSON object"));
        assert!(corrupt[1].contains("'a/5.bin' is no JSON, picture or UTF-8 text"));
    }
}

#[test]
fn a_tar_that_is_cut_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = tar(&[("1.json", b"{}"), ("2.json", &[b' '; 3000]), ("3.json", b"{}")]);
    let whole = gzipped(&bytes);
    for (name, bytes) in [("x.tar", &bytes[..2500]), ("x.tar.gz", &whole[..whole.len() / 2])] {
        let (records, corrupt) = all(&source(&write(&folder, name, bytes), 9));
        assert!(records.len() < 3, "{}", records.len());
        let is_named = corrupt
            .iter()
            .any(|row| row.contains("nothing behind this can be read"));
        assert!(is_named, "{corrupt:?}");
    }
}

#[test]
fn a_tar_that_would_fill_the_memory_or_never_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_path("hole").unwrap();
    header.set_size(0);
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.as_gnu_mut().unwrap().set_real_size(1 << 60);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, &[][..]).unwrap();
    let sparse = builder.into_inner().unwrap();
    let long = tar(&[(&"x".repeat(3 << 20), b"")]);
    for bytes in [sparse, long] {
        let (records, corrupt) = all(&source(&write(&folder, "x.tar", bytes), 9));
        assert_eq!((records.len(), corrupt.len()), (0, 1), "{corrupt:?}");
    }
    let parts: Vec<String> = (0..5).map(|part| format!("a.{part}")).collect();
    let mut members: Vec<(&str, &[u8])> = parts
        .iter()
        .map(|name| (name.as_str(), &[b'x'; 400][..]))
        .collect();
    members.push(("b.txt", b"small"));
    let (records, corrupt) = opened(&write(&folder, "y.tar", tar(&members)), limited(1000));
    assert_eq!((records.len(), records[0].id()), (1, "b"));
    assert_eq!(corrupt, ["y.tar, row 1: a record has more than 1000 bytes"]);
}

#[test]
fn a_folder_gives_its_pictures_with_the_folder_that_each_is_in() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "data/dog/2.PNG", "two");
    write(&folder, "data/cat/1.jpg", "one");
    write(&folder, "data/notes.txt", "no picture");
    let source = source(&folder.path().join("data"), 0);
    let (records, _) = all(&source);
    assert_eq!(ids(&source, None), ["cat/1.jpg", "dog/2.PNG"]);
    assert_eq!(records[1].text("label").as_deref(), Some("dog"));
    let picture = &records[1].pictures("image").unwrap()[0];
    assert_eq!(picture.read().unwrap(), b"two");
    let before = source.fingerprint();
    fs::rename(
        folder.path().join("data/dog/2.PNG"),
        folder.path().join("data/dog/3.PNG"),
    )
    .unwrap();
    let renamed = DataSource::open(&[folder.path().join("data")], options(0)).unwrap();
    assert_ne!(before, renamed.fingerprint());
}

#[test]
fn paths_of_pictures_start_from_the_folder_of_the_data() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "pictures/1.png", "one");
    let line = "{\"image\": \"pictures/1.png\", \"all\": [\"no.png\"]}";
    let (records, _) = all(&source(&write(&folder, "x.jsonl", line), 0));
    let picture = &records[0].pictures("image").unwrap()[0];
    assert_eq!(picture.read().unwrap(), b"one");
    let missing = &records[0].pictures("all").unwrap()[0];
    let error = missing.read().unwrap_err().to_string();
    assert!(error.starts_with("picture 'no.png': "), "{error}");
    assert!(records[0].pictures("none").is_none());
}

#[test]
fn what_is_no_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| DataSource::open(&[path], options(0)).map(|_| ()).unwrap_err();
    assert!(matches!(
        open(&write(&folder, "x.pdf", "")),
        DataError::Format { .. }
    ));
    assert!(matches!(
        open(&folder.path().join("no.csv")),
        DataError::File { .. }
    ));
    assert!(matches!(
        open(&folder.path().join("*.tar")),
        DataError::Nothing { .. }
    ));
    assert!(matches!(open(folder.path()), DataError::Nothing { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn reading_goes_on_from_any_cursor(
        counts in proptest::collection::vec(0_usize..6, 1..4), stop in 0_usize..16, corrupt in 0_usize..6,
    ) {
        let folder = tempfile::tempdir().unwrap();
        for (file, count) in counts.iter().enumerate() {
            let mut lines: Vec<String> = (0..*count).map(|row| format!("{{\"row\": {row}}}")).collect();
            if corrupt < lines.len() {
                lines.insert(corrupt, "wrong".to_owned());
            }
            write(&folder, &format!("{file}.jsonl"), lines.join("\n"));
        }
        let source = source(&folder.path().join("*.jsonl"), 99);
        let whole = ids(&source, None);
        let mut records = source.records(None).unwrap();
        let read = records.by_ref().take(stop);
        let first: Vec<String> = read.map(|record| record.unwrap().id().to_owned()).collect();
        let rest = ids(&source, Some(&records.cursor()));
        prop_assert_eq!([first, rest].concat(), whole);
    }

    #[test]
    fn any_bytes_are_read_to_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["x.jsonl", "x.csv", "x.tar", "x.tar.gz", "x.jsonl.gz"] {
            let path = write(&folder, name, &bytes);
            let records = source(&path, usize::MAX).records(None).unwrap();
            prop_assert!(records.count() <= bytes.len());
        }
    }
}
