//! Readers that count what they read, and that stop where a record is too large.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the bytes that were read of a file.
pub(crate) struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R> Counted<R> {
    pub(crate) fn new(inner: R, count: Arc<AtomicU64>) -> Self {
        Self { inner, count }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Fails after so many bytes, unless [`Budget::refill`] is called in between: a record that never ends does
/// not fill the memory.
pub(crate) struct Limited<R> {
    inner: R,
    budget: Budget,
}

/// What a [`Limited`] reader may still read.
#[derive(Clone)]
pub(crate) struct Budget {
    left: Arc<AtomicU64>,
    limit: u64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            left: Arc::new(AtomicU64::new(limit)),
            limit,
        }
    }

    /// Allows so many bytes more.
    pub(crate) fn grant(&self, bytes: u64) {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_add(bytes), Ordering::Relaxed);
    }

    /// Starts a new record.
    pub(crate) fn refill(&self) {
        self.left.store(self.limit, Ordering::Relaxed);
    }
}

impl<R> Limited<R> {
    pub(crate) fn new(inner: R, budget: Budget) -> Self {
        Self { inner, budget }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.left.load(Ordering::Relaxed);
        if left == 0 {
            let limit = self.budget.limit;
            return Err(io::Error::other(format!("a record has more than {limit} bytes")));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.budget.left.fetch_sub(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// A line of a file.
pub(crate) enum Line {
    Whole(Vec<u8>),
    /// It is longer than the limit, and was passed over.
    TooLong,
    End,
}

/// Reads a line of at most `limit` bytes, without its end; passes over one that is longer.
pub(crate) fn read_line(reader: &mut impl BufRead, limit: u64) -> io::Result<Line> {
    let mut line = Vec::new();
    reader.by_ref().take(limit + 1).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(Line::End);
    }
    let is_whole = line.last() == Some(&b'\n');
    if !is_whole && line.len() as u64 > limit {
        skip_line(reader)?;
        return Ok(Line::TooLong);
    }
    while matches!(line.last(), Some(b'\n' | b'\r')) {
        line.pop();
    }
    Ok(Line::Whole(line))
}

fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let (found, used) = {
            let buffer = reader.fill_buf()?;
            match buffer.iter().position(|byte| *byte == b'\n') {
                Some(end) => (true, end + 1),
                None => (buffer.is_empty(), buffer.len()),
            }
        };
        reader.consume(used);
        if found {
            return Ok(());
        }
    }
}

/// The bytes of a record's limit for each value that it may have.
const BYTES_OF_VALUE: u64 = 64;

/// The fewest values that a record may have, whatever its limit.
const FEWEST_VALUES: u64 = 1024;

/// Returns how many values (numbers, texts, lists, objects and their members) a record may have.
///
/// A value may be written in two bytes and take a hundred: so the number of values bounds what a record takes
/// in memory to four times its limit.
pub(crate) fn most_values(limit: u64) -> usize {
    let values = (limit / BYTES_OF_VALUE).max(FEWEST_VALUES);
    usize::try_from(values).unwrap_or(usize::MAX)
}
