//! The reuse cache: encoded prompts and pictures, least recently used first out.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use multiway_model::ImagePrefix;
use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::readout::{EncodedPrompt, PromptToEncode, Readout};

/// The overhead of an entry: its key twice, and its place in the tables.
const ENTRY_BYTES: usize = 256;

/// The key of an entry: a content hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ReuseKey {
    /// Pictures, independent of the text beside them.
    Pictures(Digest),
    /// A whole prompt, and its readout.
    Prompt(Digest),
}

impl ReuseKey {
    /// Hashes a prompt and its readout; `None` if it is not to be cached.
    pub(super) fn prompt(prompt: &PromptToEncode) -> Option<Self> {
        if matches!(prompt.readout, Readout::Explanation(_)) {
            return None;
        }
        let mut hash = Sha256::new();
        hash.update(prompt.pictures?);
        hash.update(format!("{:?}", prompt.readout));
        for token in &prompt.tokens {
            hash.update(token.to_le_bytes());
        }
        Some(Self::Prompt(hash.finalize().into()))
    }
}

/// A cached value.
#[derive(Clone, Debug)]
pub(super) enum ReuseValue {
    Pictures(ImagePrefix),
    Prompt(EncodedPrompt),
}

impl CacheValue for ReuseValue {
    fn bytes(&self) -> usize {
        match self {
            Self::Pictures(prefix) => prefix.bytes(),
            Self::Prompt(EncodedPrompt::Memory(memory)) => memory.bytes(),
            Self::Prompt(EncodedPrompt::Value(value)) => value.bytes(),
            Self::Prompt(EncodedPrompt::NotFinite) => 0,
        }
    }

    fn is_in_use(&self) -> bool {
        match self {
            Self::Pictures(prefix) => prefix.is_shared(),
            Self::Prompt(EncodedPrompt::Memory(memory)) => memory.is_shared(),
            Self::Prompt(_) => false,
        }
    }
}

/// Hits, misses and size of the reuse cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReuseCounts {
    /// Hits of whole prompts.
    pub(crate) prompts: u64,
    /// Hits of pictures in other prompts.
    pub(crate) pictures: u64,
    /// Misses of whole prompts.
    pub(crate) missed_prompts: u64,
    /// Misses of pictures.
    pub(crate) missed_pictures: u64,
    /// Bytes of all entries.
    pub(crate) bytes: usize,
}

/// A value that can be cached. Clones share their memory.
pub(super) trait CacheValue: Clone {
    /// Counts its bytes.
    fn bytes(&self) -> usize;

    /// Returns whether it is shared, so that evicting it would free nothing.
    fn is_in_use(&self) -> bool;
}

/// A least-recently-used cache, bounded in bytes.
///
/// Entries that running requests still share are never evicted: that would free nothing. If evicting all
/// others does not make enough room, the new value is not cached.
#[derive(Debug)]
pub(super) struct ReuseCache<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys by their last use, the oldest first.
    order: BTreeMap<u64, K>,
    uses: u64,
    bytes: usize,
    budget: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<K: Clone + Eq + Hash, V: CacheValue> ReuseCache<K, V> {
    /// Creates a cache of at most `budget` bytes; 0 turns it off.
    pub(super) fn new(budget: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            bytes: 0,
            budget,
        }
    }

    /// Returns whether the cache is on.
    pub(super) fn is_on(&self) -> bool {
        self.budget > 0
    }

    /// Counts its bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns a value, and marks it as the most recently used.
    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.get_mut(key)?;
        self.uses += 1;
        self.order.remove(&entry.used);
        entry.used = self.uses;
        self.order.insert(self.uses, key.clone());
        Some(entry.value.clone())
    }

    /// Inserts a value, and evicts the least recently used ones as needed.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        let bytes = ENTRY_BYTES + value.bytes();
        if bytes > self.budget || !self.make_room(bytes) {
            return;
        }
        self.uses += 1;
        self.bytes += bytes;
        self.order.insert(self.uses, key.clone());
        let entry = Entry {
            value,
            bytes,
            used: self.uses,
        };
        self.entries.insert(key, entry);
    }

    /// Evicts the least recently used entries that are not shared until there is room; evicts nothing if that
    /// is not enough.
    fn make_room(&mut self, bytes: usize) -> bool {
        let Some(mut excess) = (self.bytes + bytes).checked_sub(self.budget) else {
            return true;
        };
        let mut out = Vec::new();
        for key in self.order.values() {
            if excess == 0 {
                break;
            }
            if let Some(entry) = self.entries.get(key).filter(|entry| !entry.value.is_in_use()) {
                excess = excess.saturating_sub(entry.bytes);
                out.push(key.clone());
            }
        }
        if excess > 0 {
            return false;
        }
        out.iter().for_each(|key| self.remove(key));
        true
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// Makes a budget for three entries that hold so many bytes together.
    fn of(bytes: usize) -> usize {
        3 * ENTRY_BYTES + bytes
    }

    /// A value of a size.
    impl CacheValue for Arc<usize> {
        fn bytes(&self) -> usize {
            **self
        }

        fn is_in_use(&self) -> bool {
            Self::strong_count(self) > 1
        }
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut cache = ReuseCache::new(of(10));
        for key in ["a", "b", "c"] {
            cache.insert(key, Arc::new(3));
        }
        assert!(cache.get(&"a").is_some());
        cache.insert("d", Arc::new(4));
        assert!(cache.get(&"b").is_none() && cache.get(&"a").is_some() && cache.get(&"c").is_some());
        assert_eq!(cache.bytes(), of(10));
    }

    #[test]
    fn what_is_in_use_stays_and_what_finds_no_room_is_not_kept() {
        let mut cache = ReuseCache::new(of(10) - ENTRY_BYTES);
        let used = Arc::new(6);
        cache.insert("used", Arc::clone(&used));
        cache.insert("free", Arc::new(4));
        cache.insert("large", Arc::new(5));
        assert!(cache.get(&"large").is_none());
        assert!(cache.get(&"free").is_some(), "nothing is forgotten in vain");
        drop(used);
        cache.insert("large", Arc::new(5));
        assert!(cache.get(&"large").is_some() && cache.get(&"used").is_none());
        cache.insert("huge", Arc::new(11 + ENTRY_BYTES));
        assert!(cache.get(&"huge").is_none() && cache.get(&"large").is_some());
    }

    #[test]
    fn without_a_budget_nothing_is_kept() {
        let mut cache = ReuseCache::new(0);
        cache.insert("a", Arc::new(1));
        assert!(!cache.is_on() && cache.get(&"a").is_none());
    }

    proptest! {
        #[test]
        fn bytes_are_those_of_the_entries_and_never_above_the_budget(
            events in prop::collection::vec((0..8_u8, 0..9_usize, any::<bool>()), 0..60),
        ) {
            let mut cache = ReuseCache::new(of(20));
            let mut held = Vec::new();
            for (key, bytes, hold) in events {
                let value = Arc::new(bytes);
                cache.insert(key, Arc::clone(&value));
                if hold {
                    held.push(value);
                } else {
                    drop(value);
                    held.pop();
                }
                let kept: usize = cache.entries.values().map(|entry| entry.bytes).sum();
                prop_assert_eq!(cache.bytes(), kept);
                prop_assert!(kept <= of(20));
                prop_assert!(kept >= ENTRY_BYTES * cache.entries.len());
                prop_assert_eq!(cache.order.len(), cache.entries.len());
            }
        }
    }
}
