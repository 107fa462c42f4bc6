//! What `multiway batch` and `multiway eval` share: the data, the mapping of its fields, and the progress.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use multiway::data::{DataOptions, DataSource};
use multiway::jobs::{Filter, JobError, JobOptions, JobProgress};
use multiway::tokenizer::Tokenizer;
use multiway::{Checkpoint, Engine, Task, TaskInputs, TaskLibrary};

use super::context::{Context, tokenizer};
use super::decoding::DecodingArgs;
use super::engine::EngineArgs;
use super::failure::{Failure, Outcome, task_failure};
use super::find::find;
use super::fingerprint::fingerprint;
use super::interrupt::until_interrupted;
use super::pictures;
use super::run::{assignment, set_values};
use super::usage::whole_number;

/// The steps of the progress bar: the share of the data that was read, in hundredths of a percent.
const STEPS: u64 = 10_000;

/// Names the task and its data, and says how records are answered.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// Name of the task, or path of a task file; `multiway tasks` lists the names
    task: String,

    #[command(flatten)]
    records: RecordArgs,

    /// Number of records in the engine at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,

    /// Stop when more than N records fail [default: never; failed records are rows with an `error`]
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>)]
    max_failed: Option<usize>,

    #[command(flatten)]
    engine: EngineArgs,

    #[command(flatten)]
    decoding: DecodingArgs,
}

/// Names the data and says what of it goes where.
#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// Data: JSONL, CSV, TSV, a WebDataset tar (each also gzipped), Parquet or a folder of images;
    /// repeatable, and `*` in a file's name stands for any characters
    #[arg(long, short, value_name = "PATH", required = true)]
    data: Vec<PathBuf>,

    /// Read the task input from this field of the data, such as `question=Question` or `text=answers.0.text`
    /// (repeatable) [default: the field of the same name]
    #[arg(long, short, value_name = "INPUT=FIELD", value_parser = assignment)]
    map: Vec<(String, String)>,

    /// Value of a task input for every record (repeatable)
    #[arg(long = "set", short = 's', value_name = "NAME=VALUE", value_parser = assignment)]
    values: Vec<(String, String)>,

    /// Image input for every record (repeatable)
    #[arg(long = "image", short, value_name = "PATH")]
    images: Vec<PathBuf>,

    /// Take only records whose field has this value or, with `FIELD!=VALUE`, has it not (repeatable: all must
    /// hold)
    #[arg(long = "where", value_name = "FIELD=VALUE", value_parser = filter)]
    filters: Vec<Filter>,

    /// Put records in groups by this field
    #[arg(long, value_name = "FIELD")]
    group_by: Option<String>,

    /// Choose answers among the distinct values of this field, of the record's group if there are groups; for
    /// tasks whose choices are an input
    #[arg(long, value_name = "FIELD")]
    choices_of: Option<String>,

    /// Take only the first N records
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>)]
    limit: Option<usize>,

    /// Take one of N shards of the data, numbered from 0, which together are all records: whole files
    /// where there are four or more for each, otherwise each N-th row
    #[arg(long, value_name = "SHARD/N", value_parser = shard)]
    shard: Option<(usize, usize)>,

    /// Stop when more than N rows of the data cannot be read
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = whole_number::<usize>)]
    max_corrupt: usize,
}

/// Reads which of how many shards is taken.
fn shard(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/');
    let numbers = parts.and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
    numbers.ok_or_else(|| format!("expected a shard and how many there are, such as 0/4, found '{text}'"))
}

/// Reads `FIELD=VALUE` or `FIELD!=VALUE`.
fn filter(text: &str) -> Result<Filter, String> {
    let (field, value) = assignment(text).map_err(|_| format!("expected FIELD=VALUE, found '{text}'"))?;
    let (field, is_equal) = match field.strip_suffix('!') {
        Some("") => return Err(format!("expected a field before '!=', found '{text}'")),
        Some(field) => (field.to_owned(), false),
        None => (field, true),
    };
    Ok(Filter {
        field,
        value,
        is_equal,
    })
}

/// What a job needs, opened.
pub(crate) struct OpenJob {
    pub(crate) engine: Engine,
    pub(crate) library: TaskLibrary,
    pub(crate) task: Task,
    pub(crate) source: DataSource,
    pub(crate) options: JobOptions,
    pub(crate) model: String,
}

impl JobArgs {
    /// Opens the data, the task and the engine, the cheap ones first.
    pub(crate) fn open(&self, context: &Context) -> Outcome<OpenJob> {
        let source = self.records.source()?;
        let checkpoint = context.checkpoint()?;
        let library = context.library(&checkpoint)?;
        let task = find(&library, &checkpoint, &self.task)?;
        let tokenizer = tokenizer(&checkpoint)?;
        let options = self.options(context, &checkpoint, &task, &tokenizer)?;
        let model = fingerprint(&checkpoint)?;
        let engine = context.engine_with(&checkpoint, tokenizer, &self.engine)?;
        Ok(OpenJob {
            engine,
            library,
            task,
            source,
            options,
            model,
        })
    }

