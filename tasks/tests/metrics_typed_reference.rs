//! Metrics of boxes, labels and probabilities equal their reference implementations, whose scores
//! `scripts/metrics_reference.py typed` recorded.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use multiway_tasks::metrics::{
    AveragePrecision, BoundingBox, CALIBRATION_BINS, Confidence, ExpectedBox, FoundBox, LabelCounts,
    LabelledLogits, PictureBoxes, PrecisionCurve, brier_score, calibration_error, fit_temperature,
};
use serde::Deserialize;

const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Case {
    #[serde(flatten)]
    answers: Answers,
    scores: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answers {
    Boxes {
        boxes: Vec<Picture>,
    },
    Labels {
        labels: Vec<[Vec<String>; 2]>,
    },
    Ranked {
        probabilities: Vec<Vec<f64>>,
        right: Vec<usize>,
    },
}

#[derive(Deserialize)]
struct Picture {
    expected: Vec<LabelledBox>,
    found: Vec<LabelledBox>,
}

#[derive(Deserialize)]
struct LabelledBox {
    label: String,
    #[serde(rename = "box")]
    bounds: [f64; 4],
    score: Option<f64>,
    #[serde(default)]
    crowd: bool,
}

impl Picture {
    fn boxes(&self) -> PictureBoxes {
        let found = self.found.iter().map(|found| FoundBox {
            label: found.label.clone(),
            bounds: BoundingBox::new(found.bounds),
            score: found.score,
        });
        let expected = self.expected.iter().map(|expected| ExpectedBox {
            label: expected.label.clone(),
            bounds: BoundingBox::new(expected.bounds),
            crowd: expected.crowd,
        });
        PictureBoxes {
            found: found.collect(),
            expected: expected.collect(),
        }
    }
}

fn box_scores(pictures: &[Picture]) -> Vec<(&'static str, f64)> {
    let pictures: Vec<PictureBoxes> = pictures.iter().map(Picture::boxes).collect();
    let at = |curve| AveragePrecision::at(&pictures, 0.5, curve).score();
    let coco = AveragePrecision::coco(&pictures);
    let twice: Vec<usize> = (0..pictures.len()).flat_map(|at| [at, at]).collect();
    // Pictures that count twice as often leave every precision and recall as it is.
    assert!((coco.score() - coco.score_of(&twice)).abs() < 1e-12);
    vec![
        ("coco", coco.score()),
        ("coco_50", at(PrecisionCurve::Coco)),
        ("voc_50", at(PrecisionCurve::AllPoints)),
    ]
}

fn label_scores(cases: &[[Vec<String>; 2]]) -> Vec<(&'static str, f64)> {
    let counts: Vec<LabelCounts> = cases
        .iter()
        .map(|[expected, found]| LabelCounts::of(found, expected))
        .collect();
    let mut corpus = LabelCounts::default();
    counts.iter().for_each(|counts| corpus.add(counts));
    let samples = counts.iter().map(LabelCounts::f1).sum::<f64>() / counts.len() as f64;
    vec![("micro", corpus.f1()), ("samples", samples)]
}

fn ranked_scores(probabilities: &[Vec<f64>], right: &[usize]) -> Vec<(&'static str, f64)> {
    let size = right.len() as f64;
    let answers = || probabilities.iter().zip(right);
    let confidences: Vec<Confidence> = answers()
        .map(|(row, right)| {
            let most = row.iter().copied().fold(0.0, f64::max);
            let first = row.iter().position(|probability| *probability >= most);
            Confidence {
                probability: most,
                is_right: first == Some(*right),
            }
        })
        .collect();
    let cases: Vec<LabelledLogits> = answers()
        .map(|(row, right)| LabelledLogits {
            logits: row.iter().map(|probability| probability.ln()).collect(),
            right: *right,
        })
        .collect();
    let fit = fit_temperature(&cases).unwrap();
    let brier: f64 = answers().map(|(row, right)| brier_score(row, Some(*right))).sum();
    vec![
        ("ece", calibration_error(&confidences, CALIBRATION_BINS)),
        ("brier", brier / size),
        ("nll", fit.before),
        ("temperature", fit.temperature),
        ("fitted_nll", fit.after),
    ]
}

#[test]
fn scores_of_typed_answers_equal_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metrics/typed.jsonl");
    let text = fs::read_to_string(path).unwrap();
    let mut compared: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let case: Case = serde_json::from_str(line).unwrap();
        let found = match &case.answers {
            Answers::Boxes { boxes } => box_scores(boxes),
            Answers::Labels { labels } => label_scores(labels),
            Answers::Ranked { probabilities, right } => ranked_scores(probabilities, right),
        };
        assert_eq!(found.len(), case.scores.len());
        for (name, score) in found {
            let expected = case.scores[name];
            assert!(
                (score - expected).abs() <= TOLERANCE,
                "line {}: {name}: expected {expected}, found {score}",
                number + 1
            );
            *compared.entry(name).or_default() += 1;
        }
    }
    assert!(compared["coco"] >= 60 && compared["voc_50"] >= 60, "{compared:?}");
    assert!(compared["micro"] >= 15 && compared["ece"] >= 15, "{compared:?}");
}
