//! Approximate search: an inverted file (IVF).
//!
//! Every vector is in the list of the centroid that is nearest to it, and a search reads the lists whose
//! centroids are nearest to the query. The centroids are found by spherical k-means on a sample.
//!
//! Why not a graph from a crate: usearch and arroy build C++ and C, `instant-distance` keeps a copy of all
//! points in memory, and the graph of `hnsw_rs` depends on the order in which threads insert. An index must
//! have the same bytes however it was built, and be searched where it is mapped. An inverted file is small,
//! and its recall is measured beside that of exact search.
//!
//! Source: Jegou, Douze, Schmid 2011, "Product quantization for nearest neighbor search", section 4 (the
//! inverted file alone: vectors are compared as they are stored).

use multiway_model::kernels::dot_rows;

use crate::element::ElementType;
use crate::error::IndexError;
use crate::file::VectorIndex;
use crate::search::{Block, in_parallel};
use crate::top::Top;

/// The most lists.
const MAX_LISTS: usize = 1 << 16;
/// Vectors of the sample for each list.
const SAMPLE: usize = 64;
/// Rounds of k-means: later ones move the centroids little.
const ROUNDS: usize = 8;
/// Vectors that a thread assigns at a time.
const PART: usize = 1 << 10;

/// Vectors that are stored, by position.
pub(crate) trait Rows: Sync {
    /// Counts them.
    fn count(&self) -> usize;
    /// Returns the row and the scale of one.
    fn row(&self, position: usize) -> (&[u8], f32);
}

/// The lists of an index.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// In rows as wide as a row of vectors.
    pub(crate) centroids: Vec<f32>,
    /// Where each list starts among the members, and where the last one ends.
    pub(crate) offsets: Vec<u64>,
    pub(crate) members: Vec<u32>,
}

impl Lists {
    /// Counts the lists.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Puts vectors into lists, as many as the square root of their number.
    pub(crate) fn of(rows: &impl Rows, element: ElementType, width: usize, threads: usize) -> Self {
        let count = rows.count();
        let lists = count.isqrt().clamp(1, MAX_LISTS);
        let clustering = Clustering {
            rows,
            element,
            padded: element.padded(width),
            threads,
        };
        let centroids = clustering.centroids(lists);
        let nearest = clustering.assign(&centroids, &(0..count).collect::<Vec<_>>());
        let mut offsets = vec![0_u64; lists + 1];
        for list in &nearest {
            if let Some(length) = offsets.get_mut(list + 1) {
                *length += 1;
            }
        }
        let mut total = 0;
        for offset in &mut offsets {
            total += *offset;
            *offset = total;
        }
        // Sorting keeps positions in order within a list.
        let mut members: Vec<u32> = (0..u32::MAX).take(count).collect();
        members.sort_by_key(|position| nearest.get(*position as usize));
        Self {
            centroids,
            offsets,
            members,
        }
    }
}

/// What k-means works on.
struct Clustering<'a, R> {
    rows: &'a R,
    element: ElementType,
    padded: usize,
    threads: usize,
}

