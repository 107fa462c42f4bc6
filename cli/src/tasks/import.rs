//! `multiway tasks import`: task files from the prompts of other libraries.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use multiway::task::{Import, import_paths};
use serde_json::{Value, json};

use super::super::failure::{Failure, Outcome};
use super::super::output::{print_json, print_line};

const AFTER_HELP: &str = "\
Examples:
  multiway tasks import promptsource/templates/super_glue --out imported
  multiway tasks import arc_easy.yaml --out imported
  multiway --task-dir imported tasks check --no-run

A folder stands for the YAML files in it and in its folders. Each template becomes one task file,
and a file that is there already is not overwritten. What is not imported is said with the reason;
what an imported task lacks is said below it. It ends with exit code 1 where nothing was written.

With --json, one line: a list of {source, task, file, error, reason, notes}.";

/// Names what to import, and where to.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ImportArgs {
    /// A `templates.yaml` of promptsource, a task of lm-evaluation-harness, or a folder of them
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// Folder to write to, which is made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Print one line of JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Runs the verb.
pub(super) fn run(args: &ImportArgs, json: bool) -> Outcome {
    let imports = import_paths(&args.paths).map_err(Failure::input)?;
    fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the folder '{}'", args.out.display()))
        .map_err(Failure::Input)?;
    let reports: Vec<Report<'_>> = imports.iter().map(|import| written(import, &args.out)).collect();
    let count = reports.iter().filter(|report| report.file.is_ok()).count();
    if json {
        print_json(&reports.iter().map(Report::json).collect::<Vec<Value>>())?;
    } else {
        reports.iter().try_for_each(Report::print)?;
        print_line(&format!("{count} of {} templates imported", reports.len()))?;
    }
    if count == 0 {
        Err(Failure::Reported)
    } else {
        Ok(())
    }
}

/// What became of one template: its file, or why there is none.
struct Report<'i> {
    import: &'i Import,
    file: Result<PathBuf, String>,
}

/// Writes an imported task.
fn written<'i>(import: &'i Import, folder: &Path) -> Report<'i> {
    let file = match (&import.result, import.write(folder)) {
        (Err(error), _) => Err(anyhow::Error::msg(error.to_string())),
        (Ok(_), Ok(Some(path))) => Ok(path),
        (Ok(_), Ok(None)) => Err(anyhow::Error::msg("nothing was written")),
        (Ok(_), Err(error)) => {
            let path = folder.join(format!("{}.task", import.name));
            Err(anyhow::Error::new(error).context(format!("cannot write '{}'", path.display())))
        }
    };
    let file = file.map_err(|error| format!("{error:#}"));
    Report { import, file }
}

impl Report<'_> {
    fn json(&self) -> Value {
        json!({
            "source": self.import.source,
            "task": self.import.name,
            "file": self.file.as_ref().ok(),
            "error": self.file.as_ref().err(),
            "reason": self.import.result.as_ref().err().map(|error| error.reason()),
            "notes": self.import.notes,
        })
    }

    fn print(&self) -> Outcome {
        match &self.file {
            Ok(path) => print_line(&format!("{}", path.display()))?,
            Err(error) => return print_line(&format!("not imported: {}: {error}", self.import.source)),
        }
        let mut notes = self.import.notes.iter();
        notes.try_for_each(|note| print_line(&format!("  {note}")))
    }
}
