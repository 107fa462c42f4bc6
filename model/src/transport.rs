//! Optimal transport between two small sets: which word goes with which patch.

/// Inner passes of the proximal method.
///
/// Source: `ViLT`, `vilt/modules/objectives.py`, where `optimal_transport_dist` has `iteration=50`.
const ITERATIONS: usize = 50;

/// The weight of the proximal term.
///
/// Source: as [`ITERATIONS`], `beta=0.5`.
const BETA: f64 = 0.5;

/// A transport plan between two sets of uniform mass: how much of each row goes to each column.
///
/// Found by IPOT, an inexact proximal method that converges to the optimal plan. The word-patch alignment of
/// ViLT and the word-region alignment of UNITER are its cost between text and picture. Each row sums to
/// `1 / rows`; each column sums to `1 / columns` as far as the method has converged.
///
/// Source: Xie et al. 2018 (arXiv 1802.04307), algorithm 1, with one inner pass; Chen et al. 2020, UNITER
/// (arXiv 1909.11740), section 3.2; Kim et al. 2021, ViLT (arXiv 2102.03334), section 3.2.
///
/// # Examples
/// ```
/// use multiway_model::TransportPlan;
///
/// // The first word is near the second patch, and the second word near the first.
/// let plan = TransportPlan::new(&[vec![1.0, 0.1], vec![0.2, 1.0]]).unwrap();
/// assert!(plan.rows()[0][1] > 0.49 && plan.rows()[1][0] > 0.49);
/// assert!((plan.cost() - 0.15).abs() < 0.01);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TransportPlan {
    rows: Vec<Vec<f64>>,
    cost: f64,
}

impl TransportPlan {
    /// Finds the plan for the distances of each row to each column; none where there are none, their rows
    /// differ in length, or one is not finite or far above 1.
    ///
    /// # Units
    /// Distances are of the order of 1, as cosine distances are: from 0 to 2.
    #[must_use]
    pub fn new(distances: &[Vec<f32>]) -> Option<Self> {
        let columns = distances.first().map_or(0, Vec::len);
        let fits = |row: &Vec<f32>| row.len() == columns && row.iter().all(|distance| distance.is_finite());
        if columns == 0 || !distances.iter().all(fits) {
            return None;
        }
        let kernel = |distance: &f32| (-f64::from(*distance) / BETA).exp();
        let kernel: Vec<Vec<f64>> = distances
            .iter()
            .map(|row| row.iter().map(kernel).collect())
            .collect();
        let rows = iterate(&kernel, columns);
        let pairs = rows.iter().flatten().zip(distances.iter().flatten());
        let cost: f64 = pairs.map(|(mass, distance)| mass * f64::from(*distance)).sum();
        // Distances far above 1 leave no number of the kernel above 0.
        cost.is_finite().then_some(Self { rows, cost })
    }

    /// Returns the mass that goes from each row to each column.
    #[must_use]
    pub fn rows(&self) -> &[Vec<f64>] {
        &self.rows
    }

    /// Returns the mean distance over which the mass goes: the alignment's loss in UNITER and ViLT.
    #[must_use]
    pub fn cost(&self) -> f64 {
        self.cost
    }
}

