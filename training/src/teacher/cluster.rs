//! Principal components and k-means, the same on every run.

use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::matmul::{Right, add_product};
use crate::random::{below, fork, normal, unit};

/// Vectors that one task takes at once.
const BLOCK: usize = 1024;
const MAX_SWEEPS: usize = 30;
/// The longest vectors whose directions are found by rotations, one by one.
const MAX_ROTATED: usize = 512;
/// Products with the matrix until a space is taken as found.
const SPACE_ITERATIONS: usize = 30;

/// Rotates vectors to the directions in which they differ most and keeps the first of them, scaled to unit
/// length.
#[derive(Debug, Clone)]
pub(super) struct Projection {
    size: usize,
    kept: usize,
    /// `[kept]`, the mean after rotation.
    offset: Vec<f32>,
    /// `[kept, size]`
    directions: Vec<f32>,
}

impl Projection {
    /// Finds the `kept` directions of the largest variance in vectors of `size` numbers; of long vectors, any
    /// directions that span the same space.
    pub(super) fn fit(vectors: &[f32], size: usize, kept: usize) -> Self {
        let kept = kept.min(size);
        let count = (vectors.len() / size.max(1)).max(1) as f64;
        let mut mean = vec![0.0_f64; size];
        for vector in vectors.chunks_exact(size) {
            for (mean, value) in mean.iter_mut().zip(vector) {
                *mean += f64::from(*value) / count;
            }
        }
        let covariance = covariance(vectors, &mean);
        let directions = if size > MAX_ROTATED {
            leading_space(&covariance, size, kept)
        } else {
            let (values, axes) = eigen(covariance, size);
            let mut order: Vec<usize> = (0..size).collect();
            order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
            let axis = |&axis: &usize| axes.iter().skip(axis).step_by(size);
            let leading = order.iter().take(kept).flat_map(axis);
            leading.map(|value| narrow(*value)).collect()
        };
        let offset = directions
            .chunks_exact(size)
            .map(|direction| narrow(direction.iter().zip(&mean).map(|(a, b)| f64::from(*a) * b).sum()));
        Self {
            size,
            kept,
            offset: offset.collect(),
            directions,
        }
    }

    /// Projects vectors and scales each to unit length.
    ///
    /// # Shapes
    ///
    /// `[n, size]` to `[n, kept]`
    pub(super) fn apply(&self, vectors: &[f32]) -> Vec<f32> {
        let count = vectors.len() / self.size.max(1);
        let mut projected: Vec<f32> = Vec::with_capacity(count * self.kept);
        for _ in 0..count {
            projected.extend(self.offset.iter().map(|value| -value));
        }
        add_product(
            &mut projected,
            vectors,
            &self.directions,
            (self.size, self.kept),
            Right::Transposed,
        );
        for vector in projected.chunks_exact_mut(self.kept.max(1)) {
            let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
            vector.iter_mut().for_each(|value| *value /= length.max(1e-12));
        }
        projected // [n, kept]
    }
}

/// Computes the covariance of vectors around their mean, `[size, size]`, not divided by their count.
fn covariance(vectors: &[f32], mean: &[f64]) -> Vec<f64> {
    let size = mean.len();
    let partial = |block: &[f32]| {
        let centred = block
            .chunks_exact(size)
            .flat_map(|vector| vector.iter().zip(mean));
        let centred: Vec<f32> = centred
            .map(|(value, mean)| narrow(f64::from(*value) - mean))
            .collect();
        let rows = centred.len() / size;
        let turned: Vec<f32> = (0..size)
            .flat_map(|column| centred.iter().skip(column).step_by(size))
            .copied()
            .collect();
        let mut sum = vec![0.0; size * size];
        add_product(&mut sum, &turned, &centred, (rows, size), Right::Plain);
        sum
    };
    let partials: Vec<Vec<f32>> = vectors.par_chunks(BLOCK * 8 * size).map(partial).collect();
    let mut total = vec![0.0; size * size];
    for partial in partials {
        for (total, value) in total.iter_mut().zip(partial) {
            *total += f64::from(value);
        }
    }
    total
}

