//! The options of fine-tuning.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use multiway::Task;
use multiway::data::DataSource;
use multiway::prompt::Metric;
use multiway_training::finetune::{Method, Products, TuneOptions};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::context::Context;
use crate::eval::metric;
use crate::failure::{Failure, Outcome};
use crate::jobs::RecordArgs;
use crate::usage::whole_number;

const AFTER_HELP: &str = "\
Examples:
  multiway finetune --task my.task --data my.jsonl --out my-model
  multiway --task-dir . run my --image photo.png --adapter my-model
  multiway finetune --task vqa --data train.jsonl --validation dev.jsonl --reference answer --out my-vqa
  multiway finetune --task my.task --data photos/ --out my-model --method full --epochs 3
  multiway --checkpoint google/flan-t5-small finetune --task my.task --data my.csv --out my-t5 --merge

Fields of the data are bound to the inputs of the task as `multiway eval` does. The model learns
to write the task's `target`, or the text of the field that --reference names. A tenth of the
records, chosen by their contents, is not trained on: on these the task's metric is computed
before and after, and the weights of the lowest loss there are written.

--method lora writes adapter.safetensors and adapter.json, which --adapter loads beside the same
checkpoint; with --merge, or --method full, the folder is a checkpoint of its own for --checkpoint.
README.md says what was done. Ctrl-C saves a state, and the same command goes on to the same bits.

With --json, one line: {task, base, method, steps, records, validation_records, unusable, best
{loss, step}, before [{metric, value, interval, samples}], after [..], out, files [..]}.";

/// Says what is trained, on what, and how.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct FinetuneArgs {
    /// Name of the task, or path of a task file; `multiway tasks` lists the names
    #[arg(long, short, value_name = "TASK")]
    pub(crate) task: String,

    #[command(flatten)]
    pub(crate) records: RecordArgs,

    /// Field of the data with the right answer: a text or a number, or a list of them of which one is drawn
    /// each time [default: the fields of the task's target]
    #[arg(long, short, value_name = "FIELD")]
    pub(crate) reference: Option<String>,

    /// Folder to write the adapter or the checkpoint to
    #[arg(long, short, value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// What is trained: small low-rank factors beside the weights (LoRA), or all weights
    #[arg(long, value_enum, value_name = "METHOD", default_value_t = MethodName::Lora)]
    method: MethodName,

    /// LoRA: rank of the factors
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    rank: u16,

    /// LoRA: the product of the factors is multiplied by this over the rank
    #[arg(long, value_name = "X", default_value_t = 16.0, value_parser = above_zero)]
    alpha: f64,

    /// LoRA: also write a whole checkpoint, with the factors multiplied into the weights
    #[arg(long)]
    pub(crate) merge: bool,

    /// How often each record is trained on
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,

    /// Number of optimizer steps, instead of --epochs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "epochs")]
    steps: Option<u64>,

    /// Records of a step
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,

    /// Highest learning rate of AdamW, reached after the warm-up; it falls along a cosine [default: 0.002 for
    /// lora, 0.0003 for full]
    #[arg(long, value_name = "X", value_parser = above_zero)]
    learning_rate: Option<f64>,

    /// Steps of the warm-up [default: a sixteenth of all]
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>)]
    warmup: Option<u64>,

    /// Validation data, instead of a share of --data (repeatable)
    #[arg(long, value_name = "PATH", conflicts_with = "validation_share")]
    validation: Vec<PathBuf>,

    /// Share of the records that is not trained on, chosen by their contents; 0 for none
    #[arg(long, value_name = "X", default_value_t = 0.1, value_parser = share)]
    pub(crate) validation_share: f64,

    /// Steps between looks at the validation records, after which the state is saved [default: an epoch]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    validate_every: Option<u64>,

    /// Stop after N looks at the validation records without a lower loss [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    patience: Option<u64>,

    /// Metric to compute before and after (repeatable) [default: those of the task file]
    #[arg(long = "metric", value_name = "NAME", value_parser = metric)]
    pub(crate) metrics: Vec<Metric>,

    /// Stop when more than N records cannot be used: their picture cannot be read, their label is none of the
    /// choices, their text is too long
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = whole_number::<usize>)]
    pub(crate) max_unusable: usize,

    /// Number of worker threads; the trained weights depend on it
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,

    /// How linear layers multiply: in f32, of factors rounded to bf16, or as is fastest on this processor
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = ProductsName::Fastest)]
    products: ProductsName,

    /// Folder of the states and the losses [default: `state` in the folder that is written]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,

    /// Begin anew, and write into a folder that is not empty
    #[arg(long)]
    force: bool,

    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The methods, as they are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MethodName {
    Lora,
    Full,
}

/// The kinds of products, as they are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProductsName {
    Fastest,
    F32,
    Bf16,
}

