//! The memory that packed weights are in: a layer's own, or a range of a mapped file.

#![expect(unsafe_code, reason = "lines are plain numbers")]

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::kernel::{Line, PANEL};

// SAFETY: lines are sixteen numbers, of which all bits may be zero.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: lines are sixteen numbers without a gap, 64 bytes aligned to 64, and any bits are numbers.
unsafe impl bytemuck::Pod for Line {}

/// Immutable bytes behind a reference count.
type Owner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A range of shared bytes.
#[derive(Clone)]
pub(crate) struct SharedBytes {
    owner: Owner,
    range: Range<usize>,
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBytes")
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl SharedBytes {
    /// Borrows a range of shared bytes; none where it is out of bounds.
    pub(crate) fn new(owner: Owner, range: Range<usize>) -> Option<Self> {
        (*owner).as_ref().get(range.clone())?;
        Some(Self { owner, range })
    }

    fn bytes(&self) -> &[u8] {
        (*self.owner).as_ref().get(self.range.clone()).unwrap_or_default()
    }

    /// Joins it with what comes right behind it.
    fn with(&self, next: &Self) -> Option<Self> {
        let joins = Arc::ptr_eq(&self.owner, &next.owner) && self.range.end == next.range.start;
        joins.then(|| Self {
            owner: Arc::clone(&self.owner),
            range: self.range.start..next.range.end,
        })
    }
}

/// The lines of a weight, owned or shared; read as a slice.
#[derive(Clone)]
pub(super) enum Panels {
    Own(Vec<Line>),
    /// Bytes that are lines where they are.
    Shared(SharedBytes),
}

impl Panels {
    pub(super) fn zeros(lines: usize) -> Self {
        Self::Own(vec![Line([0; PANEL]); lines])
    }

    /// Reads bytes as lines where they are, or from a copy where they do not begin at the address of a line.
    pub(super) fn of(bytes: SharedBytes) -> Self {
        if bytemuck::try_cast_slice::<u8, Line>(bytes.bytes()).is_ok() {
            return Self::Shared(bytes);
        }
        let found = bytes.bytes();
        let mut lines = vec![Line([0; PANEL]); found.len().div_ceil(size_of::<Line>())];
        let copy: &mut [u8] = bytemuck::cast_slice_mut(&mut lines);
        copy.iter_mut().zip(found).for_each(|(to, from)| *to = *from);
        Self::Own(lines)
    }

    /// Joins lines with those right behind them in the same memory; none where they are apart.
    pub(super) fn with(&self, next: &Self) -> Option<Self> {
        match (self, next) {
            (Self::Shared(first), Self::Shared(next)) => first.with(next).map(Self::Shared),
            _ => None,
        }
    }

    /// Returns the lines to write to; of shared ones none.
    pub(super) fn own_mut(&mut self) -> &mut [Line] {
        match self {
            Self::Own(lines) => lines,
            Self::Shared(_) => &mut [],
        }
    }
}

impl Deref for Panels {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        match self {
            Self::Own(lines) => lines,
            // They were lines in `of`, and nothing has moved.
            Self::Shared(bytes) => bytemuck::try_cast_slice(bytes.bytes()).unwrap_or_default(),
        }
    }
}
