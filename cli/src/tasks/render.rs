//! `multiway tasks render`: the parts and the tokens of a prompt.

use std::path::PathBuf;

use clap::Args;
use multiway::TaskInputs;
use multiway::prompt::{InputValue, Inputs, Prompt, PromptPart};
use multiway::tokenizer::{TokenId, Tokenizer};
use serde_json::{Value, json};

use super::super::context::{Context, tokenizer};
use super::super::failure::{Failure, Outcome};
use super::super::find::find;
use super::super::output::{print_json, print_line};
use super::super::run::{assignment, open_pictures, set_values};

const AFTER_HELP: &str = "\
Examples:
  multiway tasks render vqa --image cat.png --set question='what is this?'
  multiway tasks render my-tasks/my-task.task --set text='a ___' --shots 1 --json
  multiway tasks render caption --image cat.png --target target='a cat'

The special tokens that the encoder receives at the start and end are among the tokens; they and
those of the template are marked. A text of the caller never becomes one. U+2581 in a piece stands
for a space.

With --json, one line: {task, parts [{text} or {special} or {image}], tokens [{id, piece, special}],
prefix [{id, piece, special}]}, where prefix is what the decoder starts with, and with --target also
target [..], its parts.";

/// Names a task and its inputs.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RenderArgs {
    /// Name of the task, or path of a task file
    task: String,

    /// Value of a task input (repeatable)
    #[arg(long = "set", short = 's', value_name = "NAME=VALUE", value_parser = assignment)]
    values: Vec<(String, String)>,

    /// Image input (repeatable)
    #[arg(long = "image", short, value_name = "PATH")]
    images: Vec<PathBuf>,

    /// Show the first N few-shot examples of the task file before the prompt; 0 is none [default: all]
    #[arg(long, value_name = "N")]
    shots: Option<usize>,

    /// Value of a field of the target, which is rendered too (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    target: Vec<(String, String)>,

    /// Print one line of JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A token, as it is shown.
struct Shown<'t> {
    id: TokenId,
    piece: &'t str,
    is_special: bool,
}

impl<'t> Shown<'t> {
    fn new(tokenizer: &'t Tokenizer, id: TokenId) -> Self {
        Self {
            id,
            piece: tokenizer.piece(id).unwrap_or_default(),
            is_special: tokenizer.is_special(id),
        }
    }

    fn json(&self) -> Value {
        json!({"id": self.id, "piece": self.piece, "special": self.is_special})
    }
}

/// Reads a field of the target: a text, or a whole number, by which a target may choose an answer.
fn target_value(text: &str) -> InputValue {
    match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => InputValue::Integer(number),
        _ => InputValue::Text(text.to_owned()),
    }
}

/// Runs the verb.
pub(super) fn run(context: &Context, args: &RenderArgs, json: bool) -> Outcome {
    let checkpoint = context.checkpoint()?;
    let library = context.library(&checkpoint)?;
    let task = &find(&library, &checkpoint, &args.task)?;
    let tokenizer = tokenizer(&checkpoint)?;
    let mut inputs = TaskInputs::new();
    set_values(task, &args.values, &mut inputs)?;
    let processor = task.image_processor(checkpoint.config());
    open_pictures(task, &processor, &args.images, args.shots, &mut inputs)?;
    let prepared = task.prepare(&tokenizer, &inputs).map_err(Failure::input)?;
    let target = if args.target.is_empty() {
        None
    } else {
        let field = |(name, value): &(String, String)| (name.clone(), target_value(value));
        let fields: Inputs = args.target.iter().map(field).collect();
        let target = task.prepare_target(&tokenizer, &inputs, &fields);
        Some(target.map_err(Failure::input)?)
    };
    let ids = tokenizer
        .encode_prompt(prepared.prompt())
        .map_err(Failure::input)?;
    let shown = |id: &TokenId| Shown::new(&tokenizer, *id);
    let tokens: Vec<Shown<'_>> = ids.iter().map(shown).collect();
    let prefix = &task.file().decode.prefix;
    let prefix: Vec<Shown<'_>> = prefix
        .iter()
        .filter_map(|token| tokenizer.special(token))
        .map(|id| shown(&id))
        .collect();
    if json {
        let mut line = json!({
            "task": task.name(),
            "parts": prepared.prompt().parts,
            "tokens": tokens.iter().map(Shown::json).collect::<Vec<_>>(),
            "prefix": prefix.iter().map(Shown::json).collect::<Vec<_>>(),
        });
        if let Some(target) = target {
            line["target"] = json!(target.parts);
        }
        return print_json(&line);
    }
    print_line("parts")?;
    print_parts(prepared.prompt())?;
    print_line("\ntokens")?;
    print_tokens(&tokens)?;
    if !prefix.is_empty() {
        print_line("\nprefix")?;
        print_tokens(&prefix)?;
    }
    if let Some(target) = target {
        print_line("\ntarget")?;
        print_parts(&target)?;
    }
    Ok(())
}

fn print_parts(prompt: &Prompt) -> Outcome {
    prompt.parts.iter().try_for_each(|part| match part {
        PromptPart::Text(text) => print_line(&format!("  text     {text:?}")),
        PromptPart::Special(token) => print_line(&format!("  special  {token}")),
        PromptPart::Image(index) => print_line(&format!("  image    {index}")),
    })
}

fn print_tokens(tokens: &[Shown<'_>]) -> Outcome {
    let width = tokens
        .iter()
        .map(|token| token.id.to_string().len())
        .max()
        .unwrap_or(1);
    tokens.iter().try_for_each(|token| {
        let mark = if token.is_special { "special" } else { "" };
        print_line(&format!(
            "  {mark:7}  {:width$}  {}",
            token.id,
            token.piece.escape_debug()
        ))
    })
}
