//! `multiway eval`: how often a task is right on a data set.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use multiway::jobs::{EvaluationOptions, EvaluationReport, Job, MetricReport};
use multiway::prompt::{BoxUnit, Metric};

use super::context::Context;
use super::failure::Outcome;
use super::jobs::{JobArgs, with_bar};
use super::output::{note, print_json, print_line};

const AFTER_HELP: &str = "\
Examples:
  multiway eval vqa --data questions.jsonl --reference answer --out report/
  multiway eval classify --data photos96-test-000.tar.gz --reference name \\
      --choices-of name --group-by set --out report/
  multiway eval caption --data pairs.csv --reference caption --metric cider --out report/ --json
  multiway eval detect --data boxes.jsonl --reference boxes --box-unit fractions --out report/
  multiway eval retrieve --data pairs.jsonl --reference captions --out report/

Prints each metric with its 95 % interval, and writes results.jsonl (a line for each record),
summary.json and report.html (with the worst cases) to the folder. Run the same command again
after an interruption, and it goes on where it was.

A task that makes vectors is evaluated by retrieval: every different text searches the pictures,
and every picture the texts.

With --json, one line: {task, model, data, records, failed, corrupt, metrics [{metric, direction,
value, interval, samples}], groups, mean_of_groups, folder}; only retrieval has a direction.";

/// Names the data, the right answers and the metrics.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    job: JobArgs,

    /// Field of the data with the right answer: a text or a number, a list of texts of which each is right, a
    /// list of labels, a list of boxes, or the texts of a picture [default: the field of the task's target,
    /// or of the text that a vector is made of]
    #[arg(long, short, value_name = "FIELD")]
    reference: Option<String>,

    /// Metric to compute (repeatable) [default: those of the task file]
    #[arg(long = "metric", value_name = "NAME", value_parser = metric)]
    metrics: Vec<Metric>,

    /// Show this field of the data with each case of the report, such as a licence (repeatable)
    #[arg(long, value_name = "FIELD")]
    show: Vec<String>,

    /// Unit of right boxes that are written as `box` or as `x0`, `y0`, `x1`, `y1`
    #[arg(long, value_name = "UNIT", value_enum, default_value_t = Unit::Pixels)]
    box_unit: Unit,

    /// Folder to write the results and the report to
    #[arg(long, short, value_name = "DIR")]
    out: PathBuf,

    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The units of boxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Unit {
    Pixels,
    Fractions,
}

/// Reads the name of a metric.
pub(crate) fn metric(name: &str) -> Result<Metric, String> {
    Metric::from_name(name).ok_or_else(|| {
        let known: Vec<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        format!("there is no metric '{name}' (metrics: {})", known.join(", "))
    })
}

/// Runs the verb.
pub(crate) fn run(context: &Context, args: &EvalArgs) -> Outcome {
    let open = args.job.open(context)?;
    let job = Job::new(&open.engine, &open.task, open.options);
    let mut options = EvaluationOptions::default();
    options.reference.clone_from(&args.reference);
    options.metrics.clone_from(&args.metrics);
    options.shown.clone_from(&args.show);
    options.box_unit = match args.box_unit {
        Unit::Pixels => BoxUnit::Pixels,
        Unit::Fractions => BoxUnit::Fractions,
    };
    let report = with_bar(context, async |bar| {
        job.evaluate(&open.source, &open.model, &options, &args.out, |progress| {
            bar.show(progress)
        })
        .await
    })?;
    if args.json {
        return print_json(&report);
    }
    print_report(&report)?;
    if report.summary.failed > 0 {
        note(&format!(
            "{} records failed: see results.jsonl",
            report.summary.failed
        ));
    }
    Ok(())
}

fn print_report(report: &EvaluationReport) -> Outcome {
    for (group, reports) in &report.summary.groups {
        for metric in reports {
            print_line(&format!("{group}: {}", line(metric)))?;
        }
    }
    for metric in &report.summary.metrics {
        print_line(&line(metric))?;
    }
    for (metric, value) in &report.summary.mean_of_groups {
        print_line(&format!("{metric}, mean of the groups: {value:.3}"))?;
    }
    print_line(&report.folder.join("report.html").display().to_string())
}

fn line(report: &MetricReport) -> String {
    let interval = report
        .interval
        .map(|interval| format!(" ({:.3} to {:.3})", interval.low, interval.high))
        .unwrap_or_default();
    format!(
        "{} {:.3}{interval}, {} samples",
        report.label(),
        report.value,
        report.samples
    )
}
