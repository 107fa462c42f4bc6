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
Examples: the embedded model is trained by these commands, in this order:
  scripts/fetch_data.sh && scripts/fetch_data.sh test
  multiway train prepare
  scripts/train_tokenizer.sh
  multiway train codes
  multiway train pretrain
  multiway train finetune
  multiway train export --out checkpoints/default
  multiway train evaluate

pretrain and finetune can be interrupted and resumed: Ctrl-C saves the state first.
On Linux they run about 20 % faster if the allocator keeps freed memory: `just train` sets
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

The same command resumes an interrupted run.";

const FINETUNE_HELP: &str = "\
Examples:
  multiway train finetune
  multiway train finetune --start runs/short --run runs/short-tuned --steps 100

The same command resumes an interrupted run.";

const EXPORT_HELP: &str = "\
Examples:
  multiway train export --out checkpoints/default
  multiway train export --run runs/pretrain --out checkpoints/pretrained";

const EVALUATE_HELP: &str = "\
Examples:
  multiway train evaluate
  multiway train evaluate --dtype int8 --cache-dtype bf16
  multiway --checkpoint checkpoints/pretrained train evaluate --json";

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
    /// Pre-train by masked modelling of text, of images, and of both together
    #[command(after_help = PRETRAIN_HELP)]
    Pretrain(RunArgs),
    /// Fine-tune on the prompts of the task files
    #[command(after_help = FINETUNE_HELP)]
    Finetune(RunArgs),
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
    #[command(flatten)]
    data: DataArgs,

    /// SentencePiece model of the tokenizer
    #[arg(long, value_name = "FILE", default_value = "data/tokenizer/tokenizer.model")]
    tokenizer: PathBuf,

    /// Folder of the training state and loss curves [default: runs/pretrain or runs/finetune]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,

    /// Run whose averaged weights finetune starts from
    #[arg(long, value_name = "DIR", default_value = "runs/pretrain")]
    start: PathBuf,

    /// Total number of training steps [default: 2000 for pretrain, 5000 for finetune]
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>)]
    steps: Option<u64>,

    /// Batch size in examples per step
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = whole_number::<usize>)]
    batch: usize,

    /// Peak learning rate [default: 0.0012 for pretrain, 0.001 for finetune]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,

    /// Percentage of fine-tuning examples that are questions about images
    #[arg(long, value_name = "N", default_value_t = QUESTION_SHARE, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=100))]
    question_share: usize,

    /// Optimize hidden matrices with Muon instead of AdamW
    #[arg(long)]
    muon: bool,

    /// Save the training state every N steps
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = whole_number::<u64>)]
    save_every: u64,

    /// Number of worker threads; the trained weights depend on it
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = whole_number::<usize>)]
    workers: usize,
}

/// Holds the options of an export.
#[derive(Debug, Args)]
struct ExportArgs {
    /// Run to export
    #[arg(long, value_name = "DIR", default_value = "runs/finetune")]
    run: PathBuf,

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

/// Holds the options of an evaluation.
#[derive(Debug, Args)]
struct EvaluateArgs {
    #[command(flatten)]
    data: DataArgs,

    /// Number of OpenMoji images to sample
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = whole_number::<usize>)]
    pictures: usize,

    /// Number of test questions, sampled by the seed [default: all]
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
