//! What the fuzz targets hold any bytes to holds for every case, whole, cut and damaged.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod invariants {
    pub(crate) mod error;
    pub(crate) mod front_matter;
    pub(crate) mod task_file;
    pub(crate) mod template;
}

use std::fs;
use std::path::Path;

use invariants::{front_matter, task_file, template};

/// The most bytes of a case that is also cut and damaged; the larger ones are about their size.
const MAX_DAMAGED: usize = 2048;

fn cases() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|ext| ext == "task"))
        .collect();
    files.sort();
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Cuts a case, and changes single bytes of it into those that mean something to YAML or Jinja.
fn damaged(case: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let cuts = (0..case.len()).step_by(31).map(|end| case[..end].to_vec());
    let changes = (0..case.len()).step_by(17).map(|place| {
        let mut case = case.to_vec();
        case[place] = b"{}%#\"'\n-: <|[]&*0\xff"[place / 17 % 18];
        case
    });
    cuts.chain(changes)
}

fn hold(check: fn(&[u8])) {
    let cases = cases();
    assert!(cases.len() > 50, "the cases are missing");
    for case in &cases {
        check(case);
        if case.len() <= MAX_DAMAGED {
            damaged(case).for_each(|case| check(&case));
        }
    }
}

#[test]
fn a_task_file_is_read_the_same_twice_or_refused_with_its_line() {
    hold(task_file::check);
}

#[test]
fn front_matter_gives_parameters_within_bounds_or_is_refused_with_its_line() {
    hold(front_matter::check);
}

#[test]
fn a_template_renders_as_minijinja_does_and_gives_no_part_to_the_caller() {
    hold(template::check);
}
