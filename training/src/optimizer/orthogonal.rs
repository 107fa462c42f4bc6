//! The nearest semi-orthogonal matrix, approximately: what Muon makes of a matrix's momentum.
//!
//! Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks": five steps of a
//! Newton-Schulz iteration with the coefficients given there, which bring every singular value close to one.

use multiway_model::kernels::{Factor, Products};

const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
const STEPS: usize = 5;

/// Replaces a row-major matrix `[rows, columns]` by one of the same singular vectors, whose singular values
/// are near 1. The iteration bears factors in `bf16`, in which it was published.
pub(super) fn orthogonalise(values: &mut [f32], rows: usize, columns: usize, products: Products) {
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
    let is_tall = rows > columns;
    let (short, long) = (rows.min(columns), rows.max(columns));
    let mut x = if is_tall {
        transposed(values, rows, columns)
    } else {
        values.to_vec()
    }; // [short, long]
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..STEPS {
        let (mut gram, mut factor) = (vec![0.0; short * short], vec![0.0; short * short]);
        let (rows, square) = (Factor::Along(&x), [short, short, short]);
        products.product(rows, rows, [short, long, short], &mut gram);
        products.product(Factor::Along(&gram), Factor::Down(&gram), square, &mut factor);
        for (factor, gram) in factor.iter_mut().zip(&gram) {
            *factor = c * *factor + b * gram;
        }
        let mut next = vec![0.0; short * long];
        products.product(
            Factor::Along(&factor),
            Factor::Down(&x),
            [short, short, long],
            &mut next,
        );
        for (x, next) in x.iter_mut().zip(&next) {
            *x = a * *x + next;
        }
    }
    values.copy_from_slice(&if is_tall { transposed(&x, short, long) } else { x });
}

fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let column = |column: usize| values.iter().skip(column).step_by(columns).take(rows);
    (0..columns).flat_map(column).copied().collect()
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
            orthogonalise(&mut values, rows, columns, Products::F32);
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
        orthogonalise(&mut zeros, 3, 4, Products::F32);
        assert!(zeros.iter().all(|x| *x == 0.0));
    }
}
