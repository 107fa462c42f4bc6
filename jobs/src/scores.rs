//! The metrics of an evaluation.

use multiway_prompts::Metric;
use multiway_tasks::metrics::{
    AveragePrecision, BOX_THRESHOLD, BleuCounts, BleuTokenizer, CALIBRATION_BINS, ChrfCounts, Confidence,
    Interval, LabelCounts, PictureBoxes, PrecisionCurve, Tally, anls, bootstrap_interval, box_match,
    calibration_error, cider_d, exact_match, relaxed_match, rouge_l, token_f1, vqa_accuracy,
};
use serde::Serialize;

use crate::sample::{Numbers, Ranked, Sample};

/// The seed of the bootstrap, so that the same rows give the same interval.
const SEED: u64 = 0;

/// Holds the value of a metric over some records.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MetricReport {
    /// The metric.
    pub metric: Metric,
    /// What is searched by what, of a metric of retrieval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Its value.
    pub value: f64,
    /// What the value lies within with 95 % confidence; none without records.
    pub interval: Option<Interval>,
    /// The answers that were compared: those that have what the metric compares; of retrieval, the queries.
    pub samples: usize,
}

/// Says what is searched by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Direction {
    /// Pictures by texts.
    TextToImage,
    /// Texts by pictures.
    ImageToText,
}

impl MetricReport {
    /// Names the metric, with the direction if it has one.
    pub fn label(&self) -> String {
        let direction = match self.direction {
            None => "",
            Some(Direction::TextToImage) => " text_to_image",
            Some(Direction::ImageToText) => " image_to_text",
        };
        format!("{}{direction}", self.metric)
    }
}

/// Scores one answer from 0 to 1, or by how near it is to the best of its metric. What is computed over a
/// corpus alone is scored by what shows best how wrong one answer is: ROUGE-L for texts, the Brier score for
/// probabilities.
pub(crate) fn score(metric: Metric, sample: &Sample) -> f64 {
    let (text, references) = (&sample.text, &sample.references);
    match metric {
        Metric::ExactMatch | Metric::Accuracy => f64::from(u8::from(exact_match(text, references))),
        Metric::RelaxedAccuracy => f64::from(u8::from(relaxed_match(text, references))),
        Metric::VqaAccuracy => vqa_accuracy(text, references),
        Metric::Anls => anls(text, references),
        Metric::F1 => token_f1(text, references),
        Metric::BoxAccuracy => f64::from(u8::from(sample.boxes.as_ref().is_some_and(first_box_is_right))),
        Metric::AveragePrecision | Metric::AveragePrecision50 => {
            sample.boxes.as_ref().map_or(0.0, score_of_picture)
        }
        Metric::LabelF1 | Metric::LabelF1Mean => sample.labels.map_or(0.0, |labels| labels.f1()),
        Metric::MeanAbsoluteError => sample.numbers.map_or(0.0, |numbers| 1.0 / (1.0 + error(numbers))),
        Metric::CalibrationError | Metric::Brier => {
            sample.ranked.map_or(0.0, |ranked| 1.0 - ranked.brier / 2.0)
        }
        _ => rouge_l(text, references),
    }
}

fn first_box_is_right(boxes: &PictureBoxes) -> bool {
    let found: Vec<_> = boxes.found.iter().map(|found| found.bounds).collect();
    let expected: Vec<_> = boxes.expected.iter().map(|expected| expected.bounds).collect();
    box_match(&found, &expected)
}

/// Scores the boxes of one picture alone.
fn score_of_picture(boxes: &PictureBoxes) -> f64 {
    match (boxes.found.is_empty(), boxes.expected.is_empty()) {
        (true, true) => 1.0,
        _ => AveragePrecision::at(std::slice::from_ref(boxes), BOX_THRESHOLD, PrecisionCurve::Coco).score(),
    }
}

fn error(numbers: Numbers) -> f64 {
    (numbers.found - numbers.expected).abs()
}

/// What a metric comes to: its value, the interval, and how many answers were compared.
type Computed = (f64, Option<Interval>, usize);

