//! Photographs: the right name ranked first among the names of their set.

use std::collections::{BTreeMap, BTreeSet};

use multiway_model::ProcessedImage;

use super::asker::Asker;
use super::{Count, EvaluateError, EvaluationSplit, Scores};
use crate::data::{Photograph, PreparedData, Source, read_photographs};
use crate::examples::{LANGUAGE_NAMES, ValidationPictures};
use crate::random::{fork, shuffle};

const WHAT: &str = "the right name ranks first of those of its set";

/// A photograph with the names that are right.
struct Shown<'a> {
    source: Source,
    names: &'a [String],
    picture: Picture<'a>,
}

enum Picture<'a> {
    File(&'a [u8]),
    Prepared(usize),
}

pub(super) fn score(
    asker: &Asker<'_>,
    data: &PreparedData,
    scores: &mut Scores<'_>,
) -> Result<(), EvaluateError> {
    let options = scores.options;
    if !scores.wants(&["photographs"]) {
        return Ok(());
    }
    match (options.split, &options.shards) {
        (EvaluationSplit::Validation, _) => {
            let pictures = ValidationPictures::of(data);
            let shown = pictures.photographs().map(|(picture, source, names)| Shown {
                source,
                names,
                picture: Picture::Prepared(picture),
            });
            of_sets(asker, data, shown.collect(), scores)
        }
        (EvaluationSplit::Test, Some(folder)) => {
            let (photographs, _) = read_photographs(folder, "test")?;
            let shown = photographs.iter().map(|photograph: &Photograph| Shown {
                source: photograph.source,
                names: &photograph.names,
                picture: Picture::File(&photograph.bytes),
            });
            of_sets(asker, data, shown.collect(), scores)
        }
        (EvaluationSplit::Test, None) => Ok(()),
    }
}

fn of_sets(
    asker: &Asker<'_>,
    data: &PreparedData,
    mut shown: Vec<Shown<'_>>,
    scores: &mut Scores<'_>,
) -> Result<(), EvaluateError> {
    let options = scores.options;
    shuffle(&mut fork(options.seed, &[2]), &mut shown);
    let mut sets: BTreeMap<Source, Vec<Shown<'_>>> = BTreeMap::new();
    for photograph in shown {
        sets.entry(photograph.source).or_default().push(photograph);
    }
    for (source, mut photographs) in sets {
        let test = format!("photographs-{}", source.name());
        if !scores.wants(&[&test]) {
            continue;
        }
        let names = photographs
            .iter()
            .filter_map(|photograph| photograph.names.first());
        let names: BTreeSet<String> = names.cloned().collect();
        let names: Vec<String> = names.into_iter().collect();
        photographs.truncate(options.questions.unwrap_or(usize::MAX));
        let answers = asker.each("photographs", &photographs, |photograph| {
            let ranked = asker.rank(open(asker, data, photograph)?, &names, LANGUAGE_NAMES[0])?;
            Ok(ranked.first().is_some_and(|name| photograph.names.contains(name)))
        })?;
        scores.push(test, WHAT, Count::of(answers));
    }
    Ok(())
}

fn open(
    asker: &Asker<'_>,
    data: &PreparedData,
    photograph: &Shown<'_>,
) -> Result<ProcessedImage, EvaluateError> {
    match photograph.picture {
        Picture::Prepared(picture) => asker.prepared(data, picture),
        Picture::File(bytes) => asker
            .processor
            .process(bytes)
            .map_err(|source| EvaluateError::Picture {
                path: photograph.names.join(", ").into(),
                source,
            }),
    }
}
