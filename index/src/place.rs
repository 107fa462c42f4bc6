//! Where indexed files are, when they are moved together with their index.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Finds the folder that a file is in.
fn folder_of(path: &Path) -> Option<PathBuf> {
    let folder = path.parent()?;
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    fs::canonicalize(folder).ok()
}

/// Finds the way from the folder of an index to an absolute folder; none where there is none, as between
/// drives.
pub(crate) fn way(index: &Path, root: &Path) -> Option<String> {
    if !root.is_absolute() {
        return None;
    }
    let from = folder_of(index)?;
    let shared = std::iter::zip(from.components(), root.components())
        .take_while(|(a, b)| a == b)
        .count();
    if shared == 0 {
        return None;
    }
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(root.components().skip(shared)).collect();
    way.to_str().map(str::to_owned)
}

/// Finds the indexed folder beside the index, where it is no longer where it was.
pub(crate) fn moved(index: &Path, root: &str, way: &str) -> Option<String> {
    if Path::new(root).is_dir() {
        return None;
    }
    let moved = fs::canonicalize(folder_of(index)?.join(way)).ok()?;
    moved.is_dir().then(|| moved.to_str().map(str::to_owned))?
}
