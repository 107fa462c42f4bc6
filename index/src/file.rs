//! An index that is opened: a memory-mapped file whose header was checked.

use std::fs::{self, File};
use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::element::ElementType;
use crate::entry::IndexEntry;
use crate::error::{IndexError, Mismatch, mismatch};
use crate::layout::{Header, Refusal, VERSION, read_u64, read_word};
use crate::place;

/// Describes an index, beside its sizes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    pub(crate) fingerprint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from_index: Option<String>,
}

/// The bytes of a file.
#[derive(Debug)]
pub(crate) enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Maps a file; one that is empty holds nothing to map.
#[expect(unsafe_code, reason = "a memory map of a file that others could change")]
pub(crate) fn map(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::Owned(Vec::new()));
    }
    // SAFETY: the bytes are read as numbers of any value and checked as text where they are used as text, and
    // every place is checked against the map's own length. A file that is changed in place while it is mapped
    // is outside what can be checked; `VectorIndex::open` says that it must not be, and a build replaces
    // files instead.
    unsafe { Mmap::map(file) }.map(Bytes::Mapped)
}

/// Opens a file; of a pipe, which would have the program wait, it says so.
fn open_file(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    File::open(path)
}

/// Holds an index: vectors of unit length, and an entry beside each.
///
/// Opening it reads and checks the header alone. The rest is memory-mapped and read where it is needed, with
/// every place checked.
#[derive(Debug)]
pub struct VectorIndex {
    path: PathBuf,
    bytes: Bytes,
    header: Header,
    meta: Meta,
}

