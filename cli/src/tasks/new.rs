//! `multiway tasks new`: a commented task file to start from.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use multiway::prompt::TaskFile;
use serde_json::json;

use super::super::failure::{Failure, Outcome};
use super::super::output::{print_json, print_line};

const AFTER_HELP: &str = "\
Examples:
  multiway tasks new my-task
  multiway tasks new sentiment --kind choice --out my-tasks
  multiway --task-dir my-tasks run sentiment --set text='I like it.'

A file that is there already is not overwritten. The comments in the new one say what else may stand
there. With --json, one line: {file}.";

/// Says what kind of task file to write, and where.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct NewArgs {
    /// Name of the task: lower-case letters, digits, `-` and `_`
    name: String,

    /// Kind of answer
    #[arg(long, value_enum, default_value_t = Starter::Text)]
    kind: Starter,

    /// Folder to write to, which is made if it is not there
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,

    /// Print one line of JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// The kinds of answers for which there is a file to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Starter {
    /// Text about a picture
    Text,
    /// One of a few answers
    Choice,
    /// JSON that fits a schema
    Json,
    /// A vector of a picture or a text
    Embedding,
    /// What hidden patches of a picture show
    Patches,
}

impl Starter {
    /// Returns the task file.
    fn text(self) -> &'static str {
        match self {
            Self::Text => include_str!("starters/text.task"),
            Self::Choice => include_str!("starters/choice.task"),
            Self::Json => include_str!("starters/json.task"),
            Self::Embedding => include_str!("starters/embedding.task"),
            Self::Patches => include_str!("starters/patches.task"),
        }
    }
}

/// Runs the verb.
pub(super) fn run(args: &NewArgs, json: bool) -> Outcome {
    let file_name = format!("{}.task", args.name);
    let text = args.kind.text();
    if args.name.contains(['/', '\\', ':']) {
        let name = &args.name;
        return Err(Failure::Input(anyhow!(
            "expected the name of a task, found the path '{name}': give its folder by --out"
        )));
    }
    // Says what is wrong with the name, before it becomes that of a file.
    TaskFile::parse(&file_name, text.as_bytes()).map_err(Failure::input)?;
    let path = args.out.join(file_name);
    fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the folder '{}'", args.out.display()))
        .map_err(Failure::Input)?;
    let file = File::options().write(true).create_new(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::Input(anyhow!(
            "'{}' is there already: choose another name, or remove it",
            path.display()
        )),
        _ => Failure::Input(anyhow::Error::new(error).context(format!("cannot write '{}'", path.display()))),
    })?;
    if json {
        return print_json(&json!({"file": path}));
    }
    print_line(&path.display().to_string())
}
