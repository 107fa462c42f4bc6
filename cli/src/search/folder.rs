//! The pictures of a folder.

use std::path::Path;
use std::{fs, io};

use anyhow::{Context as _, anyhow, ensure};
use multiway::index::IndexEntry;
use serde::Serialize;

/// The extensions of the pictures that are indexed: of each format that is read, all that are in use.
const EXTENSIONS: [&str; 15] = [
    "png", "apng", "jpg", "jpeg", "jpe", "jfif", "jif", "jfi", "pjpeg", "pjp", "mpo", "webp", "gif", "bmp",
    "dib",
];

/// A file that is not in the index, and why.
#[derive(Debug, Serialize)]
pub(super) struct Skipped {
    pub(super) path: String,
    pub(super) reason: String,
}

/// What a folder holds.
pub(super) struct Found {
    pub(super) pictures: Vec<IndexEntry>,
    pub(super) skipped: Vec<Skipped>,
}

/// Lists the pictures of a folder and of the folders in it, in the order of their paths. Links to folders are
/// not followed.
pub(super) fn find_pictures(folder: &Path) -> anyhow::Result<Found> {
    find_pictures_by(folder, |folder| fs::read_dir(folder)?.collect())
}

/// Lists the pictures of a folder and of the folders in it, each of which is listed by `list`.
fn find_pictures_by(
    folder: &Path,
    list: impl Fn(&Path) -> io::Result<Vec<fs::DirEntry>>,
) -> anyhow::Result<Found> {
    let mut found = Found {
        pictures: Vec::new(),
        skipped: Vec::new(),
    };
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = match list(&next) {
            Ok(entries) => entries,
            Err(error) if next == folder => {
                return Err(error).with_context(|| format!("cannot read the folder '{}'", next.display()));
            }
            Err(error) => {
                found.skip(&next, format!("the folder cannot be read: {error}"));
                continue;
            }
        };
        for entry in entries {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if is_picture(&path) {
                match picture_entry(folder, &path) {
                    Ok(picture) => found.pictures.push(picture),
                    Err(error) => found.skip(&path, format!("{error:#}")),
                }
            }
        }
    }
    if found.pictures.is_empty() && found.skipped.is_empty() {
        return Err(anyhow!(
            "there are no pictures ({}) in '{}'",
            EXTENSIONS.join(", "),
            folder.display()
        ));
    }
    found.pictures.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}

impl Found {
    fn skip(&mut self, path: &Path, reason: String) {
        let path = path.display().to_string();
        self.skipped.push(Skipped { path, reason });
    }
}

fn is_picture(path: &Path) -> bool {
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .map(str::to_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

fn picture_entry(folder: &Path, path: &Path) -> anyhow::Result<IndexEntry> {
    let metadata = fs::metadata(path)?;
    ensure!(metadata.is_file(), "it is not a file");
    let relative = path
        .strip_prefix(folder)
        .unwrap_or(path)
        .to_str()
        .context("its name is not UTF-8")?;
    Ok(IndexEntry::of_file(relative, &metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_read_is_skipped_and_all_others_are_listed() {
        let place = tempfile::tempdir().unwrap();
        for folder in ["a", "b/closed/inner", "c"] {
            fs::create_dir_all(place.path().join(folder)).unwrap();
        }
        for picture in [
            "top.png",
            "a/1.png",
            "b/2.png",
            "b/closed/3.png",
            "b/closed/inner/4.png",
            "c/5.png",
        ] {
            fs::write(place.path().join(picture), b"").unwrap();
        }
        let closed = |folder: &Path| -> io::Result<Vec<fs::DirEntry>> {
            if folder.ends_with("closed") {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            fs::read_dir(folder)?.collect()
        };
        let found = find_pictures_by(place.path(), closed).unwrap();
        let paths: Vec<&str> = found
            .pictures
            .iter()
            .map(|picture| picture.key.as_str())
            .collect();
        assert_eq!(paths, ["a/1.png", "b/2.png", "c/5.png", "top.png"]);
        let [skipped] = found.skipped.as_slice() else {
            panic!("{:?}", found.skipped);
        };
        assert!(skipped.path.ends_with("b/closed"), "{}", skipped.path);
        assert_eq!(skipped.reason, "the folder cannot be read: permission denied");
        // Of a folder of which nothing at all can be read there is nothing to index.
        let none = |_: &Path| Err(io::ErrorKind::PermissionDenied.into());
        let error = find_pictures_by(place.path(), none).err().unwrap();
        assert!(error.to_string().contains("cannot read the folder"), "{error:#}");
    }
}
