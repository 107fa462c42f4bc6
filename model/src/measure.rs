//! What this machine can do, and how near to it the kernels come.
//!
//! [`Machine::measure`] finds the ceilings: how fast memory and caches are read, and how many operations the
//! threads do in registers. [`kernels`] times each kernel alone, at the shapes of a model;
//! [`KernelTiming::share`] puts one beside the ceilings. [`Prediction`] adds the kernels of a whole step, or
//! of an encoding, up: the least time that it could take.
//!
//! Both work on the threads of the current rayon pool, as the kernels do.
//!
//! Source: the roofline of Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance
//! Model for Multicore Architectures" (CACM 52(4), 2009).

mod cost;
mod kernels;
mod machine;
mod peaks;
mod prediction;

use std::time::Instant;

pub use cost::Cost;
pub use kernels::{KernelTiming, Workload, kernels};
pub use machine::Machine;
pub use prediction::{Prediction, StepWork};

/// Returns the middle of some numbers, of an even count the lower of the two; zero of none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or(0.0)
}

/// Returns the seconds that `work` takes.
fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_in_the_middle_whatever_the_order() {
        assert!(median(vec![3.0, 1.0, 2.0]).total_cmp(&2.0).is_eq());
        assert!(median(vec![4.0, 1.0, 3.0, 2.0]).total_cmp(&2.0).is_eq());
        assert!(median(Vec::new()).total_cmp(&0.0).is_eq());
    }
}
