//! Calibration: the temperature that makes the probabilities of a task as sure as they are right.

use multiway_data::{Corrupt, DataSource, Record};
use multiway_prompts::{Metric, OutputSpec};
use multiway_tasks::metrics::{
    CALIBRATION_BINS, Confidence, LabelledLogits, Tally, brier_score, calibration_error, fit_temperature,
    mean_negative_log_likelihood,
};
use serde::Serialize;

use crate::digest::digest;
use crate::error::{JobError, file_error};
use crate::job::{ChosenFrom, Job, JobProgress};
use crate::journal::{Journal, read_rows};
use crate::row::Row;
use crate::sample::candidates;

/// The significant digits of a temperature that is fitted; more say nothing.
const DIGITS: i32 = 4;

/// Says how a task is calibrated, and what it comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CalibrationReport {
    /// The task.
    pub task: String,
    /// The fingerprint of the model.
    pub model: String,
    /// The files of the data.
    pub data: Vec<String>,
    /// The records, failed ones included.
    pub records: usize,
    /// The records that have an error in place of an answer.
    pub failed: usize,
    /// The rows of the data that could not be read.
    pub corrupt: Vec<Corrupt>,
    /// The records whose right answer is none of those that the task chose among; they are left out.
    pub not_among: usize,
    /// The records that the temperature was fitted on.
    pub fitted_on: usize,
    /// The others, on which it was tested.
    pub tested_on: usize,
    /// The temperature that the task has now; 1 without calibration.
    pub previous: f64,
    /// The temperature that was fitted.
    pub temperature: f64,
    /// Whether no temperature was best, but the lowest or the highest that is looked for.
    pub at_bound: bool,
    /// The tested records with the task as it is.
    pub before: Reliability,
    /// The tested records with the temperature.
    pub after: Reliability,
}

/// Says how far probabilities can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Reliability {
    /// The share of answers that are right, which no temperature changes.
    pub accuracy: f64,
    /// The expected calibration error over 15 bins, from 0 to 1.
    pub calibration_error: f64,
    /// The mean Brier score, from 0 to 2.
    pub brier: f64,
    /// The mean negative log-likelihood of the right answers, in nats.
    pub negative_log_likelihood: f64,
}

/// The candidates of answers whose right one is known, in two halves.
#[derive(Debug, Default)]
struct Halves {
    fitted: Vec<LabelledLogits>,
    tested: Vec<LabelledLogits>,
    not_among: usize,
}

impl Job<'_> {
    /// Answers every record, fits a temperature on one half of them, and compares probabilities with and
    /// without it on the other half. A record's half follows from its id, so it is the same in every run.
    ///
    /// `reference` is the field with the right answer; without it, the one that the task's target names.
    ///
    /// # Errors
    ///
    /// As [`batch`](Self::batch), and when the task has no probabilities, there are no right answers, or a
    /// half has no record.
    pub async fn calibrate(
        &self,
        source: &DataSource,
        model: &str,
        reference: Option<&str>,
        on_progress: impl FnMut(JobProgress),
    ) -> Result<CalibrationReport, JobError> {
        let output = &self.task.file().output;
        if !Metric::CalibrationError.fits(output) {
            return Err(self.misfit(Metric::CalibrationError));
        }
        let answers = self.right_answers(reference)?;
        let place = std::env::temp_dir();
        let folder = tempfile::tempdir_in(&place).map_err(file_error("create a folder in", &place))?;
        let results = folder.path().join("results.jsonl");
        let journal = Journal::open(&results, self.identity(source, model, "calibrate")?)?;
        let answer = async |record: &Record, choices: Option<&ChosenFrom>| {
            let mut row = self.answer(record, choices).await?;
            match self.texts_of_right(record, &answers)? {
                Ok(texts) => row.references = texts,
                Err(problem) => return Ok(Row::failed(row.id, row.group, problem)),
            }
            Ok(row)
        };
        let finished = self.answer_all(source, journal, answer, on_progress).await?;
        let mut halves = Halves::default();
        for row in read_rows(&finished.path)? {
            halves.add(&row?);
        }
        let previous = temperature_of(output);
        let fitted = halves.fit(previous)?;
        Ok(CalibrationReport {
            task: self.task.name().to_owned(),
            model: model.to_owned(),
            data: source.names(),
            records: finished.rows,
            failed: finished.failed,
            corrupt: finished.corrupt,
            not_among: halves.not_among,
            fitted_on: halves.fitted.len(),
            tested_on: halves.tested.len(),
            previous,
            temperature: fitted.temperature,
            at_bound: fitted.at_bound,
            before: reliability(&halves.tested, 1.0),
            after: reliability(&halves.tested, fitted.temperature / previous),
        })
    }
}

/// Returns the temperature that a task has.
fn temperature_of(output: &OutputSpec) -> f64 {
    let ranking = match output {
        OutputSpec::Choice(spec) => Some(spec.ranking),
        OutputSpec::Predicate(spec) => Some(spec.ranking),
        OutputSpec::Level(spec) => Some(spec.ranking),
        _ => None,
    };
    let calibration = ranking.and_then(|ranking| ranking.calibration);
    calibration.map_or(1.0, |calibration| calibration.temperature)
}

struct Fitted {
    temperature: f64,
    at_bound: bool,
}

impl Halves {
    fn add(&mut self, row: &Row) {
        let Some((probabilities, right)) = candidates(row).filter(|_| row.error.is_none()) else {
            return;
        };
        let Some(right) = right else {
            self.not_among += 1;
            return;
        };
        // The logarithms of probabilities are log-likelihoods up to a constant, which a softmax takes out.
        let logit = |probability: &f64| probability.max(f64::MIN_POSITIVE).ln();
        let case = LabelledLogits {
            logits: probabilities.iter().map(logit).collect(),
            right,
        };
        if is_fitted(&row.id) {
            self.fitted.push(case);
        } else {
            self.tested.push(case);
        }
    }