/// Computes a metric over samples, in their order.
pub(crate) fn report(metric: Metric, samples: &[Sample]) -> MetricReport {
    let (value, interval, samples) = match metric {
        Metric::ExactMatch | Metric::Accuracy | Metric::RelaxedAccuracy | Metric::BoxAccuracy => {
            proportion(samples.iter().map(|sample| score(metric, sample) > 0.5))
        }
        Metric::Bleu | Metric::Chrf | Metric::Cider => of_corpus(metric, samples),
        Metric::Bleu1 => caption_bleu(samples, 0),
        Metric::Bleu2 => caption_bleu(samples, 1),
        Metric::Bleu3 => caption_bleu(samples, 2),
        Metric::Bleu4 => caption_bleu(samples, 3),
        Metric::AveragePrecision => average_precision(samples, AveragePrecision::coco),
        Metric::AveragePrecision50 => average_precision(samples, |boxes| {
            AveragePrecision::at(boxes, BOX_THRESHOLD, PrecisionCurve::Coco)
        }),
        Metric::LabelF1 => {
            let counts = samples.iter().filter_map(|sample| sample.labels).collect();
            summed(counts, LabelCounts::add, LabelCounts::f1)
        }
        Metric::MeanAbsoluteError => {
            let numbers = samples.iter().filter_map(|sample| sample.numbers);
            mean(&numbers.map(error).collect::<Vec<_>>())
        }
        Metric::CalibrationError => calibration(&ranked(samples)),
        Metric::Brier => mean(
            &ranked(samples)
                .iter()
                .map(|ranked| ranked.brier)
                .collect::<Vec<_>>(),
        ),
        _ => mean(
            &samples
                .iter()
                .map(|sample| score(metric, sample))
                .collect::<Vec<_>>(),
        ),
    };
    MetricReport {
        metric,
        direction: None,
        value,
        interval,
        samples,
    }
}

fn of_corpus(metric: Metric, samples: &[Sample]) -> Computed {
    let texts = samples.iter().map(|sample| (&sample.text, &sample.references));
    match metric {
        Metric::Bleu => summed(
            texts
                .map(|(text, right)| BleuCounts::of_translation(text, right, BleuTokenizer::Thirteen))
                .collect(),
            BleuCounts::add,
            BleuCounts::translation_score,
        ),
        Metric::Chrf => summed(
            texts.map(|(text, right)| ChrfCounts::of(text, right)).collect(),
            ChrfCounts::add,
            ChrfCounts::score,
        ),
        _ => {
            let captions: Vec<(&str, Vec<&str>)> = texts
                .map(|(text, right)| (text.as_str(), right.iter().map(String::as_str).collect()))
                .collect();
            mean(&cider_d(&captions))
        }
    }
}

/// Computes BLEU with n-grams of up to `order + 1` words.
fn caption_bleu(samples: &[Sample], order: usize) -> Computed {
    let counts = samples
        .iter()
        .map(|sample| BleuCounts::of_caption(&sample.text, &sample.references));
    summed(counts.collect(), BleuCounts::add, |counts| {
        counts.caption_scores().get(order).copied().unwrap_or_default()
    })
}

fn average_precision(samples: &[Sample], compare: impl Fn(&[PictureBoxes]) -> AveragePrecision) -> Computed {
    let boxes: Vec<PictureBoxes> = samples.iter().filter_map(|sample| sample.boxes.clone()).collect();
    let compared = compare(&boxes);
    let interval = bootstrap_interval(boxes.len(), SEED, |drawn| compared.score_of(drawn));
    (compared.score(), interval, boxes.len())
}

fn ranked(samples: &[Sample]) -> Vec<Ranked> {
    samples.iter().filter_map(|sample| sample.ranked).collect()
}

fn calibration(ranked: &[Ranked]) -> Computed {
    let confidences: Vec<Confidence> = ranked.iter().map(|ranked| ranked.confidence).collect();
    over_draws(confidences.len(), |drawn| {
        let drawn: Vec<Confidence> = drawn
            .iter()
            .filter_map(|at| confidences.get(*at).copied())
            .collect();
        calibration_error(&drawn, CALIBRATION_BINS)
    })
}

/// Computes the share of what is right.
pub(crate) fn proportion(right: impl Iterator<Item = bool>) -> Computed {
    let tally: Tally = right.collect();
    let interval = (tally.total > 0).then(|| tally.interval());
    (tally.rate(), interval, tally.total)
}

/// Computes the mean of scores.
pub(crate) fn mean(scores: &[f64]) -> Computed {
    over_draws(scores.len(), |drawn| {
        let sum: f64 = drawn.iter().filter_map(|at| scores.get(*at)).sum();
        sum / drawn.len().max(1) as f64
    })
}

/// Computes a metric whose counts are added up over the corpus before it is one number.
fn summed<C: Default>(counts: Vec<C>, add: impl Fn(&mut C, &C), score: impl Fn(&C) -> f64) -> Computed {
    over_draws(counts.len(), |drawn| {
        let mut sum = C::default();
        drawn
            .iter()
            .filter_map(|at| counts.get(*at))
            .for_each(|counts| add(&mut sum, counts));
        score(&sum)
    })
}

/// Computes a score over all samples, and over those that a bootstrap draws.
fn over_draws(samples: usize, score: impl Fn(&[usize]) -> f64) -> Computed {
    let all: Vec<usize> = (0..samples).collect();
    (score(&all), bootstrap_interval(samples, SEED, score), samples)
}
