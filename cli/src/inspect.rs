//! `multiway inspect`: what a checkpoint holds.

use std::path::PathBuf;

use clap::Args;
use indexmap::IndexMap;
use multiway::Checkpoint;
use multiway::checkpoint::{Execution, LoadOptions, TensorEntry, WeightType};
use serde_json::{Value, json};

use super::context::Context;
use super::failure::{Failure, Outcome};
use super::output::{print_json, print_line};

const AFTER_HELP: &str = "\
Examples:
  multiway inspect
  multiway inspect path/to/checkpoint
  multiway inspect --tensors
  multiway inspect --json | jq .parameters

A checkpoint is a folder with config.json, model.safetensors and a tokenizer, a .pth
file, or a name on the hub. It is validated completely before anything is printed.
With --json, one line: {name, config {..}, parameters {total, parts {..}}, packed,
bytes, tensors [{name, shape, dtype, bytes}]}; packed is the element type of packed
weights, or null.";

/// Names a checkpoint.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct InspectArgs {
    /// Checkpoint to inspect, in any form that --checkpoint accepts [default: --checkpoint, or the embedded
    /// one]
    #[arg(value_name = "CHECKPOINT")]
    folder: Option<PathBuf>,

    /// List every tensor
    #[arg(long)]
    tensors: bool,

    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the verb.
pub(crate) fn run(context: &Context, args: InspectArgs) -> Outcome {
    let checkpoint = match &args.folder {
        Some(folder) => context.open(folder)?,
        None => context.checkpoint()?,
    };
    let tensors = checkpoint.tensors();
    let config: Value = serde_json::from_str(&checkpoint.config().to_json()).map_err(Failure::runtime)?;
    let parts = match checkpoint.packed() {
        // The tensors of the file are panels, which have rows that pad them.
        Some(_) => parts(checkpoint.config().tensors()),
        None => parts(
            tensors
                .iter()
                .map(|tensor| (tensor.name.clone(), tensor.shape.clone())),
        ),
    };
    if args.json {
        return print_json(&json!({
            "name": checkpoint.name(),
            "config": config,
            "parameters": {"total": parts.values().sum::<usize>(), "parts": parts},
            "packed": checkpoint.packed().map(WeightType::name),
            "bytes": tensors.iter().map(|tensor| tensor.bytes).sum::<usize>(),
            "tensors": tensors.iter().map(tensor_json).collect::<Vec<_>>(),
        }));
    }
    print_summary(context, &checkpoint, &config, &parts)?;
    if args.tensors {
        tensors.iter().try_for_each(print_tensor)?;
    }
    Ok(())
}

fn print_summary(
    context: &Context,
    checkpoint: &Checkpoint,
    config: &Value,
    parts: &IndexMap<String, usize>,
) -> Outcome {
    print_line(&format!("checkpoint {}\n\nconfig", checkpoint.name()))?;
    for (key, value) in config.as_object().into_iter().flatten() {
        print_line(&format!("  {key:24} {value}"))?;
    }
    print_line("\nparameters")?;
    for (part, count) in parts {
        print_line(&format!("  {part:24} {count:>12}"))?;
    }
    print_line(&format!("  {:24} {:>12}", "total", parts.values().sum::<usize>()))?;
    let bytes: usize = checkpoint.tensors().iter().map(|tensor| tensor.bytes).sum();
    let count = checkpoint.tensors().len();
    let packed = checkpoint
        .packed()
        .map(|weights| format!(", linear layers packed as {weights}"));
    print_line(&format!(
        "\n{count} tensors, {bytes} bytes{}",
        packed.unwrap_or_default()
    ))?;
    let device = context.device(checkpoint.packed().is_some())?;
    let execution = Execution::of(checkpoint, &device, &LoadOptions::default());
    print_line(&format!("execution: {}", execution.map_err(Failure::input)?))
}

fn print_tensor(tensor: &TensorEntry) -> Outcome {
    print_line(&format!(
        "  {:56} {:?} {:?}",
        tensor.name, tensor.dtype, tensor.shape
    ))
}

fn tensor_json(tensor: &TensorEntry) -> Value {
    json!({
        "name": tensor.name,
        "shape": tensor.shape,
        "dtype": tensor.dtype.as_str(),
        "bytes": tensor.bytes,
    })
}

/// Counts the parameters of each part of the model, in the order of the checkpoint.
fn parts(tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> IndexMap<String, usize> {
    let mut parts = IndexMap::new();
    for (name, shape) in tensors {
        *parts.entry(part(&name)).or_default() += shape.iter().product::<usize>();
    }
    parts
}

/// Names the part of the model that a tensor belongs to: `encoder.vision` for
/// `encoder.layers.3.vision.ffn.down.weight`.
fn part(name: &str) -> String {
    let mut names = name
        .split('.')
        .filter(|part| *part != "layers" && part.parse::<usize>().is_err());
    match (names.next().unwrap_or(name), names.next()) {
        ("encoder", Some(expert)) => format!("encoder.{expert}"),
        (first, _) => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_belongs_to_a_part_whatever_its_layer() {
        assert_eq!(part("encoder.layers.11.vision.ffn.down.weight"), "encoder.vision");
        assert_eq!(part("encoder.language.norm.weight"), "encoder.language");
        assert_eq!(part("decoder.layers.0.self_attn.q_proj.weight"), "decoder");
        assert_eq!(part("mim_head.weight"), "mim_head");
    }
}
