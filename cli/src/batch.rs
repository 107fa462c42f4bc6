//! `multiway batch`: a task on every record of a data set.

use std::path::PathBuf;

use clap::Args;
use multiway::jobs::Job;

use super::context::Context;
use super::failure::Outcome;
use super::jobs::{JobArgs, with_bar};
use super::output::{note, print_json};

const AFTER_HELP: &str = "\
Examples:
  multiway batch caption --data pictures/ --out captions.jsonl
  multiway batch vqa --data questions.jsonl --map question=Question --out answers.jsonl
  multiway batch caption --data 'shards/*.tar.gz' --set language=French --out captions.parquet
  multiway batch classify --data photos.tar.gz --choices-of name --out names.jsonl --json

Writes a line of JSON for each record, in the order of the data: {id, text, answer}, or
{id, error} where the record has no answer; to a file that ends in .parquet, a row with these
columns, `answer` in JSON. Run the same command again after an interruption,
and it goes on where it was; the file gets its name when it is complete.

With --json, one line: {path, records, failed, corrupt [{file, row, reason}]}.";

/// Names the data, and where the answers go.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct BatchArgs {
    #[command(flatten)]
    job: JobArgs,

    /// File to write the answers to: Parquet if its name ends in .parquet, otherwise JSONL
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,

    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the verb.
pub(crate) fn run(context: &Context, args: &BatchArgs) -> Outcome {
    let open = args.job.open(context)?;
    let job = Job::new(&open.engine, &open.task, open.options);
    let report = with_bar(context, async |bar| {
        job.batch(&open.source, &open.model, &args.out, |progress| {
            bar.show(progress)
        })
        .await
    })?;
    if args.json {
        return print_json(&report);
    }
    if !context.quiet() {
        note(&format!(
            "{} records, {} failed, {} rows not read: {}",
            report.records,
            report.failed,
            report.corrupt.len(),
            report.path.display()
        ));
    }
    Ok(())
}
