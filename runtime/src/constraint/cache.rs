//! Compiled constraints that further answers may start from.

use std::collections::VecDeque;
use std::sync::Arc;

use super::compiled::Compiled;

/// How many are kept at most.
const MOST: usize = 32;

/// Keeps compiled constraints within a budget of bytes: requests of one task have the same.
#[derive(Debug)]
pub(super) struct CompiledCache {
    /// The one used last is the first.
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

    /// Finds what can still be used.
    pub(super) fn get(&mut self, key: &str) -> Option<Arc<Compiled>> {
        let place = self.entries.iter().position(|(known, _)| known == key)?;
        let entry = self.entries.remove(place).filter(|(_, known)| !known.is_worn())?;
        let compiled = Arc::clone(&entry.1);
        self.entries.push_front(entry);
        // Answers have made it larger since.
        self.evict();
        Some(compiled)
    }

    /// Keeps what is not known yet, and returns it; or what another request has compiled meanwhile.
    pub(super) fn insert(&mut self, key: String, compiled: Arc<Compiled>) -> Arc<Compiled> {
        if let Some(known) = self.get(&key) {
            return known;
        }
        self.entries.push_front((key, Arc::clone(&compiled)));
        self.evict();
        compiled
    }

    /// Estimates the bytes of all.
    pub(super) fn bytes(&self) -> usize {
        self.entries.iter().map(bytes).sum()
    }

    /// Forgets what was used longest ago, as far as there are too many.
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
