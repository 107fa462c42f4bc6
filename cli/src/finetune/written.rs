//! The weights of a fine-tuned model, on disk.

use multiway::Checkpoint;
use multiway::checkpoint::ConvertError;
use multiway_training::finetune::TunedWeights;

use super::args::FinetuneArgs;
use crate::failure::{Failure, Outcome};

/// What was written.
pub(super) struct Written {
    /// The fine-tuned model.
    pub(super) checkpoint: Checkpoint,
    /// The names of the files that are new.
    pub(super) files: Vec<String>,
    /// Whether it is loaded beside the checkpoint that was fine-tuned.
    pub(super) is_adapter: bool,
}

/// Writes the weights into the folder that the caller named.
pub(super) fn write(base: &Checkpoint, weights: &TunedWeights, args: &FinetuneArgs) -> Outcome<Written> {
    let out = &args.out;
    let mut files: Vec<String> = Vec::new();
    let mut named = |names: &[&str]| files.extend(names.iter().map(|name| (*name).to_owned()));
    let (checkpoint, is_adapter) = match weights {
        TunedWeights::Adapter(adapter) => {
            let adapted = base.with_adapter(adapter.clone()).map_err(Failure::runtime)?;
            adapter.save(out).map_err(Failure::runtime)?;
            named(&["adapter.safetensors", "adapter.json"]);
            if args.merge {
                let merged = adapted.convert(out, None, &[]).map_err(convert_failure)?;
                named(&["config.json", "model.safetensors"]);
                named(&merged.files);
            }
            (adapted, !args.merge)
        }
        TunedWeights::Full(tensors) => {
            let copied = base
                .save_with_weights(out, tensors, &[])
                .map_err(convert_failure)?;
            named(&["config.json", "model.safetensors"]);
            named(&copied);
            (Checkpoint::open(out).map_err(Failure::runtime)?, false)
        }
    };
    named(&["README.md"]);
    Ok(Written {
        checkpoint,
        files,
        is_adapter,
    })
}

fn convert_failure(error: ConvertError) -> Failure {
    match error {
        ConvertError::Load(_) => Failure::input(error),
        _ => Failure::runtime(error),
    }
}