    fn options(
        &self,
        context: &Context,
        checkpoint: &Checkpoint,
        task: &Task,
        tokenizer: &Tokenizer,
    ) -> Outcome<JobOptions> {
        let mut sampling = self.decoding.options(context.seed())?;
        self.decoding.ban_words(tokenizer, &mut sampling)?;
        let fixed = TaskInputs::new()
            .with_sampling(sampling)
            .with_terms(self.engine.terms());
        let mut options = self.records.options(checkpoint, task, fixed)?;
        options.in_flight = usize::from(self.in_flight);
        options.max_failed = self.max_failed.unwrap_or(usize::MAX);
        Ok(options)
    }
}

impl RecordArgs {
    /// Opens the data.
    pub(crate) fn source(&self) -> Outcome<DataSource> {
        let mut data = self.data_options();
        if let Some((index, count)) = self.shard {
            data = data.shard(index, count).map_err(Failure::input)?;
        }
        DataSource::open(&self.data, data).map_err(Failure::input)
    }

    /// Names the data as the caller does.
    #[cfg_attr(not(feature = "train"), expect(dead_code, reason = "only fine-tuning tells"))]
    pub(crate) fn names(&self) -> Vec<String> {
        self.data.iter().map(|path| path.display().to_string()).collect()
    }

    /// Says how data is read, all of it.
    pub(crate) fn data_options(&self) -> DataOptions {
        let mut data = DataOptions::default();
        data.max_corrupt = self.max_corrupt;
        data
    }

    /// Says which records a job takes, and which inputs are the same for all, beside those of `fixed`.
    pub(crate) fn options(
        &self,
        checkpoint: &Checkpoint,
        task: &Task,
        mut fixed: TaskInputs,
    ) -> Outcome<JobOptions> {
        set_values(task, &self.values, &mut fixed)?;
        fixed.images = pictures::open_all(&task.image_processor(checkpoint.config()), &self.images)?;
        let mut options = JobOptions::default();
        options.map = self.field_map(task)?;
        options.fixed = fixed;
        options.filters.clone_from(&self.filters);
        options.group_by.clone_from(&self.group_by);
        options.choices_of.clone_from(&self.choices_of);
        options.limit = self.limit;
        Ok(options)
    }

    /// Checks that the task has the inputs that are mapped, each once.
    fn field_map(&self, task: &Task) -> Outcome<BTreeMap<String, String>> {
        let inputs = &task.file().inputs;
        let mut map = BTreeMap::new();
        for (input, field) in &self.map {
            if !inputs.contains_key(input) {
                let known: Vec<&str> = inputs.keys().map(String::as_str).collect();
                return Err(Failure::Input(anyhow!(
                    "--map {input}={field}: the task '{}' has no input '{input}' (inputs: {})",
                    task.name(),
                    known.join(", ")
                )));
            }
            if map.insert(input.clone(), field.clone()).is_some() {
                return Err(Failure::Input(anyhow!(
                    "--map: the input '{input}' is mapped twice"
                )));
            }
        }
        Ok(map)
    }
}

/// Shows how far a job has come, on standard error.
pub(crate) struct JobBar {
    bar: ProgressBar,
    begun: Option<f64>,
}

impl JobBar {
    fn new(quiet: bool) -> Self {
        let target = if quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let style = ProgressStyle::with_template("{wide_bar} {percent} % {msg}");
        let bar = ProgressBar::with_draw_target(Some(STEPS), target);
        Self {
            bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())),
            begun: None,
        }
    }

    /// Shows rows, rows a second, and the time left by the share of the data that this run has read.
    pub(crate) fn show(&mut self, progress: JobProgress) {
        let begun = *self.begun.get_or_insert(progress.fraction);
        let elapsed = self.bar.elapsed().as_secs_f64();
        let read = progress.fraction - begun;
        let left = (read > 0.0).then(|| elapsed * (1.0 - progress.fraction).max(0.0) / read);
        let left = left.map_or(String::new(), |seconds| {
            let left = Duration::try_from_secs_f64(seconds.round()).unwrap_or(Duration::MAX);
            format!(", {} left", humantime::format_duration(left))
        });
        let failed = match progress.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        let rate = progress.rows_now as f64 / elapsed.max(1e-3);
        self.bar
            .set_message(format!("{} records, {rate:.1}/s{failed}{left}", progress.rows));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a fraction of the steps"
        )]
        let position = (progress.fraction * STEPS as f64) as u64;
        self.bar.set_position(position);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Runs a job to its end, or until Ctrl-C, and shows how far it has come.
pub(crate) fn with_bar<T>(
    context: &Context,
    job: impl AsyncFnOnce(&mut JobBar) -> Result<T, JobError>,
) -> Outcome<T> {
    let mut bar = JobBar::new(context.quiet());
    let outcome = context.block_on(until_interrupted(async {
        job(&mut bar).await.map_err(job_failure)
    }));
    bar.finish();
    outcome
}

/// Sorts what a job says into what the input is to blame for, and what it is not.
pub(crate) fn job_failure(error: JobError) -> Failure {
    match error {
        JobError::Task(error) => task_failure(error),
        error if error.is_input() => Failure::input(error),
        error => Failure::runtime(error),
    }
}
