//! The cache slots of the beams of a search.

/// The slots of one search, and which of them the running beams hold.
#[derive(Debug, Default)]
pub(crate) struct BeamSlots {
    all: Vec<usize>,
    held: Vec<usize>,
}

impl BeamSlots {
    /// Starts with one beam in the first of the slots.
    pub(crate) fn new(all: Vec<usize>) -> Self {
        let held = all.iter().take(1).copied().collect();
        Self { all, held }
    }

    /// Lists the slot of each running beam.
    pub(crate) fn held(&self) -> &[usize] {
        &self.held
    }

    /// Assigns a slot to each new beam by its parent, and returns the slots to copy, from and to.
    ///
    /// The first child of a beam keeps its slot; the others get a copy in a slot that became free.
    pub(crate) fn reassign(&mut self, parents: &[usize]) -> Vec<(usize, usize)> {
        let own: Vec<usize> = parents
            .iter()
            .filter_map(|parent| self.held.get(*parent).copied())
            .collect();
        let mut free = self.all.iter().copied().filter(|slot| !own.contains(slot));
        let (mut copies, mut held) = (Vec::new(), Vec::with_capacity(own.len()));
        for slot in &own {
            if !held.contains(slot) {
                held.push(*slot);
            } else if let Some(copy) = free.next() {
                copies.push((*slot, copy));
                held.push(copy);
            }
        }
        self.held = held;
        copies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beam_that_two_continue_is_copied_into_a_slot_that_none_needs() {
        let mut slots = BeamSlots::new(vec![4, 5, 6]);
        assert_eq!(slots.held(), [4]);
        assert_eq!(slots.reassign(&[0, 0, 0]), [(4, 5), (4, 6)]);
        assert_eq!(slots.held(), [4, 5, 6]);
        assert_eq!(slots.reassign(&[2, 0, 2]), [(6, 5)]);
        assert_eq!(slots.held(), [6, 4, 5]);
        assert_eq!(slots.reassign(&[1]), []);
        assert_eq!(slots.held(), [4]);
    }
}
