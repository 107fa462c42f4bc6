//! How deeply the arrays and objects of an answer are nested.

/// The most arrays and objects that are around a value of an answer. Readers of JSON have such bounds, too:
/// `serde_json` reads 127.
pub(super) const MAX_NESTING: usize = 100;

/// A place in JSON.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nesting {
    depth: usize,
    deepest: usize,
    within: Within,
}

#[derive(Clone, Copy, Debug, Default)]
enum Within {
    #[default]
    Structure,
    Text,
    /// Behind a backslash in a text.
    Escape,
}

impl Nesting {
    /// Advances by some bytes.
    pub(super) fn after(self, bytes: &[u8]) -> Self {
        bytes.iter().fold(self, |place, byte| place.next(*byte))
    }

    fn next(mut self, byte: u8) -> Self {
        match (self.within, byte) {
            (Within::Structure, b'[' | b'{') => {
                self.depth += 1;
                self.deepest = self.deepest.max(self.depth);
            }
            (Within::Structure, b']' | b'}') => self.depth = self.depth.saturating_sub(1),
            (Within::Structure, b'"') | (Within::Escape, _) => self.within = Within::Text,
            (Within::Text, b'"') => self.within = Within::Structure,
            (Within::Text, b'\\') => self.within = Within::Escape,
            (Within::Structure | Within::Text, _) => {}
        }
        self
    }

    /// Returns whether it was too deep anywhere so far.
    pub(super) fn is_too_deep(self) -> bool {
        self.deepest > MAX_NESTING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_texts_do_not_nest() {
        let place = Nesting::default().after(br#"{"a[":["\"[{\\",["#);
        assert_eq!((place.depth, place.deepest), (3, 3));
        let place = place.after(b"]]}");
        assert_eq!((place.depth, place.deepest), (0, 3));
        assert!(!Nesting::default().after(&[b'['; MAX_NESTING]).is_too_deep());
        assert!(Nesting::default().after(&[b'['; MAX_NESTING + 1]).is_too_deep());
    }
}