/// Finds orthonormal directions that span the space of the `kept` largest eigenvalues of a symmetric matrix
/// without negative ones: `[kept, size]`.
///
/// Source: Golub and Van Loan, Matrix Computations, section 8.2.4 (orthogonal iteration).
fn leading_space(matrix: &[f64], size: usize, kept: usize) -> Vec<f32> {
    let largest = matrix
        .iter()
        .fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let scaled: Vec<f32> = matrix
        .iter()
        .map(|value| narrow(value / largest.max(f64::MIN_POSITIVE)))
        .collect();
    let mut rng = fork(0, &[]);
    let mut space: Vec<f32> = (0..kept * size).map(|_| normal(&mut rng)).collect();
    for _ in 0..SPACE_ITERATIONS {
        orthonormalise(&mut space, size);
        let mut next = vec![0.0; kept * size];
        // The matrix is its own transpose.
        add_product(&mut next, &space, &scaled, (size, size), Right::Plain);
        space = next;
    }
    orthonormalise(&mut space, size);
    space
}

/// Makes rows orthonormal, in their order (Gram and Schmidt, twice).
fn orthonormalise(rows: &mut [f32], size: usize) {
    for at in 0..rows.len() / size.max(1) {
        let (before, rest) = rows.split_at_mut(at * size);
        let Some(row) = rest.get_mut(..size) else { return };
        for _ in 0..2 {
            for earlier in before.chunks_exact(size) {
                let share: f32 = earlier.iter().zip(&*row).map(|(a, b)| a * b).sum();
                row.iter_mut()
                    .zip(earlier)
                    .for_each(|(value, earlier)| *value -= share * earlier);
            }
        }
        let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        row.iter_mut()
            .for_each(|value| *value /= length.max(f32::MIN_POSITIVE));
    }
}

/// Finds eigenvalues, and eigenvectors as columns, of a symmetric matrix by cyclic Jacobi rotations.
///
/// Source: Golub and Van Loan, Matrix Computations, section 8.5.
fn eigen(mut matrix: Vec<f64>, size: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; size * size];
    for axis in 0..size {
        vectors[axis * size + axis] = 1.0;
    }
    let scale: f64 = matrix.iter().map(|value| value * value).sum();
    for _ in 0..MAX_SWEEPS {
        let off_diagonal: f64 = (0..size * size)
            .filter(|at| at / size != at % size)
            .map(|at| matrix[at] * matrix[at])
            .sum();
        if off_diagonal <= scale * 1e-18 {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                rotate(&mut matrix, &mut vectors, size, (p, q));
            }
        }
    }
    (
        (0..size).map(|axis| matrix[axis * size + axis]).collect(),
        vectors,
    )
}

/// Makes one pair of off-diagonal elements zero.
fn rotate(matrix: &mut [f64], vectors: &mut [f64], size: usize, (p, q): (usize, usize)) {
    let off = matrix[p * size + q];
    if off.abs() < f64::MIN_POSITIVE {
        return;
    }
    let tau = (matrix[q * size + q] - matrix[p * size + p]) / (2.0 * off);
    let tangent = tau.signum() / (tau.abs() + tau.hypot(1.0));
    let cos = 1.0 / tangent.hypot(1.0);
    let sin = tangent * cos;
    for row in 0..size {
        turn(matrix, row * size + p, row * size + q, (sin, cos));
        turn(vectors, row * size + p, row * size + q, (sin, cos));
    }
    for column in 0..size {
        turn(matrix, p * size + column, q * size + column, (sin, cos));
    }
}

fn turn(values: &mut [f64], first: usize, second: usize, (sin, cos): (f64, f64)) {
    let (a, b) = (values[first], values[second]);
    values[first] = cos * a - sin * b;
    values[second] = sin * a + cos * b;
}

/// The centres of clusters.
#[derive(Debug, Clone)]
pub(super) struct Codebook {
    size: usize,
    /// `[codes, size]`
    centres: Vec<f32>,
    /// Half of each centre's squared length.
    half_lengths: Vec<f32>,
}

