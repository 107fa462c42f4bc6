//! SentencePiece's precompiled character map: a double-array trie from text to its normal form.
//!
//! Source: <https://github.com/google/sentencepiece>, `src/normalizer.cc`; the trie is Darts-clone's.

use super::error::{TokenizerError, malformed};

/// Maps prefixes of a text to their normal form.
///
/// Everything that a lookup can reach has been checked, so a hostile map cannot read outside itself.
#[derive(Debug, Default)]
pub(crate) struct CharsMap {
    units: Vec<u32>,
    normalized: String,
}

/// The trie's units come in blocks of 256, one unit for each next byte.
const BLOCK: usize = 256;

impl CharsMap {
    /// Reads a map; no bytes are the map that changes nothing.
    pub(crate) fn parse(file: &'static str, bytes: &[u8]) -> Result<Self, TokenizerError> {
        if bytes.is_empty() {
            return Ok(Self::default());
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
        let units = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        let map = Self {
            units,
            normalized: normalized.to_owned(),
        };
        map.check()
            .map_err(|unit| error(format!("unit {unit} pointing outside"), "units that point inside"))?;
        Ok(map)
    }

    /// Finds the longest prefix of `text` that the map knows: its length in bytes and its normal form.
    pub(crate) fn longest(&self, text: &str) -> Option<(usize, &str)> {
        let mut found = None;
        let mut position = offset(self.unit(0)?);
        for (length, byte) in (1..).zip(text.bytes()) {
            position ^= usize::from(byte);
            let unit = self.unit(position)?;
            if label(unit) != u32::from(byte) {
                break;
            }
            position ^= offset(unit);
            if has_leaf(unit) {
                found = Some((length, value(self.unit(position)?)));
            }
        }
        let (length, start) = found.filter(|(length, _)| text.is_char_boundary(*length))?;
        let form = self.normalized.get(start..)?;
        Some((length, form.split('\0').next().unwrap_or_default()))
    }

    fn unit(&self, position: usize) -> Option<u32> {
        self.units.get(position).copied()
    }

    /// Follows every way from the root and returns the first unit that leads outside.
    fn check(&self) -> Result<(), usize> {
        let mut seen = vec![false; self.units.len()];
        let root = self.unit(0).map_or(0, offset);
        let mut pending = vec![(0, root)];
        while let Some((unit, block)) = pending.pop() {
            // The last unit that a byte can lead to; the block is aligned because lengths are multiples of 256.
            let Some(seen) = seen
                .get_mut(block)
                .filter(|_| block | (BLOCK - 1) < self.units.len())
            else {
                return Err(unit);
            };
            if std::mem::replace(seen, true) {
                continue;
            }
            for byte in 0..=u8::MAX {
                let child = block ^ usize::from(byte);
                let Some(entry) = self.unit(child).filter(|entry| label(*entry) == u32::from(byte)) else {
                    continue;
                };
                let next = child ^ offset(entry);
                let leaf = if has_leaf(entry) {
                    self.unit(next).map(value)
                } else {
                    Some(0)
                };
                if !leaf.is_some_and(|start| self.normalized.is_char_boundary(start)) {
                    return Err(child);
                }
                pending.push((child, next));
            }
        }
        Ok(())
    }
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
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_map_whose_root_points_outside_is_refused() {
        let mut bytes = 1024_u32.to_le_bytes().to_vec();
        bytes.extend([0xff; 1024]);
        bytes.push(0);
        let error = CharsMap::parse("test", &bytes).unwrap_err();
        insta::assert_snapshot!(error, @"test is malformed at precompiled_charsmap: found unit 0 pointing outside, expected units that point inside");
    }

    #[test]
    fn the_empty_map_knows_nothing() {
        assert_eq!(CharsMap::parse("test", &[]).unwrap().longest("\u{fb01}"), None);
    }

    proptest! {
        #[test]
        fn whatever_a_map_says_a_lookup_stays_inside_it(
            units in prop::collection::vec(prop_oneof![any::<u32>(), 0..1_u32 << 18], 512),
            texts in prop::collection::vec(any::<String>(), 8),
        ) {
            let mut bytes = 2048_u32.to_le_bytes().to_vec();
            bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
            bytes.extend(b"a\0b\0");
            if let Ok(map) = CharsMap::parse("test", &bytes) {
                for text in &texts {
                    map.longest(text);
                }
            }
        }
    }
}
