//! Times search: `cargo bench -p multiway-index --bench search [-- VECTORS WIDTH]`, a million of 256 unless
//! said otherwise.
//!
//! Vectors lie around random directions, as embeddings of pictures do, and queries around the same ones.
//! What is printed is the median of the rounds, per query; the share is that of the rate at which the same
//! threads read the rows without computing anything but a sum.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::thread::{self, available_parallelism};
use std::time::Instant;

use multiway_index::{
    ElementType, IndexBuilder, IndexEntry, IndexError, IndexMatch, IndexSpec, SearchOptions, VectorIndex,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const ROUNDS: usize = 9;
/// The directions that vectors lie around: one for each of so many vectors.
const CLUSTER: usize = 500;
/// Queries that come together.
const BATCH: usize = 16;
const QUERIES: usize = 64;
/// How far a vector is from its direction.
const SPREAD: f32 = 0.7;

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok());
    let (count, width) = (numbers.next().unwrap_or(1_000_000), numbers.next().unwrap_or(256));
    let folder = tempfile::tempdir()?;
    println!("{count} vectors of {width}, {} threads", threads());
    for element in ElementType::ALL {
        let path = folder.path().join(element.name());
        let started = Instant::now();
        build(&path, count, width, element)?;
        println!(
            "{element}: built in {:.1} s, with lists",
            started.elapsed().as_secs_f64()
        );
        let started = Instant::now();
        let index = VectorIndex::open(&path)?;
        println!(
            "  opened in {:.3} ms, {} lists",
            started.elapsed().as_secs_f64() * 1e3,
            index.lists()
        );
        measure(&index, &path)?;
        std::fs::remove_file(&path)?;
    }
    Ok(())
}

fn threads() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Makes random numbers around 0.
fn direction(rng: &mut ChaCha8Rng, width: usize) -> Vec<f32> {
    (0..width)
        .map(|_| (rng.next_u32() >> 8) as f32 / 16_777_216.0 - 0.5)
        .collect()
}

/// Makes vectors around random directions, the same ones for the same width.
struct Around {
    rng: ChaCha8Rng,
    directions: Vec<Vec<f32>>,
}

impl Around {
    fn new(seed: u64, count: usize, width: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let directions = (0..count.div_ceil(CLUSTER))
            .map(|_| direction(&mut rng, width))
            .collect();
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { rng, directions }
    }

    fn next(&mut self) -> Vec<f32> {
        let number = self.rng.next_u32() as usize % self.directions.len();
        let mut vector = self.directions[number].clone();
        let noise = direction(&mut self.rng, vector.len());
        vector
            .iter_mut()
            .zip(noise)
            .for_each(|(value, noise)| *value += SPREAD * noise);
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|value| *value /= length);
        vector
    }
}

fn build(path: &Path, count: usize, width: usize, element: ElementType) -> Result<(), Box<dyn Error>> {
    let spec = IndexSpec::new("bench", width, element).approximate(true);
    let mut builder = IndexBuilder::open(path, spec)?;
    let mut vectors = Around::new(1, count, width);
    for number in 0..count {
        builder.push(&IndexEntry::new(format!("{number}.png")), &vectors.next())?;
    }
    builder.finish()?;
    Ok(())
}

fn measure(index: &VectorIndex, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut around = Around::new(2, index.len(), index.width());
    let queries: Vec<Vec<f32>> = (0..QUERIES).map(|_| around.next()).collect();
    let options = SearchOptions::new(10);
    let one = median(|round| index.search(&queries[round..=round], options).map(drop))?;
    let together = median(|_| index.search(&queries[..BATCH], options).map(drop))? / BATCH as f64;
    // What exact search reads: the rows, and of int8 the scales. They are at the start of the file.
    let row = match index.element() {
        ElementType::F16 => 2 * index.width(),
        _ => index.width() + size_of::<f32>(),
    };
    let mut bytes = std::fs::read(path)?;
    bytes.truncate(index.len() * row);
    let read = median(|_| {
        thread::scope(|scope| {
            for part in bytes.chunks(bytes.len().div_ceil(threads())) {
                scope.spawn(|| black_box(sum(part)));
            }
        });
        Ok::<(), IndexError>(())
    })?;
    let rate = bytes.len() as f64 / 1e9;
    println!(
        "  exact, one query: {:.1} ms, {:.1} GB/s, {:.0} % of {:.1} GB/s",
        one * 1e3,
        rate / one,
        100.0 * read / one,
        rate / read
    );
    println!("  exact, {BATCH} queries together: {:.1} ms each", together * 1e3);
    let exact = index.search(&queries, options)?;
    for probes in [1, 4, 16, 32, 64] {
        let options = options.approximate(probes);
        let seconds = median(|round| index.search(&queries[round..=round], options).map(drop))?;
        let found = index.search(&queries, options)?;
        println!(
            "  approximate, {probes} lists: {:.2} ms, recall@10 {:.3}",
            seconds * 1e3,
            recall(&exact, &found)
        );
    }
    Ok(())
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<8>().0.iter();
    words.fold(0, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
}

/// Returns the median time of the rounds in seconds.
fn median<E>(mut work: impl FnMut(usize) -> Result<(), E>) -> Result<f64, E> {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let started = Instant::now();
        work(round)?;
        times.push(started.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}

/// Counts how many of those that are nearest were found.
fn recall(exact: &[Vec<IndexMatch>], found: &[Vec<IndexMatch>]) -> f64 {
    let both = || exact.iter().zip(found);
    let hits: usize = both()
        .map(|(exact, found)| {
            let is_found = |hit: &&IndexMatch| found.iter().any(|other| other.position == hit.position);
            exact.iter().filter(is_found).count()
        })
        .sum();
    hits as f64 / both().map(|(exact, _)| exact.len()).sum::<usize>() as f64
}
