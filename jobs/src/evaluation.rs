//! Evaluation: answers to every record, compared with the right ones.

use std::fs;
use std::path::{Path, PathBuf};

use multiway_data::{DataSource, Record};
use serde::Serialize;

use crate::error::{JobError, file_error};
use crate::figures::{figures, means};
use crate::job::{ChosenFrom, Job, JobProgress};
use crate::journal::{Finished, Journal, write_atomically};
use crate::plan::{EvaluationOptions, Plan};
use crate::report::render;
use crate::retrieval::retrieval_figures;
use crate::right_answers::{right_value, texts_of};
use crate::summary::EvaluationSummary;

/// The file of the rows, in the folder of an evaluation.
const RESULTS: &str = "results.jsonl";
/// The file of the figures.
const SUMMARY: &str = "summary.json";
/// The file for people.
const REPORT: &str = "report.html";

/// Says what an evaluation has written.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EvaluationReport {
    /// The figures.
    #[serde(flatten)]
    pub summary: EvaluationSummary,
    /// The folder with `results.jsonl`, `summary.json` and `report.html`.
    pub folder: PathBuf,
}

impl Job<'_> {
    /// Answers every record, compares the answers with the right ones, and writes rows, figures and a report
    /// to the folder `out`.
    ///
    /// An evaluation that was killed goes on where it was when it is run again, and writes the same bytes.
    ///
    /// # Errors
    ///
    /// As [`batch`](Self::batch), and when there are no right answers or no metrics.
    pub async fn evaluate(
        &self,
        source: &DataSource,
        model: &str,
        options: &EvaluationOptions,
        out: &Path,
        on_progress: impl FnMut(JobProgress),
    ) -> Result<EvaluationReport, JobError> {
        let plan = self.plan(options)?;
        fs::create_dir_all(out).map_err(file_error("create", out))?;
        let results = out.join(RESULTS);
        let journal = Journal::open(&results, self.identity(source, model, &plan.kind())?)?;
        let finished = self.answer_plan(source, journal, &plan, on_progress).await?;
        let figures = match &plan.pairs {
            Some(_) => retrieval_figures(&finished.path, &plan.metrics)?,
            None => figures(&finished.path, &plan.metrics, plan.output)?,
        };
        if figures.samples == 0 && finished.failed == 0 {
            return Err(JobError::NoRecords);
        }
        let summary = EvaluationSummary {
            task: self.task.name().to_owned(),
            model: model.to_owned(),
            data: source.names(),
            records: finished.rows,
            failed: finished.failed,
            corrupt: finished.corrupt,
            metrics: figures.all,
            mean_of_groups: means(&figures.groups),
            groups: figures.groups,
        };
        let json = serde_json::to_vec_pretty(&summary).map_err(std::io::Error::from);
        let path = out.join(SUMMARY);
        write_atomically(&path, &json.map_err(file_error("write", &path))?)?;
        let worst = self.cases(source, figures.worst, &options.shown)?;
        write_atomically(&out.join(REPORT), render(self.task, &summary, &worst)?.as_bytes())?;
        let folder = out.to_owned();
        Ok(EvaluationReport { summary, folder })
    }

    /// Answers every record, each with its right answers, or makes the vectors of its picture and its texts.
    async fn answer_plan(
        &self,
        source: &DataSource,
        journal: Journal,
        plan: &Plan<'_>,
        on_progress: impl FnMut(JobProgress),
    ) -> Result<Finished, JobError> {
        let Some(pairs) = &plan.pairs else {
            let answer = async |record: &Record, choices: Option<&ChosenFrom>| {
                self.with_references(plan, record, self.answer(record, choices).await?)
            };
            return self.answer_all(source, journal, answer, on_progress).await;
        };
        let embed = async |record: &Record, _: Option<&ChosenFrom>| {
            let texts = texts_of(right_value(record, &pairs.texts)?, plan.output);
            self.embed_pair(record, pairs, texts).await
        };
        self.answer_all(source, journal, embed, on_progress).await
    }
}
