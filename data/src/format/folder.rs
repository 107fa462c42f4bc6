//! A folder of pictures: the path, the picture, and the name of the folder that it is in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indexmap::IndexMap;

use crate::record::{Field, Picture};
use crate::row::{Row, Rows};

/// The extensions of pictures.
const EXTENSIONS: [&str; 10] = [
    "png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp", "dib",
];

/// Tells whether an extension is one of a picture.
pub(crate) fn is_picture(extension: &str) -> bool {
    EXTENSIONS.contains(&extension.to_lowercase().as_str())
}

/// Lists the pictures of a folder and of the folders in it, in the order of their paths. Links to folders are
/// not followed.
pub(crate) fn pictures_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut pictures = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next)? {
            let entry = entry?;
            let path = entry.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            let is_file_of_picture = extension.is_some_and(is_picture);
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if is_file_of_picture {
                pictures.push(path);
            }
        }
    }
    pictures.sort();
    Ok(pictures)
}

pub(super) fn rows(folder: &Path, read: &Arc<AtomicU64>) -> io::Result<Rows> {
    let folder = folder.to_owned();
    let read = Arc::clone(read);
    let pictures = pictures_in(&folder)?;
    Ok(Box::new(pictures.into_iter().map(move |path| {
        let bytes = fs::metadata(&path).map(|metadata| metadata.len());
        read.fetch_add(bytes.unwrap_or_default(), Ordering::Relaxed);
        let relative = path.strip_prefix(&folder).unwrap_or(&path);
        let Some(name) = relative.to_str().map(str::to_owned) else {
            return Row::Corrupt(format!("the name '{}' is not UTF-8", relative.display()));
        };
        let mut fields = IndexMap::new();
        if let Some(label) = relative.parent().and_then(Path::file_name) {
            let label = label.to_string_lossy().into_owned();
            fields.insert("label".to_owned(), Field::Value(label.into()));
        }
        fields.insert("path".to_owned(), Field::Value(name.as_str().into()));
        let picture = Picture::of_file(name.clone(), path);
        fields.insert("image".to_owned(), Field::Picture(picture));
        Row::Fields(Some(name), fields)
    })))
}
