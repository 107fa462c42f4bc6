//! The concepts: which there are, and what languages call them.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;

use super::packages::Packages;
use super::split::concept_characters;
use super::{ConceptRecord, DataError, LANGUAGES, Split, concept_key, split_of};

/// An entry of the emoji table; its other keys (codes of carriers, places on sprite sheets) are not needed.
#[derive(Debug, Deserialize)]
struct EmojiEntry {
    unified: String,
}

#[derive(Debug, Deserialize)]
struct AnnotationFile {
    #[serde(alias = "annotationsDerived")]
    annotations: AnnotationTable,
}

#[derive(Debug, Deserialize)]
struct AnnotationTable {
    annotations: HashMap<String, Annotation>,
}

/// What CLDR says about a character: a name to be read aloud, and keywords.
#[derive(Debug, Deserialize)]
struct Annotation {
    #[serde(default, rename = "tts")]
    name: Vec<String>,
    #[serde(default, rename = "default")]
    keywords: Vec<String>,
}

/// Reads all concepts, by key, with their names and keywords in every prepared language.
pub(super) fn read_concepts(packages: Packages<'_>) -> Result<Vec<ConceptRecord>, DataError> {
    let path = packages.folder("emoji-datasource-google")?.join("emoji.json");
    let entries: Vec<EmojiEntry> = packages.json("emoji-datasource-google", "emoji.json")?;
    let mut concepts = BTreeMap::new();
    for entry in entries {
        let key = concept_key(&entry.unified).ok_or_else(|| DataError::Unexpected {
            path: path.clone(),
            expected: "code points in hexadecimal as 'unified'".to_owned(),
            found: format!("'{}'", entry.unified),
        })?;
        let record = ConceptRecord {
            split: split_of(&key),
            names: BTreeMap::new(),
            keywords: BTreeMap::new(),
            concept: key.clone(),
        };
        concepts.insert(key, record);
    }
    let mut concepts: Vec<ConceptRecord> = concepts.into_values().collect();
    for language in LANGUAGES {
        annotate(packages, language, &mut concepts)?;
    }
    if let Some(concept) = concepts.iter().find(|concept| concept.name("en").is_none()) {
        return Err(DataError::Unexpected {
            path: packages.folder("cldr-annotations-full")?,
            expected: "an English name of every concept".to_owned(),
            found: format!("none of {}", concept.concept),
        });
    }
    drop_held_names(&mut concepts);
    check_names(&concepts)?;
    Ok(concepts)
}

/// Takes from training concepts the names in other languages than English that a held-out concept has too.
fn drop_held_names(concepts: &mut [ConceptRecord]) {
    let held: HashSet<(String, String)> = concepts
        .iter()
        .filter(|concept| concept.split == Split::Held)
        .flat_map(|concept| &concept.names)
        .filter(|(language, _)| *language != "en")
        .map(|(language, name)| (language.clone(), name.to_lowercase()))
        .collect();
    for concept in concepts
        .iter_mut()
        .filter(|concept| concept.split == Split::Train)
    {
        concept
            .names
            .retain(|language, name| !held.contains(&(language.clone(), name.to_lowercase())));
    }
}

fn annotate(packages: Packages<'_>, language: &str, concepts: &mut [ConceptRecord]) -> Result<(), DataError> {
    let mut annotations = HashMap::new();
    for (package, folder) in [
        ("cldr-annotations-full", "annotations"),
        ("cldr-annotations-derived-full", "annotationsDerived"),
    ] {
        let file: AnnotationFile =
            packages.json(package, &format!("{folder}/{language}/annotations.json"))?;
        for (characters, annotation) in file.annotations.annotations {
            annotations.insert(characters.replace('\u{fe0f}', ""), annotation);
        }
    }
    for concept in concepts {
        let annotation =
            concept_characters(&concept.concept).and_then(|characters| annotations.remove(&characters));
        let Some(annotation) = annotation else { continue };
        if let Some(name) = annotation.name.into_iter().next() {
            concept.names.insert(language.to_owned(), name);
        }
        if !annotation.keywords.is_empty() {
            concept.keywords.insert(language.to_owned(), annotation.keywords);
        }
    }
    Ok(())
}

/// Checks that no two concepts on different sides of the split have the same name in any language.
pub(super) fn check_names(concepts: &[ConceptRecord]) -> Result<(), DataError> {
    let mut seen: HashMap<(&str, String), (&str, Split)> = HashMap::new();
    for concept in concepts {
        for (language, name) in &concept.names {
            let key = (language.as_str(), name.to_lowercase());
            let (first, split) = *seen.entry(key).or_insert((&concept.concept, concept.split));
            if split != concept.split {
                return Err(DataError::SplitConflict {
                    first: first.to_owned(),
                    second: concept.concept.clone(),
                    shared: format!("the name '{name}' ({language})"),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(key: &str, split: Split, name: &str) -> ConceptRecord {
        let names = BTreeMap::from([("en".to_owned(), name.to_owned())]);
        ConceptRecord {
            concept: key.to_owned(),
            split,
            names,
            keywords: BTreeMap::new(),
        }
    }

    #[test]
    fn concepts_of_one_name_must_be_on_one_side_of_the_split() {
        let (train, held) = (Split::Train, Split::Held);
        assert!(
            check_names(&[
                named("a", train, "cat"),
                named("b", train, "Cat"),
                named("c", held, "dog")
            ])
            .is_ok()
        );
        let error = check_names(&[named("a", train, "cat"), named("b", held, "Cat")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "concepts a and b share the name 'Cat' (en), but one is trained on and the other held out: \
             put them in one group (SAME_GROUP in training/src/data/split.rs)"
        );
    }
}
