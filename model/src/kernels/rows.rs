//! Rows of a KV cache in 32, 16 or 8 bits.
//!
//! A row holds the keys of H heads of Dh numbers each, then their values, and is quantized on its own when it
//! is stored: what is stored of a token depends on nothing but that token's keys and values. Attention
//! dequantizes the numbers, which is exact, and sums in `f32`.
//!
//! In `bf16` each number is rounded to the nearest, ties to even, hence by at most 2^-8 of itself (2^-134
//! below the smallest normal number). In 8 bits the keys of each head, and its values, are whole numbers `q`
//! and one scale:
//!
//! ```text
//! scale = max |v| / 127;  q[i] = round(v[i] * (127 / max |v|)), ties to even, -127 to 127;
//! |v[i] - scale q[i]| <= scale / 2
//! ```
//!
//! but for the roundings in `f32`. A score of a query `x` is therefore off by at most `sum |x[i]| * scale /
//! 2` of its key's scale, and what is gathered of values whose weights are right by at most half of the
//! largest of their scales. Numbers whose largest is below 127 times the smallest normal number count as
//! zeros; a NaN or an infinity makes the scale NaN, so that it is not lost.
//!
//! Source: scales for groups of a token's numbers, Sheng et al. 2023 (arXiv 2303.06865), section 5; here a
//! group is a head.

use std::fmt;
use std::ops::Range;

use candle_core::{Result, bail};
use half::bf16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use super::simd::multiversion;

/// The largest `q`.
const LARGEST: f32 = 127.0;

/// The element type of the KV cache and of prompt memories on the CPU.
///
/// Each row is quantized on its own, so that results are batch-invariant in every type. Over ten names for
/// each of four pictures, the probabilities that the embedded model gives move by at most 0.0008 in `bf16`
/// and 0.0023 in 8 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheType {
    /// As they are computed, in 32 bits.
    #[default]
    F32,
    /// Rounded to the nearest `bf16`, in 16 bits.
    Bf16,
    /// In 8 bits, with a scale for the keys and one for the values of each token and head.
    Int8,
}

impl CacheType {
    /// Every type, the largest first.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// Returns the name, as `--cache-dtype` of the command line takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The layout of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvLayout {
    pub(crate) cache_type: CacheType,
    /// Heads, H.
    pub(crate) heads: usize,
    /// Numbers of a head's keys, and of its values, Dh.
    pub(crate) head_size: usize,
}

impl KvLayout {
    /// Counts the numbers of a row, 2 H Dh.
    pub(crate) fn width(self) -> usize {
        2 * self.heads * self.head_size
    }

    /// Counts the bytes of a row.
    pub(crate) fn row_bytes(self) -> usize {
        match self.cache_type {
            CacheType::F32 => self.width() * size_of::<f32>(),
            CacheType::Bf16 => self.width() * size_of::<bf16>(),
            CacheType::Int8 => self.width() + 2 * self.heads * size_of::<f32>(),
        }
    }
}

/// Rows in memory of their own, in blocks of R rows: `[rows / R, 2 H, R, Dh]`.
///
/// What a head reads lies side by side as far as a block goes, so that it comes from memory as fast as memory
/// can.
#[derive(Clone, Debug)]
pub(crate) struct KvRows {
    layout: KvLayout,
    block: usize,
    numbers: Numbers,
}

/// The numbers of rows, `[rows / R, 2 H, R, Dh]`.
#[derive(Clone, Debug)]
pub(crate) enum Numbers {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    /// With their scales, `[rows / R, 2 H, R]`.
    Int8(Vec<i8>, Vec<f32>),
}

/// Rows of a block that follow each other.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    block: usize,
    first: usize,
    pub(crate) count: usize,
}

impl KvRows {
    /// Makes blocks of zeros.
    pub(crate) fn zeros(layout: KvLayout, block: usize, blocks: usize) -> Self {
        let rows = block * blocks;
        let count = rows * layout.width();
        let numbers = match layout.cache_type {
            CacheType::F32 => Numbers::F32(vec![0.0; count]),
            // As bits, because zeros of plain numbers take no memory until they are written.
            CacheType::Bf16 => Numbers::Bf16(vec![0; count]),
            CacheType::Int8 => Numbers::Int8(vec![0; count], vec![0.0; rows * 2 * layout.heads]),
        };
        Self {
            layout,
            block,
            numbers,
        }
    }

