//! The header of an index, and the places of its sections.
//!
//! Numbers are little-endian. Sections follow one another without gaps but the zeros that bring the next one
//! to a multiple of 64 bytes, so that the header needs their sizes alone:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `MWINDEX` and a line feed |
//! | 4 | the version of the format, 3 |
//! | 4 | W, the width: numbers of a vector |
//! | 4 | the element type: 1 f16, 2 int8 |
//! | 4 | C, the number of lists; 0 without approximate search |
//! | 8 | N, the number of vectors |
//! | 8 | M, the bytes of the description |
//! | 8 | H, the bytes of all entries |
//! | 32 | SHA-256 of everything behind the description |
//! | 32 | SHA-256 of the 80 bytes above and the description |
//! | 16 | zeros |
//! | M | the description, JSON: `{"fingerprint", "root", "from_index"}` |
//! | N S | the vectors, in rows of S bytes: W elements, and zeros to a multiple of 64 bytes |
//! | 4 N | of int8: the scale of each vector, f32 |
//! | 8 (N + 1) | where each entry starts among the entries, and where the last one ends |
//! | H | the entries: size and time (8 bytes each), lengths of key and text (4 bytes each), key, text |
//! | 4 C W' | the centroids, f32, in rows of as many numbers as a row of vectors holds |
//! | 8 (C + 1) | where each list starts among the members, and where the last one ends |
//! | 4 N | the members of the lists: positions of vectors |

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::element::{ALIGNMENT, ElementType, MAX_WIDTH};
use crate::error::{Mismatch, mismatch};

pub(crate) const MAGIC: &[u8; 8] = b"MWINDEX\n";
pub(crate) const VERSION: u32 = 3;
/// Bytes before the description.
pub(crate) const HEADER_BYTES: usize = 128;
/// Bytes of the header that its digest covers.
const COVERED_BYTES: usize = 80;
/// The longest description.
pub(crate) const MAX_META_BYTES: usize = 1 << 20;
/// The most vectors: positions have 32 bits.
pub(crate) const MAX_COUNT: usize = u32::MAX as usize;

/// What the header says of sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) width: usize,
    pub(crate) element: ElementType,
    pub(crate) lists: usize,
    pub(crate) count: usize,
    pub(crate) meta_bytes: usize,
    pub(crate) heap_bytes: usize,
}

/// Where the sections are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) meta: Range<usize>,
    pub(crate) rows: Range<usize>,
    pub(crate) scales: Range<usize>,
    pub(crate) offsets: Range<usize>,
    pub(crate) heap: Range<usize>,
    pub(crate) centroids: Range<usize>,
    pub(crate) list_offsets: Range<usize>,
    pub(crate) members: Range<usize>,
}

impl Sizes {
    /// Places the sections; nothing where they do not fit into an address space.
    pub(crate) fn layout(&self) -> Option<Layout> {
        let Self {
            width,
            element,
            lists,
            count,
            ..
        } = *self;
        let mut end = HEADER_BYTES;
        let mut section = |bytes: usize, items: usize| {
            let start = end.checked_next_multiple_of(ALIGNMENT)?;
            let bytes = bytes.checked_mul(items)?;
            // A section of nothing takes no place.
            let start = if bytes == 0 { end } else { start };
            end = start.checked_add(bytes)?;
            Some(start..end)
        };
        let (scaled, listed) = (usize::from(element.is_scaled()), usize::from(lists > 0));
        Some(Layout {
            meta: section(self.meta_bytes, 1)?,
            rows: section(element.stride(width), count)?,
            scales: section(4 * scaled, count)?,
            offsets: section(8, count.checked_add(1)?)?,
            heap: section(self.heap_bytes, 1)?,
            centroids: section(element.padded(width).checked_mul(4)?, lists)?,
            list_offsets: section(8 * listed, lists.checked_add(1)?)?,
            members: section(4 * listed, count)?,
        })
    }

    /// Writes a header for a description and the digest of what is behind it.
    pub(crate) fn header(&self, meta: &[u8], body: &[u8; 32]) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        for word in [VERSION, word(self.width), self.element.code(), word(self.lists)] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for size in [self.count, self.meta_bytes, self.heap_bytes] {
            bytes.extend_from_slice(&(size as u64).to_le_bytes());
        }
        bytes.extend_from_slice(body);
        let digest = digest(&bytes, meta);
        bytes.extend_from_slice(&digest);
        let mut header = [0; HEADER_BYTES];
        header.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        header
    }
}

