//! The `multiway` command line: what it takes, and which verb does what.
//!
//! One file per verb. Results go to standard output, everything else to standard error; the exit codes are
//! those of [`failure::Failure`].

#[cfg(not(feature = "train"))]
mod absent;
mod batch;
mod bench;
mod context;
mod convert;
mod curate;
mod decoding;
mod device;
mod draw;
mod embed;
mod engine;
mod eval;
mod explain;
mod failure;
mod find;
#[cfg(feature = "train")]
mod finetune;
mod fingerprint;
mod font;
mod global;
mod inspect;
mod interrupt;
mod jobs;
mod output;
mod pictures;
mod profile;
mod run;
mod search;
#[cfg(feature = "serve")]
mod serve;
mod tasks;
#[cfg(feature = "train")]
mod threads;
mod tokenize;
#[cfg(feature = "train")]
mod train;
mod typed;
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[cfg(not(feature = "train"))]
use self::absent::{finetune, train};
use self::context::Context;
use self::failure::Outcome;
use self::global::GlobalArgs;

const AFTER_HELP: &str = "\
Examples:
  multiway run caption --image cat.png
  multiway run vqa --image cat.png --set question='what color is the shape?'
  cat cat.png | multiway run caption --image - --json
  multiway tasks
  multiway search index pictures/ --out pictures.index
  multiway search query pictures.index --text 'a red apple'
  multiway serve

Exit codes:
  0    done
  1    something failed while running
  2    the command line or an input is wrong
  130  interrupted (Ctrl-C, SIGTERM)

Results go to standard output, errors to standard error as `error: ...`.
With --json, standard output holds exactly one line of JSON (`bench`: one line per case):
the result, or {\"error\": {\"kind\", \"message\", \"exit_code\"}}, also for a wrong command line.
Closing the pipe early (`multiway ... | head -1`) is not an error.";

/// Runs image-and-text tasks with one small model: captioning, question answering, classification, search.
#[derive(Debug, Parser)]
#[command(name = "multiway", version, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    verb: Verb,
}

/// Names what the command line can do.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a task on images and text, and stream the answer
    Run(Box<run::RunArgs>),
    /// List the tasks, show one, or run the worked examples of the task files
    Tasks(tasks::TasksArgs),
    /// Run a task on every record of a data set, and write the answers to a file
    Batch(Box<batch::BatchArgs>),
    /// Evaluate a task on a data set: metrics with intervals, and a report with the worst cases
    Eval(Box<eval::EvalArgs>),
    /// Keep the captions that fit their pictures, and write others anew
    Curate(Box<curate::CurateArgs>),
    /// Serve tasks over HTTP: OpenAI-compatible routes, and a route for every task file
    #[cfg(feature = "serve")]
    Serve(Box<serve::ServeArgs>),
    /// Compute the embedding of an image or a text
    Embed(embed::EmbedArgs),
    /// Index a folder of images, and search it by text or by image
    Search(search::SearchArgs),
    /// Show the token ids and pieces of a text or of a task's prompt
    Tokenize(tokenize::TokenizeArgs),
    /// Show a checkpoint's configuration, parameter counts and tensors
    Inspect(inspect::InspectArgs),
    /// Convert a checkpoint to safetensors, optionally quantized
    Convert(convert::ConvertArgs),
    /// Benchmark encoding, decoding and loading on this machine
    Bench(bench::BenchArgs),
    /// Fine-tune a checkpoint on the records of a data set (needs the feature `train`)
    Finetune(Box<finetune::FinetuneArgs>),
    /// Train and evaluate a checkpoint (needs the feature `train`)
    Train(train::TrainArgs),
}

impl Verb {
    /// Tells whether standard output must hold one line of JSON, errors included.
    fn json(&self) -> bool {
        match self {
            Self::Run(args) => args.json,
            Self::Tasks(args) => args.json(),
            Self::Batch(args) => args.json,
            Self::Eval(args) => args.json,
            Self::Curate(args) => args.json,
            #[cfg(feature = "serve")]
            Self::Serve(_) => false,
            Self::Embed(_) => true,
            Self::Search(args) => args.json(),
            Self::Tokenize(args) => args.json,
            Self::Inspect(args) => args.json,
            Self::Convert(args) => args.json,
            Self::Bench(args) => args.json(),
            Self::Finetune(args) => args.json(),
            Self::Train(args) => args.json(),
        }
    }

    fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Run(args) => run::run(context, &args),
            Self::Tasks(args) => tasks::run(context, args),
            Self::Batch(args) => batch::run(context, &args),
            Self::Eval(args) => eval::run(context, &args),
            Self::Curate(args) => curate::run(context, &args),
            #[cfg(feature = "serve")]
            Self::Serve(args) => serve::run(context, &args),
            Self::Embed(args) => embed::run(context, args),
            Self::Search(args) => search::run(context, args),
            Self::Tokenize(args) => tokenize::run(context, &args),
            Self::Inspect(args) => inspect::run(context, args),
            Self::Convert(args) => convert::run(context, args),
            Self::Bench(args) => bench::run(context, args),
            Self::Finetune(args) => finetune::run(context, &args),
            Self::Train(args) => train::run(context, args),
        }
    }
}

/// Parses the command line, runs the verb, reports an error, and gives the exit code.
fn main() -> ExitCode {
    let cli = match usage::parse::<Cli>(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(wrong) => return failure::report_usage(&wrong),
    };
    let json = cli.verb.json();
    #[cfg(feature = "train")]
    if matches!(cli.verb, Verb::Finetune(_) | Verb::Train(_)) {
        #[expect(unsafe_code, reason = "the environment is changed")]
        // SAFETY: the command line was parsed on this thread, and nothing else has run.
        unsafe {
            threads::keep_operations_on_their_threads();
        }
    }
    let outcome = Context::new(cli.global).and_then(|context| cli.verb.run(&context));
    failure::report(outcome, json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_of_the_command_line_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_examples_in_its_help() {
        fn check(command: &clap::Command, path: &str) {
            for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
                let path = format!("{path} {}", verb.get_name());
                let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "`{path} --help` has no examples");
                check(verb, &path);
            }
        }
        check(&Cli::command(), "multiway");
    }
}