impl Codebook {
    /// Clusters vectors: k-means++ on a part of them, then Lloyd's iterations on all.
    ///
    /// Source: Arthur and Vassilvitskii 2007; Lloyd 1982.
    pub(super) fn fit(
        vectors: &[f32],
        size: usize,
        codes: usize,
        iterations: usize,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let mut book = Self::new(size, choose_centres(vectors, size, codes, rng));
        for _ in 0..iterations {
            book = book.improve(vectors, rng);
        }
        book
    }

    fn new(size: usize, centres: Vec<f32>) -> Self {
        let half_lengths = centres
            .chunks_exact(size)
            .map(|centre| 0.5 * dot(centre, centre))
            .collect();
        Self {
            size,
            centres,
            half_lengths,
        }
    }

    /// Finds the nearest centre of each vector.
    pub(super) fn assign(&self, vectors: &[f32]) -> Vec<usize> {
        vectors
            .par_chunks(BLOCK * self.size)
            .flat_map_iter(|block| self.assign_block(block))
            .collect()
    }

    fn assign_block(&self, vectors: &[f32]) -> Vec<usize> {
        let codes = self.half_lengths.len();
        let count = vectors.len() / self.size;
        // The nearest centre has the largest product with the vector, less half its own squared length.
        let mut scores = Vec::with_capacity(count * codes);
        for _ in 0..count {
            scores.extend(self.half_lengths.iter().map(|half| -half));
        }
        add_product(
            &mut scores,
            vectors,
            &self.centres,
            (self.size, codes),
            Right::Transposed,
        );
        let best = |scores: &[f32]| {
            let better = |(best, high): (usize, f32), (code, score): (usize, &f32)| {
                if *score > high {
                    (code, *score)
                } else {
                    (best, high)
                }
            };
            scores.iter().enumerate().fold((0, f32::NEG_INFINITY), better).0
        };
        scores.chunks_exact(codes).map(best).collect()
    }

    /// Moves each centre to the mean of its vectors; one that has none to a random vector.
    fn improve(&self, vectors: &[f32], rng: &mut ChaCha8Rng) -> Self {
        let codes = self.half_lengths.len();
        let mut sums = vec![0.0_f64; self.centres.len()];
        let mut counts = vec![0.0_f64; codes];
        for (vector, code) in vectors.chunks_exact(self.size).zip(self.assign(vectors)) {
            counts[code] += 1.0;
            for (sum, value) in sums.iter_mut().skip(code * self.size).zip(vector) {
                *sum += f64::from(*value);
            }
        }
        let mut centres = Vec::with_capacity(self.centres.len());
        for (sum, count) in sums.chunks_exact(self.size).zip(counts) {
            if count > 0.0 {
                centres.extend(sum.iter().map(|value| narrow(value / count)));
            } else {
                centres.extend_from_slice(random_vector(vectors, self.size, rng));
            }
        }
        Self::new(self.size, centres)
    }
}

/// Chooses centres far from each other among a part of the vectors.
fn choose_centres(vectors: &[f32], size: usize, codes: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    const PART: usize = 20_000;
    let count = vectors.len() / size;
    let part: Vec<&[f32]> = (0..PART.min(count))
        .map(|_| random_vector(vectors, size, rng))
        .collect();
    let mut centres: Vec<f32> = part
        .first()
        .map_or_else(|| vec![0.0; size], |first| first.to_vec());
    let mut distances = vec![f32::INFINITY; part.len()];
    while centres.len() < codes * size {
        let newest = &centres[centres.len() - size..];
        for (distance, vector) in distances.iter_mut().zip(&part) {
            *distance = distance.min(squared_distance(vector, newest));
        }
        let total: f64 = distances.iter().map(|distance| f64::from(*distance)).sum();
        let mut left = f64::from(unit(rng)) * total;
        let chosen = distances.iter().position(|distance| {
            left -= f64::from(*distance);
            left < 0.0
        });
        // Where every vector is a centre already, centres repeat.
        let chosen = chosen.unwrap_or_else(|| below(rng, part.len()));
        match part.get(chosen) {
            Some(vector) => centres.extend_from_slice(vector),
            None => centres.resize(codes * size, 0.0),
        }
    }
    centres
}