/// Runs the proximal iterations, all of them from the plan of ones.
///
/// The scaling of rows comes last, so that every row has exactly its share.
fn iterate(kernel: &[Vec<f64>], columns: usize) -> Vec<Vec<f64>> {
    let (row_mass, column_mass) = (1.0 / kernel.len() as f64, 1.0 / columns as f64);
    let mut plan = vec![vec![1.0; columns]; kernel.len()];
    let mut row_scale = vec![row_mass; kernel.len()];
    for _ in 0..ITERATIONS {
        for (row, kernel) in plan.iter_mut().zip(kernel) {
            row.iter_mut()
                .zip(kernel)
                .for_each(|(mass, kernel)| *mass *= kernel);
        }
        let mut column_scale = vec![0.0; columns];
        for (row, scale) in plan.iter().zip(&row_scale) {
            let sums = column_scale.iter_mut().zip(row);
            sums.for_each(|(sum, mass)| *sum += scale * mass);
        }
        column_scale.iter_mut().for_each(|sum| *sum = column_mass / *sum);
        for (row, scale) in plan.iter_mut().zip(&mut row_scale) {
            let scaled = row.iter().zip(&column_scale);
            *scale = row_mass / scaled.map(|(mass, column)| mass * column).sum::<f64>();
            let masses = row.iter_mut().zip(&column_scale);
            masses.for_each(|(mass, column)| *mass *= *scale * column);
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distances(rows: usize, columns: usize, seed: u64) -> Vec<Vec<f32>> {
        let all = crate::testing::random(&[rows, columns], seed);
        let all: Vec<Vec<f32>> = all.to_vec2().unwrap();
        // From the range of the random numbers, -1.5 to 1.5, to that of cosine distances.
        let row = |row: &Vec<f32>| row.iter().map(|x| (x + 1.5) / 1.5).collect();
        all.iter().map(row).collect()
    }

    /// Finds the least cost of a one-to-one plan by trying all: the optimum, by Birkhoff's theorem.
    fn least(distances: &[Vec<f32>], taken: &mut Vec<usize>) -> f64 {
        let Some(row) = distances.get(taken.len()) else {
            return 0.0;
        };
        let mut best = f64::INFINITY;
        for (column, distance) in row.iter().enumerate() {
            if !taken.contains(&column) {
                taken.push(column);
                let cost = f64::from(*distance) / distances.len() as f64;
                best = best.min(cost + least(distances, taken));
                taken.pop();
            }
        }
        best
    }

    #[test]
    fn each_row_and_each_column_has_its_share() {
        for (rows, columns, seed) in [(1, 5, 1), (5, 1, 2), (7, 64, 3), (40, 196, 4)] {
            let plan = TransportPlan::new(&distances(rows, columns, seed)).unwrap();
            let (row_share, column_share) = (1.0 / rows as f64, 1.0 / columns as f64);
            for row in plan.rows() {
                assert!(row.iter().all(|mass| *mass >= 0.0));
                assert!((row.iter().sum::<f64>() - row_share).abs() < 1e-12);
            }
            for column in 0..columns {
                let sum: f64 = plan.rows().iter().map(|row| row[column]).sum();
                assert!(
                    (sum / column_share - 1.0).abs() < 0.002,
                    "{sum} of {column_share}"
                );
            }
        }
    }

    #[test]
    fn a_permutation_is_found() {
        let order = [3, 0, 4, 1, 2];
        let distance = |(row, column)| if order[row] == column { 0.1 } else { 0.9 };
        let rows = (0..5).map(|row| (0..5).map(|column| distance((row, column))).collect());
        let plan = TransportPlan::new(&rows.collect::<Vec<_>>()).unwrap();
        for (row, column) in order.into_iter().enumerate() {
            assert!((plan.rows()[row][column] - 0.2).abs() < 1e-6);
        }
        assert!((plan.cost() - 0.1).abs() < 1e-6);
    }

    #[test]
    fn the_cost_is_near_the_optimum_and_below_that_of_spreading_evenly() {
        for seed in 1..40 {
            let distances = distances(5, 5, seed);
            let plan = TransportPlan::new(&distances).unwrap();
            let even = distances.iter().flatten().map(|x| f64::from(*x)).sum::<f64>() / 25.0;
            let best = least(&distances, &mut Vec::new());
            let cost = plan.cost();
            assert!(cost < even, "{cost} of {even}");
            // The columns are not exact, so that the cost may lie a little below.
            assert!(
                cost > best - 0.001 && cost < best + 0.01,
                "{cost}, the optimum is {best}"
            );
        }
    }

    #[test]
    fn what_has_no_plan_is_told_apart() {
        assert_eq!(TransportPlan::new(&[]), None);
        assert_eq!(TransportPlan::new(&[Vec::new()]), None);
        assert_eq!(TransportPlan::new(&[vec![0.0, 1.0], vec![0.0]]), None);
        assert_eq!(TransportPlan::new(&[vec![f32::NAN]]), None);
        assert_eq!(TransportPlan::new(&[vec![1e6, 1e6]]), None);
    }
}
