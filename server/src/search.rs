//! Indexes of pictures that are served, and the files of their pictures.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use multiway::index::{IndexEntry, VectorIndex};

use crate::error::ApiError;

/// The largest file of a picture that is sent.
const MOST_BYTES: u64 = 50_000_000;

/// How much of a file tells of what kind it is.
const BEGINNING: u64 = 8;

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

    /// Opens the picture at a position. Only files in the indexed folder are opened, and only those that are
    /// as they were when they were indexed.
    pub(crate) fn picture(&self, position: usize) -> Result<PictureFile, ApiError> {
        let gone = |why: &str| ApiError::not_found(format!("picture {position}: {why}"));
        if position >= self.index.len() {
            let held = self.index.len();
            return Err(gone(&format!("the index has {held}, counted from 0")));
        }
        let entry = self.index.entry(position);
        let entry = entry.map_err(|error| ApiError::internal(error.to_string()))?;
        let root = self.index.root().ok_or_else(|| gone("no file was indexed"))?;
        let path = inside(Path::new(root), &entry.key).ok_or_else(|| gone("it is not in its folder"))?;
        PictureFile::open(&path, &entry)
            .ok_or_else(|| gone("its file is not there, or changed since it was indexed"))
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

/// The file of a picture, at its beginning.
#[derive(Debug)]
pub(crate) struct PictureFile {
    pub(crate) file: File,
    /// Its type, as HTTP names it.
    pub(crate) kind: &'static str,
    pub(crate) bytes: u64,
}

impl PictureFile {
    /// Opens a file that is as its entry says and begins as a picture.
    fn open(path: &Path, entry: &IndexEntry) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let metadata = file.metadata().ok()?;
        let found = IndexEntry::of_file(entry.key.as_str(), &metadata);
        let is_same = found.bytes == entry.bytes && found.modified_ns == entry.modified_ns;
        if !metadata.is_file() || !is_same || entry.bytes > MOST_BYTES {
            return None;
        }
        let mut beginning = Vec::new();
        file.by_ref().take(BEGINNING).read_to_end(&mut beginning).ok()?;
        file.rewind().ok()?;
        let (_, kind) = KINDS.iter().find(|(begins, _)| beginning.starts_with(begins))?;
        Some(Self {
            file,
            kind,
            bytes: entry.bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let entry = || IndexEntry::of_file("a.png", &std::fs::metadata(&path).unwrap());
        std::fs::write(&path, b"\x89PNG....").unwrap();
        let indexed = entry();
        assert_eq!(PictureFile::open(&path, &indexed).unwrap().kind, "image/png");
        let mut other = indexed.clone();
        other.bytes += 1;
        assert!(PictureFile::open(&path, &other).is_none());
        other = indexed;
        other.modified_ns += 1;
        assert!(PictureFile::open(&path, &other).is_none());
        std::fs::write(&path, b"passwords").unwrap();
        assert!(PictureFile::open(&path, &entry()).is_none());
        let folder = IndexEntry::of_file("", &place.path().metadata().unwrap());
        assert!(PictureFile::open(place.path(), &folder).is_none());
    }
}
