//! Counts of right answers.

use std::fmt;

use super::interval::{Interval, wilson_interval};
use super::numbers::share;

/// Counts right answers among all answers.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::Tally;
///
/// let tally: Tally = [true, false, true, true].into_iter().collect();
/// assert_eq!(tally.to_string(), "0.750 (3 of 4)");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// The number of right answers.
    pub right: usize,
    /// The number of all answers.
    pub total: usize,
}

impl Tally {
    /// Counts one more answer.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::metrics::Tally;
    ///
    /// let mut tally = Tally::default();
    /// tally.add(true);
    /// assert_eq!(tally, Tally { right: 1, total: 1 });
    /// ```
    pub fn add(&mut self, right: bool) {
        self.right += usize::from(right);
        self.total += 1;
    }

    /// Returns the share of right answers from 0 to 1; 0 without answers.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::metrics::Tally;
    ///
    /// assert_eq!(Tally { right: 3, total: 4 }.rate(), 0.75);
    /// ```
    pub fn rate(&self) -> f64 {
        share(self.right, self.total)
    }

    /// Returns the [interval](wilson_interval) that holds the true share with 95 % confidence.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::metrics::Tally;
    ///
    /// let interval = Tally { right: 3, total: 4 }.interval();
    /// assert!(interval.low > 0.30 && interval.high < 0.96);
    /// ```
    pub fn interval(&self) -> Interval {
        wilson_interval(self.right, self.total)
    }
}

impl FromIterator<bool> for Tally {
    fn from_iter<I: IntoIterator<Item = bool>>(answers: I) -> Self {
        let mut tally = Self::default();
        answers.into_iter().for_each(|right| tally.add(right));
        tally
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ({} of {})", self.rate(), self.right, self.total)
    }
}
