//! The files that are imported.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::error::ImportError;
use super::yaml::MAX_FILE_BYTES;

/// How deeply folders are searched.
const MAX_DEPTH: usize = 16;

/// Lists a file, or the YAML files of a folder and of the folders in it, without following links.
pub(super) fn find_all(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), ImportError> {
    if fs::metadata(path).map_err(read_error(path))?.is_dir() {
        return find_files(path, 0, files);
    }
    files.push(path.to_owned());
    Ok(())
}

fn find_files(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), ImportError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = entries.map_err(read_error(folder))?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let kind = entry.file_type().map_err(read_error(folder))?;
        let path = entry.path();
        let is_yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if kind.is_dir() && depth < MAX_DEPTH {
            find_files(&path, depth + 1, files)?;
        } else if kind.is_file() && is_yaml {
            files.push(path);
        }
    }
    Ok(())
}

/// Reads a file of UTF-8 that is not too large.
pub(super) fn read_text(path: &Path) -> Result<String, ImportError> {
    if !fs::metadata(path).map_err(read_error(path))?.is_file() {
        let message = format!("expected a file, found '{}'", path.display());
        return Err(ImportError::Yaml { message });
    }
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(read_error(path))?;
    if bytes.len() > MAX_FILE_BYTES {
        let message = format!("expected at most {} bytes, found more", MAX_FILE_BYTES);
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
