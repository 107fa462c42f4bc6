//! ARCHITECTURE.md names paths that exist, and in its table of a request functions that exist and are called.

use std::fs;
use std::path::Path;

use super::{CRATES, ROOT, rust_files};

/// Lists what stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Reads the code of all crates.
fn sources() -> Vec<String> {
    let files = CRATES
        .iter()
        .flat_map(|folder| rust_files(&Path::new(ROOT).join(folder)));
    files.map(|path| fs::read_to_string(path).unwrap()).collect()
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
fn is_defined(files: &[String], of: &str, name: &str) -> bool {
    let signatures = [format!("fn {name}("), format!("fn {name}<")];
    files.iter().any(|text| {
        let mut impls = text.lines().filter(|line| line.starts_with("impl"));
        let implements = impls.any(|line| line.split(|c: char| !c.is_alphanumeric()).any(|word| word == of));
        implements && signatures.iter().any(|signature| text.contains(signature))
    })
}

/// Tells whether something calls it: as a method, or by its path.
fn is_called(files: &[String], name: &str) -> bool {
    let calls = [format!(".{name}("), format!("::{name}(")];
    files.iter().any(|text| {
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
    let files = sources();
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
