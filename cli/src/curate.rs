//! `multiway curate`: captions that fit their pictures are kept, others are written anew or dropped.

use std::path::PathBuf;

use clap::Args;
use multiway::jobs::{CurationOptions, Job};

use super::context::Context;
use super::failure::Outcome;
use super::jobs::{JobArgs, with_bar};
use super::output::{print_json, print_line};

const AFTER_HELP: &str = "\
Examples:
  multiway curate caption --data pairs.jsonl --text caption --out curated.jsonl
  multiway curate caption --data 'shards/*.tar.gz' --text name --least-fit 2 --no-rewrite \\
      --out curated.jsonl --json

How well a text fits is how much more probable the picture makes it than a blank one, in nats: a
caption of another picture is below zero, a right one is mostly far above.

Writes a line of JSON for each record, in the order of the data: {id, text, answer}, where `text` is
the caption to go on with and is left out where none fits, and `answer` is {verdict, fit, written,
written_fit, record}: `kept`, `rewritten` or `dropped`, what the model wrote where it was asked, and
the record's own values. Run the same command again after an interruption, and it goes on where it was.
To go on with what is left, write the file beside the data, where the pictures that it names are found, and
read it with --where answer.verdict!=dropped --map image=answer.record.image.

With --json, one line: {path, records, kept, rewritten, dropped, failed, corrupt}.";

/// Names the data, its texts, and where the result goes.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct CurateArgs {
    #[command(flatten)]
    job: JobArgs,

    /// Field of the data with the text of each picture [default: the field of the task's target]
    #[arg(long, short, value_name = "FIELD")]
    text: Option<String>,

    /// Least fit of a text that is kept, in nats
    #[arg(long, value_name = "NATS", default_value_t = 0.0, allow_negative_numbers = true, value_parser = finite)]
    least_fit: f32,

    /// Drop texts that do not fit, rather than replace them by what the model writes
    #[arg(long)]
    no_rewrite: bool,

    /// JSONL file to write the result to
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,

    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Reads a finite number.
fn finite(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number: &f32| number.is_finite());
    number.ok_or_else(|| format!("expected a number, found '{text}'"))
}

/// Runs the verb.
pub(crate) fn run(context: &Context, args: &CurateArgs) -> Outcome {
    let open = args.job.open(context)?;
    let job = Job::new(&open.engine, &open.task, open.options);
    let mut options = CurationOptions::default();
    options.text.clone_from(&args.text);
    options.least_fit = args.least_fit;
    options.rewrite = !args.no_rewrite;
    let report = with_bar(context, async |bar| {
        job.curate(&open.source, &open.model, &options, &args.out, |progress| {
            bar.show(progress)
        })
        .await
    })?;
    if args.json {
        return print_json(&report);
    }
    print_line(&format!(
        "{} records: {} kept, {} rewritten, {} dropped, {} failed: {}",
        report.records,
        report.kept,
        report.rewritten,
        report.dropped,
        report.failed,
        report.path.display()
    ))
}
