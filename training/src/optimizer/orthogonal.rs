//! The nearest semi-orthogonal matrix, approximately: what Muon makes of a matrix's momentum.
//!
//! Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks": five steps of a
//! Newton-Schulz iteration with the coefficients given there, which bring every singular value close to one.

use gemm::Parallelism;

const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
const STEPS: usize = 5;

/// Replaces a row-major matrix `[rows, columns]` by one of the same singular vectors, whose singular values are near 1.
pub(super) fn orthogonalise(values: &mut [f32], rows: usize, columns: usize) {
    let norm = values
        .iter()
        .map(|x| f64::from(*x) * f64::from(*x))
        .sum::<f64>()
        .sqrt();
    if norm <= f64::from(f32::MIN_POSITIVE) || values.len() != rows * columns {
        return;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the inverse of a norm of f32 values"
    )]
    let inverse = (1.0 / norm) as f32;
    for value in values.iter_mut() {
        *value *= inverse;
    }
    // The products are formed on the shorter side.
    let wide = rows <= columns;
    let (short, long) = if wide { (rows, columns) } else { (columns, rows) };
    // Element (i, j) of the matrix with the short side first lies at i * step + j * stride.
    let (step, stride) = if wide { (columns, 1) } else { (1, columns) };
    let mut next = vec![0.0; values.len()];
    let (mut gram, mut square) = (vec![0.0; short * short], vec![0.0; short * short]);
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..STEPS {
        multiply(
            &mut gram,
            (short, 1),
            &*values,
            (step, stride),
            &*values,
            (stride, step),
            (short, long, short),
        );
        multiply(
            &mut square,
            (short, 1),
            &gram,
            (short, 1),
            &gram,
            (short, 1),
            (short, short, short),
        );
        for (square, gram) in square.iter_mut().zip(&gram) {
            *square = c * *square + b * gram;
        }
        multiply(
            &mut next,
            (step, stride),
            &square,
            (short, 1),
            &*values,
            (step, stride),
            (short, short, long),
        );
        for (value, next) in values.iter_mut().zip(&next) {
            *value = a * *value + next;
        }
    }
}

/// Computes `out = left right` of matrices `[m, k]` and `[k, n]`; strides are given row first.
#[expect(
    unsafe_code,
    reason = "the gemm crate takes raw pointers; every extent is asserted first"
)]
#[expect(
    clippy::cast_possible_wrap,
    reason = "strides are far below the limit of isize: they index slices"
)]
fn multiply(
    out: &mut [f32],
    (out_row, out_column): (usize, usize),
    left: &[f32],
    (left_row, left_column): (usize, usize),
    right: &[f32],
    (right_row, right_column): (usize, usize),
    (m, k, n): (usize, usize, usize),
) {
    let fits = |length: usize, rows: usize, columns: usize, row: usize, column: usize| {
        rows > 0 && columns > 0 && (rows - 1) * row + (columns - 1) * column < length
    };
    assert!(
        fits(out.len(), m, n, out_row, out_column)
            && fits(left.len(), m, k, left_row, left_column)
            && fits(right.len(), k, n, right_row, right_column),
        "extents of a matrix product"
    );
    // SAFETY: the three matrices lie inside their slices (asserted above), and `out` is borrowed exclusively.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            out_column as isize,
            out_row as isize,
            false,
            left.as_ptr(),
            left_column as isize,
            left_row as isize,
            right.as_ptr(),
            right_column as isize,
            right_row as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{between, fork};

    /// The products of all pairs of rows, or of columns where these are fewer.
    fn gram(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        let (short, long) = (rows.min(columns), rows.max(columns));
        let at = |i: usize, j: usize| {
            if rows <= columns {
                values[i * columns + j]
            } else {
                values[j * columns + i]
            }
        };
        let pairs = (0..short * short).map(|pair| (pair / short, pair % short));
        pairs
            .map(|(i, k)| (0..long).map(|j| at(i, j) * at(k, j)).sum())
            .collect()
    }

    #[test]
    fn singular_values_come_close_to_one_whatever_the_shape_and_size() {
        for (rows, columns, size) in [(8, 8, 1.0), (6, 20, 1e-4), (20, 6, 1e3)] {
            let mut rng = fork(7, &[rows as u64, columns as u64]);
            let mut values: Vec<f32> = (0..rows * columns)
                .map(|_| size * between(&mut rng, -1.0, 1.0))
                .collect();
            orthogonalise(&mut values, rows, columns);
            let short = rows.min(columns);
            let gram = gram(&values, rows, columns);
            let trace: f32 = (0..short).map(|i| gram[i * short + i]).sum();
            let mean = trace / short as f32;
            assert!(
                (0.5..1.5).contains(&mean),
                "{rows} x {columns}: mean square {mean}"
            );
            for (place, value) in gram.iter().enumerate() {
                let limit = if place / short == place % short { 1.6 } else { 0.5 };
                assert!(value.abs() < limit, "{rows} x {columns}: {value} at {place}");
            }
        }
    }

    #[test]
    fn nothing_stays_nothing() {
        let mut zeros = vec![0.0; 12];
        orthogonalise(&mut zeros, 3, 4);
        assert!(zeros.iter().all(|x| *x == 0.0));
    }
}
