//! Average precision of boxes that are found in pictures.

use std::collections::{BTreeMap, HashMap};

use super::boxes::BoundingBox;
use super::numbers::{count, mean};

/// The most boxes of a label that count in a picture. Source: `pycocotools` 2.0, `maxDets`.
const MOST_FOUND: usize = 100;

/// The recalls at which COCO takes the precision: 0, 0.01, ..., 1.
const COCO_POINTS: u32 = 100;

/// Holds a box that was found in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundBox {
    /// What it holds.
    pub label: String,
    /// Where it is.
    pub bounds: BoundingBox,
    /// How sure the model is of it; without scores, earlier boxes of an answer count as surer.
    pub score: Option<f64>,
}

/// Holds a box that should be found in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpectedBox {
    /// What it holds.
    pub label: String,
    /// Where it is.
    pub bounds: BoundingBox,
    /// Whether it is a region of many things, which need not be found, and may be found any number of times.
    pub crowd: bool,
}

/// Holds the boxes of one picture.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PictureBoxes {
    /// Those that were found.
    pub found: Vec<FoundBox>,
    /// Those that should be found.
    pub expected: Vec<ExpectedBox>,
}

/// Says how the area under a curve of precision over recall is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrecisionCurve {
    /// All of it: PASCAL VOC from 2010 on.
    AllPoints,
    /// At the recalls 0, 0.01, ..., 1: COCO.
    Coco,
}

/// Holds which found boxes are right at some thresholds of IoU, to compute average precision over any sample
/// of the pictures.
///
/// Each found box, the surest first, takes the expected box of its label with the highest IoU of at least the
/// threshold that no other took. One that takes none is wrong, unless it lies in a crowd: then it counts
/// neither way. Of equally sure boxes those of earlier pictures come first.
///
/// Source: Everingham et al. 2010, The PASCAL Visual Object Classes Challenge, section 4.2, and Lin et al.
/// 2014 (<https://arxiv.org/abs/1405.0312>), as `pycocotools` 2.0 computes it over boxes of all sizes.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::{AveragePrecision, BoundingBox, ExpectedBox, FoundBox, PictureBoxes};
///
/// let bounds = BoundingBox::new([0.0, 0.0, 10.0, 10.0]);
/// let picture = PictureBoxes {
///     found: vec![FoundBox { label: "cat".to_owned(), bounds, score: None }],
///     expected: vec![ExpectedBox { label: "cat".to_owned(), bounds, crowd: false }],
/// };
/// let nothing_found = PictureBoxes { found: Vec::new(), ..picture.clone() };
/// let precision = AveragePrecision::coco(&[picture, nothing_found]);
/// assert!((precision.score() - 51.0 / 101.0).abs() < 1e-9);
/// assert_eq!(precision.score_of(&[0, 0]), 1.0);
/// ```
#[derive(Debug, Clone)]
pub struct AveragePrecision {
    curve: PrecisionCurve,
    thresholds: usize,
    labels: Vec<LabelRanking>,
    pictures: usize,
}

/// The boxes of one label in all pictures.
#[derive(Debug, Clone, Default)]
struct LabelRanking {
    /// How many boxes each picture expects, without crowds.
    expected: Vec<(usize, usize)>,
    /// The found boxes, the surest first.
    found: Vec<Ranked>,
}

/// A found box.
#[derive(Debug, Clone)]
struct Ranked {
    picture: usize,
    score: f64,
    /// What it is at each threshold.
    verdicts: Vec<Verdict>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Right,
    Wrong,
    Ignored,
}

/// The boxes of one label in one picture.
#[derive(Default)]
struct Here<'p> {
    found: Vec<(f64, &'p BoundingBox)>,
    expected: Vec<&'p ExpectedBox>,
}

impl AveragePrecision {
    /// Compares boxes at one threshold of IoU.
    pub fn at(pictures: &[PictureBoxes], threshold: f64, curve: PrecisionCurve) -> Self {
        Self::over(pictures, &[threshold], curve)
    }

    /// Compares boxes at the IoU thresholds 0.5, 0.55, ..., 0.95, whose mean is the AP of COCO.
    pub fn coco(pictures: &[PictureBoxes]) -> Self {
        let thresholds: Vec<f64> = (0..10).map(|step| 0.5 + f64::from(step) * 0.05).collect();
        Self::over(pictures, &thresholds, PrecisionCurve::Coco)
    }

