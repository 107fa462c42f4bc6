//! `multiway tasks calibrate`: the temperature of a task's probabilities, fitted on data.

use std::path::PathBuf;

use clap::Args;
use multiway::jobs::{CalibrationReport, Job};
use serde::Serialize;

use super::written::TaskText;
use crate::context::Context;
use crate::failure::Outcome;
use crate::jobs::{JobArgs, with_bar};
use crate::output::{note, print_json, print_line};

const AFTER_HELP: &str = "\
Examples:
  multiway tasks calibrate closed-vqa --data questions.jsonl --reference answer --out my-tasks/closed-vqa.task
  multiway tasks calibrate classify --data photos.tar.gz --reference name --choices-of name --json
  multiway tasks calibrate my-tasks/mood.task --data texts.csv --reference mood

Answers every record, fits the temperature on one half of them, chosen by their ids, and says how
far the probabilities of the other half can be relied on without it and with it. The temperature is
written as `calibration` into the task file, whose other bytes stay; a built-in task is extended by
the file that --out names. Without --out, nothing is written for a built-in task.

With --json, one line: {task, model, data, records, failed, corrupt, not_among, fitted_on,
tested_on, previous, temperature, at_bound, before {accuracy, calibration_error, brier,
negative_log_likelihood}, after {..}, file}.";

/// Names the task, the data, and where the temperature goes.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct CalibrateArgs {
    #[command(flatten)]
    job: JobArgs,

    /// Field of the data with the right answer: a text or a number, or a list of texts of which each is right
    /// [default: the field of the task's target]
    #[arg(long, short, value_name = "FIELD")]
    reference: Option<String>,

    /// Task file to write [default: that of the task, in place]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Print one line of JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Printed<'r> {
    #[serde(flatten)]
    report: &'r CalibrationReport,
    /// The file that was written.
    file: Option<PathBuf>,
}

/// Runs the verb.
pub(super) fn run(context: &Context, args: &CalibrateArgs, json: bool) -> Outcome {
    let open = args.job.open(context)?;
    let text = TaskText::open(&open.library, &open.task, args.out.as_deref())?;
    let job = Job::new(&open.engine, &open.task, open.options);
    let report = with_bar(context, async |bar| {
        job.calibrate(&open.source, &open.model, args.reference.as_deref(), |progress| {
            bar.show(progress)
        })
        .await
    })?;
    let file = match &text {
        Some(_) if report.at_bound => {
            note(
                "the temperature is at the end of what is looked for, so that none is best: nothing is written; \
                 take more data, with wrong answers too",
            );
            None
        }
        Some(text) => Some(text.write(&open.library, report.temperature)?),
        None => None,
    };
    if json {
        return print_json(&Printed {
            report: &report,
            file,
        });
    }
    print_report(&report)?;
    match file {
        Some(file) => print_line(&file.display().to_string()),
        None => Ok(()),
    }
}

fn print_report(report: &CalibrationReport) -> Outcome {
    let (before, after) = (report.before, report.after);
    print_line(&format!(
        "temperature {} in place of {}, fitted on {} records and tested on {} others",
        report.temperature, report.previous, report.fitted_on, report.tested_on
    ))?;
    for (name, before, after) in [
        (
            "calibration_error",
            before.calibration_error,
            after.calibration_error,
        ),
        ("brier", before.brier, after.brier),
        (
            "negative_log_likelihood",
            before.negative_log_likelihood,
            after.negative_log_likelihood,
        ),
    ] {
        print_line(&format!("{name} {before:.3} before, {after:.3} after"))?;
    }
    if report.failed + report.not_among > 0 {
        note(&format!(
            "{} records failed, and of {} the right answer is none of those to choose from",
            report.failed, report.not_among
        ));
    }
    print_line(&format!("accuracy {:.3}", after.accuracy))
}
