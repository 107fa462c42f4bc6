//! The JSON Schema of front matter agrees with the parser.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

use std::fs;
use std::path::{Path, PathBuf};

use multiway_prompts::{PromptErrorKind, TaskFile, task_file_schema};
use serde_json::Value;

fn files(folder: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|ending| ending == "task") {
                files.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    found.sort();
    found
}

/// Reads front matter as JSON, if it is YAML.
fn front_matter(path: &Path) -> Option<Value> {
    let text = fs::read_to_string(path).ok()?.replace("\r\n", "\n");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (yaml, _) = text.strip_prefix("---\n")?.split_once("---\n")?;
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(yaml, options).ok()
}

fn check(path: &Path) -> Vec<String> {
    let validator = jsonschema::validator_for(&task_file_schema()).unwrap();
    let instance = front_matter(path).unwrap_or_else(|| panic!("{}: no YAML", path.display()));
    let errors = validator.iter_errors(&instance);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn the_schema_is_a_schema() {
    assert!(jsonschema::meta::is_valid(&task_file_schema()));
}

#[test]
fn every_built_in_file_every_example_and_every_valid_case_fits_the_schema() {
    let mut paths = files("../tasks/library");
    paths.extend(files("../examples/tasks"));
    let cases = files("tests/cases").into_iter();
    paths.extend(cases.filter(|path| !path.to_str().unwrap().contains("error_")));
    assert!(paths.len() > 40, "{} files", paths.len());
    for path in paths {
        assert_eq!(check(&path), Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
fn what_the_parser_refuses_as_unknown_mistyped_or_misplaced_the_schema_refuses_too() {
    let mut unknown = 0;
    for path in files("tests/cases") {
        let Err(error) = TaskFile::parse("x.task", &fs::read(&path).unwrap()) else {
            continue;
        };
        let message = error.to_string();
        let is_unknown = message.contains("unknown field") || message.contains("unknown variant");
        let is_misplaced = ["has no", "may be any text", "needs its texts"]
            .iter()
            .any(|rule| message.contains("an input of type") && message.contains(rule));
        let is_missing = matches!(error.kind(), PromptErrorKind::Invalid { key, .. } if key == "description")
            && message.contains("write `description");
        if (is_unknown || is_misplaced || is_missing) && front_matter(&path).is_some() {
            assert!(!check(&path).is_empty(), "{}: {message}", path.display());
            unknown += 1;
        }
    }
    assert!(unknown >= 12, "{unknown} cases");
}

#[test]
fn every_key_of_front_matter_says_what_it_is() {
    let schema = task_file_schema();
    for (key, value) in schema["properties"].as_object().unwrap() {
        assert!(value["description"].is_string(), "{key}");
    }
    let input = &schema["properties"]["inputs"]["additionalProperties"]["properties"];
    for (key, value) in input.as_object().unwrap() {
        assert!(value["description"].is_string(), "inputs.{key}");
    }
    for (key, value) in schema["properties"]["decode"]["properties"].as_object().unwrap() {
        assert!(
            value.as_object().is_some_and(|value| !value.is_empty()),
            "decode.{key}"
        );
    }
}
