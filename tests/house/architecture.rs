//! ARCHITECTURE.md names paths that exist, and in its table of a request functions that exist and are called.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CRATES: [&str; 7] = [
    "src",
    "cli/src",
    "model/src",
    "prompts/src",
    "runtime/src",
    "tasks/src",
    "training/src",
];

/// Lists what stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn sources(folder: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            files.push((path, text));
        }
    }
}

fn page() -> String {
    fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).unwrap()
}

#[test]
fn every_path_of_the_code_map_exists() {
    let page = page();
    let map = page.split("## One request").next().unwrap();
    let paths: Vec<_> = quoted(map)
        .into_iter()
        .filter(|name| name.contains('/'))
        .collect();
    assert!(paths.len() > 40, "{} paths", paths.len());
    let missing: Vec<_> = paths
        .into_iter()
        .filter(|path| {
            let path = Path::new(ROOT).join(path);
            !path.exists() && !path.with_extension("rs").exists()
        })
        .collect();
    assert_eq!(missing, [""; 0]);
}

/// Tells whether a function `name` is defined in a file that implements its type.
fn is_defined(files: &[(PathBuf, String)], of: &str, name: &str) -> bool {
    let signatures = [format!("fn {name}("), format!("fn {name}<")];
    files.iter().any(|(_, text)| {
        let mut impls = text.lines().filter(|line| line.starts_with("impl"));
        let implements = impls.any(|line| line.split(|c: char| !c.is_alphanumeric()).any(|word| word == of));
        implements && signatures.iter().any(|signature| text.contains(signature))
    })
}

/// Tells whether something calls it: as a method, or by its path.
fn is_called(files: &[(PathBuf, String)], name: &str) -> bool {
    let calls = [format!(".{name}("), format!("::{name}(")];
    files.iter().any(|(_, text)| {
        let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.any(|line| calls.iter().any(|call| line.contains(call)))
    })
}

#[test]
fn every_function_on_the_way_of_a_request_exists_and_is_called() {
    let page = page();
    let table = page.split("## One request").nth(1).unwrap();
    let table = table.split("## Decisions").next().unwrap();
    let rows: Vec<_> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| |"))
        .collect();
    assert_eq!(rows.len(), 12);
    let mut files = Vec::new();
    CRATES
        .iter()
        .for_each(|folder| sources(&Path::new(ROOT).join(folder), &mut files));
    for row in rows {
        let functions: Vec<_> = quoted(row.rsplit('|').nth(1).unwrap());
        assert!(!functions.is_empty(), "{row}");
        for function in functions {
            let (of, name) = function.split_once("::").unwrap();
            assert!(is_defined(&files, of, name), "'{function}' is not defined");
            assert!(is_called(&files, name), "'{function}' is not called");
        }
    }
}
