//! `multiway train`: from packages to a checkpoint, step by step.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use multiway::checkpoint::{CacheType, WeightType};
use multiway::tokenizer::{Tokenizer, TokenizerError};
use multiway_training::data::{self, PreparedData};
use multiway_training::evaluate::{EvaluateOptions, EvaluationReport, evaluate};
use multiway_training::examples::{ExampleSource, QUESTION_SHARE, Stage};
use multiway_training::objective::default_config;
use multiway_training::teacher::{self, Codes};
use multiway_training::trainer::{TrainOptions, export, train};
use serde_json::json;

use super::context::Context;
use super::engine::{cache_type, weight_type};
use super::failure::{Failure, Outcome};
use super::output::{print_json, print_line};
use super::usage::whole_number;

const AFTER_HELP: &str = "\
Examples: the embedded model is made by these, in this order:
  scripts/fetch_data.sh && scripts/fetch_data.sh test
  multiway train prepare
  scripts/train_tokenizer.sh
  multiway train codes
  multiway train pretrain
  multiway train finetune
  multiway train export --out checkpoints/default
  multiway train evaluate

pretrain and finetune go on where they stopped: Ctrl-C saves the state first.
On Linux they are about a fifth faster where freed memory is kept: `just train` sets
RAYON_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184.";

const PREPARE_HELP: &str = "\
Examples:
  multiway train prepare
  multiway train prepare --packages packages --prepared prepared";

const CODES_HELP: &str = "\
Examples:
  multiway train codes";

const PRETRAIN_HELP: &str = "\
Examples:
  multiway train pretrain
  multiway train pretrain --run runs/short --steps 200 --batch 32

The same command goes on where an earlier one stopped.";

const FINETUNE_HELP: &str = "\
Examples:
  multiway train finetune
  multiway train finetune --start runs/short --run runs/short-tuned --steps 100

The same command goes on where an earlier one stopped.";

const EXPORT_HELP: &str = "\
Examples:
  multiway train export --out checkpoints/default
  multiway train export --run runs/pretrain --out checkpoints/pretrained";

const EVALUATE_HELP: &str = "\
Examples:
  multiway train evaluate
  multiway train evaluate --dtype int8 --cache-dtype bf16
  multiway --checkpoint checkpoints/pretrained train evaluate --json";

/// Names a step of training.
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
    /// Turn downloaded packages into pictures, names and questions, and check the held-out split
    #[command(after_help = PREPARE_HELP)]
    Prepare(DataArgs),
    /// Give every patch of the pictures a discrete visual code, by a network trained on photographs
    #[command(after_help = CODES_HELP)]
    Codes(DataArgs),
    /// Train by masked modelling of text, of pictures, and of both together
    #[command(after_help = PRETRAIN_HELP)]
    Pretrain(RunArgs),
    /// Go on with the task files' prompts
    #[command(after_help = FINETUNE_HELP)]
    Finetune(RunArgs),
    /// Write a run's averaged weights as a checkpoint in bf16
    #[command(after_help = EXPORT_HELP)]
    Export(ExportArgs),
    /// Score a checkpoint on what training never saw
    #[command(after_help = EVALUATE_HELP)]
    Evaluate(EvaluateArgs),
}

/// Where the data is.
#[derive(Debug, Args)]
struct DataArgs {
    /// The folder of downloaded packages
    #[arg(long, value_name = "DIR", default_value = "data/packages")]
    packages: PathBuf,

    /// The folder of prepared data
    #[arg(long, value_name = "DIR", default_value = "data/prepared")]
    prepared: PathBuf,

    /// The folder of test packages; skipped where it does not exist
    #[arg(long, value_name = "DIR", default_value = "data/test")]
    test: PathBuf,
}

/// How to train.
#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    data: DataArgs,

    /// The SentencePiece model
    #[arg(long, value_name = "FILE", default_value = "data/tokenizer/tokenizer.model")]
    tokenizer: PathBuf,

    /// Where states and losses are kept [default: runs/pretrain or runs/finetune]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,

    /// The run whose averaged weights finetune starts from
    #[arg(long, value_name = "DIR", default_value = "runs/pretrain")]
    start: PathBuf,

    /// Steps of the whole run [default: 2000 to pretrain, 5000 to finetune]
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>)]
    steps: Option<u64>,

    /// Examples a step
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = whole_number::<usize>)]
    batch: usize,

    /// The highest learning rate [default: 0.0012 to pretrain, 0.001 to finetune]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,

    /// How many of a hundred fine-tuning examples are questions about pictures
    #[arg(long, value_name = "N", default_value_t = QUESTION_SHARE, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=100))]
    question_share: usize,

    /// Step hidden matrices by Muon rather than by AdamW
    #[arg(long)]
    muon: bool,

    /// Steps between two saved states
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = whole_number::<u64>)]
    save_every: u64,

    /// Worker threads; the numbers depend on their count
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = whole_number::<usize>)]
    workers: usize,
}

/// What to export.
#[derive(Debug, Args)]
struct ExportArgs {
    /// The run
    #[arg(long, value_name = "DIR", default_value = "runs/finetune")]
    run: PathBuf,

    /// The SentencePiece model
    #[arg(long, value_name = "FILE", default_value = "data/tokenizer/tokenizer.model")]
    tokenizer: PathBuf,