impl<R: Rows> Clustering<'_, R> {
    /// Finds the centroids of a sample, which lies evenly among the vectors.
    fn centroids(&self, lists: usize) -> Vec<f32> {
        let count = self.rows.count();
        let evenly = |of: usize| -> Vec<usize> { (0..of).map(|i| i * count / of.max(1)).collect() };
        let sample = evenly(count.min(lists.saturating_mul(SAMPLE)));
        let mut centroids = vec![0.0; lists * self.padded];
        for (centroid, position) in centroids.chunks_exact_mut(self.padded).zip(evenly(lists)) {
            self.add(position, centroid);
            normalize(centroid);
        }
        for _ in 0..ROUNDS {
            let nearest = self.assign(&centroids, &sample);
            let mut sums = vec![0.0; centroids.len()];
            for (position, list) in sample.iter().zip(nearest) {
                if let Some(sum) = sums.get_mut(list * self.padded..(list + 1) * self.padded) {
                    self.add(*position, sum);
                }
            }
            let both = centroids
                .chunks_exact_mut(self.padded)
                .zip(sums.chunks_exact_mut(self.padded));
            for (centroid, sum) in both {
                // The centroid of an empty list stays.
                if normalize(sum) {
                    centroid.copy_from_slice(sum);
                }
            }
        }
        centroids
    }

    /// Finds the list of each of some vectors: of the nearest centroid, of equally near ones the first.
    fn assign(&self, centroids: &[f32], positions: &[usize]) -> Vec<usize> {
        let parts: Vec<&[usize]> = positions.chunks(PART).collect();
        let assigned = in_parallel(self.threads, parts.len(), |part| {
            let mut values = vec![0.0; self.padded];
            let mut dots = vec![0.0; centroids.len() / self.padded.max(1)];
            let mut nearest = Vec::with_capacity(PART);
            for position in parts.get(part).copied().unwrap_or_default() {
                self.element.dequantize(self.rows.row(*position).0, &mut values);
                dot_rows(&values, centroids, &mut dots);
                let best = dots.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                nearest.push(dots.iter().position(|dot| *dot >= best).unwrap_or_default());
            }
            nearest
        });
        assigned.concat()
    }

    /// Adds a vector to a sum.
    fn add(&self, position: usize, sum: &mut [f32]) {
        let mut values = vec![0.0; self.padded];
        let (row, scale) = self.rows.row(position);
        self.element.dequantize(row, &mut values);
        sum.iter_mut()
            .zip(values)
            .for_each(|(sum, value)| *sum += scale * value);
    }
}

/// Scales to unit length; tells whether there was a direction.
fn normalize(vector: &mut [f32]) -> bool {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length <= 0.0 {
        return false;
    }
    vector.iter_mut().for_each(|value| *value /= length);
    true
}

impl VectorIndex {
    /// Searches the lists nearest to each query.
    pub(crate) fn probe(
        &self,
        queries: &[Vec<f32>],
        count: usize,
        probes: usize,
        threads: usize,
    ) -> Result<Vec<Top>, IndexError> {
        if self.lists() == 0 {
            return Err(IndexError::NoLists);
        }
        let numbers = self.centroids().as_chunks::<4>().0;
        let centroids: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let found = in_parallel(threads, queries.len(), |index| {
            let query = queries.get(index).map(Vec::as_slice).unwrap_or_default();
            self.probe_one(query, &centroids, count, probes)
        });
        found.into_iter().collect()
    }

    fn probe_one(
        &self,
        query: &[f32],
        centroids: &[f32],
        count: usize,
        probes: usize,
    ) -> Result<Top, IndexError> {
        let mut dots = vec![0.0; self.lists()];
        dot_rows(query, centroids, &mut dots);
        let mut nearest = Top::new(probes.min(dots.len()));
        for (list, dot) in dots.iter().enumerate() {
            nearest.offer(list, *dot);
        }
        let (mut top, mut block) = (Top::new(count), Block::new(self));
        let mut left = self.len();
        for list in nearest.into_matches() {
            let members = self.members(list.position)?;
            // Every vector is in one list: lists that hold more would have a search last long.
            let Some(rest) = left.checked_sub(members.len()) else {
                return self.refuse(format!("lists of {} vectors in all", self.len()), "longer ones");
            };
            left = rest;
            for members in members.chunks(Block::rows_of(self)) {
                let positions: Vec<usize> = members
                    .iter()
                    .map(|member| u32::from_le_bytes(*member) as usize)
                    .collect();
                if let Some(position) = positions.iter().find(|position| **position >= self.len()) {
                    return self.refuse(
                        format!("lists of vectors below {}", self.len()),
                        format!("vector {position}"),
                    );
                }
                block.gather(self, &positions);
                block.offer(query, &mut top);
            }
        }
        Ok(top)
    }
}
