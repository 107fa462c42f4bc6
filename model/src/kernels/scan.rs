//! Dot products of a query with many stored rows: what exact search in an index does.
//!
//! Rows are stored in f16 or int8. A block of them is dequantized into a scratch buffer that stays in a
//! cache, and every query of a batch meets it there, so that a row is read from memory once. The buffer
//! costs less than it looks: the rows come from memory, which is slower than the arithmetic by far.
//!
//! The kernels are ordinary Rust, compiled for AVX-512, for AVX2 with FMA, and for the baseline, which is
//! NEON on AArch64; which one runs is found out at run time. A scalar definition fixes the order of every
//! sum.

use super::simd::multiversion;

/// Sums that are kept side by side: a dot product adds value `i` to sum `i % LANES`.
const LANES: usize = 16;

/// Rows that one pass over the query meets.
const ROWS: usize = 4;

/// Two to the power of 112: what the exponents of f16 and f32 differ by.
const EXPONENTS: f32 = f32::from_bits((127 + 112) << 23);

/// Dequantizes one f16.
///
/// The bits are moved to where an f32 has them, and the product puts the exponent right, of subnormal numbers
/// too. The exponent of infinities counts as any other, so that the result is always finite.
#[inline(always)]
fn half([low, high]: [u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes([low, high]));
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * EXPONENTS;
    f32::from_bits(magnitude.to_bits() | ((bits & 0x8000) << 16))
}

multiversion! {
    /// Dequantizes f16 values, little-endian, as far as both slices reach.
    pub fn dequantize_f16(halves: &[u8], values: &mut [f32]) {
        for (value, bytes) in values.iter_mut().zip(halves.as_chunks::<2>().0) {
            *value = half(*bytes);
        }
    }
}

multiversion! {
    /// Dequantizes int8 values, without their scale, as far as both slices reach.
    pub fn dequantize_int8(bytes: &[u8], values: &mut [f32]) {
        for (value, byte) in values.iter_mut().zip(bytes) {
            *value = f32::from(byte.cast_signed());
        }
    }
}

multiversion! {
    /// Writes the dot products of a query and the rows of `[dots.len(), query.len()]`, as far as all three
    /// reach.
    ///
    /// A dot product has the same bits on every instruction set and beside any other rows.
    ///
    /// # Examples
    /// ```
    /// let mut dots = [0.0; 2];
    /// multiway_model::kernels::dot_rows(&[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0], &mut dots);
    /// assert_eq!(dots, [11.0, 17.0]);
    /// ```
    pub fn dot_rows(query: &[f32], rows: &[f32], dots: &mut [f32]) {
        let width = query.len().max(1);
        let (groups, rest) = dots.as_chunks_mut::<ROWS>();
        let (whole, tail) = rows.split_at((groups.len() * ROWS * width).min(rows.len()));
        for (dots, rows) in groups.iter_mut().zip(whole.chunks_exact(ROWS * width)) {
            *dots = dot_four(query, rows);
        }
        for (dot, row) in rest.iter_mut().zip(tail.chunks_exact(width)) {
            *dot = dot_one(query, row);
        }
    }
}

