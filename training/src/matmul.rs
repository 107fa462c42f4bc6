//! Matrix products on slices, on the calling thread.

#![expect(
    unsafe_code,
    reason = "the product is computed by a library that takes pointers; see the safety comment"
)]

use gemm::Parallelism;

/// How the right matrix lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// `[k, n]`, row by row.
    Plain,
    /// `[n, k]`, row by row.
    Transposed,
}

/// Adds `left` times `right` to `sum`.
///
/// # Shapes
///
/// `sum` `[m, n]`, `left` `[m, k]`, `right` `[k, n]` or its transpose; `m` is as many rows as `left` has.
/// Elements beyond whole rows of the shorter side are left alone.
pub(crate) fn add_product(
    sum: &mut [f32],
    left: &[f32],
    right: &[f32],
    (k, n): (usize, usize),
    layout: Right,
) {
    if k == 0 || n == 0 || right.len() < k * n {
        return;
    }
    let m = (left.len() / k).min(sum.len() / n);
    let strides = |columns: usize| isize::try_from(columns).unwrap_or(isize::MAX);
    let (right_column, right_row) = match layout {
        Right::Plain => (1, strides(n)),
        Right::Transposed => (strides(k), 1),
    };
    // SAFETY: the slices hold at least m * n, m * k and k * n elements, which the sizes and strides stay
    // within; `sum` is borrowed mutably, so it overlaps neither of the others.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            sum.as_mut_ptr(),
            1,
            strides(n),
            true,
            left.as_ptr(),
            1,
            strides(k),
            right.as_ptr(),
            right_column,
            right_row,
            1.0_f32,
            1.0_f32,
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
    use crate::random::{fork, normal};

    #[test]
    fn products_equal_the_sum_of_products() {
        let mut rng = fork(1, &[]);
        for (m, k, n) in [(1, 1, 1), (3, 5, 7), (64, 33, 20), (17, 128, 65)] {
            let mut random = |count: usize| (0..count).map(|_| normal(&mut rng)).collect::<Vec<f32>>();
            let (left, right, start) = (random(m * k), random(k * n), random(m * n));
            let transposed: Vec<f32> = (0..n * k).map(|at| right[(at % k) * n + at / k]).collect();
            let mut found = start.clone();
            add_product(&mut found, &left, &right, (k, n), Right::Plain);
            let mut from_transposed = start.clone();
            add_product(
                &mut from_transposed,
                &left,
                &transposed,
                (k, n),
                Right::Transposed,
            );
            for row in 0..m {
                for column in 0..n {
                    let product: f32 = (0..k).map(|at| left[row * k + at] * right[at * n + column]).sum();
                    let at = row * n + column;
                    assert!((found[at] - start[at] - product).abs() < 1e-4);
                    assert!((from_transposed[at] - start[at] - product).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn too_short_a_matrix_changes_nothing() {
        let mut sum = [1.0; 4];
        add_product(&mut sum, &[1.0; 4], &[1.0; 3], (2, 2), Right::Plain);
        add_product(&mut sum, &[], &[1.0; 4], (2, 2), Right::Plain);
        add_product(&mut sum, &[1.0; 4], &[], (0, 2), Right::Plain);
        assert!(sum.iter().all(|value| (value - 1.0).abs() < f32::EPSILON));
    }
}