    /// Fits the temperature that takes the place of `previous`.
    fn fit(&self, previous: f64) -> Result<Fitted, JobError> {
        let (fitted, tested) = (self.fitted.len(), self.tested.len());
        match fit_temperature(&self.fitted).filter(|_| tested > 0) {
            Some(fit) => Ok(Fitted {
                temperature: rounded(previous * fit.temperature),
                at_bound: fit.is_at_bound(),
            }),
            None => Err(JobError::TooFewRecords {
                records: fitted + tested,
                fitted,
                tested,
            }),
        }
    }
}

/// Tells whether a record is one of those to fit: about every other one, by the digest of its id.
fn is_fitted(id: &str) -> bool {
    let digest = digest(id.as_bytes());
    digest.bytes().next().is_some_and(|digit| digit % 2 == 0)
}

/// Rounds to [`DIGITS`] significant digits.
fn rounded(temperature: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, reason = "the logarithm of a positive f64")]
    let order = temperature.log10().floor() as i32;
    let scale = 10.0f64.powi(DIGITS - 1 - order);
    (temperature * scale).round() / scale
}

fn reliability(cases: &[LabelledLogits], temperature: f64) -> Reliability {
    let mut confidences = Vec::with_capacity(cases.len());
    let mut brier = 0.0;
    for case in cases {
        let probabilities = case.probabilities(temperature);
        // Candidates come with the most probable first, and stay so at any temperature.
        confidences.push(Confidence {
            probability: probabilities.first().copied().unwrap_or_default(),
            is_right: case.right == 0,
        });
        brier += brier_score(&probabilities, Some(case.right));
    }
    let right: Tally = confidences.iter().map(|answer| answer.is_right).collect();
    Reliability {
        accuracy: right.rate(),
        calibration_error: calibration_error(&confidences, CALIBRATION_BINS),
        brier: brier / cases.len().max(1) as f64,
        negative_log_likelihood: mean_negative_log_likelihood(cases, temperature),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Makes a row whose candidates have these log-probabilities, times a factor.
    fn row(id: usize, logits: &[f64], factor: f64, right: usize) -> Row {
        let case = LabelledLogits {
            logits: logits.iter().map(|logit| logit * factor).collect(),
            right,
        };
        let mut choices: Vec<Value> = case
            .probabilities(1.0)
            .iter()
            .enumerate()
            .map(|(at, probability)| json!({"text": at.to_string(), "probability": probability}))
            .collect();
        choices.sort_by(|one, other| {
            other["probability"]
                .as_f64()
                .unwrap()
                .total_cmp(&one["probability"].as_f64().unwrap())
        });
        let mut row = Row::failed(format!("data.jsonl#{id}"), None, String::new());
        row.error = None;
        row.answer.insert("choices".to_owned(), json!(choices));
        row.references = vec![right.to_string()];
        row
    }

    /// 4 questions in 10 whose answer is said with 0.8, right in 4 of 5; the others with 0.6, right in 3 of
    /// 5.
    fn halves(factor: f64) -> Halves {
        let mut halves = Halves::default();
        for id in 0..4000 {
            let (share, right) = if id % 10 < 4 {
                (0.8f64, id / 10 % 5 < 4)
            } else {
                (0.6, id / 10 % 5 < 3)
            };
            let logits = [share.ln(), (1.0 - share).ln()];
            halves.add(&row(id, &logits, factor, usize::from(!right)));
        }
        halves
    }

    #[test]
    fn log_likelihoods_that_are_scaled_by_a_factor_are_calibrated_by_it() {
        for factor in [0.5, 1.0, 4.0] {
            let halves = halves(factor);
            assert!(halves.fitted.len() > 1800 && halves.tested.len() > 1800);
            let fitted = halves.fit(1.0).unwrap();
            assert!(
                (fitted.temperature / factor - 1.0).abs() < 0.1,
                "{}",
                fitted.temperature
            );
            assert!(!fitted.at_bound);
            let before = reliability(&halves.tested, 1.0);
            let after = reliability(&halves.tested, fitted.temperature);
            assert!((before.accuracy - after.accuracy).abs() < f64::EPSILON);
            assert!(after.calibration_error < 0.03, "{after:?}");
            if factor > 1.0 {
                assert!(
                    before.calibration_error > 0.1 && after.brier < before.brier,
                    "{before:?}"
                );
                assert!(after.negative_log_likelihood < before.negative_log_likelihood);
            }
            // A task that has a temperature gets one in its place.
            assert!((halves.fit(2.0).unwrap().temperature - rounded(2.0 * fitted.temperature)).abs() < 0.01);
        }
    }

    #[test]
    fn a_half_without_records_and_right_answers_that_no_one_chose_among_are_told() {
        let mut halves = Halves::default();
        halves.add(&row(0, &[1.0, 0.0], 1.0, 0));
        let mut other = row(1, &[1.0, 0.0], 1.0, 0);
        other.references = vec!["none of them".to_owned()];
        halves.add(&other);
        assert_eq!(halves.not_among, 1);
        assert!(matches!(
            halves.fit(1.0),
            Err(JobError::TooFewRecords { records: 1, .. })
        ));
    }

    #[test]
    fn temperatures_are_rounded_to_four_digits() {
        for (exact, expected) in [(1.234_56, 1.235), (0.012_345_6, 0.012_35), (99.996, 100.0)] {
            assert!((rounded(exact) - expected).abs() < 1e-12, "{exact}");
        }
    }
}
