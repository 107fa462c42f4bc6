//! Exact search: every vector meets every query.

use std::ops::Range;
use std::sync::OnceLock;
use std::thread::available_parallelism;

use multiway_model::kernels::{Pool, dot_rows};

use crate::element::{check, normalized};
use crate::error::IndexError;
use crate::file::VectorIndex;
use crate::top::{IndexMatch, Top};

/// Numbers of the rows that are dequantized at a time: 16 KiB, which stay in a first-level cache.
const BLOCK: usize = 1 << 12;

/// Parts of the work for each thread, so that one that is slow keeps the others little.
const PARTS: usize = 8;

/// Says how to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchOptions {
    count: usize,
    threads: usize,
    probes: Option<usize>,
}

impl SearchOptions {
    /// Searches exactly for the `count` nearest vectors, on all cores.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            count,
            threads: available_parallelism().map_or(1, usize::from),
            probes: None,
        }
    }

    /// Searches on this many threads; results do not depend on it.
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// Searches approximately: only the `probes` lists whose centroids are nearest to the query, at least
    /// one. With all lists the result is that of exact search.
    #[must_use]
    pub fn approximate(self, probes: usize) -> Self {
        Self {
            probes: Some(probes.max(1)),
            ..self
        }
    }
}

/// Combines vectors to a query of unit length: the sum of the vectors, each scaled to unit length and
/// multiplied with its weight.
///
/// # Errors
///
/// When vectors differ in width, a number is not finite, or nothing is left of the sum.
///
/// # Examples
/// ```
/// let query = multiway_index::combine(&[(&[2.0, 0.0], 1.0), (&[0.0, 1.0], 1.0)])?;
/// assert!((query[0] - 0.5_f32.sqrt()).abs() < 1e-6 && query[0] == query[1]);
/// # Ok::<(), multiway_index::IndexError>(())
/// ```
pub fn combine(vectors: &[(&[f32], f32)]) -> Result<Vec<f32>, IndexError> {
    let width = vectors.first().map_or(0, |(vector, _)| vector.len());
    let mut sum = vec![0.0; width];
    for (vector, weight) in vectors {
        let unit = normalized(vector, width)?;
        sum.iter_mut()
            .zip(unit)
            .for_each(|(sum, value)| *sum += weight * value);
    }
    normalized(&sum, width)
}

impl VectorIndex {
    /// Finds the vectors nearest to each of some queries of unit length, the nearest first, of equally near
    /// ones that of the lower position first.
    ///
    /// Queries that come together cost less than one after the other: a vector is read once for all of them.
    /// What is found does not depend on the other queries, and not on the number of threads.
    ///
    /// # Errors
    ///
    /// When a query has another width than the index or a number that is not finite, when approximate search
    /// is asked for and the index has no lists, or these are damaged.
    pub fn search<Q: AsRef<[f32]>>(
        &self,
        queries: &[Q],
        options: SearchOptions,
    ) -> Result<Vec<Vec<IndexMatch>>, IndexError> {
        let queries = self.padded(queries)?;
        let count = options.count.min(self.len());
        let tops = match options.probes {
            None => self.exact(&queries, count, options.threads),
            Some(probes) => self.probe(&queries, count, probes, options.threads)?,
        };
        Ok(tops.into_iter().map(Top::into_matches).collect())
    }

    /// Checks queries, and gives them zeros at the end as rows have.
    fn padded<Q: AsRef<[f32]>>(&self, queries: &[Q]) -> Result<Vec<Vec<f32>>, IndexError> {
        let padded = self.element().padded(self.width());
        let pad = |query: &Q| {
            check(query.as_ref(), self.width())?;
            let mut query = query.as_ref().to_vec();
            query.resize(padded, 0.0);
            Ok(query)
        };
        queries.iter().map(pad).collect()
    }

