//! `multiway tasks`: what tasks there are, what they take, and whether their worked examples hold.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use multiway::prompt::InputSpec;
use multiway::task::ExampleReport;
use multiway::{Checkpoint, Task, TaskLibrary};
use serde_json::{Value, json};

use super::context::{Context, processor};
use super::engine::EngineArgs;
use super::failure::{Failure, Outcome, task_failure};
use super::interrupt::until_interrupted;
use super::output::{print_json, print_line};
use super::pictures;

const AFTER_HELP: &str = "\
Examples:
  multiway tasks
  multiway tasks --json
  multiway tasks show caption
  multiway --task-dir my-tasks tasks
  multiway --task-dir my-tasks tasks check";

const SHOW_HELP: &str = "\
Examples:
  multiway tasks show vqa
  multiway --task-dir my-tasks tasks show my-task --json";

const CHECK_HELP: &str = "\
Examples:
  multiway tasks check
  multiway --task-dir my-tasks tasks check my-task

A worked example, under `examples` in a task file, is a set of inputs and the expected
answer. A wrong answer ends with exit code 1.";

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
        /// Name of the task
        name: String,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Run the worked examples of the task files
    #[command(after_help = CHECK_HELP)]
    Check {
        /// Names of the tasks to check [default: all]
        names: Vec<String>,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        engine: EngineArgs,
    },
}

impl TasksArgs {
    /// Tells whether standard output must hold one line of JSON.
    pub(crate) fn json(&self) -> bool {
        match &self.verb {
            None => self.json,
            Some(TasksVerb::Show { json, .. } | TasksVerb::Check { json, .. }) => self.json || *json,
        }
    }
}

/// Runs the verb.
pub(crate) fn run(context: &Context, args: TasksArgs) -> Outcome {
    let json = args.json();
    let checkpoint = context.checkpoint()?;
    let library = context.library(&checkpoint)?;
    match args.verb {
        None => list(&library, json),
        Some(TasksVerb::Show { name, .. }) => show(library.get(&name).map_err(Failure::input)?, json),
        Some(TasksVerb::Check { names, engine, .. }) => {
            let tasks = chosen(&library, &names)?;
            check(context, &checkpoint, &engine, tasks, json)
        }
    }
}

fn list(library: &TaskLibrary, json: bool) -> Outcome {
    if json {
        return print_json(&library.iter().map(summary).collect::<Vec<_>>());
    }
    let width = library
        .iter()
        .map(|task| task.name().len())
        .max()
        .unwrap_or_default();
    for task in library.iter() {
        print_line(&format!("{:width$}  {}", task.name(), task.description()))?;
    }
    Ok(())
}

fn summary(task: &Task) -> Value {
    json!({
        "name": task.name(),
        "description": task.description(),
        "file": task.origin(),
        "inputs": task.file().inputs,
        "output": task.file().output,
    })
}

fn show(task: &Task, json: bool) -> Outcome {
    if json {
        return print_json(task.file());
    }
    print_line(&describe(task))
}

fn describe(task: &Task) -> String {
    let file = task.file();
    let mut text = format!(
        "{}: {}\n\nfile     {}\noutput   {}",
        task.name(),
        task.description(),
        task.origin(),
        file.output.kind()
    );
    if !file.languages.is_empty() {
        let _ = write!(text, "\nlanguage {}", file.languages.join(", "));
    }
    if !file.metrics.is_empty() {
        let metrics: Vec<&str> = file.metrics.iter().map(|metric| metric.name()).collect();
        let _ = write!(text, "\nmetrics  {}", metrics.join(", "));
    }
    text.push_str("\n\ninputs\n");
    let width = file.inputs.keys().map(String::len).max().unwrap_or_default();
    for (name, spec) in &file.inputs {
        let _ = writeln!(text, "  {name:width$}  {}", describe_input(spec));
    }
    let _ = write!(
        text,
        "\nprompt\n  {}",
        file.template().trim_end().replace('\n', "\n  ")
    );
    text
}

fn describe_input(spec: &InputSpec) -> String {
    let mut text = spec.kind.to_string();
    if let Some(description) = &spec.description {
        let _ = write!(text, ", {description}");
    }
    match (&spec.min, &spec.max) {
        (Some(min), Some(max)) => drop(write!(text, ", {min} to {max}")),
        (Some(min), None) => drop(write!(text, ", at least {min}")),
        (None, Some(max)) => drop(write!(text, ", at most {max}")),
        (None, None) => {}
    }
    if !spec.choices.is_empty() {
        let _ = write!(text, ", one of {}", spec.choices.join(", "));
    }
    if let Some(default) = spec
        .default
        .as_ref()
        .and_then(|default| serde_json::to_string(default).ok())
    {
        let _ = write!(text, ", default {default}");
    }
    text
}

/// Finds the tasks of some names, or all.
fn chosen<'a>(library: &'a TaskLibrary, names: &[String]) -> Outcome<Vec<&'a Task>> {
    if names.is_empty() {
        return Ok(library.iter().collect());
    }
    let named = names.iter().map(|name| library.get(name));
    named.map(|task| task.map_err(Failure::input)).collect()
}

fn check(
    context: &Context,
    checkpoint: &Checkpoint,
    options: &EngineArgs,
    tasks: Vec<&Task>,
    json: bool,
) -> Outcome {
    let engine = context.engine(checkpoint, options)?;
    let processor = processor(checkpoint);
    let mut checked = Vec::new();
    for task in tasks {
        let reports = context.block_on(until_interrupted(async {
            task.check_examples(&engine, options.terms(), |path| {
                Ok(pictures::open_unnamed(&processor, path)?)
            })
            .await
            .map_err(task_failure)
        }))?;
        checked.push((task, reports));
    }
    if json {
        print_json(
            &checked
                .iter()
                .flat_map(|(task, reports)| report_json(task, reports))
                .collect::<Vec<_>>(),
        )?;
    } else {
        checked
            .iter()
            .try_for_each(|(task, reports)| print_reports(task, reports))?;
    }
    let wrong = checked
        .iter()
        .flat_map(|(_, reports)| reports)
        .filter(|report| !report.passed())
        .count();
    if wrong == 0 {
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
