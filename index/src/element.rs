//! Vectors as they are stored.

use std::fmt;
use std::str::FromStr;

use half::f16;
use multiway_model::kernels::{dequantize_f16, dequantize_int8};

use crate::error::IndexError;

/// Rows start at multiples of it: a cache line.
pub(crate) const ALIGNMENT: usize = 64;

/// The widest vectors.
pub(crate) const MAX_WIDTH: usize = 1 << 16;

/// The largest int8 value that is used, so that the range is symmetric.
const INT8_MOST: f32 = 127.0;

/// The type of the numbers of a stored vector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElementType {
    /// Rounded to the nearest f16, in 16 bits.
    #[default]
    F16,
    /// In 8 bits, with one scale a vector.
    Int8,
}

impl ElementType {
    /// Every type, the largest first.
    pub const ALL: [Self; 2] = [Self::F16, Self::Int8];

    /// Returns the name, as `--dtype` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// Returns the number that stands for the type in files.
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Int8 => 2,
        }
    }

    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|element| element.code() == code)
    }

    fn size(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::Int8 => 1,
        }
    }

    /// Counts the bytes of a row of `width` numbers, zeros to the end of its last cache line included.
    pub(crate) fn stride(self, width: usize) -> usize {
        (width * self.size()).next_multiple_of(ALIGNMENT)
    }

    /// Counts the numbers of a row, the zeros at its end included.
    pub(crate) fn padded(self, width: usize) -> usize {
        self.stride(width) / self.size()
    }

    /// Tells whether a scale belongs to each row.
    pub(crate) fn is_scaled(self) -> bool {
        self == Self::Int8
    }

    /// Stores a vector as a row of [`stride`](Self::stride) bytes, and its scale.
    pub(crate) fn quantize(self, vector: &[f32]) -> (Vec<u8>, f32) {
        let mut row = vec![0; self.stride(vector.len())];
        match self {
            Self::F16 => {
                for (bytes, value) in row.as_chunks_mut::<2>().0.iter_mut().zip(vector) {
                    *bytes = f16::from_f32(*value).to_le_bytes();
                }
                (row, 1.0)
            }
            Self::Int8 => {
                let largest = vector.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                let scale = largest / INT8_MOST;
                let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                for (byte, value) in row.iter_mut().zip(vector) {
                    *byte = int8(value * inverse).cast_unsigned();
                }
                (row, scale)
            }
        }
    }

    /// Reads rows without their scale.
    pub(crate) fn dequantize(self, rows: &[u8], values: &mut [f32]) {
        match self {
            Self::F16 => dequantize_f16(rows, values),
            Self::Int8 => dequantize_int8(rows, values),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "it is rounded and clamped to the range"
)]
fn int8(value: f32) -> i8 {
    value.round_ties_even().clamp(-INT8_MOST, INT8_MOST) as i8
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ElementType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|element| element.name() == name);
        found.ok_or_else(|| format!("expected f16 or int8, found '{name}'"))
    }
}

/// Checks that a vector has `width` finite numbers.
pub(crate) fn check(vector: &[f32], width: usize) -> Result<(), IndexError> {
    let wrong = |found: String| {
        Err(IndexError::Vector {
            expected: width,
            found,
        })
    };
    if vector.len() != width {
        return wrong(format!("of {}", vector.len()));
    }
    match vector.iter().find(|value| !value.is_finite()) {
        Some(value) => wrong(format!("with {value}")),
        None => Ok(()),
    }
}

/// Scales a vector of `width` numbers to unit length.
pub(crate) fn normalized(vector: &[f32], width: usize) -> Result<Vec<f32>, IndexError> {
    check(vector, width)?;
    let square: f64 = vector.iter().map(|value| f64::from(*value).powi(2)).sum();
    if square <= 0.0 {
        return Err(IndexError::Vector {
            expected: width,
            found: "of zeros".to_owned(),
        });
    }
    let inverse = square.sqrt().recip();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "numbers from -1 to 1, rounded to f32"
    )]
    let scaled = |value: &f32| (f64::from(*value) * inverse) as f32;
    Ok(vector.iter().map(scaled).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_stored_is_near_to_what_was_given(vector in prop::collection::vec(-1.0_f32..1.0, 1..200)) {
            for element in ElementType::ALL {
                let (row, scale) = element.quantize(&vector);
                prop_assert_eq!(row.len() % ALIGNMENT, 0);
                let mut values = vec![1.0; element.padded(vector.len())];
                element.dequantize(&row, &mut values);
                let largest = vector.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                let near = match element {
                    ElementType::F16 => largest / 2048.0 + f32::EPSILON,
                    ElementType::Int8 => largest / 127.0 * 0.501 + f32::EPSILON,
                };
                for (value, given) in values.iter().zip(&vector) {
                    prop_assert!((value * scale - given).abs() <= near, "{} {}: {}", value * scale, given, element);
                }
                prop_assert!(values.iter().skip(vector.len()).all(|value| value.to_bits() == 0));
            }
        }
    }

    #[test]
    fn a_vector_without_a_direction_is_refused() {
        let error = normalized(&[0.0, -0.0], 2).unwrap_err();
        insta::assert_snapshot!(error, @"the index holds vectors of 2 finite numbers that are not all zero, found one of zeros");
        assert_eq!(normalized(&[0.0, 1e-30], 2).unwrap(), [0.0, 1.0]);
    }
}
