//! Scenes: counting, positions, colours, comparisons, boxes, two pictures, entailment.

use std::path::{Path, PathBuf};

use multiway_prompts::InputValue;
use multiway_tasks::{Answer, TaskInputs};
use rand_chacha::ChaCha8Rng;

use super::asker::Asker;
use super::{Count, EvaluateError, EvaluationSplit, Scores};
use crate::data::{PICTURE_SIDE, PreparedData, Split, fitted_file, open_test};
use crate::examples::TrainingArt;
use crate::random::{fork, shuffle};
use crate::scenes::{Art, SceneKind, SceneQuestion, ask, is_plain};

/// Drawings that scenes of the test are pasted from.
const THINGS: usize = 250;
/// Overlap from which a box is right.
const OVERLAP: f64 = 0.5;
/// Places of boxes that the native dialect tells apart.
const BINS: f64 = 1024.0;

/// OpenMoji's drawings.
struct Drawings {
    things: Vec<(String, Vec<u8>)>,
}

impl Drawings {
    fn open(folder: &Path, seed: u64) -> Result<Self, EvaluateError> {
        let mut records = open_test(folder)?;
        records.retain(|record| record.split == Split::Train && is_plain(&record.name));
        shuffle(&mut fork(seed, &[5]), &mut records);
        records.truncate(THINGS);
        let mut things = Vec::with_capacity(records.len());
        for record in records {
            let path: PathBuf = folder.join(&record.file);
            things.push((record.name, fitted_file(&path)?));
        }
        Ok(Self { things })
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
            &Drawings::open(&options.openmoji, options.seed)?,
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
    for kind in kinds {
        let numbers: Vec<u64> = (0..options.pictures as u64).collect();
        let answers = asker.each("scenes", &numbers, |number| {
            let mut rng = fork(options.seed, &[6, *kind as u64, *number]);
            let asked = ask(*kind, art, PICTURE_SIDE, &mut rng);
            is_right(asker, &asked)
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
        pictures.push(asker.rgb(PICTURE_SIDE, &interleaved(planes))?);
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
            let expected = boxes(&asked.answer);
            let found: Vec<&Vec<f64>> = objects.iter().map(|object| &object.fractions).collect();
            expected.len() == found.len()
                && expected
                    .iter()
                    .zip(found)
                    .all(|(expected, found)| overlap(expected, found) >= OVERLAP)
        }
        other => other.text().unwrap_or_default().trim() == asked.answer,
    })
}

/// Turns planes from 0 to 1 into RGB bytes.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of a byte first"
)]
fn interleaved(planes: &[f32]) -> Vec<u8> {
    let byte = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
    let (red, rest) = planes.split_at(planes.len() / 3);
    let (green, blue) = rest.split_at(rest.len() / 2);
    red.iter()
        .zip(green.iter().zip(blue))
        .flat_map(|(red, (green, blue))| [byte(*red), byte(*green), byte(*blue)])
        .collect()
}

/// Reads the boxes of an answer in the native dialect, as shares of the picture.
fn boxes(answer: &str) -> Vec<[f64; 4]> {
    let numbers = answer.split("<loc_").skip(1);
    let numbers: Vec<f64> = numbers
        .filter_map(|part| part.split('>').next()?.parse().ok())
        .map(|bin: f64| (bin + 0.5) / BINS)
        .collect();
    numbers.as_chunks::<4>().0.to_vec()
}

/// The intersection over the union of two boxes; 0 of what is no box.
fn overlap(a: &[f64; 4], b: &[f64]) -> f64 {
    let Ok(b) = <&[f64; 4]>::try_from(b) else {
        return 0.0;
    };
    let area = |[left, top, right, bottom]: &[f64; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let both = area(&[a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let either = area(a) + area(b) - both;
    if either > 0.0 { both / either } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_read_and_compared() {
        let found = boxes("cat<loc_0><loc_0><loc_512><loc_512>dog<loc_256><loc_0><loc_768><loc_512>");
        assert_eq!(found.len(), 2);
        let half = overlap(&found[0], &found[1]);
        assert!((half - 1.0 / 3.0).abs() < 0.01, "{half}");
        assert!((overlap(&found[0], &found[0]) - 1.0).abs() < 1e-9);
        assert!(overlap(&found[0], &[0.0, 1.0]).abs() < 1e-9);
    }
}
