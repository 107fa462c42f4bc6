//! Import of prompts from other libraries: promptsource's templates, and tasks of lm-evaluation-harness.
//!
//! Each template becomes one task file that renders to the same text. What a task file has no counterpart
//! for is said, template by template: either why it is not imported, or what of it is not carried over.

mod append;
mod choices;
mod draft;
mod error;
mod files;
mod imported;
mod jinja;
mod lm_eval;
mod promptsource;
mod split;
mod uses;
mod write;
mod yaml;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use error::{ImportError, ImportNote};
use files::{find_all, read_text};
pub use imported::Import;

/// Keys of which a file of lm-evaluation-harness has one.
const LM_EVAL: [&str; 5] = ["task", "group", "include", "doc_to_text", "dataset_path"];

/// Imports a file, or all YAML files of a folder and of the folders in it.
///
/// # Errors
///
/// When the file or the folder cannot be read. What is wrong with a template, or with one file of a folder,
/// is said in its [`Import`].
pub fn import_path(path: &Path) -> Result<Vec<Import>, ImportError> {
    import_paths(&[path.to_owned()])
}

/// Imports several files and folders, whose tasks have names of their own.
///
/// # Errors
///
/// As [`import_path`].
pub fn import_paths(paths: &[PathBuf]) -> Result<Vec<Import>, ImportError> {
    let mut files = Vec::new();
    for path in paths {
        find_all(path, &mut files)?;
    }
    let mut imports: Vec<Import> = files.iter().flat_map(|file| import_file(file)).collect();
    make_unique(&mut imports);
    Ok(imports)
}

/// Imports the text of a file that needs no others.
pub fn import_text(origin: &str, text: &str) -> Vec<Import> {
    let mut imports = import_read(origin, text);
    make_unique(&mut imports);
    imports
}

fn import_file(path: &Path) -> Vec<Import> {
    let origin = path.display().to_string();
    match read_text(path) {
        Ok(text) => import_read(&origin, &text),
        Err(error) => vec![failed(&origin, error)],
    }
}

fn import_read(origin: &str, text: &str) -> Vec<Import> {
    match yaml::read(text) {
        Ok(Value::Object(file)) if file.get("templates").is_some_and(Value::is_object) => {
            promptsource::import(origin, &file)
        }
        Ok(Value::Object(file)) if LM_EVAL.iter().any(|key| file.contains_key(*key)) => {
            vec![lm_eval::import(origin, &file)]
        }
        Ok(_) => {
            let message =
                "expected `templates:` of promptsource, or `task:` of lm-evaluation-harness".to_owned();
            vec![failed(origin, ImportError::NoTemplate { message })]
        }
        Err(error) => vec![failed(origin, error)],
    }
}

fn failed(origin: &str, error: ImportError) -> Import {
    let stem = Path::new(origin)
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    Import {
        source: origin.to_owned(),
        name: draft::task_name(&[&stem]),
        result: Err(error),
        notes: Vec::new(),
    }
}

/// Numbers the tasks whose name another has: `name-2`.
fn make_unique(imports: &mut [Import]) {
    let mut taken: HashSet<String> = HashSet::new();
    for import in imports.iter_mut().filter(|import| import.result.is_ok()) {
        let name = import.name.clone();
        let mut number = 1;
        while !taken.insert(import.name.clone()) {
            number += 1;
            import.name = format!("{name}-{number}");
        }
    }
}
