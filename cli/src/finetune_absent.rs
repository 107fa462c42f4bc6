//! `multiway finetune` of a binary that was built without it: says how to build one that has it.

use anyhow::anyhow;
use clap::Args;

use crate::context::Context;
use crate::failure::{Failure, Outcome};

const AFTER_HELP: &str = "\
This binary was built without training. Examples:
  cargo run --release --features train -- finetune --help";

/// Takes the words of any fine-tuning.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct FinetuneArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    words: Vec<String>,
}

impl FinetuneArgs {
    /// Tells whether standard output must hold one line of JSON, errors included.
    pub(crate) fn json(&self) -> bool {
        self.words.iter().any(|word| word == "--json")
    }
}

/// Fails, with the command that has the verb.
pub(crate) fn run(_: &Context, _: &FinetuneArgs) -> Outcome {
    Err(Failure::Input(anyhow!(
        "this binary was built without training: run `cargo run --release --features train -- finetune ...` in a checkout"
    )))
}
