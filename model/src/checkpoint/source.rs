//! Where a checkpoint's bytes are: in a folder, or inside the binary.

#![expect(unsafe_code, reason = "memory maps")]

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use memmap2::Mmap;

use super::error::{LoadError, shown, shown_list};
use super::files::MAX_SHARDS;
use super::pth::{PICKLE_FILE, begins_as_pth, is_archive};
use crate::layers::embedding::ReadAt;

/// How much of a file is looked at to tell what it is, in bytes.
const HEAD: u64 = 512;

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
            // SAFETY: the map is of a file and is never written to, so pages that are dropped come back as
            // they were. Where the system refuses, they merely stay.
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

/// Says whether a path is that of a file with weights: by its name, or by what it begins with, as browsers
/// save some under other names.
fn is_weights(path: &Path, shown_path: &str) -> Result<bool, LoadError> {
    let is_named = |name: &str| is_pth(name) || name.ends_with(".safetensors");
    let head = head(path).map_err(|source| LoadError::Io {
        file: shown_path.to_owned(),
        source,
    })?;
    refuse_stand_in(&head, shown_path)?;
    Ok(path.to_str().is_some_and(is_named) || is_archive(&head))
}

/// Reads the beginning of a regular file; of anything else nothing, which could block.
fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    if fs::metadata(path)?.is_file() {
        File::open(path)?.take(HEAD).read_to_end(&mut head)?;
    }
    Ok(head)
}

/// Refuses what stands in a file's place: a pointer of Git LFS, or a web page.
fn refuse_stand_in(bytes: &[u8], shown_file: &str) -> Result<(), LoadError> {
    const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
    const PAGES: [&[u8]; 2] = [b"<!doctype html", b"<html"];
    let file = || shown_file.to_owned();
    let text = bytes
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(bytes)
        .trim_ascii_start();
    if text.starts_with(POINTER) {
        return Err(LoadError::LfsPointer { file: file() });
    }
    let is_page = |page: &[u8]| {
        let start = text.get(..page.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(page))
    };
    if PAGES.into_iter().any(is_page) {
        return Err(LoadError::WebPage { file: file() });
    }
    Ok(())
}

impl Source {
    /// Finds a folder, and its name.
    pub(super) fn folder(path: &Path) -> Result<(String, Self), LoadError> {
        let shown_path = path.display().to_string();
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) if is_weights(path, &shown_path)? => return Self::weights_file(path, shown_path),
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

    /// Takes a file with weights, and what lies beside it.
    fn weights_file(path: &Path, shown_path: String) -> Result<(String, Self), LoadError> {
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

    /// Finds the one file of weights by PyTorch in a folder, where it is called after the model; none where
    /// there is none.
    pub(super) fn only_pth(&self) -> Result<Option<String>, LoadError> {
        let Self::Folder { folder, .. } = self else {
            return Ok(None);
        };
        let is_zip = |name: &str| {
            let head = head(&folder.join(name));
            name.ends_with(".zip") && head.is_ok_and(|head| begins_as_pth(&head))
        };
        let mut files = file_names(folder);
        files.retain(|name| name.ends_with(".pth") || is_zip(name));
        files.sort();
        match files.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(only.clone())),
            [first, ..] => Err(LoadError::SeveralWeights {
                path: folder.display().to_string(),
                example: folder.join(first).display().to_string(),
                files: shown_list(files.iter().map(|name| shown(name))),
            }),
        }
    }

    /// Finds the parts of weights that are called `STEM-00001-of-00003.ENDING` and so on; none where there
    /// are none.
    pub(super) fn numbered_parts(&self, stem: &str, ending: &str) -> Result<Option<Vec<String>>, LoadError> {
        let Self::Folder { folder, .. } = self else {
            return Ok(None);
        };
        let names = file_names(folder);
        let count = |name: &String| {
            let numbers = name.strip_prefix(stem)?.strip_suffix(ending)?;
            let (part, count) = numbers.strip_prefix('-')?.split_once("-of-")?;
            let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            let count = count.parse().ok().filter(|_| is_number(part) && is_number(count));
            count.filter(|count| (1..=MAX_SHARDS).contains(count))
        };
        // Of a shorter or longer series only remains may be there.
        let counts: BTreeSet<usize> = names.iter().filter_map(count).collect();
        let mut missing = None;
        for count in counts {
            let parts = (1..=count).map(|part| format!("{stem}-{part:05}-of-{count:05}{ending}"));
            let parts: Vec<String> = parts.collect();
            match parts.iter().find(|part| !names.contains(part)) {
                None => return Ok(Some(parts)),
                Some(part) => missing = missing.or_else(|| Some(self.missing_shard(part, count))),
            }
        }
        missing.map_or(Ok(None), Err)
    }

    /// Makes the error of a file that is one of several with weights.
    pub(super) fn missing_shard(&self, file: &str, count: usize) -> LoadError {
        let path = match self {
            Self::Folder { folder, .. } => folder.display().to_string(),
            Self::Static(_) => "embedded".to_owned(),
        };
        LoadError::MissingShard {
            path,
            file: shown(file),
            count,
        }
    }

    /// Makes the error of a file of PyTorch's that was unpacked, where the folder is one or holds one.
    pub(super) fn unpacked(&self) -> Option<LoadError> {
        let Self::Folder { folder, .. } = self else {
            return None;
        };
        let folder = fs::canonicalize(folder).ok()?;
        let is_unpacked =
            |folder: &PathBuf| folder.join(PICKLE_FILE).is_file() && folder.join("data").is_dir();
        let inner = || {
            let inner = file_names(&folder).into_iter().map(|name| folder.join(name));
            inner.filter(|inner| inner.is_dir()).find(is_unpacked)
        };
        let found = if is_unpacked(&folder) {
            folder.clone()
        } else {
            inner()?
        };
        let name = found.file_name()?.to_string_lossy().into_owned();
        let archive = match name.strip_suffix(".pth") {
            Some(stem) => format!("{stem}-packed.pth"),
            None => format!("{name}.pth"),
        };
        Some(LoadError::Unpacked {
            path: found.display().to_string(),
            parent: quoted(&found.parent()?.display().to_string()),
            folder: quoted(&name),
            archive: quoted(&archive),
        })
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
                files.iter().map(|(name, _)| (*name).to_owned()).collect(),
            ),
        };
        found.sort();
        let found = if found.is_empty() {
            "nothing".to_owned()
        } else {
            shown_list(found.iter().map(|name| shown(name)))
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
        // SAFETY: the bytes are read as numbers of any value, and their places are checked against the map's
        // own length. A file that is changed in place while it is mapped is outside what can be checked;
        // `open` says that it must not be, and `save` replaces files instead.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| LoadError::Io {
            file: shown_file.clone(),
            source,
        })?;
        refuse_stand_in(&map, &shown_file)?;
        Ok(Some(Weights::Mapped { map, file }))
    }
}

/// Quotes a text for a shell, where it needs that.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
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
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
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
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A link is there though what it leads to is not.
            return match fs::read_link(path) {
                Ok(target) => Err(LoadError::DanglingLink {
                    file: shown_file.to_owned(),
                    target: target.display().to_string(),
                }),
                Err(_) => Ok(None),
            };
        }
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
        Ok(_) => {
            refuse_stand_in(&bytes, &shown_file)?;
            Ok(Some(Cow::Owned(bytes)))
        }
        Err(source) => Err(LoadError::Io {
            file: shown_file,
            source,
        }),
    }
}