/// Makes a word of a size that was checked to be one.
fn word(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

fn digest(covered: &[u8], meta: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(covered);
    hash.update(meta);
    hash.finalize().into()
}

/// A header that was checked against the file behind it.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub(crate) sizes: Sizes,
    pub(crate) layout: Layout,
    /// The digest of everything behind the description.
    pub(crate) body: [u8; 32],
}

/// Why a header is not used.
pub(crate) enum Refusal {
    /// It is of another version of the format.
    Version(u32),
    /// It is none, damaged, or lies.
    Broken(Mismatch),
}

impl From<Mismatch> for Refusal {
    fn from(mismatch: Mismatch) -> Self {
        Self::Broken(mismatch)
    }
}

impl Header {
    /// Reads the header of the bytes of a file, and checks it against their number.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        if !bytes.starts_with(MAGIC) {
            let found = format!("{} bytes that do not", bytes.len());
            return Err(Refusal::Broken((
                "a file that starts with 'MWINDEX'".to_owned(),
                found,
            )));
        }
        let version = read_u32(bytes, 8)?;
        if version != VERSION {
            return Err(Refusal::Version(version));
        }
        Ok(Self::read_current(bytes)?)
    }

    fn read_current(bytes: &[u8]) -> Result<Self, Mismatch> {
        let width = read_u32(bytes, 12).and_then(size)?;
        if !(1..=MAX_WIDTH).contains(&width) {
            return mismatch(
                format!("vectors of 1 to {MAX_WIDTH} numbers"),
                format!("vectors of {width}"),
            );
        }
        let code = read_u32(bytes, 16)?;
        let Some(element) = ElementType::from_code(code) else {
            return mismatch("an element type of 1 (f16) or 2 (int8)", code.to_string());
        };
        let sizes = Sizes {
            width,
            element,
            lists: read_u32(bytes, 20).and_then(size)?,
            count: read_u64(bytes, 24).and_then(size)?,
            meta_bytes: read_u64(bytes, 32).and_then(size)?,
            heap_bytes: read_u64(bytes, 40).and_then(size)?,
        };
        let layout = sizes.check(bytes.len())?;
        let meta = bytes.get(layout.meta.clone()).unwrap_or_default();
        let covered = bytes.get(..COVERED_BYTES).unwrap_or_default();
        if bytes.get(COVERED_BYTES..COVERED_BYTES + 32) != Some(&digest(covered, meta)) {
            return mismatch("a header that matches its checksum", "a damaged one");
        }
        if bytes
            .get(COVERED_BYTES + 32..HEADER_BYTES)
            .is_none_or(|rest| rest.iter().any(|byte| *byte != 0))
        {
            return mismatch("zeros at the end of the header", "other bytes");
        }
        Ok(Self {
            sizes,
            layout,
            body: read_word(bytes, 48)?,
        })
    }
}

impl Sizes {
    /// Places the sections, and checks that they are the whole of a file of `length` bytes.
    fn check(&self, length: usize) -> Result<Layout, Mismatch> {
        if self.count > MAX_COUNT || self.lists > self.count || self.meta_bytes > MAX_META_BYTES {
            return mismatch(
                format!(
                    "at most {MAX_COUNT} vectors, no more lists than vectors, and a description of at most \
                     {MAX_META_BYTES} bytes"
                ),
                format!(
                    "{} vectors, {} lists and {} bytes",
                    self.count, self.lists, self.meta_bytes
                ),
            );
        }
        let layout = self.layout();
        let end = layout.as_ref().map(Layout::end);
        match layout {
            Some(layout) if end == Some(length) => Ok(layout),
            _ => mismatch(
                end.map_or("a file that fits into memory".to_owned(), |end| {
                    format!("{end} bytes")
                }),
                format!("{length} bytes: the file was cut short, or its header lies"),
            ),
        }
    }
}

impl Layout {
    /// Returns the length of the file.
    pub(crate) fn end(&self) -> usize {
        self.members.end
    }
}

fn size<T: TryInto<usize> + Copy + std::fmt::Display>(value: T) -> Result<usize, Mismatch> {
    value
        .try_into()
        .map_err(|_| ("a size that fits into memory".to_owned(), value.to_string()))
}

pub(crate) fn read_word<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Mismatch> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    word.copied()
        .ok_or_else(|| (format!("{N} bytes at {at}"), "the end of the file".to_owned()))
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Result<u32, Mismatch> {
    read_word(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn read_u64(bytes: &[u8], at: usize) -> Result<u64, Mismatch> {
    read_word(bytes, at).map(u64::from_le_bytes)
}
