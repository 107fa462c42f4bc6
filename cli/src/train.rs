//! `multiway train`: from packages to a checkpoint, step by step.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use multiway::checkpoint::{CacheType, ModelConfig, WeightType};
use multiway::tokenizer::{Tokenizer, TokenizerError};
use multiway_training::data::{self, PreparedData};
use multiway_training::evaluate::{EvaluateOptions, EvaluationReport, EvaluationSplit, evaluate};
use multiway_training::examples::{ExampleSource, Teacher};
use multiway_training::objective::PARTS;
use multiway_training::recipe::{Recipe, Stage};
use multiway_training::teacher;
use multiway_training::trainer::{StepReport, TrainOptions, estimate, export, train};
use serde_json::json;

use super::context::Context;
use super::engine::{cache_type, weight_type};
use super::failure::{Failure, Outcome};
use super::output::{print_json, print_line};
use super::usage::whole_number;

const AFTER_HELP: &str = "\
Examples: a model is trained by these commands, in this order:
  scripts/fetch_data.sh && scripts/fetch_data.sh test
  multiway train prepare
  scripts/train_tokenizer.sh
  multiway train codes
  multiway train run
  multiway train export --out checkpoints/default
  multiway train evaluate

run can be interrupted and resumed: Ctrl-C saves the state first. On Linux it runs about 20 % faster if
the allocator keeps freed memory: `just train` sets
RAYON_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184.";

const PREPARE_HELP: &str = "\
Examples:
  multiway train prepare
  multiway train prepare --packages packages --prepared prepared";

const CODES_HELP: &str = "\
Examples:
  multiway train codes";

const RUN_HELP: &str = "\
Examples:
  multiway train run
  multiway train run --dry-run
  multiway train run my-recipe.toml --runs runs/mine
  multiway train run --only tasks --start checkpoints/default

The same command resumes an interrupted run. `multiway train recipe` prints the default recipe,
to begin one's own with.";

const RECIPE_HELP: &str = "\
Examples:
  multiway train recipe
  multiway train recipe > my-recipe.toml";

const EXPORT_HELP: &str = "\
Examples:
  multiway train export --out checkpoints/default
  multiway train export --run runs/mine/pretrain --out checkpoints/mine";

const EVALUATE_HELP: &str = "\
Examples:
  multiway train evaluate
  multiway train evaluate --only photographs --questions 100
  multiway train evaluate --split test
  multiway train evaluate --dtype int8 --cache-dtype bf16
  multiway --checkpoint checkpoints/mine train evaluate --json";

/// Selects a stage of training.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct TrainArgs {
    #[command(subcommand)]
    step: Step,
}

impl TrainArgs {
    /// Tells whether standard output must hold one line of JSON.
    pub(crate) fn json(&self) -> bool {
        matches!(&self.step, Step::Evaluate(args) if args.json)
    }
}

#[derive(Debug, Subcommand)]
enum Step {
    /// Prepare images, names and questions from downloaded packages, and check the held-out split
    #[command(after_help = PREPARE_HELP)]
    Prepare(DataArgs),
    /// Assign a discrete visual code to every image patch, with a teacher network trained on photographs
    #[command(after_help = CODES_HELP)]
    Codes(DataArgs),
    /// Train the stages of a recipe, one after the other
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Print the default recipe
    #[command(after_help = RECIPE_HELP)]
    Recipe,
    /// Export a run's averaged weights as a bf16 checkpoint
    #[command(after_help = EXPORT_HELP)]
    Export(ExportArgs),
    /// Evaluate a checkpoint on held-out data
    #[command(after_help = EVALUATE_HELP)]
    Evaluate(EvaluateArgs),
}

/// Holds the folders of the data.
#[derive(Debug, Args)]
struct DataArgs {
    /// Folder of downloaded packages
    #[arg(long, value_name = "DIR", default_value = "data/packages")]
    packages: PathBuf,

    /// Folder of the data that no registry has: photographs, sketches, statements; done without them if it is
    /// not given
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Folder of prepared data
    #[arg(long, value_name = "DIR", default_value = "data/prepared")]
    prepared: PathBuf,

    /// Folder of test packages; skipped if it does not exist
    #[arg(long, value_name = "DIR", default_value = "data/test")]
    test: PathBuf,
}

