//! The card of a fine-tuned model: what it was made of, and how good it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use multiway::Task;
use multiway::checkpoint::write_atomically;
use multiway_training::finetune::Finished;

use super::args::FinetuneArgs;
use super::evaluation::Figures;
use crate::failure::{Failure, Outcome};

/// What a card tells.
pub(super) struct Card<'a> {
    pub(super) args: &'a FinetuneArgs,
    pub(super) base: &'a str,
    pub(super) base_fingerprint: &'a str,
    pub(super) task: &'a Task,
    /// How many records were trained on.
    pub(super) trained: usize,
    pub(super) validated: usize,
    pub(super) unusable: usize,
    pub(super) finished: &'a Finished,
    pub(super) before: Option<&'a Figures>,
    pub(super) after: Option<&'a Figures>,
    /// Whether the model is an adapter of another.
    pub(super) is_adapter: bool,
}

impl Card<'_> {
    /// Lists what each metric was, and is.
    pub(super) fn figures(&self) -> Vec<String> {
        let (Some(before), Some(after)) = (self.before, self.after) else {
            return vec!["no records to validate: nothing was measured".to_owned()];
        };
        let after: BTreeMap<String, String> = after.lines().collect();
        let pairs = before
            .lines()
            .filter_map(|(name, before)| Some((after.get(&name)?, name, before)));
        pairs
            .map(|(after, name, before)| format!("{name}: before {before}, after {after}"))
            .collect()
    }

    /// Writes the card.
    pub(super) fn write(&self) -> Outcome {
        let path = self.args.out.join("README.md");
        write_atomically(&path, self.text().as_bytes()).map_err(|error| {
            let error = anyhow::Error::new(error);
            Failure::Runtime(error.context(format!("cannot write '{}'", path.display())))
        })
    }

    fn text(&self) -> String {
        let args = self.args;
        let out = args.out.file_name().unwrap_or_default().to_string_lossy();
        let name = self.task.name();
        let mut text = format!(
            "# {out}\n\n{}, fine-tuned from `{}` by `multiway finetune` {}.\n\n",
            self.task.description().trim_end_matches('.'),
            self.base,
            env!("CARGO_PKG_VERSION")
        );
        let option = if self.is_adapter {
            "--adapter"
        } else {
            "--checkpoint"
        };
        let folder = self.task.folder().map_or("", |_| "--task-dir . ");
        let usage = format!("multiway {option} {out} {folder}run {name}");
        // Writing to a text never fails.
        let _ = write!(text, "```text\n{usage} ...\n```\n\n| | |\n|---|---|\n");
        let mut row = |name: &str, value: String| {
            let _ = writeln!(
                text,
                "| {name} | {} |",
                value.replace('|', "\\|").replace('\n', " ")
            );
        };
        row(
            "base",
            format!("`{}`, fingerprint `{}`", self.base, self.base_fingerprint),
        );
        row("task", format!("`{name}`, from `{}`", self.task.origin()));
        row("data", args.records.names().join(", "));
        row(
            "records",
            format!(
                "{} to train on, {} to validate, {} left out",
                self.trained, self.validated, self.unusable
            ),
        );
        row("method", args.method().to_string());
        row(
            "training",
            format!(
                "{} steps of AdamW, learning rate {}",
                self.finished.step,
                args.rate()
            ),
        );
        if let Some((loss, step)) = self.finished.best {
            row(
                "weights",
                format!("those after step {step}, validation loss {loss:.4}"),
            );
        }
        text.push_str("\nOn the records that it was not trained on, with 95 % intervals:\n\n");
        for figure in self.figures() {
            let _ = writeln!(text, "- {figure}");
        }
        text
    }
}