    /// Quantizes rows `[rows, 2 H Dh]` into one block.
    pub(crate) fn from_values(layout: KvLayout, values: &[f32]) -> Result<Self> {
        let width = layout.width().max(1);
        let mut rows = Self::zeros(layout, values.len() / width, 1);
        for (row, x) in values.chunks_exact(width).enumerate() {
            rows.write(row, x)?;
        }
        Ok(rows)
    }

    pub(crate) fn layout(&self) -> KvLayout {
        self.layout
    }

    pub(crate) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// Counts the rows.
    pub(crate) fn count(&self) -> usize {
        let numbers = match &self.numbers {
            Numbers::F32(numbers) => numbers.len(),
            Numbers::Bf16(numbers) => numbers.len(),
            Numbers::Int8(numbers, _) => numbers.len(),
        };
        numbers / self.layout.width().max(1)
    }

    /// Counts the bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.count() * self.layout.row_bytes()
    }

    /// Cuts ranges of rows at the ends of blocks.
    #[inline(always)]
    pub(crate) fn runs<'a>(&self, ranges: &'a [Range<usize>]) -> Runs<'a> {
        Runs {
            ranges: ranges.iter(),
            rest: 0..0,
            block: self.block.max(1),
        }
    }

    /// Tells where the scales of a run lie in one of the 2 H pieces of a row: keys of each head, then values.
    #[inline(always)]
    pub(crate) fn scales(&self, run: Run, piece: usize) -> Range<usize> {
        let start = (run.block * 2 * self.layout.heads + piece) * self.block + run.first;
        start..start + run.count
    }

    /// Tells where the numbers of a run lie, `[count, Dh]`.
    #[inline(always)]
    pub(crate) fn piece(&self, run: Run, piece: usize) -> Range<usize> {
        let scales = self.scales(run, piece);
        scales.start * self.layout.head_size..scales.end * self.layout.head_size
    }

    /// Returns the keys and the values of a run, `[count, width]` each, of rows in `f32` that have one head
    /// of that width.
    pub(crate) fn matrices(&self, run: Run, width: usize) -> Result<[&[f32]; 2]> {
        match &self.numbers {
            Numbers::F32(numbers) if (self.layout.heads, self.layout.head_size) == (1, width) => {
                Ok([0, 1].map(|piece| &numbers[self.piece(run, piece)]))
            }
            _ => bail!(
                "expected rows in f32 of one head of {width}, found {:?}",
                self.layout
            ),
        }
    }

    /// Quantizes a row `[2 H Dh]` and stores it.
    pub(crate) fn write(&mut self, row: usize, x: &[f32]) -> Result<()> {
        let (width, all) = (self.layout.width(), self.count());
        if row >= all || x.len() != width {
            bail!(
                "{} numbers do not fit into row {row} of {all} rows of {width}",
                x.len()
            )
        }
        let place = self.run(row);
        let (size, step) = (self.layout.head_size.max(1), self.block * self.layout.head_size);
        let (at, scale) = (self.piece(place, 0).start, self.scales(place, 0).start);
        let pieces = x.chunks_exact(size).enumerate();
        match &mut self.numbers {
            Numbers::F32(numbers) => {
                for (piece, x) in pieces {
                    numbers[at + piece * step..][..size].copy_from_slice(x);
                }
            }
            Numbers::Bf16(bits) => {
                for (piece, x) in pieces {
                    let place = &mut bits[at + piece * step..][..size];
                    place.reinterpret_cast_mut::<bf16>().convert_from_f32_slice(x);
                }
            }
            Numbers::Int8(numbers, scales) => {
                quantize(x, size, self.block, &mut numbers[at..], &mut scales[scale..]);
            }
        }
        Ok(())
    }

    fn run(&self, row: usize) -> Run {
        Run {
            block: row / self.block.max(1),
            first: row % self.block.max(1),
            count: 1,
        }
    }

    /// Copies the first `count` rows of a block to the beginning of another.
    pub(crate) fn copy(&mut self, from: usize, count: usize, to: usize) -> Result<()> {
        let blocks = self.count() / self.block.max(1);
        if from.max(to) >= blocks || count > self.block {
            bail!("{count} rows cannot be copied from block {from} to block {to} of {blocks}")
        }
        let run = |block| Run {
            block,
            first: 0,
            count,
        };
        for piece in 0..2 * self.layout.heads {
            let (part, place) = (self.piece(run(from), piece), self.piece(run(to), piece).start);
            let (scale, scale_place) = (self.scales(run(from), piece), self.scales(run(to), piece).start);
            match &mut self.numbers {
                Numbers::F32(numbers) => numbers.copy_within(part, place),
                Numbers::Bf16(bits) => bits.copy_within(part, place),
                Numbers::Int8(numbers, scales) => {
                    numbers.copy_within(part, place);
                    scales.copy_within(scale, scale_place);
                }
            }
        }
        Ok(())
    }

    /// Dequantizes a row.
    #[cfg(test)]
    pub(crate) fn read(&self, row: usize) -> Vec<f32> {
        let place = self.run(row);
        let piece = |piece: usize| -> Vec<f32> {
            let part = self.piece(place, piece);
            match &self.numbers {
                Numbers::F32(numbers) => numbers[part].to_vec(),
                Numbers::Bf16(bits) => bits[part]
                    .iter()
                    .map(|bits| bf16::from_bits(*bits).to_f32())
                    .collect(),
                Numbers::Int8(numbers, scales) => {
                    let scale = scales[self.scales(place, piece).start];
                    numbers[part].iter().map(|q| f32::from(*q) * scale).collect()
                }
            }
        };
        (0..2 * self.layout.heads).flat_map(piece).collect()
    }
}

