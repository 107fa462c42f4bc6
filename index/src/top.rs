//! The best of the vectors that were seen.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Names a vector that was found, and how near it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IndexMatch {
    /// Its position in the index.
    pub position: usize,
    /// The cosine similarity, from -1 to 1.
    pub score: f32,
}

/// A vector that was seen. The greatest is the worst, which a heap gives first.
#[derive(Debug, Clone, Copy)]
struct Seen {
    score: f32,
    position: usize,
}

impl Ord for Seen {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = other.score.total_cmp(&self.score);
        by_score.then(self.position.cmp(&other.position))
    }
}

impl PartialOrd for Seen {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Seen {}

/// Holds at most `count` of the vectors that were seen: those of the highest scores, of equal scores those of
/// the lowest positions. What it holds does not depend on the order in which they were seen.
#[derive(Debug, Clone)]
pub(crate) struct Top {
    count: usize,
    heap: BinaryHeap<Seen>,
    /// A score that is lower is not held: nothing is lower until there are `count`.
    least: f32,
}

impl Top {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            count,
            heap: BinaryHeap::new(),
            least: f32::NEG_INFINITY,
        }
    }

    /// Sees a vector.
    #[inline]
    pub(crate) fn offer(&mut self, position: usize, score: f32) {
        // Most vectors go by here.
        if score < self.least {
            return;
        }
        self.hold(Seen {
            score: ordered(score),
            position,
        });
    }

    fn hold(&mut self, seen: Seen) {
        if self.heap.len() < self.count {
            self.heap.push(seen);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && seen < *worst
        {
            *worst = seen;
        }
        if let Some(worst) = self.heap.peek().filter(|_| self.heap.len() == self.count) {
            self.least = worst.score;
        }
    }

    /// Sees what another one holds.
    pub(crate) fn absorb(&mut self, other: Self) {
        for seen in other.heap {
            self.offer(seen.position, seen.score);
        }
    }

    /// Lists what it holds, the best first.
    pub(crate) fn into_matches(self) -> Vec<IndexMatch> {
        let best_first = self.heap.into_sorted_vec().into_iter();
        best_first
            .map(|Seen { score, position }| IndexMatch {
                position,
                // Of unit vectors it is a cosine; rounding must not make more of it.
                score: score.clamp(-1.0, 1.0),
            })
            .collect()
    }
}

/// Orders NaN lowest of all, and both zeros as one.
fn ordered(score: f32) -> f32 {
    if score.is_nan() {
        f32::NEG_INFINITY
    } else {
        score + 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_held_is_the_start_of_the_whole_order(
            scores in prop::collection::vec(prop::sample::select(vec![-0.5_f32, 0.0, -0.0, 0.25, 0.5, f32::NAN]), 0..60),
            count in 0..70_usize,
            parts in 1..5_usize,
        ) {
            let mut all: Vec<(usize, f32)> = scores.iter().copied().map(ordered).enumerate().collect();
            all.sort_by(|(_, a), (_, b)| b.partial_cmp(a).unwrap());
            all.truncate(count);
            let mut tops = vec![Top::new(count); parts];
            for (position, score) in scores.iter().enumerate().rev() {
                tops[position % parts].offer(position, *score);
            }
            let mut whole = Top::new(count);
            tops.into_iter().for_each(|top| whole.absorb(top));
            let found: Vec<(usize, f32)> = whole.into_matches().iter().map(|found| (found.position, found.score)).collect();
            let expected: Vec<(usize, f32)> = all.into_iter().map(|(position, score)| (position, score.clamp(-1.0, 1.0))).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