impl FinetuneArgs {
    /// Tells whether standard output must hold one line of JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Returns what is trained.
    pub(crate) fn method(&self) -> Method {
        match self.method {
            MethodName::Lora => Method::Lora {
                rank: usize::from(self.rank),
                alpha: self.alpha,
            },
            MethodName::Full => Method::Full,
        }
    }

    /// Returns the folder of the states.
    pub(crate) fn run_folder(&self) -> PathBuf {
        self.run.clone().unwrap_or_else(|| self.out.join("state"))
    }

    /// Returns the highest learning rate.
    pub(crate) fn rate(&self) -> f64 {
        self.learning_rate
            .unwrap_or_else(|| self.method().default_learning_rate())
    }

    /// Checks that nothing of another run is in the way, or takes it out of the way.
    pub(crate) fn check_folders(&self) -> Outcome {
        let (out, run) = (&self.out, self.run_folder());
        if self.force {
            return remove_run(&run, out);
        }
        let is_used = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
        if is_used && !has_state(&run) {
            return Err(Failure::Input(anyhow!(
                "'{}' is not empty, and holds no run to go on with: name another folder, or add --force",
                out.display()
            )));
        }
        Ok(())
    }

    /// Says what answers are compared with, and how.
    fn comparison(&self) -> String {
        let metrics: Vec<&str> = self.metrics.iter().map(|metric| metric.name()).collect();
        let (reference, metrics) = (self.reference.as_deref(), metrics.join(", "));
        format!("{} by [{metrics}]", reference.unwrap_or("the target"))
    }

    /// Opens the validation data, if there is any beside the data.
    pub(crate) fn validation_source(&self) -> Outcome<Option<DataSource>> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        let source = DataSource::open(&self.validation, self.records.data_options());
        source.map(Some).map_err(Failure::input)
    }

    /// Returns the settings of a run on so many records.
    pub(crate) fn options(
        &self,
        context: &Context,
        fingerprint: &str,
        task: &Task,
        records: usize,
    ) -> TuneOptions {
        let (records, batch) = (records as u64, u64::from(self.batch));
        let epoch = records.div_ceil(batch).max(1);
        let all = (records * u64::from(self.epochs)).div_ceil(batch).max(1);
        let steps = self.steps.unwrap_or(all);
        let file = task.file();
        let wording = json!([file, file.template(), file.target()]).to_string();
        let digest: String = Sha256::digest(wording)
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        TuneOptions {
            run: self.run_folder(),
            method: self.method(),
            steps,
            batch: usize::from(self.batch),
            learning_rate: self.rate(),
            warmup_steps: self.warmup.unwrap_or(steps / 16),
            validate_every: self.validate_every.unwrap_or(epoch).min(steps),
            patience: self.patience.unwrap_or(0),
            seed: context.seed().unwrap_or(0),
            workers: usize::from(self.workers),
            products: match self.products {
                ProductsName::Fastest => Products::fastest(),
                ProductsName::F32 => Products::F32,
                ProductsName::Bf16 => Products::Bf16,
            },
            identity: BTreeMap::from([
                ("model".to_owned(), fingerprint.to_owned()),
                ("task".to_owned(), format!("{} {digest}", task.name())),
                ("comparison".to_owned(), self.comparison()),
            ]),
        }
    }
}

/// Tells whether a folder holds the state of a run.
fn has_state(run: &Path) -> bool {
    let names = fs::read_dir(run).into_iter().flatten().flatten();
    let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.any(|name| name.starts_with("state-") && name.ends_with(".safetensors"))
}

/// Removes what an earlier run has written, and nothing else: its states and losses, its evaluations, and the
/// weights that it left where there was such a run.
fn remove_run(run: &Path, out: &Path) -> Outcome {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| {
            Failure::Runtime(anyhow::Error::new(error).context(format!("cannot remove '{path}'")))
        }
    };
    let written = [
        "adapter.safetensors",
        "adapter.json",
        "model.safetensors",
        "config.json",
        "README.md",
    ];
    for path in written.map(|name| out.join(name)) {
        if has_state(run) && path.is_file() {
            fs::remove_file(&path).map_err(failed(&path))?;
        }
    }
    for folder in [run.join("best"), run.to_owned()] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let is_state =
                name.starts_with("state-") && (name.ends_with(".safetensors") || name.ends_with(".tmp"));
            if is_state || ["losses.csv", "losses.svg"].contains(&name.as_ref()) {
                fs::remove_file(&path).map_err(failed(&path))?;
            }
        }
    }
    for folder in ["before", "after"].map(|name| out.join("evaluation").join(name)) {
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed(&folder))?;
        }
    }
    Ok(())
}

/// Reads a number above zero.
fn above_zero(text: &str) -> Result<f64, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| format!("expected a number above 0, found '{text}'"))
}

/// Reads a share of less than all.
fn share(text: &str) -> Result<f64, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number: &f64| (0.0..1.0).contains(number));
    number.ok_or_else(|| format!("expected a share from 0 to below 1, such as 0.1, found '{text}'"))
}