    fn exact(&self, queries: &[Vec<f32>], count: usize, threads: usize) -> Vec<Top> {
        let mut best = vec![Top::new(count); queries.len()];
        let block = Block::rows_of(self);
        let part = self
            .len()
            .div_ceil(threads.max(1) * PARTS)
            .next_multiple_of(block);
        let parts = self.len().div_ceil(part.max(1));
        let found = in_parallel(threads, parts, |index| {
            let mut tops = vec![Top::new(count); queries.len()];
            let mut scratch = Block::new(self);
            let end = ((index + 1) * part).min(self.len());
            for start in (index * part..end).step_by(block) {
                scratch.read(self, start..(start + block).min(end));
                for (query, top) in queries.iter().zip(&mut tops) {
                    scratch.offer(query, top);
                }
            }
            tops
        });
        for tops in found {
            best.iter_mut().zip(tops).for_each(|(best, top)| best.absorb(top));
        }
        best
    }
}

/// A scratch buffer for the vectors that queries meet next.
#[derive(Debug)]
pub(crate) struct Block {
    padded: usize,
    /// Their numbers, without scales.
    values: Vec<f32>,
    scales: Vec<f32>,
    positions: Vec<usize>,
    dots: Vec<f32>,
}

impl Block {
    /// Counts the vectors of a block.
    pub(crate) fn rows_of(index: &VectorIndex) -> usize {
        (BLOCK / index.element().padded(index.width())).max(1)
    }

    pub(crate) fn new(index: &VectorIndex) -> Self {
        let (rows, padded) = (Self::rows_of(index), index.element().padded(index.width()));
        Self {
            padded,
            values: vec![0.0; rows * padded],
            scales: Vec::with_capacity(rows),
            positions: Vec::with_capacity(rows),
            dots: vec![0.0; rows],
        }
    }

    /// Reads vectors that lie one after the other, no more than a block holds.
    fn read(&mut self, index: &VectorIndex, positions: Range<usize>) {
        index
            .element()
            .dequantize(index.rows(positions.clone()), &mut self.values);
        self.note(index, positions);
    }

    /// Reads vectors from anywhere, no more than a block holds.
    pub(crate) fn gather(&mut self, index: &VectorIndex, positions: &[usize]) {
        for (values, position) in self.values.chunks_exact_mut(self.padded).zip(positions) {
            index
                .element()
                .dequantize(index.rows(*position..position + 1), values);
        }
        self.note(index, positions.iter().copied());
    }

    fn note(&mut self, index: &VectorIndex, positions: impl Iterator<Item = usize>) {
        self.positions.clear();
        self.positions.extend(positions);
        self.scales.clear();
        if index.element().is_scaled() {
            let scales = self.positions.iter().map(|position| index.scale(*position));
            self.scales.extend(scales);
        }
    }

    /// Shows the vectors to a query.
    pub(crate) fn offer(&mut self, query: &[f32], top: &mut Top) {
        let dots = self.dots.get_mut(..self.positions.len()).unwrap_or_default();
        dot_rows(query, &self.values, dots);
        dots.iter_mut()
            .zip(&self.scales)
            .for_each(|(dot, scale)| *dot *= scale);
        for (dot, position) in dots.iter().zip(&self.positions) {
            top.offer(*position, *dot);
        }
    }
}

/// Computes `task` of each number below `tasks` on some threads, in order.
pub(crate) fn in_parallel<T: Send + Sync>(
    threads: usize,
    tasks: usize,
    task: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    if threads <= 1 || tasks <= 1 {
        return (0..tasks).map(task).collect();
    }
    let slots: Vec<OnceLock<T>> = (0..tasks).map(|_| OnceLock::new()).collect();
    Pool::new(threads.min(tasks)).run(tasks, &|index| {
        if let Some(slot) = slots.get(index) {
            slot.get_or_init(|| task(index));
        }
    });
    slots.into_iter().filter_map(OnceLock::into_inner).collect()
}
