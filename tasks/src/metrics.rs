//! Metrics over answers: accuracy, captions, translations, boxes, labels, numbers, probabilities, rankings,
//! and how sure a score is.
//!
//! Each metric follows the reference implementation that it names.
//! Metrics of one answer return its score; metrics of a corpus have counts that add up.

mod answers;
mod average_precision;
mod bleu;
mod boxes;
mod calibration;
mod chrf;
mod cider;
mod interval;
mod labels;
mod ngrams;
mod numbers;
mod python_text;
mod retrieval;
mod rouge;
mod sacrebleu;
mod tally;
mod temperature;
mod vqa;

pub use answers::{anls, exact_match, normalise_squad_answer, relaxed_match, token_f1};
pub use average_precision::{AveragePrecision, ExpectedBox, FoundBox, PictureBoxes, PrecisionCurve};
pub use bleu::BleuCounts;
pub use boxes::{BOX_THRESHOLD, BoundingBox, box_match};
pub use calibration::{
    CALIBRATION_BINS, Confidence, adaptive_calibration_error, brier_score, calibration_error,
    mean_absolute_error,
};
pub use chrf::ChrfCounts;
pub use cider::cider_d;
pub use interval::{BOOTSTRAP_RESAMPLES, Interval, bootstrap_interval, wilson_interval};
pub use labels::{LabelCounts, normalise_label};
pub use retrieval::{best_rank, mean_rank, mean_reciprocal_rank, median_rank, rank_of, recall_at_k};
pub use rouge::rouge_l;
pub use sacrebleu::BleuTokenizer;
pub use tally::Tally;
pub use temperature::{
    LabelledLogits, TEMPERATURE_BOUNDS, TemperatureFit, fit_temperature, mean_negative_log_likelihood,
};
pub use vqa::{normalise_vqa_answer, vqa_accuracy};
