//! Scenes: counting, positions, colours, comparisons, boxes, two pictures, entailment.

use std::path::{Path, PathBuf};

use multiway_prompts::{InputValue, LocationDialect};
use multiway_tasks::metrics::{BOX_THRESHOLD, BoundingBox};
use multiway_tasks::parse::{Form, LocatedObject, PictureView, parse_locations};
use multiway_tasks::{Answer, TaskInputs};
use rand_chacha::ChaCha8Rng;

use super::asker::Asker;
use super::{Count, EvaluateError, EvaluationSplit, Scores};
use crate::augment::to_rgb8;
use crate::data::{PICTURE_SIDE, PreparedData, Split, fitted_file, open_test};
use crate::examples::TrainingArt;
use crate::random::{fork, shuffle};
use crate::scenes::{Art, LetterSplit, Letters, SceneKind, SceneQuestion, ask, is_plain};

/// Drawings that scenes of the test are pasted from.
const THINGS: usize = 250;

/// OpenMoji's drawings, and words and fonts that training does not see.
struct Drawings {
    things: Vec<(String, Vec<u8>)>,
    letters: Option<Letters>,
}

impl Drawings {
    fn open(folder: &Path, data: &PreparedData, seed: u64) -> Result<Self, EvaluateError> {
        let mut records = open_test(folder)?;
        records.retain(|record| record.split == Split::Train && is_plain(&record.name));
        shuffle(&mut fork(seed, &[5]), &mut records);
        records.truncate(THINGS);
        let mut things = Vec::with_capacity(records.len());
        for record in records {
            let path: PathBuf = folder.join(&record.file);
            things.push((record.name, fitted_file(&path)?));
        }
        Ok(Self {
            things,
            letters: Letters::of(data, LetterSplit::Test),
        })
    }
}

impl Art for Drawings {
    fn things(&self) -> usize {
        self.things.len()
    }

    fn name(&self, thing: usize) -> &str {
        self.things.get(thing).map_or("", |(name, _)| name.as_str())
    }

    fn draw(&self, thing: usize, _: &mut ChaCha8Rng) -> Vec<u8> {
        self.things
            .get(thing)
            .map(|(_, rgba)| rgba.clone())
            .unwrap_or_default()
    }

    fn letters(&self) -> Option<&Letters> {
        self.letters.as_ref()
    }
}

pub(super) fn score(
    asker: &Asker<'_>,
    data: &PreparedData,
    scores: &mut Scores<'_>,
) -> Result<(), EvaluateError> {
    let kinds: Vec<SceneKind> = SceneKind::ALL
        .into_iter()
        .filter(|kind| scores.wants(&[&format!("scenes-{}", kind.name())]))
        .collect();
    if kinds.is_empty() {
        return Ok(());
    }
    let options = scores.options;
    match options.split {
        EvaluationSplit::Validation => {
            let art = TrainingArt::plain(data);
            if art.things() > 0 {
                of_kinds(asker, &art, &kinds, scores)?;
            }
        }
        EvaluationSplit::Test => of_kinds(
            asker,
            &Drawings::open(&options.openmoji, data, options.seed)?,
            &kinds,
            scores,
        )?,
    }
    Ok(())
}

fn of_kinds(
    asker: &Asker<'_>,
    art: &(dyn Art + Sync),
    kinds: &[SceneKind],
    scores: &mut Scores<'_>,
) -> Result<(), EvaluateError> {
    let options = scores.options;
    // Words are read where there are fonts.
    let kinds = kinds
        .iter()
        .filter(|kind| **kind != SceneKind::Read || art.letters().is_some());
    for kind in kinds {
        let numbers: Vec<u64> = (0..options.pictures as u64).collect();
        let answers = asker.each("scenes", &numbers, |number| {
            let mut rng = fork(options.seed, &[6, *kind as u64, *number]);
            let asked = ask(*kind, art, PICTURE_SIDE, &mut rng);
            asked.map_or(Ok(false), |asked| is_right(asker, &asked))
        })?;
        scores.push(
            format!("scenes-{}", kind.name()),
            kind.right(),
            Count::of(answers),
        );
    }
    Ok(())
}

fn is_right(asker: &Asker<'_>, asked: &SceneQuestion) -> Result<bool, EvaluateError> {
    let mut pictures = Vec::with_capacity(asked.pictures.len());
    for planes in &asked.pictures {
        pictures.push(asker.rgb(PICTURE_SIDE, &to_rgb8(planes))?);
    }
    let inputs = asked
        .inputs
        .iter()
        .filter(|(_, value)| !matches!(value, InputValue::Image(_) | InputValue::Images(_)));
    let shown = pictures
        .into_iter()
        .fold(TaskInputs::new(), TaskInputs::with_image);
    let inputs = inputs.fold(shown, |inputs, (name, value)| {
        inputs.with(name.as_str(), value.clone())
    });
    let answer = asker.ask(asked.task, inputs)?;
    Ok(match &answer {
        Answer::Located { objects, .. } => {
            let view = PictureView::whole(1, 1);
            let expected = parse_locations(&asked.answer, Form::Box, LocationDialect::Native, &view);
            expected.len() == objects.len()
                && expected.iter().zip(objects).all(|(expected, found)| {
                    match (bounding_box(expected), bounding_box(found)) {
                        (Some(expected), Some(found)) => expected.iou(&found) >= BOX_THRESHOLD,
                        _ => false,
                    }
                })
        }
        other => other.text().unwrap_or_default().trim() == asked.answer,
    })
}

fn bounding_box(object: &LocatedObject) -> Option<BoundingBox> {
    let edges = object.fractions.as_slice().try_into().ok()?;
    Some(BoundingBox::new(edges))
}
