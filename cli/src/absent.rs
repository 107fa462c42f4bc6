//! The verbs of training in a binary that was built without it: they say how to build one that has them.

use anyhow::anyhow;
use clap::Args;

use super::context::Context;
use super::failure::{Failure, Outcome};

const AFTER_HELP: &str = "\
This binary was built without training. Examples:
  cargo run --release --features train -- train --help
  cargo run --release --features train -- finetune --help";

/// Takes the words of any verb.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct AbsentArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    words: Vec<String>,
}

impl AbsentArgs {
    /// Tells whether standard output must hold one line of JSON, errors included.
    pub(crate) fn json(&self) -> bool {
        self.words.iter().any(|word| word == "--json")
    }
}

/// Fails, with the command that has a verb.
fn absent(verb: &str) -> Outcome {
    Err(Failure::Input(anyhow!(
        "this binary was built without training: run `cargo run --release --features train -- {verb} ...` in a checkout"
    )))
}

/// `multiway finetune`.
pub(crate) mod finetune {
    use super::{Context, Outcome};

    pub(crate) use super::AbsentArgs as FinetuneArgs;

    pub(crate) fn run(_: &Context, _: &FinetuneArgs) -> Outcome {
        super::absent("finetune")
    }
}

/// `multiway train`.
pub(crate) mod train {
    use super::{Context, Outcome};

    pub(crate) use super::AbsentArgs as TrainArgs;

    pub(crate) fn run(_: &Context, _: TrainArgs) -> Outcome {
        super::absent("train")
    }
}
