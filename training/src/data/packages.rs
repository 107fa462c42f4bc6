//! Reads the files of downloaded packages.

use std::fs;
use std::path::{Path, PathBuf};

use multiway_data::{DataOptions, DataSource, Record};
use serde::de::DeserializeOwned;

use super::DataError;

/// The folder that `scripts/fetch_data.sh` fills: one folder a package.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packages<'a> {
    folder: &'a Path,
}

impl<'a> Packages<'a> {
    pub(super) fn new(folder: &'a Path) -> Self {
        Self { folder }
    }

    /// Finds a package's folder.
    pub(super) fn folder(&self, package: &'static str) -> Result<PathBuf, DataError> {
        let folder = self.folder.join(package);
        if folder.is_dir() {
            return Ok(folder);
        }
        Err(DataError::PackageMissing {
            package,
            folder: self.folder.to_owned(),
        })
    }

    /// Parses a JSON file of a package.
    pub(super) fn json<T: DeserializeOwned>(
        &self,
        package: &'static str,
        file: &str,
    ) -> Result<T, DataError> {
        read_json(&self.folder(package)?.join(file))
    }
}

/// Parses a JSON file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, DataError> {
    let bytes = fs::read(path).map_err(DataError::file("read", path))?;
    serde_json::from_slice(&bytes).map_err(|source| DataError::Json {
        path: path.to_owned(),
        line: None,
        source,
    })
}

/// Reads all records of a file of a data set; one that cannot be read is an error.
pub(super) fn read_records(path: &Path) -> Result<Vec<Record>, DataError> {
    let failed = |source| DataError::Records {
        folder: path.to_owned(),
        source,
    };
    let mut options = DataOptions::default();
    options.max_corrupt = 0;
    let source = DataSource::open(&[path], options).map_err(failed)?;
    let records = source.records(None).map_err(failed)?;
    records.collect::<Result<_, _>>().map_err(failed)
}

/// Lists the pictures in a folder and the folders in it, in order: path, and name without its ending.
pub(crate) fn file_stems(folder: &Path) -> Result<Vec<(PathBuf, String)>, DataError> {
    let mut found = Vec::new();
    for name in file_names(folder)? {
        let path = folder.join(&name);
        if path.is_dir() {
            found.extend(file_stems(&path)?);
        } else if let Some((stem, "jpg" | "jpeg" | "png" | "webp")) = name.rsplit_once('.') {
            found.push((path.clone(), stem.to_owned()));
        }
    }
    Ok(found)
}

/// Lists the names of the files in a folder, in order.
pub(super) fn file_names(folder: &Path) -> Result<Vec<String>, DataError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(DataError::file("list", folder))? {
        let entry = entry.map_err(DataError::file("list", folder))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
