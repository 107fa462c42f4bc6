//! Files of any bytes, and valid ones with some bytes changed, in every format.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod invariants {
    pub(crate) mod records;
}

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use invariants::records::{NAMES, check, check_file};
use proptest::prelude::*;
use proptest::sample::Index;

/// Returns a valid file of a name.
fn valid(name: &str) -> Vec<u8> {
    let name = match name {
        "x.tgz" => "x.tar.gz",
        name => name,
    };
    if let Some(name) = name.strip_suffix(".gz") {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&valid(name)).unwrap();
        return encoder.finish().unwrap();
    }
    match name {
        "x.jsonl" => b"{\"a\": [1, {\"b\": null}], \"c\": \"text\"}\n".repeat(200),
        "x.csv" => [b"a,b\n".to_vec(), b"\"1, 2\",three\n".repeat(200)].concat(),
        "x.tsv" => [b"a\tb\n".to_vec(), b"1\t\"x\n\"\n".repeat(200)].concat(),
        "x.tar" => tar(),
        _ => fs::read(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/snappy.parquet"
        ))
        .unwrap(),
    }
}

fn tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for key in 0..20 {
        for (name, bytes) in [
            ("json", &b"{\"a\": 1}"[..]),
            ("png", b"picture"),
            ("txt", b"text"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder
                .append_data(&mut header, format!("{key}.{name}"), bytes)
                .unwrap();
        }
    }
    builder.into_inner().unwrap()
}

#[test]
fn valid_files_are_read_and_go_on() {
    for name in NAMES {
        check_file(name, &valid(name));
    }
    check(&[]);
    check(&[0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_are_read_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        check(&bytes);
    }

    #[test]
    fn damaged_files_are_read_within_bounds(
        name in 0..NAMES.len(), changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of((any::<Index>(), 0_usize..600)),
    ) {
        let mut bytes = valid(NAMES[name]);
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some((place, length)) = cut {
            let place = place.index(bytes.len());
            bytes.drain(place..(place + length).min(bytes.len()));
        }
        check_file(NAMES[name], &bytes);
    }
}
