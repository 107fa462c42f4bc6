//! Where a checkpoint's bytes are: in a folder, or inside the binary.

#![expect(unsafe_code, reason = "memory maps")]

use std::{
    borrow::Cow,
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use memmap2::Mmap;

use super::error::{LoadError, shown, shown_list};
use crate::layers::embedding::ReadAt;

pub(super) enum Source {
    Folder {
        folder: PathBuf,
        /// The file with the weights, where the caller named it.
        weights: Option<String>,
    },
    Static(&'static [(&'static str, &'static [u8])]),
}

/// The bytes of the weights file.
pub(super) enum Weights {
    Mapped { map: Mmap, file: File },
    Static(&'static [u8]),
}

impl Weights {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped { map, .. } => map,
            Self::Static(bytes) => bytes,
        }
    }

    /// Drops the pages of a mapped file from memory, but for its first bytes.
    pub(super) fn release(&self, keep: usize) {
        #[cfg(unix)]
        if let Self::Mapped { map, .. } = self
            && let Some(length) = map.len().checked_sub(keep)
        {
            // SAFETY: the map is of a file and is never written to, so pages that are dropped come back as they were.
            // Where the system refuses, they merely stay.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, keep, length) };
        }
    }
}

impl AsRef<[u8]> for Weights {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl ReadAt for Weights {
    fn read_at(&self, start: u64, out: &mut [u8]) -> io::Result<()> {
        #[cfg(unix)]
        if let Self::Mapped { file, .. } = self {
            return std::os::unix::fs::FileExt::read_exact_at(file, out, start);
        }
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let found = self.bytes().get(start..).unwrap_or_default();
        match found.split_at_checked(out.len()) {
            Some((found, _)) => out.copy_from_slice(found),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }
}

/// Says whether a name is that of a file in the folder itself, on any system.
pub(crate) fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
        && !name.contains(['/', '\\', ':', '\0'])
}

/// Says whether a file's name is that of weights by PyTorch.
pub(super) fn is_pth(name: &str) -> bool {
    [".pth", ".pt", ".bin"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

impl Source {
    /// Finds a folder, and its name.
    pub(super) fn folder(path: &Path) -> Result<(String, Self), LoadError> {
        let shown_path = path.display().to_string();
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) if path.to_str().is_some_and(is_pth) => return Self::pth(path, shown_path),
            Ok(_) => return Err(LoadError::NotAFolder { path: shown_path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LoadError::NotFound { path: shown_path });
            }
            Err(source) => {
                return Err(LoadError::Io {
                    file: shown_path,
                    source,
                });
            }
        }
        // "." and ".." have a name only once they are resolved.
        let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = whole
            .file_name()
            .map_or(shown_path, |name| name.to_string_lossy().into_owned());
        let folder = path.to_owned();
        Ok((
            name,
            Self::Folder {
                folder,
                weights: None,
            },
        ))
    }

    /// Takes a file of weights by PyTorch, and what lies beside it.
    fn pth(path: &Path, shown_path: String) -> Result<(String, Self), LoadError> {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|name| is_plain_file_name(name)) else {
            return Err(LoadError::FileName { name: shown_path });
        };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        Ok((
            stem.to_owned(),
            Self::Folder {
                folder,
                weights: Some(name.to_owned()),
            },
        ))
    }

    /// Returns the file with the weights, where the caller named it.
    pub(super) fn named_weights(&self) -> Option<&str> {
        match self {
            Self::Folder { weights, .. } => weights.as_deref(),
            Self::Static(_) => None,
        }
    }

    /// Finds the one `*.pth` of a folder; none where there are several.
    pub(super) fn only_pth(&self) -> Option<String> {
        let Self::Folder { folder, .. } = self else {
            return None;
        };
        let mut files = file_names(folder)
            .into_iter()
            .filter(|name| name.ends_with(".pth"));
        files.next().filter(|_| files.next().is_none())
    }

    /// Names a file of this source in a message.
    pub(super) fn shown(&self, checkpoint: &str, file: &str) -> String {
        match self {
            Self::Folder { folder, .. } => folder.join(file).display().to_string(),
            Self::Static(_) => format!("embedded:{checkpoint}/{file}"),
        }
    }

    /// Makes the error of a file without which there is no checkpoint, saying what is there instead.
    pub(super) fn missing(&self, checkpoint: &str, file: &str) -> LoadError {
        let (path, mut found) = match self {
            Self::Folder { folder, .. } => (folder.display().to_string(), file_names(folder)),
            Self::Static(files) => (
                format!("embedded:{checkpoint}"),
                files.iter().map(|(name, _)| shown(name)).collect(),
            ),
        };
        found.sort();
        let found = if found.is_empty() {
            "nothing".to_owned()
        } else {
            shown_list(found.iter())
        };
        LoadError::MissingFile {
            path,
            file: shown(file),
            found,
        }
    }

    /// Reads a whole file, if it is there.
    pub(super) fn file(
        &self,
        checkpoint: &str,
        name: &str,
        limit: u64,
    ) -> Result<Option<Cow<'_, [u8]>>, LoadError> {
        if !is_plain_file_name(name) {
            return Err(LoadError::FileName { name: shown(name) });
        }
        match self {
            Self::Static(files) => Ok(find(files, name).map(Cow::Borrowed)),
            Self::Folder { folder, .. } => read(&folder.join(name), self.shown(checkpoint, name), limit),
        }
    }

    /// Maps a file with weights, if it is there.
    pub(super) fn weights(&self, checkpoint: &str, name: &str) -> Result<Option<Weights>, LoadError> {
        if !is_plain_file_name(name) {
            return Err(LoadError::FileName { name: shown(name) });
        }
        let folder = match self {
            Self::Static(files) => return Ok(find(files, name).map(Weights::Static)),
            Self::Folder { folder, .. } => folder,
        };
        let shown_file = self.shown(checkpoint, name);
        let Some((file, length)) = open(&folder.join(name), &shown_file)? else {
            return Ok(None);
        };
        if length == 0 {
            return Ok(Some(Weights::Static(&[]))); // some systems refuse to map nothing
        }
        // SAFETY: the bytes are read as numbers of any value, and their places are checked against the map's own
        // length. A file that is changed in place while it is mapped is outside what can be checked; `open` says
        // that it must not be, and `save` replaces files instead.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| LoadError::Io {
            file: shown_file,
            source,
        })?;
        Ok(Some(Weights::Mapped { map, file }))
    }
}