/// Adds sums that were kept side by side: each to the one half of them away, until one is left.
#[inline(always)]
fn total(lanes: [f32; LANES]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Adds the products of the values that fill no vector, one after the other.
#[inline(always)]
fn total_of_rest(query: &[f32], row: &[f32]) -> f32 {
    query.iter().zip(row).map(|(x, y)| x * y).sum()
}

#[inline(always)]
fn dot_one(query: &[f32], row: &[f32]) -> f32 {
    let (query, query_rest) = query.as_chunks::<LANES>();
    let (row, row_rest) = row.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for (query, row) in query.iter().zip(row) {
        for i in 0..LANES {
            lanes[i] = row[i].mul_add(query[i], lanes[i]);
        }
    }
    total(lanes) + total_of_rest(query_rest, row_rest)
}

/// Computes what `dot_one` does, of four rows: their sums do not wait for each other.
#[inline(always)]
fn dot_four(query: &[f32], rows: &[f32]) -> [f32; ROWS] {
    let width = query.len();
    let (a, rest) = rows.split_at((2 * width).min(rows.len()));
    let (a, b) = a.split_at(width.min(a.len()));
    let (c, d) = rest.split_at(width.min(rest.len()));
    let rows = [a, b, c, d].map(|row| row.as_chunks::<LANES>());
    let (query, query_rest) = query.as_chunks::<LANES>();
    let mut lanes = [[0.0_f32; LANES]; ROWS];
    let [(a, _), (b, _), (c, _), (d, _)] = rows;
    for ((((query, a), b), c), d) in query.iter().zip(a).zip(b).zip(c).zip(d) {
        for (lanes, row) in lanes.iter_mut().zip([a, b, c, d]) {
            for i in 0..LANES {
                lanes[i] = row[i].mul_add(query[i], lanes[i]);
            }
        }
    }
    let dots = lanes.map(total);
    if query_rest.is_empty() {
        return dots;
    }
    let rests = rows.map(|(_, row_rest)| total_of_rest(query_rest, row_rest));
    std::array::from_fn(|i| dots[i] + rests[i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use proptest::prelude::*;

    /// The scalar definition.
    fn reference(query: &[f32], row: &[f32]) -> f32 {
        let mut lanes = vec![0.0_f32; LANES];
        let whole = query.len() / LANES * LANES;
        for i in 0..whole {
            lanes[i % LANES] = row[i].mul_add(query[i], lanes[i % LANES]);
        }
        let rest: f32 = (whole..query.len()).map(|i| query[i] * row[i]).sum();
        while lanes.len() > 1 {
            let (low, high) = lanes.split_at(lanes.len() / 2);
            lanes = low.iter().zip(high).map(|(low, high)| low + high).collect();
        }
        lanes[0] + rest
    }

    #[test]
    fn every_finite_f16_is_dequantized_exactly() {
        for bits in 0..=u16::MAX {
            let mut value = [0.0];
            dequantize_f16(&bits.to_le_bytes(), &mut value);
            let expected = f16::from_bits(bits);
            if expected.is_finite() {
                assert_eq!(value[0].to_bits(), expected.to_f32().to_bits(), "{bits:#x}");
            } else {
                assert!(value[0].is_finite(), "{bits:#x}");
            }
        }
    }

    #[test]
    fn every_int8_is_dequantized_exactly() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        let mut values = vec![0.0; 256];
        dequantize_int8(&bytes, &mut values);
        let expected: Vec<f32> = (0..=127).chain(-128..=-1).map(|x: i16| f32::from(x)).collect();
        assert_eq!(values, expected);
    }

    proptest! {
        #[test]
        fn dot_products_have_the_bits_of_their_definition(
            width in 1..150_usize, rows in 0..11_usize, seed in prop::collection::vec(-4.0_f32..4.0, 64..300),
        ) {
            let number = |i: usize| seed[i * 7 % seed.len()] + seed[i % seed.len()];
            let query: Vec<f32> = (0..width).map(number).collect();
            let stored: Vec<f32> = (width..width + rows * width).map(number).collect();
            let mut dots = vec![0.0; rows];
            dot_rows(&query, &stored, &mut dots);
            for (dot, row) in dots.iter().zip(stored.chunks(width)) {
                prop_assert_eq!(dot.to_bits(), reference(&query, row).to_bits());
            }
        }
    }

    #[test]
    fn slices_that_are_too_short_are_no_danger() {
        let mut dots = [7.0; 6];
        dot_rows(&[1.0, 1.0, 1.0], &[1.0; 8], &mut dots);
        dot_rows(&[], &[1.0; 8], &mut dots);
        dequantize_f16(&[1, 2, 3], &mut dots);
        dequantize_int8(&[], &mut dots);
    }
}
