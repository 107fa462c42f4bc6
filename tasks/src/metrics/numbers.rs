//! Counts as numbers, their shares and means.

/// Returns a count as a number; counts stay far below 2^53.
pub(super) fn count(items: usize) -> f64 {
    items as f64
}

/// Returns a part of a whole; 0 of nothing.
pub(super) fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        count(part) / count(whole)
    }
}

/// Returns the mean of numbers; 0 of none.
pub(super) fn mean(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, items) = numbers
        .into_iter()
        .fold((0.0, 0), |(sum, items), number| (sum + number, items + 1));
    if items == 0 { 0.0 } else { sum / count(items) }
}