fn find(files: &'static [(&'static str, &'static [u8])], name: &str) -> Option<&'static [u8]> {
    files
        .iter()
        .find(|(file, _)| *file == name)
        .map(|(_, bytes)| *bytes)
}

fn file_names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().take(1000);
    entries
        .filter_map(Result::ok)
        .map(|entry| shown(&entry.file_name().to_string_lossy()))
        .collect()
}

/// Opens a regular file, if it is there; a pipe or a device could block, or never end.
fn open(path: &Path, shown_file: &str) -> Result<Option<(File, u64)>, LoadError> {
    let fail = |source| LoadError::Io {
        file: shown_file.to_owned(),
        source,
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    if !metadata.is_file() {
        return Err(LoadError::NotAFile {
            file: shown_file.to_owned(),
        });
    }
    let file = File::open(path).map_err(fail)?;
    let length = file.metadata().map_err(fail)?.len();
    Ok(Some((file, length)))
}

fn read(path: &Path, shown_file: String, limit: u64) -> Result<Option<Cow<'static, [u8]>>, LoadError> {
    let Some((file, length)) = open(path, &shown_file)? else {
        return Ok(None);
    };
    if length > limit {
        return Err(LoadError::FileTooLarge {
            file: shown_file,
            found: length,
            limit,
        });
    }
    let mut bytes = Vec::new();
    // One byte more than allowed shows that a file has grown since it was measured.
    match file.take(limit + 1).read_to_end(&mut bytes) {
        Ok(found) if found as u64 > limit => Err(LoadError::FileTooLarge {
            file: shown_file,
            found: found as u64,
            limit,
        }),
        Ok(_) => Ok(Some(Cow::Owned(bytes))),
        Err(source) => Err(LoadError::Io {
            file: shown_file,
            source,
        }),
    }
}
