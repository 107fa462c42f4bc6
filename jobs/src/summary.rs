//! The figures of an evaluation.

use indexmap::IndexMap;
use multiway_data::Corrupt;
use serde::Serialize;

use crate::scores::MetricReport;

/// Holds the figures of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EvaluationSummary {
    /// The task.
    pub task: String,
    /// The fingerprint of the model.
    pub model: String,
    /// The files of the data.
    pub data: Vec<String>,
    /// The records, failed ones included.
    pub records: usize,
    /// The records that have an error in place of an answer; they count as wrong nowhere, and are said here.
    pub failed: usize,
    /// The rows of the data that could not be read.
    pub corrupt: Vec<Corrupt>,
    /// The metrics over all records.
    pub metrics: Vec<MetricReport>,
    /// The metrics of each group, if records are in groups, by its name.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub groups: IndexMap<String, Vec<MetricReport>>,
    /// The mean of the groups' values, by metric.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub mean_of_groups: IndexMap<String, f64>,
}
