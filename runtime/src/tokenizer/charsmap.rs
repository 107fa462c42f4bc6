//! Checks SentencePiece's precompiled character map before a library runs it.
//!
//! The map is a double-array trie (Darts-clone) from text to its normal form. Both libraries that run it
//! trust it: `sentencepiece` reads out of bounds where it is damaged, and `tokenizers` panics. So every unit
//! that a lookup can reach is checked here first.
//!
//! Source: <https://github.com/google/sentencepiece>, `src/normalizer.cc`.

use super::error::{TokenizerError, malformed};

/// The trie's units come in blocks of 256, one unit for each next byte.
const BLOCK: usize = 256;

/// Checks a map; no bytes are the map that changes nothing.
///
/// # Errors
/// [`TokenizerError::Malformed`] where a lookup could leave the map.
pub(super) fn check(file: &'static str, bytes: &[u8]) -> Result<(), TokenizerError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let error = |found: String, expected: &str| malformed(file, "precompiled_charsmap", found, expected);
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else {
        return Err(error(format!("{} bytes", bytes.len()), "at least 4 bytes"));
    };
    let size = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
    let split = rest
        .split_at_checked(size)
        .filter(|_| size > 0 && size.is_multiple_of(4 * BLOCK));
    let Some((trie, normalized)) = split else {
        return Err(error(
            format!("a trie of {size} bytes"),
            "a multiple of 1024 inside the map",
        ));
    };
    let normalized = std::str::from_utf8(normalized).map_err(|e| error(e.to_string(), "UTF-8 text"))?;
    if !normalized.ends_with('\0') {
        return Err(error("text without an end".to_owned(), "text that ends in NUL"));
    }
    let (units, _) = trie.as_chunks::<4>();
    let units: Vec<u32> = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
    check_units(&units, normalized)
        .map_err(|unit| error(format!("unit {unit} pointing outside"), "units that point inside"))
}

/// Follows every path from the root and returns the first unit that leads outside.
fn check_units(units: &[u32], normalized: &str) -> Result<(), usize> {
    let unit = |position: usize| units.get(position).copied();
    let mut seen = vec![false; units.len()];
    let root = unit(0).map_or(0, offset);
    let mut pending = vec![(0, root)];
    while let Some((from, block)) = pending.pop() {
        // The last unit that a byte can lead to; the block is aligned because lengths are multiples of 256.
        let Some(seen) = seen.get_mut(block).filter(|_| block | (BLOCK - 1) < units.len()) else {
            return Err(from);
        };
        if std::mem::replace(seen, true) {
            continue;
        }
        for byte in 0..=u8::MAX {
            let child = block ^ usize::from(byte);
            let Some(entry) = unit(child).filter(|entry| label(*entry) == u32::from(byte)) else {
                continue;
            };
            let next = child ^ offset(entry);
            let leaf = if has_leaf(entry) {
                unit(next).map(value)
            } else {
                Some(0)
            };
            if !leaf.is_some_and(|start| normalized.is_char_boundary(start)) {
                return Err(child);
            }
            pending.push((child, next));
        }
    }
    Ok(())
}

fn has_leaf(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

fn value(unit: u32) -> usize {
    usize::try_from(unit & 0x7fff_ffff).unwrap_or(usize::MAX)
}

fn label(unit: u32) -> u32 {
    unit & 0x8000_00ff
}

fn offset(unit: u32) -> usize {
    usize::try_from((unit >> 10) << ((unit & 1 << 9) >> 6)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::normalizers::Precompiled;

    use super::*;

    #[test]
    fn a_map_whose_root_points_outside_is_refused() {
        let mut bytes = 1024_u32.to_le_bytes().to_vec();
        bytes.extend([0xff; 1024]);
        bytes.push(0);
        insta::assert_snapshot!(check("test", &bytes).unwrap_err(), @"test is malformed at precompiled_charsmap: found unit 0 pointing outside, expected units that point inside");
    }

    proptest! {
        #[test]
        fn the_library_stays_inside_of_a_map_that_was_checked(
            units in prop::collection::vec(prop_oneof![any::<u32>(), 0..1_u32 << 18], 512),
            texts in prop::collection::vec(any::<String>(), 8),
        ) {
            let mut bytes = 2048_u32.to_le_bytes().to_vec();
            bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
            bytes.extend(b"a\0b\0");
            if check("test", &bytes).is_ok() {
                let map = Precompiled::from(&bytes).unwrap();
                for text in &texts {
                    map.transform(text);
                }
            }
        }
    }
}
