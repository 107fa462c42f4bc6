//! `multiway run`: one task, on pictures and text, streamed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use futures_util::StreamExt;
use multiway::engine::{Constraint, Explanation};
use multiway::image::Rgb8Picture;
use multiway::prompt::InputValue;
use multiway::prompt::text_of_file;
use multiway::task::{OutcomeReport, PatchAnswer, TaskOutcome, TaskRun};
use multiway::{Answer, Checkpoint, ImageProcessor, Task, TaskEvent, TaskInputs, TaskLibrary};
use serde::Serialize;

use super::context::{Context, tokenizer};
use super::decoding::{DecodingArgs, note_tokens, print_samples};
use super::draw::{draw, original};
use super::engine::EngineArgs;
use super::explain::ExplainArgs;
use super::failure::{Failure, Outcome, task_failure};
use super::interrupt::until_interrupted;
use super::output::{TimingsMs, note, print_json, print_line, print_piece};
use super::pictures;
use super::profile::{Part, Profile, ProfileReport};
use super::typed::{has_places, is_read, print_typed};

/// How many choices are listed for people.
const SHOWN_CHOICES: usize = 10;

const AFTER_HELP: &str = "\
Examples:
  multiway run caption --image cat.png
  multiway run caption --image cat.png --set language=Japanese
  multiway run vqa --image shapes.png --set question='how many shapes are there?'
  multiway run classify --image cat.png --set choices=cat,dog,guitar
  multiway run infill --set text='The ___ sat on the ___.'
  multiway run patches --image cat.png --set hide=3-5:2-7
  multiway run caption --image cat.png --temperature 0.8 --min-p 0.05 --samples 3 --best-of 16
  multiway run vqa --image cat.png --set question='how many?' --regex '[0-9]{1,2}'
  multiway run caption --image cat.png --json-schema picture.schema.json
  multiway run caption --image cat.png --explain looked.png
  multiway run caption --image cat.png --profile
  cat cat.png | multiway run caption --image - --json
  multiway --task-dir my-tasks run my-task --image one.png --image two.png

`multiway tasks show TASK` lists the inputs of a task. Give a list as comma-separated values
or as a JSON array of strings.

With --json, one line: {task, text, finish_reason,
usage {prompt_tokens, image_patches, new_tokens}, timings_ms {..}},
and, depending on the kind of answer, choices [{text, probability}], embedding [..], value (JSON),
patches [{row, column, codes [{code, probability}]}], predicate {value, probability}, level {text,
expected}, labels [..], number {value, unit, problem}, boxes, points or polygons [{label, pixels,
fractions, raw, problem}], grounded {plain, phrases}, table {title, header, rows, problems} or
score {log_probability, tokens}.
--samples and --best-of add samples [{text, finish_reason, mean_log_probability}];
--top-log-probabilities adds tokens [{id, piece, log_probability, alternatives [..]}];
--explain adds explanation {grid, pictures, answer [{text, patches [[..]], class_share,
text_share}], log_probabilities [..], alignment {distance, words [{text, patches [[..]]}]}};
patches are shares, row by row.
--profile adds profile {parts_ms {..}, total_ms, steps, ms_per_step, tokens, ms_per_token,
first_token_ms}, whose parts add up to the total.

--regex, --json-schema and --choice constrain decoding: the answer always matches, and is always
complete. A constraint whose shortest match needs more than --max-new-tokens is refused. Schemas are
UTF-8 files and may be recursive; numbers in the answer have at most 15 digits, wider bounds are
clamped to that, and arrays and objects nest at most 100 deep.";

/// Names a task and its inputs.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct RunArgs {
    /// Name of the task; `multiway tasks` lists them
    task: String,

    /// Image input: PNG, JPEG, WebP, GIF or BMP; `-` reads one from standard input (repeatable)
    #[arg(long = "image", short, value_name = "PATH")]
    images: Vec<PathBuf>,

    /// Value of a task input (repeatable)
    #[arg(long = "set", short = 's', value_name = "NAME=VALUE", value_parser = assignment)]
    values: Vec<(String, String)>,

    /// Show the first N few-shot examples of the task file before the prompt; 0 is none [default: all]
    #[arg(long, value_name = "N")]
    shots: Option<usize>,

    /// Print one line of JSON instead of streaming text
    #[arg(long)]
    pub(crate) json: bool,

    /// Draw boxes, points or polygons with their labels on the first picture, and write it as PNG
    #[arg(long, value_name = "PATH")]
    draw: Option<PathBuf>,

    #[command(flatten)]
    explain: ExplainArgs,

    /// Profile the request: a table on standard error after the answer, or the key `profile` with --json
    #[arg(long)]
    profile: bool,

    #[command(flatten)]
    engine: EngineArgs,

    #[command(flatten)]
    decoding: DecodingArgs,

    /// Constrain the answer to this regular expression, which must match all of it; for tasks with text
    /// output
    #[arg(long, value_name = "PATTERN", group = "form")]
    regex: Option<String>,

    /// Constrain the answer to JSON that is valid under the schema in this file; for tasks with text output
    #[arg(long, value_name = "FILE", group = "form")]
    json_schema: Option<PathBuf>,

    /// Constrain the answer to one of these texts (repeatable); for tasks with text output. For
    /// probabilities, use a task of output kind `choice`
    #[arg(long = "choice", value_name = "TEXT", group = "form")]
    choices: Vec<String>,
}

