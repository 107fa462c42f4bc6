//! Drawings: the right name ranked first, nearest, and written.

use std::collections::HashSet;
use std::path::Path;

use multiway_model::ProcessedImage;
use multiway_tasks::TaskInputs;

use super::asker::{Asker, cosine};
use super::{Count, EvaluateError, EvaluationSplit, Scores};
use crate::data::{PreparedData, Split, TestPictureRecord, file_stems, open_test};
use crate::examples::{LANGUAGE_NAMES, ValidationPictures};
use crate::random::{fork, shuffle};

/// Languages other than English in which names are ranked: index in the prepared languages, with its code.
const FURTHER: [(usize, &str); 5] = [(1, "de"), (2, "fr"), (3, "es"), (7, "ja"), (8, "zh")];
/// How many of the first names are looked at for concepts that training holds out.
const FIRST: usize = 5;

/// A drawing with its name.
struct Drawing<'a> {
    name: &'a str,
    shown: Shown<'a>,
}

enum Shown<'a> {
    File(std::path::PathBuf),
    Prepared(&'a PreparedData, usize),
}

impl Drawing<'_> {
    fn open(&self, asker: &Asker<'_>) -> Result<ProcessedImage, EvaluateError> {
        match &self.shown {
            Shown::File(path) => asker.open(path),
            Shown::Prepared(data, picture) => asker.prepared(data, *picture),
        }
    }
}

pub(super) fn score(
    asker: &Asker<'_>,
    data: &PreparedData,
    scores: &mut Scores<'_>,
) -> Result<(), EvaluateError> {
    let options = scores.options;
    match options.split {
        EvaluationSplit::Validation => {
            if scores.wants(&["drawings"]) {
                let pictures = ValidationPictures::of(data);
                let mut drawings = Vec::new();
                for (picture, name) in pictures.drawings() {
                    drawings.push(Drawing {
                        name,
                        shown: Shown::Prepared(data, picture),
                    });
                }
                choose(&mut drawings, options.pictures, options.seed);
                known(asker, &drawings, scores)?;
            }
        }
        EvaluationSplit::Test => {
            if scores.wants(&["drawings", "languages", "held"]) {
                let records = open_test(&options.openmoji)?;
                openmoji(asker, data, &records, scores)?;
            }
            if let Some(folder) = &options.named
                && scores.wants(&["strangers"])
            {
                strangers(asker, folder, scores)?;
            }
        }
    }
    Ok(())
}

/// Chooses drawings whose names are all different, the same for the same seed.
fn choose(drawings: &mut Vec<Drawing<'_>>, count: usize, seed: u64) {
    shuffle(&mut fork(seed, &[]), drawings);
    let mut names = HashSet::new();
    drawings.retain(|drawing| names.insert(drawing.name.to_owned()));
    drawings.truncate(count);
}

/// OpenMoji's drawings: of concepts that are known from other artists, and of those that are held out.
fn openmoji(
    asker: &Asker<'_>,
    data: &PreparedData,
    records: &[TestPictureRecord],
    scores: &mut Scores<'_>,
) -> Result<(), EvaluateError> {
    let options = scores.options;
    let of = |split: Split| {
        let records = records.iter().filter(move |record| record.split == split);
        let drawings = records.map(|record| Drawing {
            name: &record.name,
            shown: Shown::File(options.openmoji.join(&record.file)),
        });
        drawings.collect::<Vec<_>>()
    };
    let mut drawings = of(Split::Train);
    choose(&mut drawings, options.pictures, options.seed);
    if drawings.len() < options.pictures {
        return Err(EvaluateError::TooFew {
            what: "OpenMoji pictures of known concepts",
            expected: options.pictures,
            found: drawings.len(),
        });
    }
    known(asker, &drawings, scores)?;
    for (language, code) in FURTHER {
        let test = format!("languages-{code}");
        if scores.wants(&[&test]) {
            let count = in_language(asker, data, records, &drawings, (language, code))?;
            scores.push(
                test,
                "the right name in another language ranks first of those drawn",
                count,
            );
        }
    }
    let test = format!("held-first-{FIRST}");
    if scores.wants(&[&test]) {
        let mut held = of(Split::Held);
        choose(&mut held, usize::MAX, options.seed);
        let mut names: Vec<String> = data
            .concepts()
            .iter()
            .filter_map(|concept| concept.name("en").map(str::to_owned))
            .collect();
        names.sort();
        names.dedup();
        let answers = asker.each("held-out concepts", &held, |drawing| {
            let ranked = asker.rank(drawing.open(asker)?, &names, LANGUAGE_NAMES[0])?;
            Ok(ranked.iter().take(FIRST).any(|name| name == drawing.name))
        })?;
        scores.push(
            test,
            "the name of a concept that no artist showed in training is among the first five of all names",
            Count::of(answers),
        );
    }
    Ok(())
}

