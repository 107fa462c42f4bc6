//! Shows that what is held out is held out.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::concepts::check_names;
use super::names::NameIndex;
use super::texts::description;
use super::{DataError, PictureRecord, PreparedData, Source, Split, split_of};

/// Counts what an audit went through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditReport {
    /// Pictures by source and split.
    pub pictures: BTreeMap<Source, BTreeMap<Split, usize>>,
    /// Concepts that are trained on.
    pub train_concepts: usize,
    /// Concepts that are held out.
    pub held_concepts: usize,
    /// Lines of training text, none of which names or describes a held-out concept.
    pub texts: usize,
    /// Names and descriptions of held-out concepts that training text was searched for.
    pub forbidden_texts: usize,
    /// Icons, sketches and silhouettes that show no concept of the table, none of which is named as a
    /// held-out concept is.
    pub named_pictures: usize,
    /// Questions of training pictures.
    pub train_questions: usize,
    /// Questions of test pictures.
    pub test_questions: usize,
    /// Test pictures without concept (shapes, digits) that equal a training picture to the byte, as their
    /// makers left them.
    pub repeated_test_pictures: usize,
}

/// Checks that training sees nothing that evaluation holds out.
///
/// It asks, of every record: does each concept have the split that [`split_of`] gives it; does no training
/// picture show a held-out concept, equal a drawing of one to the byte, or, if it is not a photograph, have a
/// name that holds the name of one; does no name stand on both sides;
/// is no line of training text the name of a held-out concept, its keywords, or both.
///
/// # Errors
///
/// Fails at the first leak, naming it.
pub fn audit(data: &PreparedData) -> Result<AuditReport, DataError> {
    let mut report = AuditReport {
        texts: data.texts().len(),
        ..AuditReport::default()
    };
    for concept in data.concepts() {
        let split = split_of(&concept.concept);
        if concept.split != split {
            return leak(format!(
                "concept {} is {:?} but must be {split:?}",
                concept.concept, concept.split
            ));
        }
        let counted = if split == Split::Held {
            &mut report.held_concepts
        } else {
            &mut report.train_concepts
        };
        *counted += 1;
    }
    check_names(data.concepts())?;
    report.repeated_test_pictures = audit_pictures(data)?;
    report.named_pictures = audit_names(data)?;
    for picture in data.pictures() {
        *report
            .pictures
            .entry(picture.source)
            .or_default()
            .entry(picture.split)
            .or_default() += 1;
    }
    report.forbidden_texts = audit_texts(data)?;
    report.train_questions = data
        .questions()
        .iter()
        .filter(|question| question.split == Split::Train)
        .count();
    report.test_questions = data.questions().len() - report.train_questions;
    Ok(report)
}

fn leak<T>(leak: String) -> Result<T, DataError> {
    Err(DataError::Leak { leak })
}

/// Compares evaluation's pictures with training's, and counts the test pictures that training has too.
fn audit_pictures(data: &PreparedData) -> Result<usize, DataError> {
    let mut trained: HashMap<[u8; 32], usize> = HashMap::new();
    let digest = |index| data.rgba(index).map(|pixels| Sha256::digest(pixels).into());
    for (index, picture) in data
        .pictures()
        .iter()
        .enumerate()
        .filter(|(_, picture)| picture.split == Split::Train)
    {
        if let Some(key) = picture
            .concept
            .as_deref()
            .filter(|key| split_of(key) != Split::Train)
        {
            return leak(format!(
                "training picture {index} shows the held-out concept {key}"
            ));
        }
        trained.extend(digest(index).map(|digest| (digest, index)));
    }
    let mut repeated = 0;
    for (index, picture) in data
        .pictures()
        .iter()
        .enumerate()
        .filter(|(_, picture)| picture.split != Split::Train)
    {
        let twin = digest(index).and_then(|digest| trained.get(&digest));
        match (twin, picture) {
            (
                Some(twin),
                PictureRecord {
                    concept: Some(key), ..
                },
            ) => {
                return leak(format!(
                    "training picture {twin} equals picture {index} of the held-out concept {key}"
                ));
            }
            (Some(_), _) => repeated += 1,
            (None, _) => {}
        }
    }
    Ok(repeated)
}

/// Checks the names of training pictures that are drawn and show no concept of the table; returns how many
/// there are.
fn audit_names(data: &PreparedData) -> Result<usize, DataError> {
    let names = NameIndex::new(data.concepts(), []);
    let mut named = 0;
    for (index, picture) in data.pictures().iter().enumerate() {
        if picture.split != Split::Train || picture.source.is_photographs() || picture.names.is_empty() {
            continue;
        }
        named += 1;
        if let Some(name) = picture.names.iter().find(|name| names.is_held(name)) {
            return leak(format!(
                "training picture {index} is named '{name}', as a held-out concept is"
            ));
        }
    }
    Ok(named)
}

/// Searches training text for held-out names, keyword lists and descriptions; returns how many were looked
/// for.
///
/// By language: "Batterie" is a battery in German and a drum in French, and either may be trained on.
fn audit_texts(data: &PreparedData) -> Result<usize, DataError> {
    let mut forbidden = HashSet::new();
    for concept in data
        .concepts()
        .iter()
        .filter(|concept| concept.split == Split::Held)
    {
        for (language, name) in &concept.names {
            let keywords = concept.keywords(language);
            forbidden.insert((language.as_str(), name.to_lowercase()));
            if !keywords.is_empty() {
                forbidden.insert((language, keywords.join(", ").to_lowercase()));
                forbidden.insert((language, description(name, keywords).to_lowercase()));
            }
        }
    }
    for (index, text) in data.texts().iter().enumerate() {
        if forbidden.contains(&(text.lang.as_str(), text.text.to_lowercase())) {
            return leak(format!(
                "line {} of texts.jsonl describes a held-out concept: '{}'",
                index + 1,
                text.text
            ));
        }
    }
    Ok(forbidden.len())
}