/// Holds the options of a training run.
#[derive(Debug, Args)]
struct RunArgs {
    /// Recipe: a TOML file of stages [default: the one that `multiway train recipe` prints]
    #[arg(value_name = "RECIPE")]
    recipe: Option<PathBuf>,

    #[command(flatten)]
    data: DataArgs,

    /// SentencePiece model of the tokenizer [default: that of the checkpoint to start from, else
    /// data/tokenizer/tokenizer.model]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,

    /// Folder of the training states and loss curves, one folder in it for each stage
    #[arg(long, value_name = "DIR", default_value = "runs/default")]
    runs: PathBuf,

    /// Train one stage only
    #[arg(long, value_name = "STAGE")]
    only: Option<String>,

    /// Checkpoint or run whose weights the first stage starts from
    #[arg(long, value_name = "DIR")]
    start: Option<PathBuf>,

    /// Print parameters, memory and expected time, and train nothing
    #[arg(long)]
    dry_run: bool,

    /// Number of worker threads; the trained weights depend on it
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = whole_number::<usize>)]
    workers: usize,
}

impl RunArgs {
    /// Names the tokenizer's file: the weights of a checkpoint mean nothing with another tokenizer.
    fn tokenizer_file(&self) -> PathBuf {
        let of_start = || Some(self.start.as_ref()?.join("tokenizer.model")).filter(|file| file.exists());
        let given = self.tokenizer.clone().or_else(of_start);
        given.unwrap_or_else(|| "data/tokenizer/tokenizer.model".into())
    }
}

/// Holds the options of an export.
#[derive(Debug, Args)]
struct ExportArgs {
    /// Run to export: the folder of a stage
    #[arg(long, value_name = "DIR", default_value = "runs/default/tasks")]
    run: PathBuf,

    /// Recipe that the run was made by [default: the one that `multiway train recipe` prints]
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,

    /// SentencePiece model of the tokenizer
    #[arg(long, value_name = "FILE", default_value = "data/tokenizer/tokenizer.model")]
    tokenizer: PathBuf,

    /// Model card to write beside the weights [default: keep the card that is there]
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,

    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Names the pictures of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitName {
    Validation,
    Test,
}

/// Holds the options of an evaluation.
#[derive(Debug, Args)]
struct EvaluateArgs {
    #[command(flatten)]
    data: DataArgs,

    /// Pictures to evaluate on: those kept from training, to choose between models, or those held out, for a
    /// last look
    #[arg(long, value_enum, value_name = "SPLIT", default_value_t = SplitName::Validation)]
    split: SplitName,

    /// Run only the tests whose names begin so, such as `photographs` or `scenes-count`; may be repeated
    #[arg(long, value_name = "TEST")]
    only: Vec<String>,

    /// Folder of test images that are named by their files [default: the cartoons of art4apps, where they are
    /// among the test packages]
    #[arg(long, value_name = "DIR")]
    strangers: Option<PathBuf>,

    /// Folder of pictures with their right answers in answers.jsonl [default: examples/pictures, where it is
    /// there]
    #[arg(long, value_name = "DIR")]
    examples: Option<PathBuf>,

    /// Number of drawings to sample, and of scenes of each kind
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = whole_number::<usize>)]
    pictures: usize,

    /// Number of questions and of photographs of a data set, sampled by the seed [default: all]
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>)]
    questions: Option<usize>,

    /// Element type of the linear layers' weights on the CPU, to measure the accuracy of bf16 and int8
    /// [default: f32, or the type of a packed checkpoint]
    #[arg(long, value_name = "TYPE", value_parser = weight_type())]
    dtype: Option<WeightType>,

    /// Element type of the KV cache on the CPU, to measure the accuracy of bf16 and int8
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = cache_type())]
    cache_dtype: CacheType,

    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub(crate) fn run(context: &Context, args: TrainArgs) -> Outcome {
    if !matches!(args.step, Step::Evaluate(_)) {
        context.require_cpu("training")?;
    }
    match args.step {
        Step::Prepare(args) => prepare(context, &args),
        Step::Codes(args) => codes(context, &args),
        Step::Run(args) => train_recipe(context, &args),
        Step::Recipe => print_line(Recipe::BUILTIN.trim_end()),
        Step::Export(args) => export_run(&args),
        Step::Evaluate(args) => evaluate_checkpoint(context, &args),
    }
}

