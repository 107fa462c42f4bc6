//! Sampling from a row of logits at a temperature, without a copy of the row.

use super::simd::{exp, multiversion};

/// How many exponentials are summed in `f32` before their sum is added in `f64`.
const SUMMED: usize = 1024;

/// A row of logits at a temperature: a logit weighs `exp((logit - highest) / temperature)`, the highest one.
#[derive(Clone, Copy, Debug)]
pub struct WeighedRow<'a> {
    logits: &'a [f32],
    highest: f32,
    temperature: f32,
    /// One over the temperature.
    factor: f32,
}

impl<'a> WeighedRow<'a> {
    /// Weighs a row at a temperature above zero.
    ///
    /// # Examples
    /// ```
    /// use multiway_model::kernels::WeighedRow;
    ///
    /// let row = WeighedRow::new(&[0.0, f32::NEG_INFINITY, 0.0], 0.7);
    /// assert_eq!(row.total(), 2.0);
    /// assert_eq!(row.draw(0.4), Some(0));
    /// assert_eq!(row.draw(0.6), Some(2));
    /// ```
    #[must_use]
    pub fn new(logits: &'a [f32], temperature: f32) -> Self {
        Self {
            logits,
            highest: maximum(logits),
            temperature,
            // Of the smallest numbers there is no such factor, and infinity times zero is not a number.
            factor: (1.0 / temperature).min(f32::MAX),
        }
    }

    /// Returns the logits.
    #[must_use]
    pub fn logits(&self) -> &'a [f32] {
        self.logits
    }

    /// Weighs a single logit of the row, in 64 bits.
    #[must_use]
    pub fn weight(&self, logit: f32) -> f64 {
        (f64::from(logit - self.highest) / f64::from(self.temperature)).exp()
    }

    /// Finds the logit that has a share of the highest one's weight.
    #[must_use]
    pub fn logit_of_share(&self, share: f64) -> f64 {
        f64::from(self.highest) + f64::from(self.temperature) * share.ln()
    }

    /// Sums the weights, to within a few units in the last place of `f32`.
    #[must_use]
    pub fn total(&self) -> f64 {
        sum_of_exponentials(self.logits, self.highest, self.factor)
    }

    /// Finds the token at a place from 0 to 1 on the line of all weights, one behind the other; nothing where
    /// nothing weighs anything.
    ///
    /// The order of sums depends on the number of logits alone, so that the token is batch-invariant.
    #[must_use]
    pub fn draw(&self, place: f64) -> Option<u32> {
        let sum = |part: &[f32]| sum_of_exponentials(part, self.highest, self.factor);
        let parts = || (0..).step_by(SUMMED).zip(self.logits.chunks(SUMMED));
        let sums: Vec<f64> = parts().map(|(_, part)| sum(part)).collect();
        let mut target = place * sums.iter().sum::<f64>();
        // Rounding can leave a little over; it belongs to the last token that can be drawn at all.
        let mut last = None;
        for ((first, part), sum) in parts().zip(sums) {
            if sum > 0.0 {
                last = Some((first, part, target));
                if target < sum {
                    break;
                }
            }
            target -= sum;
        }
        let (first, part, mut target) = last?;
        let mut drawn = None;
        for (id, logit) in (first..).zip(part) {
            let weight = f64::from(exp((logit - self.highest) * self.factor));
            if weight > 0.0 {
                drawn = Some(id);
                target -= weight;
                if target < 0.0 {
                    break;
                }
            }
        }
        drawn
    }
}

multiversion! {
    /// Finds the highest value, ignoring NaN.
    pub(super) fn maximum(values: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; 64];
        let (whole, rest) = values.as_chunks::<64>();
        for chunk in whole {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = if *value > *lane { *value } else { *lane };
            }
        }
        lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
    }
}

multiversion! {
    /// Sums `exp((value - highest) * factor)`, in an order that depends on the length alone.
    pub(super) fn sum_of_exponentials(values: &[f32], highest: f32, factor: f32) -> f64 {
        let mut total = 0.0;
        for part in values.chunks(SUMMED) {
            let mut lanes = [0.0_f32; 64];
            let (whole, rest) = part.as_chunks::<64>();
            for chunk in whole {
                for (lane, value) in lanes.iter_mut().zip(chunk) {
                    *lane += exp((value - highest) * factor);
                }
            }
            let rest: f32 = rest.iter().map(|value| exp((value - highest) * factor)).sum();
            total += f64::from(lanes.iter().sum::<f32>() + rest);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The specification: every weight, in 64 bits.
    fn weights(logits: &[f32], temperature: f32) -> Vec<f64> {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |logit: &f32| (f64::from(logit - highest) / f64::from(temperature)).exp();
        logits.iter().map(weight).collect()
    }

    proptest! {
        #[test]
        fn a_draw_takes_the_token_at_its_place(
            logits in prop::collection::vec(prop_oneof![4 => -30.0_f32..30.0, 1 => Just(f32::NEG_INFINITY)], 1..4000),
            temperature in 0.05_f32..20.0,
            place in 0.0_f64..1.0,
        ) {
            prop_assume!(logits.iter().any(|logit| logit.is_finite()));
            let weights = weights(&logits, temperature);
            let row = WeighedRow::new(&logits, temperature);
            let total: f64 = weights.iter().sum();
            prop_assert!((row.total() - total).abs() <= 1e-5 * total, "{} {total}", row.total());
            let drawn = row.draw(place).unwrap() as usize;
            prop_assert!(logits[drawn].is_finite());
            let before: f64 = weights[..drawn].iter().sum();
            let (start, end) = (before / total, (before + weights[drawn]) / total);
            prop_assert!(start - 1e-5 <= place && place <= end + 1e-5, "{place} is not in {start}..{end}");
        }
    }

    #[test]
    fn what_is_left_over_belongs_to_the_last_token_that_weighs_anything() {
        let logits = [vec![0.0; 1500], vec![f32::NEG_INFINITY; 1500]].concat();
        let row = WeighedRow::new(&logits, 1.0);
        for place in [1.0, 1.0 + 1e-9, 2.0] {
            assert_eq!(row.draw(place), Some(1499));
        }
        assert_eq!(row.draw(0.0), Some(0));
        assert_eq!(WeighedRow::new(&[], 1.0).draw(0.5), None);
    }

    #[test]
    fn the_coldest_draw_takes_the_highest() {
        let logits = [1.0, 1.5, 1.5 - f32::EPSILON];
        for temperature in [1e-30, f32::from_bits(1)] {
            let row = WeighedRow::new(&logits, temperature);
            assert_eq!([row.draw(0.0), row.draw(0.99)], [Some(1); 2]);
        }
    }
}
