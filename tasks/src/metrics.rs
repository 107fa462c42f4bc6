//! Metrics over answers: accuracy, captions, translations, rankings and how sure a score is.
//!
//! Each metric follows the reference implementation that it names.
//! Metrics of one answer return its score; metrics of a corpus have counts that add up.

mod answers;
mod bleu;
mod chrf;
mod cider;
mod interval;
mod ngrams;
mod python_text;
mod retrieval;
mod rouge;
mod sacrebleu;
mod tally;
mod vqa;

pub use answers::{anls, exact_match, normalise_squad_answer, relaxed_match, token_f1};
pub use bleu::BleuCounts;
pub use chrf::ChrfCounts;
pub use cider::cider_d;
pub use interval::{BOOTSTRAP_RESAMPLES, Interval, bootstrap_interval, wilson_interval};
pub use retrieval::{best_rank, mean_rank, mean_reciprocal_rank, median_rank, rank_of, recall_at_k};
pub use rouge::rouge_l;
pub use sacrebleu::BleuTokenizer;
pub use tally::Tally;
pub use vqa::{normalise_vqa_answer, vqa_accuracy};

/// Returns a count as a number; counts stay far below 2^53.
fn count(items: usize) -> f64 {
    items as f64
}

/// Returns a part of a whole; 0 of nothing.
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        count(part) / count(whole)
    }
}

/// Returns the mean of numbers; 0 of none.
fn mean(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, items) = numbers
        .into_iter()
        .fold((0.0, 0), |(sum, items), number| (sum + number, items + 1));
    if items == 0 { 0.0 } else { sum / count(items) }
}