pub(crate) fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("expected NAME=VALUE, found '{text}'")),
    }
}

/// Runs the verb.
pub(crate) fn run(context: &Context, args: &RunArgs) -> Outcome {
    let mut profile = Profile::start();
    let (checkpoint, library) = profile.time(Part::Open, || open(context))?;
    let task = library.get(&args.task).map_err(Failure::input)?;
    if !context.quiet() && !task.is_trained_in(checkpoint.config()) {
        note(&format!(
            "note: this checkpoint was not trained on the task '{}'; its answers mean little",
            task.name()
        ));
    }
    let mut inputs = profile.time(Part::Render, || values(context, task, args))?;
    profile.time(Part::Pictures, || {
        let processor = task.image_processor(checkpoint.config());
        open_pictures(task, &processor, &args.images, args.shots, &mut inputs)
    })?;
    let canvas = profile.time(Part::Pictures, || canvas(&checkpoint, task, args))?;
    let tokenizer = profile.time(Part::Load, || tokenizer(&checkpoint))?;
    args.decoding.ban_words(&tokenizer, &mut inputs.sampling)?;
    let prepared = profile.time(Part::Render, || task.prepare(&tokenizer, &inputs));
    let prepared = prepared.map_err(Failure::input)?;
    let explaining = profile.time(Part::Pictures, || {
        args.explain
            .begin(task, &prepared, checkpoint.config(), (&args.images, &inputs))
    })?;
    let engine = profile.time(Part::Load, || {
        context.engine_with(&checkpoint, tokenizer, &args.engine)
    })?;
    let load = profile.elapsed();
    let run = prepared.run(&engine).map_err(Failure::input)?;
    let streams = !args.json && !is_read(&task.file().output);
    let outcome = profile.time(Part::Answer, || stream(context, run, streams))?;
    if let Some((picture, path)) = canvas.as_ref().zip(args.draw.as_ref()) {
        draw(picture, &outcome.answer, path)?;
    }
    let explanation = explaining.map(|explaining| explaining.finish(context, &engine, &outcome));
    let explanation = explanation.transpose()?;
    if args.json {
        let profile = args.profile.then(|| profile.report(&outcome));
        return print_json(&Report {
            outcome: OutcomeReport::new(task.name(), &outcome),
            timings_ms: TimingsMs::new(load, outcome.timings),
            profile,
            explanation: explanation.as_ref(),
        });
    }
    profile.time(Part::Answer, || print_rest(context, &outcome))?;
    if args.profile {
        profile.report(&outcome).print();
    }
    Ok(())
}

/// Reads the picture to draw on, if the answer is to be drawn.
fn canvas(checkpoint: &Checkpoint, task: &Task, args: &RunArgs) -> Outcome<Option<Rgb8Picture>> {
    if args.draw.is_none() {
        return Ok(None);
    }
    let output = &task.file().output;
    if !has_places(output) {
        return Err(Failure::Input(anyhow!(
            "--draw: the task '{}' answers with {}: expected boxes, points, polygons or grounded text",
            task.name(),
            output.kind()
        )));
    }
    match args.images.first() {
        Some(path) if path != Path::new("-") => {
            original(&task.image_processor(checkpoint.config()), path).map(Some)
        }
        _ => Err(Failure::Input(anyhow!(
            "--draw: expected the picture as a file, `--image PATH`; standard input is read once"
        ))),
    }
}

fn open(context: &Context) -> Outcome<(Checkpoint, TaskLibrary)> {
    let checkpoint = context.checkpoint()?;
    let library = context.library(&checkpoint)?;
    Ok((checkpoint, library))
}

/// Waits for the answer, and prints its text as it comes, if it is to be printed.
fn stream(context: &Context, run: TaskRun, streams: bool) -> Outcome<TaskOutcome> {
    let mut line = Line { streams, open: false };
    let outcome = context.block_on(until_interrupted(answer(run, &mut line)));
    line.end()?;
    outcome
}