    fn over(pictures: &[PictureBoxes], thresholds: &[f64], curve: PrecisionCurve) -> Self {
        let mut labels: BTreeMap<&str, LabelRanking> = BTreeMap::new();
        for (at, picture) in pictures.iter().enumerate() {
            for (label, here) in by_label(picture) {
                labels.entry(label).or_default().add(at, here, thresholds);
            }
        }
        let mut labels: Vec<LabelRanking> = labels.into_values().collect();
        for label in &mut labels {
            label
                .found
                .sort_by(|one, other| other.score.total_cmp(&one.score));
        }
        Self {
            curve,
            thresholds: thresholds.len(),
            labels,
            pictures: pictures.len(),
        }
    }

    /// Returns the mean over labels and thresholds, from 0 to 1. Labels that no picture expects are left out;
    /// 0 where nothing is expected at all.
    pub fn score(&self) -> f64 {
        self.weighted(&vec![1; self.pictures])
    }

    /// Returns the score over some of the pictures, each as often as its place is in `drawn`.
    pub fn score_of(&self, drawn: &[usize]) -> f64 {
        let mut weights = vec![0; self.pictures];
        for at in drawn {
            if let Some(weight) = weights.get_mut(*at) {
                *weight += 1;
            }
        }
        self.weighted(&weights)
    }

    fn weighted(&self, weights: &[usize]) -> f64 {
        let expected = self.labels.iter().map(|label| (label, label.expected(weights)));
        mean(
            expected
                .filter(|(_, expected)| *expected > 0)
                .flat_map(|(label, expected)| {
                    (0..self.thresholds)
                        .map(move |at| area(&label.precisions(at, weights, expected), self.curve))
                }),
        )
    }
}

/// Sorts the boxes of a picture by label. Without a score, the place of a box among those of its picture is
/// one.
fn by_label(picture: &PictureBoxes) -> HashMap<&str, Here<'_>> {
    let mut labels: HashMap<&str, Here<'_>> = HashMap::new();
    for (place, found) in picture.found.iter().enumerate() {
        let score = found.score.filter(|score| !score.is_nan());
        let here = labels.entry(&found.label).or_default();
        here.found
            .push((score.unwrap_or_else(|| -count(place)), &found.bounds));
    }
    for expected in &picture.expected {
        labels.entry(&expected.label).or_default().expected.push(expected);
    }
    labels
}

impl LabelRanking {
    fn add(&mut self, picture: usize, mut here: Here<'_>, thresholds: &[f64]) {
        // Crowds come last, so that a box takes one only where no other fits.
        here.expected.sort_by_key(|expected| expected.crowd);
        here.found.sort_by(|one, other| other.0.total_cmp(&one.0));
        here.found.truncate(MOST_FOUND);
        let single = here.expected.iter().filter(|expected| !expected.crowd).count();
        self.expected.push((picture, single));
        let mut ranked: Vec<Ranked> = here
            .found
            .iter()
            .map(|(score, _)| Ranked {
                picture,
                score: *score,
                verdicts: Vec::with_capacity(thresholds.len()),
            })
            .collect();
        let overlaps = here.overlaps();
        for threshold in thresholds {
            for (ranked, verdict) in ranked.iter_mut().zip(here.verdicts(&overlaps, *threshold)) {
                ranked.verdicts.push(verdict);
            }
        }
        self.found.extend(ranked);
    }

    /// Counts the boxes that pictures expect, each picture as often as `weights` says.
    fn expected(&self, weights: &[usize]) -> usize {
        let boxes = self
            .expected
            .iter()
            .map(|(picture, boxes)| weights.get(*picture).map_or(0, |weight| weight * boxes));
        boxes.sum()
    }

    /// Lists recall and precision after each found box that counts, at the threshold of place `at`. Precision
    /// is the highest at that recall or a higher one.
    fn precisions(&self, at: usize, weights: &[usize], expected: usize) -> Vec<(f64, f64)> {
        let (mut right, mut wrong) = (0, 0);
        let mut points = Vec::with_capacity(self.found.len());
        for ranked in &self.found {
            let weight = weights.get(ranked.picture).copied().unwrap_or_default();
            match ranked.verdicts.get(at) {
                Some(Verdict::Right) => right += weight,
                Some(Verdict::Wrong) => wrong += weight,
                Some(Verdict::Ignored) | None => continue,
            }
            if right + wrong > 0 {
                points.push((
                    count(right) / count(expected),
                    count(right) / count(right + wrong),
                ));
            }
        }
        let mut highest = 0.0;
        for (_, precision) in points.iter_mut().rev() {
            highest = f64::max(highest, *precision);
            *precision = highest;
        }
        points
    }
}