pub(crate) fn bar(context: &Context) -> ProgressBar {
    if context.quiet() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, message: &str, done: usize, total: usize) {
    bar.set_length(total as u64);
    bar.set_message(message.to_owned());
    bar.set_position(done as u64);
}

fn prepare(context: &Context, args: &DataArgs) -> Outcome {
    let bar = bar(context);
    let mut report = |progress: data::Progress| show(&bar, progress.stage, progress.done, progress.total);
    let summary = data::prepare(&args.packages, args.data.as_deref(), &args.prepared, &mut report)
        .map_err(Failure::input)?;
    let prepared = PreparedData::open(&args.prepared).map_err(Failure::runtime)?;
    let audit = data::audit(&prepared).map_err(Failure::runtime)?;
    let packages = args.test.join("packages");
    let tests = if packages.is_dir() {
        let out = args.test.join("openmoji");
        data::prepare_test(&packages, &args.prepared, &out, &mut report)
            .map_err(Failure::input)?
            .len()
    } else {
        0
    };
    bar.finish_and_clear();
    print_json(&json!({"summary": summary, "audit": audit, "test_pictures": tests}))
}

fn codes(context: &Context, args: &DataArgs) -> Outcome {
    let bar = bar(context);
    let weights = args.packages.join(teacher::WEIGHTS_IN_PACKAGES);
    let report = |done, total| show(&bar, "coding patches", done, total);
    let summary = teacher::write_codes(&args.prepared, &weights, &report).map_err(Failure::input)?;
    bar.finish_and_clear();
    print_json(&json!(summary))
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Failure::input(anyhow::Error::new(error).context(format!("cannot read {}", path.display())))
    })
}

/// Reads a SentencePiece model; returns the tokenizer, and the text of its `tokenizer.json`.
fn tokenizer(path: &Path) -> Outcome<(Tokenizer, Vec<u8>)> {
    let model = read(path)?;
    let make = || -> Result<_, TokenizerError> {
        let json = multiway::tokenizer::sentencepiece_to_json(&model)?;
        Ok((Tokenizer::from_json(&json)?, json))
    };
    make().map_err(Failure::input)
}

fn recipe(path: Option<&Path>) -> Outcome<Recipe> {
    let recipe = match path {
        Some(path) => Recipe::open(path),
        None => Recipe::parse(Recipe::BUILTIN),
    };
    recipe.map_err(Failure::input)
}

fn train_recipe(context: &Context, args: &RunArgs) -> Outcome {
    let recipe = recipe(args.recipe.as_deref())?;
    let seed = context.seed().unwrap_or(recipe.seed);
    let mut stages: Vec<&Stage> = recipe.stages.iter().collect();
    if let Some(only) = &args.only {
        stages.retain(|stage| stage.name == *only);
        if stages.is_empty() {
            let names: Vec<&str> = recipe.stages.iter().map(|stage| stage.name.as_str()).collect();
            return Err(Failure::input(anyhow::anyhow!(
                "the recipe has no stage '{only}', only: {}",
                names.join(", ")
            )));
        }
    }
    let prepared = PreparedData::open(&args.data.prepared).map_err(Failure::input)?;
    let asks_teacher = stages.iter().any(|stage| stage.asks_teacher());
    let teacher = asks_teacher.then(|| Teacher::open(&args.data.prepared));
    let teacher = teacher.transpose().map_err(Failure::input)?;
    let (tokenizer, _) = tokenizer(&args.tokenizer_file())?;
    let config = recipe.config(tokenizer.vocab_size()).map_err(Failure::input)?;
    let source =
        ExampleSource::new(prepared, teacher, tokenizer, config.clone(), seed).map_err(Failure::input)?;
    for stage in &stages {
        source.check(stage).map_err(Failure::input)?;
    }
    let stop = stop_on_interrupt()?;
    let mut start = args.start.clone();
    for stage in stages {
        let options = TrainOptions {
            run: args.runs.join(&stage.name),
            stage: stage.clone(),
            workers: args.workers,
            start: start.take(),
        };
        if args.dry_run {
            let estimate = estimate(&options, &config, &source, seed).map_err(Failure::runtime)?;
            print_line(&format!("{}: {estimate}", stage.name))?;
            continue;
        }
        train_stage(context, &options, &config, &source, seed, &stop)?;
        start = Some(options.run);
    }
    Ok(())
}