fn random_vector<'a>(vectors: &'a [f32], size: usize, rng: &mut ChaCha8Rng) -> &'a [f32] {
    let start = below(rng, vectors.len() / size) * size;
    &vectors[start..start + size]
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounds to the nearest single-precision number"
)]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leading_space_holds_what_varies_most() {
        let (size, kept) = (12, 3);
        // Variances 12, 11, 10, then small ones, along the axes.
        let mut matrix = vec![0.0; size * size];
        for axis in 0..size {
            matrix[axis * size + axis] = if axis < kept { 12.0 - axis as f64 } else { 0.5 };
        }
        let space = leading_space(&matrix, size, kept);
        for row in space.chunks_exact(size) {
            let inside: f32 = row[..kept].iter().map(|value| value * value).sum();
            assert!((inside - 1.0).abs() < 1e-4, "{row:?}");
        }
    }
    use crate::random::{fork, normal};

    #[test]
    fn eigenvectors_rebuild_the_matrix() {
        let size = 12;
        let mut rng = fork(1, &[]);
        let half: Vec<f64> = (0..size * size).map(|_| f64::from(normal(&mut rng))).collect();
        let matrix: Vec<f64> = (0..size * size)
            .map(|at| half[at] + half[at % size * size + at / size])
            .collect();
        let (values, vectors) = eigen(matrix.clone(), size);
        for (at, expected) in matrix.iter().enumerate() {
            let (row, column) = (at / size, at % size);
            let rebuilt: f64 = (0..size)
                .map(|k| values[k] * vectors[row * size + k] * vectors[column * size + k])
                .sum();
            assert!((rebuilt - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn the_first_direction_is_the_one_of_most_variance() {
        let mut rng = fork(2, &[]);
        let vectors: Vec<f32> = (0..2000)
            .flat_map(|_| {
                let (long, short) = (normal(&mut rng) * 5.0, normal(&mut rng) * 0.1);
                [10.0 + 0.6 * long - 0.8 * short, -3.0 + 0.8 * long + 0.6 * short]
            })
            .collect();
        let projection = Projection::fit(&vectors, 2, 1);
        let direction = &projection.directions;
        assert!((direction[0] / direction[1] - 0.75).abs() < 0.01, "{direction:?}");
        let ends = projection.apply(&[10.0 + 3.0, -3.0 + 4.0, 10.0 - 3.0, -3.0 - 4.0]);
        assert!((ends[0] + ends[1]).abs() < 1e-5 && (ends[0].abs() - 1.0).abs() < 1e-5);
    }

    #[test]
    fn separate_heaps_get_separate_codes() {
        let mut rng = fork(3, &[]);
        let heaps = 10_usize;
        let vectors: Vec<f32> = (0..3000)
            .flat_map(|at| {
                let angle = (at % heaps) as f32 * 0.628;
                [
                    angle.cos() * 10.0 + normal(&mut rng) * 0.1,
                    angle.sin() * 10.0 + normal(&mut rng) * 0.1,
                ]
            })
            .collect();
        let book = Codebook::fit(&vectors, 2, heaps, 10, &mut rng);
        let codes = book.assign(&vectors);
        for (at, code) in codes.iter().enumerate() {
            assert_eq!(*code, codes[at % heaps], "vector {at}");
        }
        let mut first = codes[..heaps].to_vec();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), heaps);
    }

    #[test]
    fn the_same_seed_gives_the_same_codes() {
        let mut rng = fork(4, &[]);
        let vectors: Vec<f32> = (0..4000).map(|_| normal(&mut rng)).collect();
        let codes = |seed| Codebook::fit(&vectors, 8, 16, 5, &mut fork(seed, &[])).assign(&vectors);
        assert_eq!(codes(1), codes(1));
        assert_ne!(codes(1), codes(2));
    }

    #[test]
    fn fewer_vectors_than_codes_still_make_a_codebook() {
        let book = Codebook::fit(&[1.0, 2.0, 3.0, 4.0], 2, 8, 3, &mut fork(5, &[]));
        let codes = book.assign(&[1.0, 2.0, 3.0, 4.0]);
        assert_ne!(codes[0], codes[1]);
    }
}