/// Goes through ranges of rows, a run at a time.
pub(crate) struct Runs<'a> {
    ranges: std::slice::Iter<'a, Range<usize>>,
    rest: Range<usize>,
    block: usize,
}

impl Iterator for Runs<'_> {
    type Item = Run;

    #[inline(always)]
    fn next(&mut self) -> Option<Run> {
        while self.rest.is_empty() {
            self.rest = self.ranges.next()?.clone();
        }
        let (block, first) = (self.rest.start / self.block, self.rest.start % self.block);
        let count = self.rest.len().min(self.block - first);
        self.rest.start += count;
        Some(Run { block, first, count })
    }
}

multiversion! {
    /// Writes the pieces of a row in 8 bits, `size` numbers and a scale each, to where the row's first piece
    /// and its scale lie in a block of `block` rows.
    fn quantize(row: &[f32], size: usize, block: usize, numbers: &mut [i8], scales: &mut [f32]) {
        // Between numbers of this size there are whole steps, so that adding rounds, ties to even.
        const WHOLE: f32 = 12_582_912.0;
        for (piece, x) in row.chunks_exact(size).enumerate() {
            let numbers = &mut numbers[piece * block * size..][..size];
            let scale = &mut scales[piece * block];
            // As whole numbers, the bits of infinities and NaN are the largest.
            let largest = f32::from_bits(x.iter().fold(0, |largest: u32, x| largest.max(x.abs().to_bits())));
            if largest < LARGEST * f32::MIN_POSITIVE || !largest.is_finite() {
                numbers.fill(0);
                *scale = if largest.is_finite() { 0.0 } else { f32::NAN };
                continue;
            }
            let factor = LARGEST / largest;
            *scale = largest / LARGEST;
            for (number, x) in numbers.iter_mut().zip(x) {
                *number = (((x * factor + WHOLE).to_bits() & 0xff) as u8).cast_signed();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    const HEADS: usize = 3;
    const HEAD_SIZE: usize = 20;

    /// Keeps rows, `block` of them in a block.
    fn rows(kept: CacheType, block: usize, values: &[f32]) -> KvRows {
        let layout = KvLayout {
            cache_type: kept,
            heads: HEADS,
            head_size: HEAD_SIZE,
        };
        let count = values.len() / layout.width();
        let mut rows = KvRows::zeros(layout, block, count / block);
        for (row, x) in values.chunks(layout.width()).enumerate() {
            rows.write(row, x).unwrap();
        }
        rows
    }

    fn values(count: usize, seed: u64) -> Vec<f32> {
        let shape = [count, 2 * HEADS * HEAD_SIZE];
        random(&shape, seed).flatten_all().unwrap().to_vec1().unwrap()
    }

    /// What a piece becomes as the definition says.
    fn specified(piece: &[f32]) -> Vec<f32> {
        let largest = piece.iter().fold(0.0_f32, |largest, v| largest.max(v.abs()));
        let q = |v: &f32| (v * (127.0 / largest)).round_ties_even();
        piece.iter().map(|v| q(v) * (largest / 127.0)).collect()
    }

    #[test]
    fn numbers_are_kept_as_the_definitions_say() {
        let all = values(4, 1);
        let width = 2 * HEADS * HEAD_SIZE;
        for (row, x) in all.chunks(width).enumerate() {
            assert_eq!(rows(CacheType::F32, 2, &all).read(row), x);
            let rounded: Vec<f32> = x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
            assert_eq!(rows(CacheType::Bf16, 2, &all).read(row), rounded);
            let eighth: Vec<f32> = x.chunks(HEAD_SIZE).flat_map(specified).collect();
            assert_eq!(rows(CacheType::Int8, 2, &all).read(row), eighth);
        }
    }

    #[test]
    fn what_is_kept_is_as_near_as_the_bounds_say() {
        let all = values(8, 2);
        let width = 2 * HEADS * HEAD_SIZE;
        let (half, eighth) = (rows(CacheType::Bf16, 2, &all), rows(CacheType::Int8, 2, &all));
        for (row, x) in all.chunks(width).enumerate() {
            for (x, kept) in x.iter().zip(half.read(row)) {
                assert!((x - kept).abs() <= x.abs() / 256.0, "{x} and {kept}");
            }
            let kept = eighth.read(row);
            for (x, kept) in x.chunks(HEAD_SIZE).zip(kept.chunks(HEAD_SIZE)) {
                let scale = x.iter().fold(0.0_f32, |largest, v| largest.max(v.abs())) / 127.0;
                for (x, kept) in x.iter().zip(kept) {
                    assert!((x - kept).abs() <= scale * 0.5001, "{x} and {kept}");
                }
            }
        }
    }

    #[test]
    fn a_row_is_the_same_bits_wherever_it_is_written_and_copied() {
        let all = values(6, 3);
        let width = 2 * HEADS * HEAD_SIZE;
        for kept in CacheType::ALL {
            let together = rows(kept, 6, &all);
            let mut others = rows(kept, 4, &values(12, 4));
            for (row, x) in all.chunks(width).enumerate() {
                others.write(11 - row, x).unwrap();
            }
            for row in 0..6 {
                assert_eq!(others.read(11 - row), together.read(row), "{kept}");
            }
            let fourth = others.read(3);
            others.copy(2, 3, 0).unwrap();
            for row in 0..3 {
                assert_eq!(others.read(row), together.read(3 - row), "{kept}");
            }
            assert_eq!(others.read(3), fourth, "{kept}: more was copied than was to be");
        }
    }

    #[test]
    fn ranges_are_cut_at_the_ends_of_blocks_and_keep_their_order() {
        let rows = rows(CacheType::F32, 4, &values(12, 7));
        let runs = rows.runs(&[5..6, 0..0, 2..11, 0..4]);
        let found: Vec<_> = runs.map(|run| (run.block, run.first, run.count)).collect();
        assert_eq!(found, [(1, 1, 1), (0, 2, 2), (1, 0, 4), (2, 0, 3), (0, 0, 4)]);
    }

    #[test]
    fn numbers_that_are_none_stay_none_and_tiny_ones_become_zeros() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = values(1, 5);
            x[HEAD_SIZE + 3] = wrong;
            for kept in CacheType::ALL {
                let found = rows(kept, 1, &x).read(0);
                assert!(!found[HEAD_SIZE + 3].is_finite(), "{kept}");
                assert!(
                    found[..HEAD_SIZE].iter().all(|x| x.is_finite()),
                    "{kept}: another head"
                );
            }
        }
        let tiny = vec![1e-38; 2 * HEADS * HEAD_SIZE];
        assert!(rows(CacheType::Int8, 1, &tiny).read(0).iter().all(|x| *x == 0.0));
    }

    #[test]
    fn rows_take_the_bytes_that_their_layout_says() {
        let all = values(4, 6);
        let bytes = CacheType::ALL.map(|kept| rows(kept, 2, &all).bytes());
        assert_eq!(bytes, [4 * 120 * 4, 4 * 120 * 2, 4 * (120 + 6 * 4)]);
        let told = |row, x| {
            rows(CacheType::Int8, 2, &all)
                .write(row, x)
                .unwrap_err()
                .to_string()
        };
        let expected = "120 numbers do not fit into row 4 of 4 rows of 120";
        assert!(
            told(4, &all[..120]).starts_with(expected),
            "{}",
            told(4, &all[..120])
        );
        assert!(told(3, &all[..119]).starts_with("119 numbers do not fit"));
    }
}
