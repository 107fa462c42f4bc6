//! The metrics that a task is scored with, by name.

use std::fmt;

use serde::Serialize;

use crate::output::OutputSpec;

/// Names a metric that a task is scored with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Metric {
    /// The share of answers that equal a reference.
    ExactMatch,
    /// The share of choices that are right.
    Accuracy,
    /// The mean accuracy against the answers of several people, as VQA counts it.
    VqaAccuracy,
    /// The share of answers that equal a reference, numbers within 5 %.
    RelaxedAccuracy,
    /// The mean normalised Levenshtein similarity.
    Anls,
    /// The mean F1 of shared words.
    F1,
    /// BLEU of a corpus of translations, 0 to 100.
    Bleu,
    /// BLEU with single words, of a corpus of captions, 0 to 1.
    #[serde(rename = "bleu_1")]
    Bleu1,
    /// BLEU with n-grams of up to two words, of a corpus of captions, 0 to 1.
    #[serde(rename = "bleu_2")]
    Bleu2,
    /// BLEU with n-grams of up to three words, of a corpus of captions, 0 to 1.
    #[serde(rename = "bleu_3")]
    Bleu3,
    /// BLEU with n-grams of up to four words, of a corpus of captions, 0 to 1.
    #[serde(rename = "bleu_4")]
    Bleu4,
    /// The mean ROUGE-L.
    RougeL,
    /// chrF of a corpus of translations, 0 to 100.
    Chrf,
    /// The mean CIDEr-D.
    Cider,
    /// The share of answers whose first box overlaps an expected one by an IoU of at least 0.5.
    BoxAccuracy,
    /// The average precision of boxes as COCO computes it: the mean over IoU thresholds from 0.5 to 0.95.
    AveragePrecision,
    /// The average precision of boxes at an IoU of 0.5.
    #[serde(rename = "average_precision_50")]
    AveragePrecision50,
    /// The F1 of labels, counted over all answers.
    LabelF1,
    /// The mean F1 of the labels of each answer.
    LabelF1Mean,
    /// The mean absolute error of numbers.
    MeanAbsoluteError,
    /// The expected calibration error of probabilities.
    CalibrationError,
    /// The mean Brier score of probabilities.
    Brier,
    /// The share of queries whose match ranks first.
    #[serde(rename = "recall_at_1")]
    RecallAt1,
    /// The share of queries whose match ranks among the first five.
    #[serde(rename = "recall_at_5")]
    RecallAt5,
    /// The share of queries whose match ranks among the first ten.
    #[serde(rename = "recall_at_10")]
    RecallAt10,
    /// The mean rank of the first match of each query.
    MeanRank,
}

/// Says what a metric compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compared {
    /// The text of an answer with texts of which each is right.
    Texts,
    /// Boxes with those that should be found.
    Boxes,
    /// Labels with those that should be found.
    Labels,
    /// A number with the one that is right.
    Numbers,
    /// The probabilities of answers with the one that is right.
    Probabilities,
    /// The vectors of pictures with those of the texts that belong to them.
    Vectors,
}

impl Metric {
    /// Lists all metrics.
    pub const ALL: [Self; 26] = [
        Self::ExactMatch,
        Self::Accuracy,
        Self::VqaAccuracy,
        Self::RelaxedAccuracy,
        Self::Anls,
        Self::F1,
        Self::Bleu,
        Self::Bleu1,
        Self::Bleu2,
        Self::Bleu3,
        Self::Bleu4,
        Self::RougeL,
        Self::Chrf,
        Self::Cider,
        Self::BoxAccuracy,
        Self::AveragePrecision,
        Self::AveragePrecision50,
        Self::LabelF1,
        Self::LabelF1Mean,
        Self::MeanAbsoluteError,
        Self::CalibrationError,
        Self::Brier,
        Self::RecallAt1,
        Self::RecallAt5,
        Self::RecallAt10,
        Self::MeanRank,
    ];

    /// Names the metric, as task files write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExactMatch => "exact_match",
            Self::Accuracy => "accuracy",
            Self::VqaAccuracy => "vqa_accuracy",
            Self::RelaxedAccuracy => "relaxed_accuracy",
            Self::Anls => "anls",
            Self::F1 => "f1",
            Self::Bleu => "bleu",
            Self::Bleu1 => "bleu_1",
            Self::Bleu2 => "bleu_2",
            Self::Bleu3 => "bleu_3",
            Self::Bleu4 => "bleu_4",
            Self::RougeL => "rouge_l",
            Self::Chrf => "chrf",
            Self::Cider => "cider",
            Self::BoxAccuracy => "box_accuracy",
            Self::AveragePrecision => "average_precision",
            Self::AveragePrecision50 => "average_precision_50",
            Self::LabelF1 => "label_f1",
            Self::LabelF1Mean => "label_f1_mean",
            Self::MeanAbsoluteError => "mean_absolute_error",
            Self::CalibrationError => "calibration_error",
            Self::Brier => "brier",
            Self::RecallAt1 => "recall_at_1",
            Self::RecallAt5 => "recall_at_5",
            Self::RecallAt10 => "recall_at_10",
            Self::MeanRank => "mean_rank",
        }
    }

    /// Finds a metric by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// Says what the metric compares.
    pub fn compares(self) -> Compared {
        match self {
            Self::BoxAccuracy | Self::AveragePrecision | Self::AveragePrecision50 => Compared::Boxes,
            Self::LabelF1 | Self::LabelF1Mean => Compared::Labels,
            Self::MeanAbsoluteError => Compared::Numbers,
            Self::CalibrationError | Self::Brier => Compared::Probabilities,
            Self::RecallAt1 | Self::RecallAt5 | Self::RecallAt10 | Self::MeanRank => Compared::Vectors,
            _ => Compared::Texts,
        }
    }

    /// Tells whether the metric fits what a task answers.
    ///
    /// A choice that is decoded in a trie has the probability of one answer alone, which says nothing about
    /// the others.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_prompts::{Metric, OutputSpec};
    ///
    /// assert!(Metric::RecallAt1.fits(&OutputSpec::Embedding));
    /// assert!(!Metric::ExactMatch.fits(&OutputSpec::Embedding));
    /// ```
    pub fn fits(self, output: &OutputSpec) -> bool {
        let compared = self.compares();
        let is_known = compared != Compared::Probabilities || !output.is_constrained();
        is_known && compared.kinds().contains(&output.kind())
    }
}

impl Compared {
    /// Names the kinds of output that have what is compared, as task files write them.
    pub fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Texts => &[
                "text",
                "choice",
                "predicate",
                "level",
                "labels",
                "number",
                "boxes",
                "points",
                "polygons",
                "grounded",
                "table",
                "score",
                "json",
            ],
            Self::Boxes => &["boxes", "grounded"],
            Self::Labels => &["labels"],
            Self::Numbers => &["number", "level"],
            Self::Probabilities => &["choice", "predicate", "level"],
            Self::Vectors => &["embedding"],
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_written_and_found_by_its_name_and_fits_kinds_that_exist() {
        for metric in Metric::ALL {
            assert_eq!(serde_json::to_value(metric).unwrap(), metric.name());
            assert_eq!(Metric::from_name(metric.name()), Some(metric));
            let kinds = metric.compares().kinds();
            assert!(
                kinds.iter().all(|kind| OutputSpec::KINDS.contains(kind)),
                "{metric}"
            );
        }
    }
}
