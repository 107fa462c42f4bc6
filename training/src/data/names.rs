//! Finds concepts by what icon sets, sketches and photographs call them, and knows which names are held out.

use std::collections::{HashMap, HashSet};

use super::{ConceptRecord, Split};

/// The concepts by name.
#[derive(Debug)]
pub(super) struct NameIndex {
    /// The index of a concept, by a name as [`words`] writes it.
    by_name: HashMap<String, usize>,
    /// The same without spaces: some sets run the words of a name together.
    by_letters: HashMap<String, usize>,
    held: HashSet<String>,
    /// Words of the longest held-out name.
    longest: usize,
}

impl NameIndex {
    /// Indexes concepts by their English names, and by other names that are given for them.
    ///
    /// Held out are the names of held-out concepts, and those of their English keywords that no other concept
    /// has: they name the same thing.
    pub(super) fn new<'a>(
        concepts: &'a [ConceptRecord],
        others: impl IntoIterator<Item = (usize, &'a str)>,
    ) -> Self {
        let own = concepts
            .iter()
            .enumerate()
            .filter_map(|(index, concept)| Some((index, concept.name("en")?)));
        let (mut by_name, mut by_letters) = (HashMap::new(), HashMap::new());
        let mut held = HashSet::new();
        for (index, name) in own.chain(others) {
            let name = words(name);
            by_letters.entry(name.replace(' ', "")).or_insert(index);
            if concepts.get(index).is_some_and(|c| c.split == Split::Held) {
                held.insert(name.clone());
            }
            by_name.entry(name).or_insert(index);
        }
        held.extend(keywords_of_held_alone(concepts));
        let trained = |name: &String| {
            let concept = by_name.get(name).and_then(|index| concepts.get(*index));
            concept.is_some_and(|concept| concept.split == Split::Train)
        };
        held.retain(|name| !name.is_empty() && !trained(name));
        let longest = held.iter().map(|name| name.split(' ').count()).max().unwrap_or(0);
        Self {
            by_name,
            by_letters,
            held,
            longest,
        }
    }

    /// Finds the index of the concept that a name names.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let name = words(name);
        let flag = || {
            let country = name.strip_prefix("flag for ")?;
            self.by_name.get(&format!("flag {country}"))
        };
        self.by_name.get(&name).or_else(flag).copied()
    }

    /// Finds the index of the concept whose name has these letters, wherever its spaces are.
    pub(super) fn find_by_letters(&self, letters: &str) -> Option<usize> {
        self.by_letters.get(&words(letters).replace(' ', "")).copied()
    }

    /// Tells whether a name holds the name of a held-out concept, word for word: "string bass guitar" does
    /// where "guitar" is held out. A name of a concept that is trained on does not.
    pub(super) fn is_held(&self, name: &str) -> bool {
        let name = words(name);
        if self.by_name.contains_key(&name) {
            return self.held.contains(&name);
        }
        let parts: Vec<&str> = name.split(' ').collect();
        (1..=self.longest.min(parts.len()))
            .flat_map(|count| parts.windows(count))
            .any(|some| self.held.contains(&some.join(" ")))
    }
}

/// Lists the English keywords of held-out concepts that no concept which is trained on has as keyword.
fn keywords_of_held_alone(concepts: &[ConceptRecord]) -> HashSet<String> {
    let of = |split: Split| {
        let concepts = concepts.iter().filter(move |concept| concept.split == split);
        concepts.flat_map(|concept| concept.keywords("en").iter().map(|keyword| words(keyword)))
    };
    let trained: HashSet<String> = of(Split::Train).collect();
    of(Split::Held)
        .filter(|keyword| !trained.contains(keyword))
        .collect()
}

/// Writes a name in lowercase words with single spaces between them: "The Sheaf-of-Rice" is "sheaf of rice".
pub(super) fn words(name: &str) -> String {
    let lowercase = name.to_lowercase();
    let parts: Vec<&str> = lowercase
        .split(|c: char| !c.is_alphanumeric())
        .filter(|part| !part.is_empty())
        .collect();
    match parts.as_slice() {
        ["the", rest @ ..] if !rest.is_empty() => rest.join(" "),
        parts => parts.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn concept(key: &str, name: &str, split: Split, keywords: &[&str]) -> ConceptRecord {
        let keywords = keywords.iter().map(ToString::to_string).collect();
        ConceptRecord {
            concept: key.to_owned(),
            split,
            names: BTreeMap::from([("en".to_owned(), name.to_owned())]),
            keywords: BTreeMap::from([("en".to_owned(), keywords)]),
        }
    }

    fn index() -> NameIndex {
        let concepts = [
            concept("1", "guitar", Split::Held, &["six-string", "music"]),
            concept("2", "hot dog", Split::Train, &["music", "sausage"]),
            concept("3", "flag: Fiji", Split::Train, &[]),
            concept("4", "cat face", Split::Held, &[]),
            concept("5", "guitar case", Split::Train, &[]),
        ];
        NameIndex::new(&concepts, [(1, "frankfurter"), (3, "Cat-Head")])
    }

    #[test]
    fn names_are_found_however_they_are_written() {
        let index = index();
        assert_eq!(index.find("Hot-Dog"), Some(1));
        assert_eq!(index.find("the frankfurter"), Some(1));
        assert_eq!(index.find("flag-for-fiji"), Some(2));
        assert_eq!(index.find("hotdog"), None);
        assert_eq!(index.find_by_letters("hotdog"), Some(1));
    }

    #[test]
    fn what_names_a_held_out_concept_is_held_out() {
        let index = index();
        for held in ["guitar", "bass guitar", "Guitar-player", "cat head", "six string"] {
            assert!(index.is_held(held), "{held}");
        }
        for trained in ["music", "hot dog", "guitarist", "cat", "guitar case", "dog", ""] {
            assert!(!index.is_held(trained), "{trained}");
        }
    }
}
