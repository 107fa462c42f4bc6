//! The figures of finished results.

use std::path::Path;

use indexmap::IndexMap;
use multiway_prompts::{Metric, OutputSpec};

use crate::error::JobError;
use crate::journal::read_rows;
use crate::report::WorstCases;
use crate::sample::Sample;
use crate::scores::{MetricReport, report, score};

/// The figures of finished results.
pub(crate) struct Figures {
    pub(crate) all: Vec<MetricReport>,
    pub(crate) groups: IndexMap<String, Vec<MetricReport>>,
    pub(crate) samples: usize,
    pub(crate) worst: WorstCases,
}

/// Computes the figures from the rows, in their order, so that they do not depend on interruptions.
pub(crate) fn figures(results: &Path, metrics: &[Metric], output: &OutputSpec) -> Result<Figures, JobError> {
    let mut all = Vec::new();
    let mut groups: IndexMap<String, Vec<Sample>> = IndexMap::new();
    let mut worst = WorstCases::default();
    for row in read_rows(results)? {
        let row = row?;
        let Some(sample) = Sample::of(&row, output) else {
            worst.add_failed(&row);
            continue;
        };
        if let Some(group) = &row.group {
            groups.entry(group.clone()).or_default().push(sample.clone());
        }
        if let Some(metric) = metrics.first() {
            worst.add(row, score(*metric, &sample));
        }
        all.push(sample);
    }
    groups.sort_keys();
    let reports = |samples: &[Sample]| metrics.iter().map(|metric| report(*metric, samples)).collect();
    Ok(Figures {
        all: reports(&all),
        groups: groups
            .iter()
            .map(|(name, samples)| (name.clone(), reports(samples)))
            .collect(),
        samples: all.len(),
        worst,
    })
}

/// Averages each metric over the groups, each group counted once.
pub(crate) fn means(groups: &IndexMap<String, Vec<MetricReport>>) -> IndexMap<String, f64> {
    let mut means: IndexMap<String, f64> = IndexMap::new();
    for report in groups.values().flatten() {
        *means.entry(report.label()).or_default() += report.value / groups.len() as f64;
    }
    means
}
