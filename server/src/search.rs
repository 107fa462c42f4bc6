//! Indexes of pictures that are served, and the files of their pictures.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use multiway::index::{IndexEntry, VectorIndex};

use crate::error::ApiError;

/// The largest file of a picture that is sent.
const MOST_BYTES: u64 = 50_000_000;

/// Beginnings of files, and what files that begin so are. WebP has four bytes of length after the first four.
const KINDS: [(&[u8], &str); 5] = [
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
    (b"BM", "image/bmp"),
];

/// An index that is served beside the model that made it.
pub(crate) struct ServedIndex {
    pub(crate) model: String,
    pub(crate) index: Arc<VectorIndex>,
}

impl ServedIndex {
    /// Tells whether a picture of the index is a file that can be sent.
    pub(crate) fn has_files(&self) -> bool {
        self.index.root().is_some()
    }

    /// Reads the picture at a position, and says of what kind it is. Only files in the indexed folder are
    /// read, and only those that are as they were when they were indexed.
    pub(crate) fn picture(&self, position: usize) -> Result<(&'static str, Vec<u8>), ApiError> {
        let gone = |why: &str| ApiError::not_found(format!("picture {position}: {why}"));
        if position >= self.index.len() {
            let held = self.index.len();
            return Err(gone(&format!("the index has {held}, counted from 0")));
        }
        let entry = self.index.entry(position);
        let entry = entry.map_err(|error| ApiError::internal(error.to_string()))?;
        let root = self.index.root().ok_or_else(|| gone("no file was indexed"))?;
        let path = inside(Path::new(root), &entry.key).ok_or_else(|| gone("it is not in its folder"))?;
        read(&path, &entry).ok_or_else(|| gone("its file is not there, or changed since it was indexed"))
    }
}

/// Finds a file in a folder; none where it leads out of it.
fn inside(root: &Path, key: &str) -> Option<PathBuf> {
    let is_plain = Path::new(key)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !is_plain || key.is_empty() {
        return None;
    }
    let root = root.canonicalize().ok()?;
    let path = root.join(key).canonicalize().ok()?;
    path.starts_with(&root).then_some(path)
}

/// Reads a file that has the size of its entry and begins as a picture.
fn read(path: &Path, entry: &IndexEntry) -> Option<(&'static str, Vec<u8>)> {
    let file = File::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() != entry.bytes || entry.bytes > MOST_BYTES {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(entry.bytes).read_to_end(&mut bytes).ok()?;
    let (_, kind) = KINDS.iter().find(|(begins, _)| bytes.starts_with(begins))?;
    Some((kind, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, bytes: usize) -> IndexEntry {
        IndexEntry {
            bytes: bytes as u64,
            ..IndexEntry::new(key)
        }
    }

    #[test]
    fn a_file_outside_of_the_folder_is_not_found() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(root.join("a/b.png"), b"\x89PNG....").unwrap();
        std::fs::write(place.path().join("secret.png"), b"\x89PNG").unwrap();
        assert!(inside(&root, "a/b.png").is_some());
        let absolute = place.path().join("secret.png").display().to_string();
        for outside in [
            "../secret.png",
            "a/../../secret.png",
            "",
            "a/c.png",
            absolute.as_str(),
        ] {
            assert_eq!(inside(&root, outside), None, "{outside}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(place.path().join("secret.png"), root.join("link.png")).unwrap();
            assert_eq!(inside(&root, "link.png"), None);
        }
    }

    #[test]
    fn only_unchanged_pictures_are_read() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.png");
        std::fs::write(&path, b"\x89PNG....").unwrap();
        assert_eq!(read(&path, &entry("a.png", 8)).unwrap().0, "image/png");
        assert!(read(&path, &entry("a.png", 9)).is_none());
        std::fs::write(&path, b"passwords").unwrap();
        assert!(read(&path, &entry("a.png", 9)).is_none());
        assert!(read(place.path(), &entry("", 0)).is_none());
    }
}