fn train_stage(
    context: &Context,
    options: &TrainOptions,
    config: &ModelConfig,
    source: &ExampleSource,
    seed: u64,
    stop: &AtomicBool,
) -> Outcome {
    let stage = &options.stage;
    let bar = bar(context);
    let mut report = |step: StepReport| {
        let parts = PARTS.iter().zip(step.losses);
        let parts = parts.filter_map(|(part, loss)| Some(format!("{part} {:.3}", loss?)));
        let validation = step.validation.map(|loss| format!("validation {loss:.3}"));
        let message: Vec<String> = parts.chain(validation).collect();
        bar.set_length(step.steps);
        bar.set_message(format!(
            "{}: {}, {:.0}/s",
            stage.name,
            message.join(" "),
            step.examples_per_second
        ));
        bar.set_position(step.step);
    };
    let done = train(options, config, source, seed, stop, &mut report).map_err(Failure::runtime)?;
    bar.finish_and_clear();
    print_line(&format!(
        "{}: {done} of {} steps done; state and losses in {}",
        stage.name,
        stage.steps,
        options.run.display()
    ))?;
    if stop.load(Ordering::Relaxed) {
        return Err(Failure::Interrupted);
    }
    Ok(())
}

/// Sets a flag on Ctrl-C, so that the running step ends and its state is saved.
pub(crate) fn stop_on_interrupt() -> Outcome<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    std::thread::spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            flag.store(true, Ordering::Relaxed);
        }
    });
    Ok(stop)
}

fn export_run(args: &ExportArgs) -> Outcome {
    let model = read(&args.tokenizer)?;
    let (tokenizer, json) = tokenizer(&args.tokenizer)?;
    let recipe = recipe(args.recipe.as_deref())?;
    let config = recipe.config(tokenizer.vocab_size()).map_err(Failure::input)?;
    let mut files: Vec<(&str, &[u8])> = vec![("tokenizer.model", &model), ("tokenizer.json", &json)];
    let card = args.card.as_deref().map(read).transpose()?;
    if let Some(card) = &card {
        files.push(("README.md", card));
    }
    export(&args.run, &config, &files, &args.out).map_err(Failure::runtime)?;
    print_line(&format!("wrote {}", args.out.display()))
}

/// The cartoons that a test package has.
fn cartoons(test: &Path) -> Option<PathBuf> {
    let folder = test.join("packages/pysiogame/usr/share/games/pysiogame/res/images/art4apps");
    folder.is_dir().then_some(folder)
}

/// The pictures of the repository, where the command runs in it.
fn own_examples() -> Option<PathBuf> {
    let folder = PathBuf::from("examples/pictures");
    folder.join("answers.jsonl").exists().then_some(folder)
}

fn evaluate_checkpoint(context: &Context, args: &EvaluateArgs) -> Outcome {
    let checkpoint = context.checkpoint()?;
    let options = EvaluateOptions {
        split: match args.split {
            SplitName::Validation => EvaluationSplit::Validation,
            SplitName::Test => EvaluationSplit::Test,
        },
        only: args.only.clone(),
        shards: args.data.data.clone(),
        named: args.strangers.clone().or_else(|| cartoons(&args.data.test)),
        examples: args.examples.clone().or_else(own_examples),
        prepared: args.data.prepared.clone(),
        openmoji: args.data.test.join("openmoji"),
        pictures: args.pictures,
        questions: args.questions,
        seed: context.seed().unwrap_or(20_240_101),
        concurrency: 16,
        device: context.device(args.dtype.is_some() || args.cache_dtype != CacheType::F32)?,
        weights: args.dtype,
        cache: args.cache_dtype,
    };
    let bar = bar(context);
    let progress = |what: &'static str, done: usize, total: usize| show(&bar, what, done, total);
    let report = evaluate(&checkpoint, &options, &progress).map_err(Failure::runtime)?;
    bar.finish_and_clear();
    if args.json {
        print_json(&json!(report))
    } else {
        print_report(&report)
    }
}

fn print_report(report: &EvaluationReport) -> Outcome {
    for score in &report.tests {
        let (count, [low, high]) = (score.count, score.count.interval());
        print_line(&format!(
            "{:24} {:.3} ({low:.3} to {high:.3}), {} of {}: {}",
            score.test,
            count.rate(),
            count.right,
            count.total,
            score.what
        ))?;
    }
    Ok(())
}
