//! What the fuzz targets hold any bytes to holds for every case, whole, cut and damaged.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod invariants {
    pub(crate) mod error;
    pub(crate) mod front_matter;
    pub(crate) mod task_file;
    pub(crate) mod task_folder;
    pub(crate) mod template;
}

use std::fs;
use std::path::{Path, PathBuf};

use invariants::{front_matter, task_file, task_folder, template};

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

/// Reads the cases that have files beside them, all files of a case in one.
fn folders() -> Vec<Vec<u8>> {
    fn add(folder: &Path, prefix: &str, bytes: &mut Vec<u8>) {
        let mut paths: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        for path in paths {
            let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                add(&path, &format!("{name}/"), bytes);
            } else {
                bytes.extend(format!("\n=== {name}\n").bytes());
                bytes.extend(fs::read(&path).unwrap());
            }
        }
    }
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut paths: Vec<_> = fs::read_dir(cases)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.is_dir());
    paths.sort();
    let folder = |path: &PathBuf| {
        let mut bytes = fs::read(path.with_extension("task")).unwrap();
        add(path, "", &mut bytes);
        bytes
    };
    paths.iter().map(folder).collect()
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
    hold_for(&cases, check);
}

fn hold_for(cases: &[Vec<u8>], check: fn(&[u8])) {
    for case in cases {
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

#[test]
fn a_task_file_with_its_folder_renders_or_is_refused_with_the_file_that_is_wrong() {
    let folders = folders();
    assert!(folders.len() > 10, "the folders are missing");
    hold_for(&folders, task_folder::check);
    hold(task_folder::check);
}
