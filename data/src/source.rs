//! The files of a data set.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::DataError;
use crate::file::{DataFile, DataOptions, label};
use crate::records::{Cursor, Records};

/// A data set: files that are read one after the other.
#[derive(Debug, Clone)]
pub struct DataSource {
    files: Vec<DataFile>,
    options: DataOptions,
}

impl DataSource {
    /// Finds the files of a data set. In the last part of a path, `*` stands for any characters; the files
    /// that fit are taken in the order of their names.
    ///
    /// # Errors
    ///
    /// When a file cannot be opened, or its name says no format that is read.
    pub fn open(paths: &[impl AsRef<Path>], options: DataOptions) -> Result<Self, DataError> {
        let mut files = Vec::new();
        for path in paths {
            for path in expanded(path.as_ref())? {
                files.push(DataFile::open(&path)?);
            }
        }
        label(&mut files);
        Ok(Self { files, options })
    }

    /// Reads the records, from the first or from where a cursor stands.
    ///
    /// # Errors
    ///
    /// When the cursor is of other data, or of the same in another order.
    pub fn records(&self, from: Option<&Cursor>) -> Result<Records, DataError> {
        let [a, b, c, d, e, f, g, h, ..] = self.digest();
        let data = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        Records::new(&self.files, self.options, data, from)
    }

    /// Returns the data set of all shards.
    pub fn all_shards(&self) -> Self {
        let mut all = self.clone();
        all.options.shard = None;
        all
    }

    /// Names the files.
    pub fn names(&self) -> Vec<String> {
        self.files.iter().map(|file| file.label.clone()).collect()
    }

    /// Digests the names, the sizes, the first and the last bytes of the files, and which records are read in
    /// what order, so that a job that goes on notices other data.
    pub fn fingerprint(&self) -> String {
        self.digest().iter().fold(String::new(), |mut hex, byte| {
            // Writing to a text never fails.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(format!("{:?} {:?}\n", self.options.shard, self.options.shuffle));
        for file in &self.files {
            hash.update(format!("{:?} {}\n{}\n", file.label, file.bytes, file.listing));
        }
        hash.finalize().into()
    }
}

/// Lists the files that a path with `*` in its last part stands for.
fn expanded(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let Some(pattern) = name.filter(|name| name.contains('*') && !path.exists()) else {
        return Ok(vec![path.to_owned()]);
    };
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let failed = |source| DataError::File {
        path: folder.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if fits(&pattern, &entry.file_name().to_string_lossy()) {
            files.push(entry.path());
        }
    }
    if files.is_empty() {
        let path = path.to_owned();
        return Err(DataError::Nothing { path });
    }
    files.sort();
    Ok(files)
}

/// Tells whether a name fits a pattern in which `*` stands for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(place) => rest = rest.get(place + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("*.tar", "a.tar", true),
            ("a-*-of-*.tar", "a-1-of-2.tar", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*", "anything", true),
            ("b*", "abc", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