impl VectorIndex {
    /// Opens an index.
    ///
    /// The file is memory-mapped, and must not be changed in place or cut short while it is open; a build
    /// replaces it instead, which does no harm. That the vectors are those that were written is checked by
    /// [`verify`](Self::verify), which reads all of them.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is no index, is of another version, was cut short, or has a header that
    /// is damaged or lies.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, IndexError> {
        let path = path.as_ref();
        let bytes = open_file(path)
            .and_then(|file| map(&file))
            .map_err(|source| IndexError::Read {
                path: path.to_owned(),
                source,
            })?;
        let mut index = Self::read(path, bytes)?;
        let Meta { root, from_index, .. } = &mut index.meta;
        if let (Some(root), Some(way)) = (root, from_index)
            && let Some(moved) = place::moved(path, root, way)
        {
            *root = moved;
        }
        Ok(index)
    }

    /// Reads an index from the bytes of a file; `path` is for messages.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn from_bytes(path: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Self, IndexError> {
        Self::read(path.as_ref(), Bytes::Owned(bytes))
    }

    fn read(path: &Path, bytes: Bytes) -> Result<Self, IndexError> {
        let broken = |mismatch| broken(path, mismatch);
        let header = Header::read(&bytes).map_err(|refusal| match refusal {
            Refusal::Version(found) => IndexError::OtherVersion {
                path: path.to_owned(),
                expected: VERSION,
                found,
            },
            Refusal::Broken(mismatch) => broken(mismatch),
        })?;
        let meta = bytes.get(header.layout.meta.clone()).unwrap_or_default();
        let meta = serde_json::from_slice(meta)
            .map_err(|error| broken(("a description in JSON".to_owned(), error.to_string())))?;
        Ok(Self {
            path: path.to_owned(),
            bytes,
            header,
            meta,
        })
    }

    /// Checks that the contents are those that were written, which reads the whole file.
    ///
    /// # Errors
    ///
    /// When a byte differs.
    pub fn verify(&self) -> Result<(), IndexError> {
        let body = self.bytes.get(self.header.layout.meta.end..).unwrap_or_default();
        let found: [u8; 32] = Sha256::digest(body).into();
        if found == self.header.body {
            return Ok(());
        }
        self.refuse("contents that match their checksum", "damaged contents")
    }

    /// Returns the folder that was indexed: where it is now, if it was moved together with the index. An
    /// index of records has none.
    pub fn root(&self) -> Option<&str> {
        self.meta.root.as_deref()
    }

    /// Returns the width, the numbers of a vector.
    pub fn width(&self) -> usize {
        self.header.sizes.width
    }

    /// Returns the type of the stored numbers.
    pub fn element(&self) -> ElementType {
        self.header.sizes.element
    }

    /// Counts the vectors.
    pub fn len(&self) -> usize {
        self.header.sizes.count
    }

    /// Tells whether there are no vectors.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts the lists of approximate search; 0 where the index was built without them.
    pub fn lists(&self) -> usize {
        self.header.sizes.lists
    }

    /// Checks that the index was made with the model of this fingerprint.
    ///
    /// # Errors
    ///
    /// When it was made with another one: vectors of two models cannot be compared.
    pub fn check_model(&self, fingerprint: &str) -> Result<(), IndexError> {
        if self.meta.fingerprint == fingerprint {
            return Ok(());
        }
        Err(IndexError::OtherModel {
            expected: self.meta.fingerprint.clone(),
            found: fingerprint.to_owned(),
        })
    }

    /// Reads the entry of a vector.
    ///
    /// # Errors
    ///
    /// When there is no such vector, or the entry is damaged.
    pub fn entry(&self, position: usize) -> Result<IndexEntry, IndexError> {
        IndexEntry::decode(self.entry_bytes(position)?).map_err(|mismatch| broken(&self.path, mismatch))
    }

    /// Returns a vector as it is stored.
    ///
    /// # Errors
    ///
    /// When there is no such vector.
    pub fn vector(&self, position: usize) -> Result<Vec<f32>, IndexError> {
        self.check_position(position)?;
        let mut values = vec![0.0; self.element().padded(self.width())];
        self.element()
            .dequantize(self.rows(position..position + 1), &mut values);
        values.truncate(self.width());
        let scale = self.scale(position);
        values.iter_mut().for_each(|value| *value *= scale);
        Ok(values)
    }

    pub(crate) fn entry_bytes(&self, position: usize) -> Result<&[u8], IndexError> {
        self.check_position(position)?;
        let layout = &self.header.layout;
        let at = |position: usize| read_u64(&self.bytes, layout.offsets.start + 8 * position);
        let broken = |mismatch| broken(&self.path, mismatch);
        let (start, end) = (at(position).map_err(broken)?, at(position + 1).map_err(broken)?);
        let heap = self.section(&layout.heap);
        let entry = usize::try_from(start)
            .ok()
            .zip(usize::try_from(end).ok())
            .and_then(|(start, end)| heap.get(start..end));
        entry.map_or_else(
            || {
                self.refuse(
                    format!("entries within {} bytes", heap.len()),
                    format!("one from {start} to {end}"),
                )
            },
            Ok,
        )
    }

    fn check_position(&self, position: usize) -> Result<(), IndexError> {
        if position < self.len() {
            return Ok(());
        }
        Err(IndexError::Limit {
            limit: format!("vectors 0 to {}", self.len()),
            found: format!("a request for vector {position}"),
        })
    }

    /// Returns the rows of some vectors, which there are.
    pub(crate) fn rows(&self, positions: Range<usize>) -> &[u8] {
        let stride = self.element().stride(self.width());
        self.section(&self.header.layout.rows)
            .get(positions.start * stride..positions.end * stride)
            .unwrap_or_default()
    }

    /// Returns what the numbers of a row are multiplied with.
    pub(crate) fn scale(&self, position: usize) -> f32 {
        if !self.element().is_scaled() {
            return 1.0;
        }
        let scales = self.section(&self.header.layout.scales);
        read_word(scales, 4 * position).map_or(0.0, f32::from_le_bytes)
    }

    /// Returns the numbers of the centroids, in rows as wide as a row of vectors.
    pub(crate) fn centroids(&self) -> &[u8] {
        self.section(&self.header.layout.centroids)
    }

    /// Returns the members of a list, 4 bytes each.
    pub(crate) fn members(&self, list: usize) -> Result<&[[u8; 4]], IndexError> {
        let layout = &self.header.layout;
        let offsets = self.section(&layout.list_offsets);
        let members = self.section(&layout.members).as_chunks::<4>().0;
        let at = |list: usize| {
            let offset = read_u64(offsets, 8 * list).ok();
            offset.and_then(|offset| usize::try_from(offset).ok())
        };
        let range = at(list).zip(at(list + 1));
        range
            .and_then(|(start, end)| members.get(start..end))
            .map_or_else(
                || self.refuse("lists of vectors", "a list outside of the file"),
                Ok,
            )
    }

    /// Says that the file is not what it says.
    pub(crate) fn refuse<T>(
        &self,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Result<T, IndexError> {
        mismatch(expected, found).map_err(|mismatch| broken(&self.path, mismatch))
    }

    fn section(&self, place: &Range<usize>) -> &[u8] {
        self.bytes.get(place.clone()).unwrap_or_default()
    }
}

fn broken(path: &Path, (expected, found): Mismatch) -> IndexError {
    IndexError::Broken {
        path: path.to_owned(),
        expected,
        found,
    }
}
