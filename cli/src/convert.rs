//! `multiway convert`: any checkpoint as a folder of safetensors.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use multiway::Checkpoint;
use multiway::checkpoint::{ConvertError, DType, WeightType};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::context::Context;
use super::failure::{Failure, Outcome};
use super::output::{note, print_json, print_line};

/// The note that says where a converted checkpoint comes from.
const PROVENANCE: &str = "provenance.json";

const AFTER_HELP: &str = "\
Examples:
  multiway convert beit3_base_patch16_480_vqa.pth beit3-vqa
  multiway convert google/flan-t5-small flan-t5-small
  multiway convert path/to/t5 t5-half --dtype bf16
  multiway convert path/to/t5 t5-int8 --dtype int8

Writes config.json, model.safetensors, the tokenizer files, and provenance.json, which
records the source and its checksums. Then both checkpoints are run and their outputs
compared: without --dtype they must be equal.

With --adapter, what `multiway finetune` wrote is merged into the weights, which become f32.

A packed checkpoint (--dtype int8, or --packed) stores its linear layers in the layout of
the CPU kernels: loading memory-maps the file and packs nothing. It works with every verb
on the CPU, with that --dtype or none, and its outputs equal those of the original with
the same --dtype, which is checked too. It can be neither converted again nor trained:
keep the original.

These files are copied along with the weights: tokenizer.json, tokenizer.model,
sentencepiece.model, spiece.model, beit3.spm, tokenizer_config.json, added_tokens.json,
special_tokens_map.json, labels.txt, answer2label.txt and generation_config.json. Without
the last, it is made from the generation parameters in config.json.

With --json, one line: {out, packed, tensors, files [..], max_error, largest}.";

/// Names the source and the target of a conversion.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ConvertArgs {
    /// Checkpoint to convert: a folder, a .pth file, or OWNER/NAME[@REVISION] on the hub
    #[arg(value_name = "IN")]
    from: PathBuf,

    /// Folder to write
    #[arg(value_name = "OUT")]
    out: PathBuf,

    /// Element type of the tensors; int8 quantizes the linear layers only and implies --packed [default: each
    /// tensor's own]
    #[arg(long, value_enum)]
    dtype: Option<StorageType>,

    /// Pack linear layers for the CPU as --dtype f32, bf16 or int8 [default: f32]; other tensors keep their
    /// type
    #[arg(long)]
    packed: bool,

    /// Write into a folder that is not empty, replacing the checkpoint in it
    #[arg(long)]
    force: bool,

    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StorageType {
    F32,
    Bf16,
    F16,
    Int8,
}

/// What is written.
enum Target {
    /// Numbers, of one type or each of its own.
    Plain(Option<DType>),
    /// Linear layers as the CPU reads them.
    Packed(WeightType),
}

impl ConvertArgs {
    fn target(&self) -> Outcome<Target> {
        Ok(match (self.dtype, self.packed) {
            (None, false) => Target::Plain(None),
            (Some(StorageType::F32), false) => Target::Plain(Some(DType::F32)),
            (Some(StorageType::Bf16), false) => Target::Plain(Some(DType::BF16)),
            (Some(StorageType::F16), false) => Target::Plain(Some(DType::F16)),
            (Some(StorageType::Int8), _) => Target::Packed(WeightType::Int8),
            (Some(StorageType::Bf16), true) => Target::Packed(WeightType::Bf16),
            (None | Some(StorageType::F32), true) => Target::Packed(WeightType::F32),
            (Some(StorageType::F16), true) => {
                return Err(Failure::Input(anyhow!(
                    "--packed: expected --dtype f32, bf16 or int8, found f16"
                )));
            }
        })
    }
}

/// Runs the verb.
pub(crate) fn run(context: &Context, args: ConvertArgs) -> Outcome {
    let target = args.target()?;
    let is_used = std::fs::read_dir(&args.out).is_ok_and(|mut entries| entries.next().is_some());
    if is_used && !args.force {
        let out = args.out.display();
        return Err(Failure::Input(anyhow!(
            "'{out}' is not empty: name another folder, or add --force, which replaces the checkpoint in it"
        )));
    }
    let checkpoint = context.open(&args.from)?;
    let provenance = provenance(&checkpoint, &args, &target)?;
    let notes = [(PROVENANCE, provenance.as_bytes())];
    let conversion = match target {
        Target::Plain(dtype) => checkpoint.convert(&args.out, dtype, &notes),
        Target::Packed(weights) => checkpoint.pack(&args.out, weights, &notes),
    };
    let conversion = conversion.map_err(|error| match error {
        ConvertError::Load(_) => Failure::input(error),
        _ => Failure::runtime(error),
    })?;
    if args.json {
        return print_json(&json!({
            "out": args.out.display().to_string(),
            "packed": conversion.packed.map(WeightType::name),
            "tensors": conversion.tensors,
            "files": conversion.files,
            "max_error": conversion.max_error,
            "largest": conversion.largest,
        }));
    }
    if !context.quiet() {
        let (error, largest) = (conversion.max_error, conversion.largest);
        note(&match error {
            0.0 => "the two give the same numbers".to_owned(),
            error => format!("rounding changed the outputs by {error:e} at most; the largest is {largest:e}"),
        });
    }
    print_line(&format!(
        "wrote {} tensors to {}",
        conversion.tensors,
        args.out.display()
    ))
}

/// Writes down what a checkpoint is made from: the name, and a hash of each file with weights.
fn provenance(checkpoint: &Checkpoint, args: &ConvertArgs, target: &Target) -> Outcome<String> {
    let weights = checkpoint.weights_files().map(|(name, bytes)| {
        let hash: String = Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        json!({ "file": name, "bytes": bytes.len(), "sha256": hash })
    });
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let note = json!({
        "source": args.from.display().to_string(),
        "name": checkpoint.name(),
        "weights": weights.collect::<Vec<_>>(),
        "dtype": args.dtype.map(|dtype| format!("{dtype:?}").to_lowercase()),
        "adapter": checkpoint.adapter().map(|adapter| json!({
            "base": adapter.config().base,
            "rank": adapter.config().rank,
            "alpha": adapter.config().alpha,
        })),
        "packed": matches!(target, Target::Packed(_)),
        "converted_by": format!("multiway {}", env!("CARGO_PKG_VERSION")),
        "converted_at_unix": seconds,
    });
    let text = serde_json::to_string_pretty(&note).map_err(Failure::runtime)?;
    Ok(text + "\n")
}
