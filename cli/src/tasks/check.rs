//! `multiway tasks check`: whether task files are right, and whether their worked examples hold.

use std::path::Path;

use clap::Args;
use multiway::task::{ExampleReport, PictureError};
use multiway::tokenizer::Tokenizer;
use multiway::{Checkpoint, ImageProcessor, Task, TaskLibrary};
use serde_json::{Value, json};

use super::super::context::{Context, tokenizer};
use super::super::engine::EngineArgs;
use super::super::failure::{Failure, Outcome, task_failure};
use super::super::find::find;
use super::super::interrupt::until_interrupted;
use super::super::output::{print_json, print_line};
use super::super::pictures;

const AFTER_HELP: &str = "\
Examples:
  multiway tasks check
  multiway tasks check caption vqa
  multiway tasks check my-tasks/my-task.task
  multiway tasks check my-tasks/my-task.task --no-run
  multiway --task-dir my-tasks tasks check my-task

A worked example, under `examples` in a task file, is a set of inputs and the expected
answer. A wrong answer ends with exit code 1, a file that is wrong with exit code 2.

With --json, one line: a list of {task, example, passed, expected, found}, or with --no-run
of {task, example, tokens}.";

/// Names the tasks to check.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct CheckArgs {
    /// Names of tasks, or paths of task files [default: all tasks]
    #[arg(value_name = "TASK")]
    tasks: Vec<String>,

    /// Read the files and render their worked examples, without loading the model
    #[arg(long)]
    no_run: bool,

    /// Print one line of JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs the verb.
pub(super) fn run(context: &Context, args: &CheckArgs, json: bool) -> Outcome {
    let checkpoint = context.checkpoint()?;
    let library = context.library(&checkpoint)?;
    let tasks = chosen(&library, &checkpoint, &args.tasks)?;
    if args.no_run {
        render_examples(&checkpoint, &tasks, json)
    } else {
        run_examples(context, &checkpoint, &args.engine, &tasks, json)
    }
}

/// Finds the tasks of some names, reads those of some paths, or takes all.
fn chosen(library: &TaskLibrary, checkpoint: &Checkpoint, names: &[String]) -> Outcome<Vec<Task>> {
    if names.is_empty() {
        return Ok(library.iter().cloned().collect());
    }
    let task = |name: &String| find(library, checkpoint, name);
    names.iter().map(task).collect()
}

/// Opens a picture of an example.
fn open(processor: &ImageProcessor, path: &Path) -> Result<multiway::image::ProcessedImage, PictureError> {
    Ok(pictures::open_unnamed(processor, path)?)
}

fn render_examples(checkpoint: &Checkpoint, tasks: &[Task], json: bool) -> Outcome {
    let tokenizer = tokenizer(checkpoint)?;
    let mut rendered = Vec::new();
    for task in tasks {
        let counts = rendered_tokens(checkpoint, &tokenizer, task)?;
        rendered.push((task.name(), counts));
    }
    if json {
        let line = |name: &str, (index, tokens): (usize, &usize)| json!({"task": name, "example": index + 1, "tokens": tokens});
        let lines = rendered
            .iter()
            .flat_map(|(name, counts)| counts.iter().enumerate().map(move |count| line(name, count)));
        return print_json(&lines.collect::<Vec<Value>>());
    }
    for (name, counts) in rendered {
        if counts.is_empty() {
            print_line(&format!("{name}: no worked examples"))?;
        }
        for (index, tokens) in counts.iter().enumerate() {
            print_line(&format!(
                "{name} example {}: renders to {tokens} tokens",
                index + 1
            ))?;
        }
    }
    Ok(())
}

/// Renders the worked examples of a task, and counts the tokens of each prompt.
fn rendered_tokens(checkpoint: &Checkpoint, tokenizer: &Tokenizer, task: &Task) -> Outcome<Vec<usize>> {
    let processor = task.image_processor(checkpoint.config());
    let examples = task.file().examples.iter().enumerate();
    let count = |(index, example)| {
        let inputs = task.example_inputs(index + 1, example, |path| open(&processor, path));
        let prepared = task.prepare(tokenizer, &inputs.map_err(Failure::input)?);
        let prepared = prepared.map_err(Failure::input)?;
        let ids = tokenizer
            .encode_prompt(prepared.prompt())
            .map_err(Failure::input)?;
        Ok(ids.len())
    };
    examples.map(count).collect()
}

fn run_examples(
    context: &Context,
    checkpoint: &Checkpoint,
    options: &EngineArgs,
    tasks: &[Task],
    json: bool,
) -> Outcome {
    let engine = context.engine(checkpoint, options)?;
    let mut checked = Vec::new();
    for task in tasks {
        let processor = task.image_processor(checkpoint.config());
        let reports = context.block_on(until_interrupted(async {
            task.check_examples(&engine, options.terms(), |path| open(&processor, path))
                .await
                .map_err(task_failure)
        }))?;
        checked.push((task, reports));
    }
    if json {
        let lines = checked
            .iter()
            .flat_map(|(task, reports)| report_json(task, reports));
        print_json(&lines.collect::<Vec<_>>())?;
    } else {
        checked
            .iter()
            .try_for_each(|(task, reports)| print_reports(task, reports))?;
    }
    let mut reports = checked.iter().flat_map(|(_, reports)| reports);
    if reports.all(ExampleReport::passed) {
        Ok(())
    } else {
        Err(Failure::Reported)
    }
}

fn report_json(task: &Task, reports: &[ExampleReport]) -> Vec<Value> {
    let line = |report: &ExampleReport| {
        json!({
            "task": task.name(),
            "example": report.number,
            "passed": report.passed(),
            "expected": report.expected,
            "found": report.found,
        })
    };
    reports.iter().map(line).collect()
}

fn print_reports(task: &Task, reports: &[ExampleReport]) -> Outcome {
    if reports.is_empty() {
        return print_line(&format!("{}: no worked examples", task.name()));
    }
    for report in reports {
        let result = match (report.passed(), &report.expected, &report.found) {
            (false, Some(expected), found) => {
                format!(
                    "WRONG: expected {expected:?}, found {:?}",
                    found.as_deref().unwrap_or_default()
                )
            }
            _ => "ok".to_owned(),
        };
        print_line(&format!("{} example {}: {result}", task.name(), report.number))?;
    }
    Ok(())
}
