//! What is fine-tuned, and the records that it is trained on.

use std::collections::BTreeSet;

use anyhow::anyhow;
use multiway::checkpoint::Device;
use multiway::data::{Corrupt, DataSource};
use multiway::jobs::{Job, JobOptions, UnusableRecord};
use multiway::{Checkpoint, Engine, Task, TaskInputs};
use multiway_training::finetune::{ExampleSet, FinetuneError, TuningExample, read_examples};

use super::args::FinetuneArgs;
use crate::context::{Context, tokenizer};
use crate::failure::{Failure, Outcome};
use crate::find::find;
use crate::fingerprint::fingerprint;
use crate::jobs::job_failure;
use crate::output::note;

/// How many records that cannot be used are named.
const NAMED: usize = 3;

/// What is fine-tuned, opened.
pub(super) struct Opened {
    pub(super) checkpoint: Checkpoint,
    pub(super) fingerprint: String,
    pub(super) engine: Engine,
    pub(super) task: Task,
    pub(super) source: DataSource,
    pub(super) options: JobOptions,
}

/// The records that are trained on, and those that validate.
pub(super) struct Records {
    pub(super) train: Vec<TuningExample>,
    pub(super) validation: Vec<TuningExample>,
    pub(super) unusable: usize,
    /// The data that the validation records are in.
    pub(super) source: DataSource,
}

/// Opens all that is named, the cheap first.
pub(super) fn open(context: &Context, args: &FinetuneArgs) -> Outcome<Opened> {
    let source = args.records.source()?;
    let checkpoint = context.checkpoint()?;
    if checkpoint.adapter().is_some() {
        return Err(Failure::Input(anyhow!(
            "--adapter: an adapter is not trained further: merge it with `multiway convert` first, and fine-tune the result"
        )));
    }
    if checkpoint.packed().is_some() {
        let model = checkpoint.name().to_owned();
        return Err(finetune_failure(FinetuneError::Packed { model }));
    }
    let library = context.library(&checkpoint)?;
    let task = find(&library, &checkpoint, &args.task)?;
    let options = args.records.options(&checkpoint, &task, TaskInputs::new())?;
    Ok(Opened {
        fingerprint: fingerprint(&checkpoint)?,
        engine: engine(context, &checkpoint)?,
        checkpoint,
        task,
        source,
        options,
    })
}

/// Loads a checkpoint into an engine on the CPU.
pub(super) fn engine(context: &Context, checkpoint: &Checkpoint) -> Outcome<Engine> {
    let mut builder = Engine::builder(checkpoint)
        .tokenizer(tokenizer(checkpoint)?)
        .device(Device::Cpu);
    if let Some(threads) = context.threads() {
        builder = builder.threads(threads);
    }
    builder.build().map_err(Failure::input)
}

fn read_source(
    args: &FinetuneArgs,
    opened: &Opened,
    source: &DataSource,
    options: JobOptions,
) -> Outcome<ExampleSet> {
    let job = Job::new(&opened.engine, &opened.task, options);
    let records = job
        .labelled(source, args.reference.as_deref())
        .map_err(job_failure)?;
    read_examples(
        records,
        &opened.task,
        &opened.engine,
        opened.checkpoint.name(),
        args.max_unusable,
    )
    .map_err(finetune_failure)
}

/// Names the first of the records that are left out, and says how many there are.
fn tell(context: &Context, what: &str, unusable: &[UnusableRecord], corrupt: &[Corrupt]) {
    if context.quiet() {
        return;
    }
    let named = unusable.iter().map(ToString::to_string);
    let named: Vec<String> = named.chain(corrupt.iter().map(ToString::to_string)).collect();
    for name in named.iter().take(NAMED) {
        note(&format!("left out: {name}"));
    }
    if !named.is_empty() {
        note(&format!("{} records of {what} are left out", named.len()));
    }
}

impl Records {
    /// Reads the records, and says which of them cannot be used.
    pub(super) fn read(context: &Context, args: &FinetuneArgs, opened: &Opened) -> Outcome<Self> {
        let mut set = read_source(args, opened, &opened.source, opened.options.clone())?;
        tell(context, "the data", &set.unusable, &set.corrupt);
        let mut unusable = set.unusable.len();
        let (validation, source) = match args.validation_source()? {
            Some(source) => {
                let mut options = opened.options.clone();
                options.limit = None;
                let set = read_source(args, opened, &source, options)?;
                tell(context, "the validation data", &set.unusable, &set.corrupt);
                unusable += set.unusable.len();
                (set.examples, source)
            }
            None => (set.split_off(args.validation_share), opened.source.clone()),
        };
        Ok(Self {
            train: set.examples,
            validation,
            unusable,
            source,
        })
    }

    /// Lists what names the validation records.
    pub(super) fn validation_ids(&self) -> BTreeSet<String> {
        let ids = self.validation.iter();
        ids.map(|example| example.id().to_owned()).collect()
    }
}

/// Sorts what fine-tuning says into what the input is to blame for, and what it is not.
pub(super) fn finetune_failure(error: FinetuneError) -> Failure {
    match error {
        FinetuneError::Job(error) => job_failure(error),
        error if error.is_input() => Failure::input(error),
        error => Failure::runtime(error),
    }
}
