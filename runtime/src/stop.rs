//! Matching stop strings across token boundaries.

/// Passes text through until a stop string matches.
#[derive(Debug, Default)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    /// Held-back text: a possible start of a stop string.
    held: String,
}

impl StopMatcher {
    pub(crate) fn new(stops: &[String]) -> Self {
        Self {
            stops: stops.to_vec(),
            held: String::new(),
        }
    }

    /// Appends text; returns what cannot be part of a stop string, and whether one has matched.
    pub(crate) fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min();
        let free = found.unwrap_or_else(|| self.held.len() - self.undecided());
        let held = self.held.split_off(free);
        let free = std::mem::replace(&mut self.held, held);
        if found.is_some() {
            self.held.clear();
        }
        (free, found.is_some())
    }

    /// Returns the held-back text, which did not become a stop string.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Returns the length of the longest suffix that is a prefix of a stop string.
    fn undecided(&self) -> usize {
        let of_stop = |stop: &String| {
            let ends = stop.char_indices().map(|(end, _)| end).skip(1);
            ends.filter(|end| stop.get(..*end).is_some_and(|start| self.held.ends_with(start)))
                .last()
        };
        self.stops.iter().filter_map(of_stop).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stop_string_is_found_across_pieces_and_not_given_out() {
        let mut matcher = StopMatcher::new(&["END".to_owned()]);
        assert_eq!(matcher.push("one E"), ("one ".to_owned(), false));
        assert_eq!(matcher.push("ast, E"), ("East, ".to_owned(), false));
        assert_eq!(matcher.push("N"), (String::new(), false));
        assert_eq!(matcher.push("D more"), (String::new(), true));
        assert_eq!(matcher.finish(), "");
    }

    proptest! {
        #[test]
        fn pieces_give_out_the_text_before_the_first_stop_string(
            pieces in prop::collection::vec("[abé]{0,3}", 0..10),
            stops in prop::collection::vec("[abé]{1,4}", 0..3),
        ) {
            let mut matcher = StopMatcher::new(&stops);
            let (mut out, mut stopped) = (String::new(), false);
            let mut read = String::new();
            for piece in &pieces {
                read.push_str(piece);
                let (text, stop) = matcher.push(piece);
                out.push_str(&text);
                stopped = stop;
                if stop {
                    break;
                }
            }
            if !stopped {
                out.push_str(&matcher.finish());
            }
            let first = stops.iter().filter_map(|stop| read.find(stop.as_str())).min();
            prop_assert_eq!(stopped, first.is_some());
            prop_assert_eq!(out.as_str(), &read[..first.unwrap_or(read.len())]);
        }
    }
}
