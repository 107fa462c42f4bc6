//! Which keys of merged front matter come from which file.

use std::collections::HashSet;

/// Knows which keys come from which other file.
#[derive(Debug, Default)]
pub(super) struct Owners {
    keys: Vec<(String, String)>,
    /// The inputs that a task file removes from those that it inherits.
    removed: HashSet<String>,
}

impl Owners {
    /// Notes the file that a key is inherited from.
    pub(super) fn add(&mut self, key: impl Into<String>, origin: &str) {
        self.keys.push((key.into(), origin.to_owned()));
    }

    /// Returns the file that a key, or the key around it, was inherited from.
    pub(super) fn of(&self, key: &str) -> Option<&str> {
        let is_within = |outer: &str| {
            key.strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let found = self.keys.iter().find(|(outer, _)| is_within(outer));
        found.map(|(_, origin)| origin.as_str())
    }

    /// Notes that a task file removes an input that it would inherit.
    pub(super) fn remove(&mut self, input: &str) {
        self.removed.insert(input.to_owned());
    }

    /// Tells whether an input that is written as `null` would have been inherited otherwise.
    pub(super) fn removes(&self, input: &str) -> bool {
        self.removed.contains(input)
    }
}
