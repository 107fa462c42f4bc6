//! What a task file takes over from the one that it extends.

use std::collections::HashSet;
use std::mem;

use indexmap::IndexMap;
use serde_saphyr::Spanned;

use super::inputs::RawInput;
use super::owners::Owners;
use super::raw::RawFrontMatter;

/// Merges the front matter of a task file with that of the files that it extends, the nearest first.
pub(super) fn merged(levels: Vec<(String, RawFrontMatter)>, owners: &mut Owners) -> RawFrontMatter {
    let mut levels = levels.into_iter();
    let mut merged = levels.next().map(|(_, raw)| raw).unwrap_or_default();
    for (origin, parent) in levels {
        merged.inherit(&origin, parent, owners);
    }
    merged
}

/// Takes over the value of a key that has none.
fn take_over<T>(key: &str, own: &mut Option<T>, parent: Option<T>, origin: &str, owners: &mut Owners) {
    if own.is_none() && parent.is_some() {
        owners.add(key, origin);
        *own = parent;
    }
}

impl RawFrontMatter {
    /// Takes over what the front matter lacks. Its name, its version and its examples are its own.
    fn inherit(&mut self, origin: &str, parent: Self, owners: &mut Owners) {
        take_over(
            "description",
            &mut self.description,
            parent.description,
            origin,
            owners,
        );
        take_over("output", &mut self.output, parent.output, origin, owners);
        take_over("target", &mut self.target, parent.target, origin, owners);
        take_over("few_shot", &mut self.few_shot, parent.few_shot, origin, owners);
        take_over("separator", &mut self.separator, parent.separator, origin, owners);
        take_over("metrics", &mut self.metrics, parent.metrics, origin, owners);
        take_over("languages", &mut self.languages, parent.languages, origin, owners);
        match (&mut self.decode, parent.decode) {
            (Some(own), Some(parent)) => {
                let inherited = own.value.inherit(parent.value);
                inherited
                    .iter()
                    .for_each(|key| owners.add(format!("decode.{key}"), origin));
            }
            (own, parent) => take_over("decode", own, parent, origin, owners),
        }
        let inputs = mem::take(&mut self.inputs);
        self.inputs = merged_inputs(inputs, parent.inputs, origin, owners);
        self.metadata = merged_map(
            "metadata",
            mem::take(&mut self.metadata),
            parent.metadata,
            origin,
            owners,
        );
        let preprocessing = mem::take(&mut self.preprocessing);
        self.preprocessing = merged_map(
            "preprocessing",
            preprocessing,
            parent.preprocessing,
            origin,
            owners,
        );
    }
}

/// Merges two mappings: the inherited keys first, in their order, each with the task's own value if it has
/// one.
fn merged_map<V>(
    key: &str,
    own: IndexMap<Spanned<String>, V>,
    parent: IndexMap<Spanned<String>, V>,
    origin: &str,
    owners: &mut Owners,
) -> IndexMap<Spanned<String>, V> {
    let mut merged = IndexMap::with_capacity(own.len() + parent.len());
    let mut own: IndexMap<String, Option<(Spanned<String>, V)>> = own
        .into_iter()
        .map(|(name, value)| (name.value.clone(), Some((name, value))))
        .collect();
    for (name, value) in parent {
        match own.get_mut(&name.value).and_then(Option::take) {
            Some((name, value)) => merged.insert(name, value),
            None => {
                owners.add(format!("{key}.{}", name.value), origin);
                merged.insert(name, value)
            }
        };
    }
    merged.extend(own.into_values().flatten());
    merged
}

/// Merges inputs, and notes those that the task removes.
fn merged_inputs(
    own: IndexMap<Spanned<String>, Option<RawInput>>,
    parent: IndexMap<Spanned<String>, Option<RawInput>>,
    origin: &str,
    owners: &mut Owners,
) -> IndexMap<Spanned<String>, Option<RawInput>> {
    let declared = parent.iter().filter(|(_, input)| input.is_some());
    let declared: HashSet<&str> = declared.map(|(name, _)| name.value.as_str()).collect();
    for (name, _) in own.iter().filter(|(_, input)| input.is_none()) {
        if declared.contains(name.value.as_str()) {
            owners.remove(&name.value);
        }
    }
    merged_map("inputs", own, parent, origin, owners)
}