/// Counts right names ranked first by likelihood and by vectors, and right captions.
fn known(asker: &Asker<'_>, drawings: &[Drawing<'_>], scores: &mut Scores<'_>) -> Result<(), EvaluateError> {
    let names: Vec<String> = drawings.iter().map(|drawing| drawing.name.to_owned()).collect();
    let (first, nearest, exact) = ("drawings-first", "drawings-nearest", "drawings-exact");
    if scores.wants(&[first]) {
        let answers = asker.each("drawings, ranked", drawings, |drawing| {
            let ranked = asker.rank(drawing.open(asker)?, &names, LANGUAGE_NAMES[0])?;
            Ok(ranked.first().is_some_and(|name| name == drawing.name))
        })?;
        scores.push(
            first,
            "the right name ranks first of those drawn",
            Count::of(answers),
        );
    }
    if scores.wants(&[nearest]) {
        let vectors = asker.each("names", &names, |name| {
            asker.embed(TaskInputs::new().with("text", name.as_str()))
        })?;
        let answers = asker.each("drawings, compared", drawings, |drawing| {
            let vector = asker.embed(TaskInputs::new().with_image(drawing.open(asker)?))?;
            let found = (0..names.len()).max_by(|a, b| {
                let cosine = |name: &usize| vectors.get(*name).map_or(0.0, |name| cosine(&vector, name));
                cosine(a).total_cmp(&cosine(b))
            });
            Ok(found
                .and_then(|name| names.get(name))
                .is_some_and(|name| name == drawing.name))
        })?;
        scores.push(
            nearest,
            "the right name's vector is nearest of those drawn",
            Count::of(answers),
        );
    }
    if scores.wants(&[exact]) {
        let answers = asker.each("drawings, captioned", drawings, |drawing| {
            let caption = asker.text("caption", TaskInputs::new().with_image(drawing.open(asker)?))?;
            Ok(caption == drawing.name)
        })?;
        scores.push(
            exact,
            "the caption is the name, letter by letter",
            Count::of(answers),
        );
    }
    Ok(())
}

/// Ranks the names of the same drawings in another language; those without a name in it are left out.
fn in_language(
    asker: &Asker<'_>,
    data: &PreparedData,
    records: &[TestPictureRecord],
    drawings: &[Drawing<'_>],
    (language, code): (usize, &str),
) -> Result<Count, EvaluateError> {
    let name = |english: &str| {
        let record = records.iter().find(|record| record.name == english)?;
        data.concept(&record.concept)?.name(code).map(str::to_owned)
    };
    let named: Vec<(&Drawing<'_>, String)> = drawings
        .iter()
        .filter_map(|drawing| Some((drawing, name(drawing.name)?)))
        .collect();
    let mut names: Vec<String> = named.iter().map(|(_, name)| name.clone()).collect();
    names.sort();
    names.dedup();
    let answers = asker.each("drawings, in another language", &named, |(drawing, name)| {
        let ranked = asker.rank(drawing.open(asker)?, &names, LANGUAGE_NAMES[language])?;
        Ok(ranked.first() == Some(name))
    })?;
    Ok(Count::of(answers))
}

/// Pictures of a stranger, named by their files.
fn strangers(asker: &Asker<'_>, folder: &Path, scores: &mut Scores<'_>) -> Result<(), EvaluateError> {
    let files = file_stems(folder)?;
    let mut files: Vec<_> = files
        .into_iter()
        .map(|(path, stem)| (path, stem.replace('_', " ")))
        .collect();
    let mut names: Vec<String> = files.iter().map(|(_, name)| name.clone()).collect();
    names.sort();
    names.dedup();
    // All names are ranked, however few pictures are shown.
    shuffle(&mut fork(scores.options.seed, &[7]), &mut files);
    files.truncate(scores.options.questions.unwrap_or(usize::MAX));
    let answers = asker.each("a stranger's pictures", &files, |(path, name)| {
        let ranked = asker.rank(asker.open(path)?, &names, LANGUAGE_NAMES[0])?;
        Ok(ranked.first() == Some(name))
    })?;
    scores.push(
        "strangers-first",
        "the right name ranks first of those of all files",
        Count::of(answers),
    );
    Ok(())
}
