//! The metrics of an evaluation.

use multiway_prompts::Metric;
use multiway_tasks::metrics::{
    BleuCounts, BleuTokenizer, ChrfCounts, Interval, Tally, anls, bootstrap_interval, cider_d, exact_match,
    relaxed_match, rouge_l, token_f1, vqa_accuracy,
};
use serde::Serialize;

/// The seed of the bootstrap, so that the same rows give the same interval.
const SEED: u64 = 0;

/// Holds the value of a metric over some records.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MetricReport {
    /// The metric.
    pub metric: Metric,
    /// Its value.
    pub value: f64,
    /// What the value lies within with 95 % confidence; none without records.
    pub interval: Option<Interval>,
    /// The records.
    pub samples: usize,
}

/// An answer and the right ones.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) text: String,
    pub(crate) references: Vec<String>,
}

/// Tells whether a metric compares texts; the others rank vectors.
pub(crate) fn compares_texts(metric: Metric) -> bool {
    !matches!(metric, Metric::RecallAt1 | Metric::RecallAt5)
}

/// Scores one answer from 0 to 1, or by how near it is to the best of its metric. What is computed over a
/// corpus alone is scored by ROUGE-L here.
pub(crate) fn score(metric: Metric, sample: &Sample) -> f64 {
    let (text, references) = (&sample.text, &sample.references);
    match metric {
        Metric::ExactMatch | Metric::Accuracy => f64::from(u8::from(exact_match(text, references))),
        Metric::RelaxedAccuracy => f64::from(u8::from(relaxed_match(text, references))),
        Metric::VqaAccuracy => vqa_accuracy(text, references),
        Metric::Anls => anls(text, references),
        Metric::F1 => token_f1(text, references),
        _ => rouge_l(text, references),
    }
}

/// Computes a metric over samples, in their order.
pub(crate) fn report(metric: Metric, samples: &[Sample]) -> MetricReport {
    let (value, interval) = match metric {
        Metric::ExactMatch | Metric::Accuracy | Metric::RelaxedAccuracy => proportion(metric, samples),
        Metric::Bleu => corpus(
            samples,
            |sample| BleuCounts::of_translation(&sample.text, &sample.references, BleuTokenizer::Thirteen),
            BleuCounts::add,
            BleuCounts::translation_score,
        ),
        Metric::Bleu4 => corpus(
            samples,
            |sample| BleuCounts::of_caption(&sample.text, &sample.references),
            BleuCounts::add,
            |counts| counts.caption_scores()[3],
        ),
        Metric::Chrf => corpus(
            samples,
            |sample| ChrfCounts::of(&sample.text, &sample.references),
            ChrfCounts::add,
            ChrfCounts::score,
        ),
        Metric::Cider => {
            let captions: Vec<(&str, Vec<&str>)> = samples
                .iter()
                .map(|sample| {
                    let references = sample.references.iter().map(String::as_str);
                    (sample.text.as_str(), references.collect())
                })
                .collect();
            mean(&cider_d(&captions))
        }
        _ => {
            let scores: Vec<f64> = samples.iter().map(|sample| score(metric, sample)).collect();
            mean(&scores)
        }
    };
    MetricReport {
        metric,
        value,
        interval,
        samples: samples.len(),
    }
}

fn proportion(metric: Metric, samples: &[Sample]) -> (f64, Option<Interval>) {
    let tally: Tally = samples.iter().map(|sample| score(metric, sample) > 0.5).collect();
    (tally.rate(), (tally.total > 0).then(|| tally.interval()))
}

fn mean(scores: &[f64]) -> (f64, Option<Interval>) {
    let of = |drawn: &[usize]| {
        let sum: f64 = drawn.iter().filter_map(|at| scores.get(*at)).sum();
        sum / drawn.len().max(1) as f64
    };
    let all: Vec<usize> = (0..scores.len()).collect();
    (of(&all), bootstrap_interval(scores.len(), SEED, of))
}

/// Computes a metric whose counts are added up over the corpus before it is one number.
fn corpus<C: Clone + Default>(
    samples: &[Sample],
    count: impl Fn(&Sample) -> C,
    add: impl Fn(&mut C, &C),
    score: impl Fn(&C) -> f64,
) -> (f64, Option<Interval>) {
    let counts: Vec<C> = samples.iter().map(count).collect();
    let of = |drawn: &[usize]| {
        let mut sum = C::default();
        drawn
            .iter()
            .filter_map(|at| counts.get(*at))
            .for_each(|counts| add(&mut sum, counts));
        score(&sum)
    };
    let all: Vec<usize> = (0..counts.len()).collect();
    (of(&all), bootstrap_interval(counts.len(), SEED, of))
}
