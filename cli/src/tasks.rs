//! `multiway tasks`: what tasks there are, what they take, what they ask, and whether their files are right.

mod calibrate;
mod check;
mod import;
mod new;
mod output_text;
mod render;
mod show;
mod written;

use clap::{Args, Subcommand};
use multiway::checkpoint::ModelConfig;
use multiway::prompt::task_file_schema;
use multiway::{Task, TaskLibrary};
use serde_json::{Value, json};

use self::calibrate::CalibrateArgs;
use self::check::CheckArgs;
use self::import::ImportArgs;
use self::new::NewArgs;
use self::render::RenderArgs;
use super::context::Context;
use super::failure::Outcome;
use super::find::find;
use super::output::{print_json, print_line};

const AFTER_HELP: &str = "\
Examples:
  multiway tasks
  multiway tasks --json
  multiway tasks show caption
  multiway tasks new my-task --out my-tasks
  multiway tasks check my-tasks/my-task.task
  multiway tasks calibrate closed-vqa --data questions.jsonl --reference answer --out closed-vqa.task
  multiway tasks render vqa --image cat.png --set question='what is this?'
  multiway --task-dir my-tasks tasks
  multiway --task-dir my-tasks tasks check

A task that the checkpoint was not trained on is marked `(untrained)`, with --json `trained: false`: its
prompt is there for checkpoints that are.";

const SHOW_HELP: &str = "\
Examples:
  multiway tasks show vqa
  multiway tasks show my-tasks/my-task.task --json";

const SCHEMA_HELP: &str = "\
Examples:
  multiway tasks schema > task-file.schema.json

The schema (draft 2020-12) describes the YAML between the two lines `---`. Editors complete and
check front matter with it.";

/// Lists the tasks, or runs a subcommand.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct TasksArgs {
    #[command(subcommand)]
    verb: Option<TasksVerb>,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum TasksVerb {
    /// Show the inputs, the output kind and the prompt of a task
    #[command(after_help = SHOW_HELP)]
    Show {
        /// Name of the task, or path of a task file
        name: String,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a commented task file to start from
    New(NewArgs),
    /// Write task files from promptsource or lm-evaluation-harness YAML
    Import(ImportArgs),
    /// Check task files: read them, render their worked examples, and run them
    Check(CheckArgs),
    /// Show the parts and the tokens of a prompt
    Render(RenderArgs),
    /// Fit the temperature of a task's probabilities on data, and write it into the task file
    Calibrate(Box<CalibrateArgs>),
    /// Print the JSON Schema of the front matter of task files
    #[command(after_help = SCHEMA_HELP)]
    Schema {
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
}

impl TasksArgs {
    /// Tells whether standard output must hold one line of JSON.
    pub(crate) fn json(&self) -> bool {
        let of_verb = match &self.verb {
            None => false,
            Some(TasksVerb::Show { json, .. } | TasksVerb::Schema { json }) => *json,
            Some(TasksVerb::New(args)) => args.json,
            Some(TasksVerb::Import(args)) => args.json,
            Some(TasksVerb::Check(args)) => args.json,
            Some(TasksVerb::Render(args)) => args.json,
            Some(TasksVerb::Calibrate(args)) => args.json,
        };
        self.json || of_verb
    }
}

/// Runs the verb.
pub(crate) fn run(context: &Context, args: TasksArgs) -> Outcome {
    let json = args.json();
    match args.verb {
        None => {
            let checkpoint = context.checkpoint()?;
            list(&context.library(&checkpoint)?, checkpoint.config(), json)
        }
        Some(TasksVerb::Show { name, .. }) => {
            let checkpoint = context.checkpoint()?;
            let library = context.library(&checkpoint)?;
            show::run(&find(&library, &checkpoint, &name)?, json)
        }
        Some(TasksVerb::New(args)) => new::run(&args, json),
        Some(TasksVerb::Import(args)) => import::run(&args, json),
        Some(TasksVerb::Check(args)) => check::run(context, &args, json),
        Some(TasksVerb::Render(args)) => render::run(context, &args, json),
        Some(TasksVerb::Calibrate(args)) => calibrate::run(context, &args, json),
        Some(TasksVerb::Schema { .. }) => schema(json),
    }
}

fn schema(json: bool) -> Outcome {
    let schema = task_file_schema();
    if json {
        return print_json(&schema);
    }
    print_line(&format!("{schema:#}"))
}

fn list(library: &TaskLibrary, config: &ModelConfig, json: bool) -> Outcome {
    if json {
        let tasks = library.iter().map(|task| summary(task, config));
        return print_json(&tasks.collect::<Vec<_>>());
    }
    let width = library
        .iter()
        .map(|task| task.name().len())
        .max()
        .unwrap_or_default();
    for task in library.iter() {
        let untrained = if task.is_trained_in(config) {
            ""
        } else {
            " (untrained)"
        };
        print_line(&format!(
            "{:width$}  {}{untrained}",
            task.name(),
            task.description()
        ))?;
    }
    Ok(())
}

fn summary(task: &Task, config: &ModelConfig) -> Value {
    json!({
        "name": task.name(),
        "description": task.description(),
        "file": task.origin(),
        "inputs": task.file().inputs,
        "output": task.file().output,
        "trained": task.is_trained_in(config),
    })
}
