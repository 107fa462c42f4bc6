//! Writing an index file from vectors that are stored elsewhere.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use multiway_model::checkpoint::write_atomically_with;
use sha2::{Digest, Sha256};

use crate::element::{ALIGNMENT, ElementType};
use crate::error::IndexError;
use crate::file::Meta;
use crate::layout::{HEADER_BYTES, MAX_META_BYTES, Sizes};
use crate::lists::{Lists, Rows};

/// Vectors with entries, by position.
pub(crate) trait Stored: Rows {
    /// Returns the entry of a vector as it is stored.
    fn entry(&self, position: usize) -> &[u8];
}

/// Writes an index. The file is there whole or not at all.
pub(crate) fn write(
    path: &Path,
    meta: &Meta,
    (width, element): (usize, ElementType),
    stored: &impl Stored,
    lists: &Lists,
) -> Result<(), IndexError> {
    let written = |source| IndexError::Write {
        path: path.to_owned(),
        source,
    };
    let meta = serde_json::to_vec(meta).map_err(|error| written(error.into()))?;
    if meta.len() > MAX_META_BYTES {
        return Err(IndexError::Limit {
            limit: format!("a description of at most {MAX_META_BYTES} bytes"),
            found: format!("one of {}", meta.len()),
        });
    }
    let sizes = Sizes {
        width,
        element,
        lists: lists.len(),
        count: stored.count(),
        meta_bytes: meta.len(),
        heap_bytes: (0..stored.count())
            .map(|position| stored.entry(position).len())
            .sum(),
    };
    write_atomically_with(path, |file| {
        file.write_all(&[0; HEADER_BYTES])?;
        file.write_all(&meta)?;
        let mut body = Body {
            file: BufWriter::with_capacity(1 << 20, &mut *file),
            hash: Sha256::new(),
            at: HEADER_BYTES + meta.len(),
        };
        body.vectors(stored, element)?;
        body.entries(stored)?;
        body.lists(lists)?;
        let digest = body.finish()?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&sizes.header(&meta, &digest))
    })
    .map_err(written)
}

/// What is behind the description, hashed as it is written.
struct Body<'a> {
    file: BufWriter<&'a mut File>,
    hash: Sha256,
    at: usize,
}

impl Body<'_> {
    /// Returns the digest of what was written.
    fn finish(mut self) -> io::Result<[u8; 32]> {
        self.file.flush()?;
        Ok(self.hash.finalize().into())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.at += bytes.len();
        self.file.write_all(bytes)
    }

    /// Writes zeros to where the next section starts.
    fn align(&mut self) -> io::Result<()> {
        let zeros = [0; ALIGNMENT];
        let missing = self.at.next_multiple_of(ALIGNMENT) - self.at;
        self.put(zeros.get(..missing).unwrap_or_default())
    }

    fn vectors(&mut self, stored: &impl Stored, element: ElementType) -> io::Result<()> {
        self.align()?;
        (0..stored.count()).try_for_each(|position| self.put(stored.row(position).0))?;
        if !element.is_scaled() {
            return Ok(());
        }
        self.align()?;
        (0..stored.count()).try_for_each(|position| self.put(&stored.row(position).1.to_le_bytes()))
    }

    fn entries(&mut self, stored: &impl Stored) -> io::Result<()> {
        self.align()?;
        let mut end = 0_u64;
        self.put(&end.to_le_bytes())?;
        for position in 0..stored.count() {
            end += stored.entry(position).len() as u64;
            self.put(&end.to_le_bytes())?;
        }
        self.align()?;
        (0..stored.count()).try_for_each(|position| self.put(stored.entry(position)))
    }

    fn lists(&mut self, lists: &Lists) -> io::Result<()> {
        if lists.len() == 0 {
            return Ok(());
        }
        self.align()?;
        lists
            .centroids
            .iter()
            .try_for_each(|value| self.put(&value.to_le_bytes()))?;
        self.align()?;
        lists
            .offsets
            .iter()
            .try_for_each(|offset| self.put(&offset.to_le_bytes()))?;
        self.align()?;
        lists
            .members
            .iter()
            .try_for_each(|member| self.put(&member.to_le_bytes()))
    }
}
