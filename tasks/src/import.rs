//! Import of prompts from other libraries: promptsource's templates, and tasks of lm-evaluation-harness.
//!
//! Each template becomes one task file that renders to the same text. What a task file has no counterpart
//! for is said, template by template: either why it is not imported, or what of it is not carried over.

mod choices;
mod draft;
mod error;
mod jinja;
mod lm_eval;
mod promptsource;
mod split;
mod uses;
mod write;
mod yaml;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use error::{ImportError, ImportNote};

/// How deeply folders are searched.
const MAX_DEPTH: usize = 16;

/// Keys of which a file of lm-evaluation-harness has one.
const LM_EVAL: [&str; 5] = ["task", "group", "include", "doc_to_text", "dataset_path"];

/// What became of one template.
///
/// # Examples
///
/// ```
/// use multiway_tasks::import_text;
///
/// let yaml = "dataset: imdb\ntemplates:\n  1: !Template\n    name: Sentiment\n    jinja: '{{text}} Good? ||| {{answer_choices[label]}}'\n    answer_choices: no ||| yes\n";
/// let imports = import_text("templates.yaml", yaml);
/// let file = imports[0].result.as_ref().map_err(ToString::to_string)?;
/// assert!(file.contains("{{ text }} Good?"));
/// # Ok::<(), String>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Import {
    /// Where the template comes from: a file, and the name of the template if the file has several.
    pub source: String,
    /// The name of the task.
    pub name: String,
    /// The text of the task file, or why there is none.
    pub result: Result<String, ImportError>,
    /// What is not carried over.
    pub notes: Vec<ImportNote>,
}

impl Import {
    /// Writes the task file to a folder, and returns its path. A file that is there is not overwritten.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; an import that failed gives `None`.
    pub fn write(&self, folder: &Path) -> io::Result<Option<PathBuf>> {
        let Ok(text) = &self.result else {
            return Ok(None);
        };
        let path = folder.join(format!("{}.task", self.name));
        let mut file = File::options().write(true).create_new(true).open(&path)?;
        file.write_all(text.as_bytes())?;
        Ok(Some(path))
    }
}

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
        if fs::metadata(path).map_err(read_error(path))?.is_dir() {
            find_files(path, 0, &mut files)?;
        } else {
            files.push(path.clone());
        }
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

fn find_files(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), ImportError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = entries.map_err(read_error(folder))?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let kind = entry.file_type().map_err(read_error(folder))?;
        let path = entry.path();
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if kind.is_dir() && depth < MAX_DEPTH {
            find_files(&path, depth + 1, files)?;
        } else if kind.is_file() && is_yaml {
            files.push(path);
        }
    }
    Ok(())
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
            let message = "expected `templates:` of promptsource, or `task:` of lm-evaluation-harness".to_owned();
            vec![failed(origin, ImportError::NoTemplate { message })]
        }
        Err(error) => vec![failed(origin, error)],
    }
}

fn failed(origin: &str, error: ImportError) -> Import {
    let stem = Path::new(origin).file_stem().unwrap_or_default().to_string_lossy();
    Import {
        source: origin.to_owned(),
        name: draft::task_name(&[&stem]),
        result: Err(error),
        notes: Vec::new(),
    }
}

/// Reads a file of UTF-8 that is not too large.
fn read_text(path: &Path) -> Result<String, ImportError> {
    let mut bytes = Vec::new();
    let limit = yaml::MAX_FILE_BYTES as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(read_error(path))?;
    if bytes.len() > yaml::MAX_FILE_BYTES {
        let message = format!("expected at most {} bytes, found more", yaml::MAX_FILE_BYTES);
        return Err(ImportError::Yaml { message });
    }
    String::from_utf8(bytes).map_err(|error| ImportError::Yaml {
        message: format!("expected UTF-8: {error}"),
    })
}

fn read_error(path: &Path) -> impl Fn(io::Error) -> ImportError {
    let path = path.to_owned();
    move |source| ImportError::Read {
        path: path.clone(),
        source,
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
