//! The cache of compiled constraints.

use std::collections::VecDeque;
use std::sync::Arc;

use super::compiled::Compiled;

/// The most entries.
const MOST: usize = 32;

/// A least-recently-used cache of compiled constraints, bounded in bytes: requests of one task have the same
/// constraint.
#[derive(Debug)]
pub(super) struct CompiledCache {
    /// The most recently used first.
    entries: VecDeque<(String, Arc<Compiled>)>,
    budget: usize,
}

impl CompiledCache {
    pub(super) fn new(budget: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            budget,
        }
    }

    /// Returns an entry, unless it is worn.
    pub(super) fn get(&mut self, key: &str) -> Option<Arc<Compiled>> {
        let place = self.entries.iter().position(|(known, _)| known == key)?;
        let entry = self.entries.remove(place).filter(|(_, known)| !known.is_worn())?;
        let compiled = Arc::clone(&entry.1);
        self.entries.push_front(entry);
        // Answers may have made it larger.
        self.evict();
        Some(compiled)
    }

    /// Inserts a constraint and returns it; or the one that another request has inserted meanwhile.
    pub(super) fn insert(&mut self, key: String, compiled: Arc<Compiled>) -> Arc<Compiled> {
        if let Some(known) = self.get(&key) {
            return known;
        }
        self.entries.push_front((key, Arc::clone(&compiled)));
        self.evict();
        compiled
    }

    /// Estimates the bytes of all entries.
    pub(super) fn bytes(&self) -> usize {
        self.entries.iter().map(bytes).sum()
    }

    /// Evicts the least recently used entries beyond the bounds.
    fn evict(&mut self) {
        self.entries.truncate(MOST);
        let mut bytes = self.bytes();
        while bytes > self.budget {
            let Some(last) = self.entries.pop_back() else {
                break;
            };
            bytes = bytes.saturating_sub(self::bytes(&last));
        }
    }
}

fn bytes((key, compiled): &(String, Arc<Compiled>)) -> usize {
    key.len() + compiled.bytes()
}
