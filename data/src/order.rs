//! Which records are read, and in what order.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// From how many files for each shard on a shard has whole files.
const FILES_OF_SHARD: usize = 4;

/// One of several parts of a data set that have no record in common, and all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) count: usize,
}

impl Shard {
    /// Tells whether shards are whole files: where there are many, no file is read by two.
    pub(crate) fn has_whole_files(self, files: usize) -> bool {
        files / self.count >= FILES_OF_SHARD
    }

    /// Tells whether a file is of this shard, where shards are whole files.
    pub(crate) fn has_file(self, file: usize) -> bool {
        file % self.count == self.index
    }

    /// Tells whether a row of a file is of this shard, both counted from 0. Each file begins with another
    /// shard, so that files of one row are not all of the first.
    pub(crate) fn has_row(self, file: usize, row: u64) -> bool {
        (file as u64).wrapping_add(row) % self.count as u64 == self.index as u64
    }
}

/// Another order of the records, the same for the same seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shuffle {
    pub(crate) seed: u64,
    /// How many records that follow each other are mixed.
    pub(crate) buffer: usize,
}

impl Shuffle {
    /// Mixes the files.
    pub(crate) fn files<T>(self, files: &mut [T]) {
        self.mix("files", files);
    }

    /// Mixes records that were read from a place on.
    pub(crate) fn records<T>(self, file: usize, rows: u64, records: &mut [T]) {
        self.mix(&format!("records {file} {rows}"), records);
    }

    fn mix<T>(self, what: &str, items: &mut [T]) {
        let seed = Sha256::digest(format!("{} {what}", self.seed));
        let mut rng = ChaCha8Rng::from_seed(seed.into());
        for last in (1..items.len()).rev() {
            items.swap(last, below(&mut rng, last + 1));
        }
    }
}

/// Draws a number below `end`.
fn below(rng: &mut ChaCha8Rng, end: usize) -> usize {
    let product = u128::from(rng.next_u64()) * end as u128;
    usize::try_from(product >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_the_same_for_a_seed_and_another_for_others() {
        let order = |seed, place: u64| {
            let shuffle = Shuffle { seed, buffer: 9 };
            let mut items: Vec<u32> = (0..50).collect();
            shuffle.records(1, place, &mut items);
            items
        };
        assert_eq!(order(1, 2), order(1, 2));
        assert_ne!(order(1, 2), order(2, 2));
        assert_ne!(order(1, 2), order(1, 3));
        let mut sorted = order(1, 2);
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..50));
    }

    #[test]
    fn every_place_is_as_likely_as_any_other() {
        let mut counts = [0; 8];
        for seed in 0..8000 {
            let mut items: Vec<usize> = (0..8).collect();
            Shuffle { seed, buffer: 8 }.files(&mut items);
            counts[items.iter().position(|item| *item == 3).unwrap()] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
    }
}
