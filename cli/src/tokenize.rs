//! `multiway tokenize`: which tokens a text or a prompt becomes.

use std::io::{self, Read};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Args;
use multiway::TaskInputs;
use multiway::prompt::{Prompt, PromptPart};
use multiway::tokenizer::{TokenId, Tokenizer};
use serde_json::json;

use super::context::{Context, tokenizer};
use super::failure::{Failure, Outcome};
use super::output::{print_json, print_line};
use super::run::{assignment, open_pictures, set_values};

const AFTER_HELP: &str = "\
Examples:
  multiway tokenize 'a photo of a cat'
  multiway --checkpoint google/flan-t5-small tokenize 'The house is wonderful.' --json
  multiway tokenize --task vqa --set question='what is this?' --image cat.png
  multiway tokenize --tokenizer path/to/folder 'a folder that holds a tokenizer and no model'
  cat letter.txt | multiway tokenize -

A text is tokenized like user input: names of special tokens in it stay plain text.
With --task, the rendered prompt is tokenized, with the special tokens that the encoder
receives at its start and end. U+2581 in a piece stands for a space.

With --json, one line: {ids [..], pieces [..], text}, where text decodes the ids.";

/// Says what to tokenize.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct TokenizeArgs {
    /// Text to tokenize; `-` reads standard input
    #[arg(required_unless_present = "task", conflicts_with = "task")]
    text: Option<String>,

    /// Tokenize the prompt of this task instead
    #[arg(long, value_name = "TASK")]
    task: Option<String>,

    /// Value of a task input (repeatable)
    #[arg(long = "set", short = 's', value_name = "NAME=VALUE", value_parser = assignment, requires = "task")]
    values: Vec<(String, String)>,

    /// Image input of the task (repeatable)
    #[arg(long = "image", short, value_name = "PATH", requires = "task")]
    images: Vec<PathBuf>,

    /// Tokenizer to use: a folder with tokenizer files, with or without a model [default: the checkpoint's]
    #[arg(long, value_name = "DIR", conflicts_with = "task")]
    tokenizer: Option<PathBuf>,

    /// Add the special tokens that surround a prompt
    #[arg(long, conflicts_with = "task")]
    closed: bool,

    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the verb.
pub(crate) fn run(context: &Context, args: &TokenizeArgs) -> Outcome {
    let (tokenizer, ids) = match (&args.task, &args.text) {
        (Some(task), _) => prompt_ids(context, task, args)?,
        (None, text) => {
            let tokenizer = match &args.tokenizer {
                Some(folder) => Tokenizer::from_folder(folder).map_err(Failure::input)?,
                None => tokenizer(&context.checkpoint()?)?,
            };
            let ids = text_ids(&tokenizer, text.as_deref().unwrap_or_default(), args.closed)?;
            (tokenizer, ids)
        }
    };
    let piece = |id: &TokenId| tokenizer.piece(*id).unwrap_or_default();
    if args.json {
        return print_json(&json!({
            "ids": ids,
            "pieces": ids.iter().map(piece).collect::<Vec<_>>(),
            "text": tokenizer.decode_with_special(&ids),
        }));
    }
    let width = ids.iter().max().map_or(1, |id| id.to_string().len());
    ids.iter()
        .try_for_each(|id| print_line(&format!("{id:width$}  {}", piece(id).escape_debug())))
}

fn text_ids(tokenizer: &Tokenizer, text: &str, closed: bool) -> Outcome<Vec<TokenId>> {
    let read;
    let text = if text == "-" {
        read = io::read_to_string(io::stdin().take(MAX_TEXT_BYTES + 1))
            .context("cannot read standard input as UTF-8 text")
            .map_err(Failure::Input)?;
        if read.len() as u64 > MAX_TEXT_BYTES {
            let message = format!(
                "standard input holds more than {MAX_TEXT_BYTES} bytes, which is the most that is tokenized"
            );
            return Err(Failure::Input(anyhow!(message)));
        }
        read.as_str()
    } else {
        text
    };
    let ids = if closed {
        tokenizer.encode_prompt(&Prompt {
            parts: vec![PromptPart::Text(text.to_owned())],
        })
    } else {
        tokenizer.encode_text(text)
    };
    ids.map_err(Failure::input)
}

/// The most bytes of text that are read from standard input.
const MAX_TEXT_BYTES: u64 = 16 << 20;

fn prompt_ids(context: &Context, task: &str, args: &TokenizeArgs) -> Outcome<(Tokenizer, Vec<TokenId>)> {
    let checkpoint = context.checkpoint()?;
    let library = context.library(&checkpoint)?;
    let task = library.get(task).map_err(Failure::input)?;
    let tokenizer = tokenizer(&checkpoint)?;
    let mut inputs = TaskInputs::new();
    set_values(task, &args.values, &mut inputs)?;
    let processor = task.image_processor(checkpoint.config());
    open_pictures(task, &processor, &args.images, None, &mut inputs)?;
    let prepared = task.prepare(&tokenizer, &inputs).map_err(Failure::input)?;
    let ids = tokenizer
        .encode_prompt(prepared.prompt())
        .map_err(Failure::input)?;
    Ok((tokenizer, ids))
}