    /// The model card to put beside the weights, if another than what is there
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,

    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// What to evaluate on.
#[derive(Debug, Args)]
struct EvaluateArgs {
    #[command(flatten)]
    data: DataArgs,

    /// OpenMoji pictures to draw
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = whole_number::<usize>)]
    pictures: usize,

    /// Test questions to ask, drawn by the seed [default: all]
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>)]
    questions: Option<usize>,

    /// Keep the weights of linear layers so on the CPU, to see how many answers bf16 and int8 cost [default: f32, or as a packed
    /// checkpoint has them]
    #[arg(long, value_name = "TYPE", value_parser = weight_type())]
    dtype: Option<WeightType>,

    /// Keep keys and values so between decoding steps, to see how many answers bf16 and int8 cost
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
        Step::Pretrain(args) => train_stage(context, &args, Stage::Pretrain),
        Step::Finetune(args) => train_stage(context, &args, Stage::Finetune),
        Step::Export(args) => export_run(&args),
        Step::Evaluate(args) => evaluate_checkpoint(context, &args),
    }
}

fn bar(context: &Context) -> ProgressBar {
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
    let summary = data::prepare(&args.packages, &args.prepared, &mut report).map_err(Failure::input)?;
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

fn train_stage(context: &Context, args: &RunArgs, stage: Stage) -> Outcome {
    let seed = context.seed().unwrap_or(1);
    let prepared = PreparedData::open(&args.data.prepared).map_err(Failure::input)?;
    let codes = Codes::open(&args.data.prepared).map_err(Failure::input)?;
    let (tokenizer, _) = tokenizer(&args.tokenizer)?;
    let config = default_config(tokenizer.vocab_size()).map_err(Failure::input)?;
    let source =
        ExampleSource::new(prepared, codes, tokenizer, config.clone(), seed).map_err(Failure::input)?;
    let source = source.with_question_share(args.question_share);
    let (run, steps, rate, start) = match stage {
        Stage::Pretrain => ("runs/pretrain", 2000, 1.2e-3, None),
        Stage::Finetune => ("runs/finetune", 5000, 1e-3, Some(args.start.clone())),
    };
    let options = TrainOptions {
        run: args.run.clone().unwrap_or_else(|| run.into()),
        stage,
        steps: args.steps.unwrap_or(steps),
        batch: args.batch,
        workers: args.workers,
        learning_rate: args.learning_rate.unwrap_or(rate),
        muon: args.muon,
        save_every: args.save_every.max(1),
        start,
    };
    let stop = stop_on_interrupt()?;
    let bar = bar(context);
    let mut report = |step: multiway_training::trainer::StepReport| {
        let losses = step
            .losses
            .map(|loss| loss.map_or("-".to_owned(), |loss| format!("{loss:.3}")));
        let [text, visual, retrieval] = losses;
        let message = format!(
            "text {text} visual {visual} retrieval {retrieval}, {:.0}/s",
            step.examples_per_second
        );
        bar.set_length(step.steps);
        bar.set_message(message);
        bar.set_position(step.step);
    };
    let done = train(&options, &config, &source, seed, &stop, &mut report).map_err(Failure::runtime)?;
    bar.finish_and_clear();
    print_line(&format!(
        "{done} of {} steps done; state and losses in {}",
        options.steps,
        options.run.display()
    ))?;
    if stop.load(Ordering::Relaxed) {
        Err(Failure::Interrupted)
    } else {
        Ok(())
    }
}

/// Sets a flag on Ctrl-C, so that the running step ends and its state is saved.
fn stop_on_interrupt() -> Outcome<Arc<AtomicBool>> {
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
    let config = default_config(tokenizer.vocab_size()).map_err(Failure::input)?;
    let mut files: Vec<(&str, &[u8])> = vec![("tokenizer.model", &model), ("tokenizer.json", &json)];
    let card = args.card.as_deref().map(read).transpose()?;
    if let Some(card) = &card {
        files.push(("README.md", card));
    }
    export(&args.run, &config, &files, &args.out).map_err(Failure::runtime)?;
    print_line(&format!("wrote {}", args.out.display()))
}

fn evaluate_checkpoint(context: &Context, args: &EvaluateArgs) -> Outcome {
    let checkpoint = context.checkpoint()?;
    let options = EvaluateOptions {
        prepared: args.data.prepared.clone(),
        openmoji: args.data.test.join("openmoji"),
        pictures: args.pictures,
        questions: args.questions,
        seed: context.seed().unwrap_or(20_240_101),
        concurrency: 16,
        device: context.device()?,
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
    let rows = [
        (
            "OpenMoji, right name ranked first of those drawn",
            report.openmoji_rank_1,
        ),
        (
            "OpenMoji, right name's vector nearest of those drawn",
            report.openmoji_nearest,
        ),
        (
            "OpenMoji, written caption is the name exactly",
            report.openmoji_exact_caption,
        ),
        ("easy-VQA test split, right answer", report.easy_vqa),
    ];
    for (what, count) in rows {
        print_line(&format!(
            "{what:53} {:.4} ({} of {})",
            count.rate(),
            count.right,
            count.total
        ))?;
    }
    Ok(())
}