/// Prints what is no text, and what comes after the text.
fn print_rest(context: &Context, outcome: &TaskOutcome) -> Outcome {
    if let Some(vector) = outcome.answer.embedding() {
        return print_json(&vector);
    }
    if !outcome.answer.patches().is_empty() {
        return print_patches(outcome.answer.patches());
    }
    print_typed(&outcome.answer)?;
    print_samples(outcome)?;
    if !context.quiet() {
        print_choices(&outcome.answer);
        note_tokens(outcome);
    }
    Ok(())
}

/// Reads the `--set` values as the task declares them. A list that is set several times has all the items.
fn values(context: &Context, task: &Task, args: &RunArgs) -> Outcome<TaskInputs> {
    let sampling = args.decoding.options(context.seed())?;
    let mut inputs = TaskInputs::new()
        .with_sampling(sampling)
        .with_terms(args.engine.terms());
    inputs.constraint = constraint(args)?;
    set_values(task, &args.values, &mut inputs)?;
    Ok(inputs)
}

/// Opens the pictures of the request, and those of the first `shots` few-shot examples of the task.
pub(crate) fn open_pictures(
    task: &Task,
    processor: &ImageProcessor,
    images: &[PathBuf],
    shots: Option<usize>,
    inputs: &mut TaskInputs,
) -> Outcome {
    inputs.images = pictures::open_all(processor, images)?;
    let open = |path: &Path| Ok(pictures::open_unnamed(processor, path)?);
    let shots = task.open_shots(shots.unwrap_or(usize::MAX), open);
    inputs.shots = Some(shots.map_err(Failure::input)?);
    Ok(())
}

/// Adds `--set` values to inputs, as the task declares them.
pub(crate) fn set_values(task: &Task, values: &[(String, String)], inputs: &mut TaskInputs) -> Outcome {
    for (name, text) in values {
        let value = task.file().parse_input(name, text).map_err(Failure::input)?;
        match (inputs.values.get_mut(name), value) {
            (Some(InputValue::List(items)), InputValue::List(more)) => items.extend(more),
            (Some(_), _) => return Err(Failure::Input(anyhow!("the input '{name}' is set twice"))),
            (None, value) => {
                inputs.values.insert(name.clone(), value);
            }
        }
    }
    Ok(())
}

/// Reads which form the answer must have.
fn constraint(args: &RunArgs) -> Outcome<Option<Constraint>> {
    if let Some(path) = &args.json_schema {
        let named = |error: anyhow::Error| error.context(format!("--json-schema '{}'", path.display()));
        let schema = read_json(path).map_err(|error| Failure::Input(named(error)))?;
        return Ok(Some(Constraint::JsonSchema(schema)));
    }
    let choices = (!args.choices.is_empty()).then(|| Constraint::Choices(args.choices.clone()));
    Ok(args.regex.clone().map(Constraint::Regex).or(choices))
}

fn read_json(path: &Path) -> anyhow::Result<serde_json::Value> {
    let bytes = fs::read(path)?;
    let text = text_of_file(&path.display().to_string(), &bytes)?;
    Ok(serde_json::from_str(text)?)
}

/// A line of text on standard output that may not be ended yet.
struct Line {
    streams: bool,
    open: bool,
}

impl Line {
    fn add(&mut self, piece: &str) -> Outcome {
        if !self.streams {
            return Ok(());
        }
        self.open = true;
        print_piece(piece)
    }

    fn end(&mut self) -> Outcome {
        if std::mem::take(&mut self.open) {
            print_line("")
        } else {
            Ok(())
        }
    }
}

async fn answer(mut run: TaskRun, line: &mut Line) -> Outcome<TaskOutcome> {
    while let Some(event) = run.next().await {
        match event.map_err(task_failure)? {
            TaskEvent::Text(piece) => line.add(&piece)?,
            TaskEvent::Finished(outcome) => {
                // A text without a single character is still a line.
                line.open |= line.streams && outcome.answer.text().is_some();
                return Ok(outcome);
            }
            _ => {}
        }
    }
    Err(Failure::Runtime(anyhow!(
        "the engine stopped before the answer was complete"
    )))
}

/// Lists the choices under the answer, on standard error: they are for people, scripts have `--json`.
fn print_choices(answer: &Answer) {
    for choice in answer.choices().iter().take(SHOWN_CHOICES) {
        note(&format!("  {:.3}  {}", choice.probability, choice.text));
    }
}

/// Prints a line for each hidden patch: its position, its most probable code, and the probability.
fn print_patches(patches: &[PatchAnswer]) -> Outcome {
    for patch in patches {
        if let Some(best) = patch.codes.first() {
            let (row, column) = (patch.row, patch.column);
            print_line(&format!("{row}:{column}\t{}\t{:.3}", best.code, best.probability))?;
        }
    }
    Ok(())
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    outcome: OutcomeReport<'a>,
    timings_ms: TimingsMs,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<ProfileReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<&'a Explanation>,
}