impl Here<'_> {
    /// Computes how far each found box overlaps each expected one.
    fn overlaps(&self) -> Vec<Vec<f64>> {
        let overlap = |found: &BoundingBox, expected: &ExpectedBox| {
            if expected.crowd {
                found.share_in(&expected.bounds)
            } else {
                found.iou(&expected.bounds)
            }
        };
        let row = |found: &BoundingBox| {
            self.expected
                .iter()
                .map(|expected| overlap(found, expected))
                .collect()
        };
        self.found.iter().map(|(_, found)| row(found)).collect()
    }

    /// Gives each found box, in their order, the expected one that it overlaps most.
    fn verdicts(&self, overlaps: &[Vec<f64>], threshold: f64) -> Vec<Verdict> {
        let mut taken = vec![false; self.expected.len()];
        overlaps
            .iter()
            .map(|row| {
                let mut best: Option<(usize, f64)> = None;
                for (at, (expected, overlap)) in self.expected.iter().zip(row).enumerate() {
                    let is_taken = taken.get(at).copied().unwrap_or_default() && !expected.crowd;
                    // Of equal overlaps the last expected box is taken, as the reference does.
                    let least = best.map_or(threshold.min(1.0 - 1e-10), |(_, most)| most);
                    if is_taken || *overlap < least || (expected.crowd && self.is_single(best)) {
                        continue;
                    }
                    best = Some((at, *overlap));
                }
                let Some((at, _)) = best else {
                    return Verdict::Wrong;
                };
                if let Some(taken) = taken.get_mut(at) {
                    *taken = true;
                }
                if self.is_single(best) {
                    Verdict::Right
                } else {
                    Verdict::Ignored
                }
            })
            .collect()
    }

    /// Tells whether a box is there and is no crowd.
    fn is_single(&self, best: Option<(usize, f64)>) -> bool {
        best.and_then(|(at, _)| self.expected.get(at))
            .is_some_and(|expected| !expected.crowd)
    }
}

/// Measures the area under a curve whose precision falls.
fn area(points: &[(f64, f64)], curve: PrecisionCurve) -> f64 {
    match curve {
        PrecisionCurve::AllPoints => {
            let mut last = 0.0;
            let parts = points.iter().map(|(recall, precision)| {
                let width = recall - std::mem::replace(&mut last, *recall);
                width * precision
            });
            parts.sum()
        }
        PrecisionCurve::Coco => mean((0..=COCO_POINTS).map(|step| {
            // A product, as `numpy.linspace` computes it: a quotient is another number now and then.
            let wanted = f64::from(step) * (1.0 / f64::from(COCO_POINTS));
            let at = points.partition_point(|(recall, _)| *recall < wanted);
            points.get(at).map_or(0.0, |(_, precision)| *precision)
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(bounds: [f64; 4], crowd: bool) -> ExpectedBox {
        ExpectedBox {
            label: "cat".to_owned(),
            bounds: BoundingBox::new(bounds),
            crowd,
        }
    }

    fn found(bounds: [f64; 4]) -> FoundBox {
        FoundBox {
            label: "cat".to_owned(),
            bounds: BoundingBox::new(bounds),
            score: None,
        }
    }

    fn all_points(pictures: &[PictureBoxes]) -> f64 {
        AveragePrecision::at(pictures, 0.5, PrecisionCurve::AllPoints).score()
    }

    const ONE: [f64; 4] = [0.0, 0.0, 10.0, 10.0];
    const OTHER: [f64; 4] = [20.0, 20.0, 30.0, 30.0];

    #[test]
    fn a_box_that_is_found_twice_is_wrong_once_and_one_in_a_crowd_counts_neither_way() {
        let twice = PictureBoxes {
            found: vec![found(ONE), found(ONE), found(OTHER)],
            expected: vec![expected(ONE, false), expected(OTHER, false)],
        };
        // Precision 1 up to half the boxes, and 2/3 up to all of them.
        assert!((all_points(std::slice::from_ref(&twice)) - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-12);
        let crowd = PictureBoxes {
            found: twice.found,
            expected: vec![expected(ONE, true), expected(OTHER, false)],
        };
        assert!((all_points(&[crowd]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn labels_that_are_not_expected_are_left_out_and_nothing_expected_scores_nothing() {
        let only_found = PictureBoxes {
            found: vec![found(ONE)],
            expected: Vec::new(),
        };
        assert!(all_points(std::slice::from_ref(&only_found)).abs() < f64::EPSILON);
        assert!(all_points(&[]).abs() < f64::EPSILON);
        // But a wrong box in a picture that expects none counts where another picture expects some.
        let right = PictureBoxes {
            found: vec![found(ONE)],
            expected: vec![expected(ONE, false)],
        };
        assert!((all_points(&[right.clone(), only_found.clone()]) - 1.0).abs() < 1e-12);
        assert!((all_points(&[only_found, right]) - 0.5).abs() < 1e-12);
    }
}
