//! The `multiway` command line: what it takes, and which verb does what.
//!
//! One file per verb. Results go to standard output, everything else to standard error; the exit codes are those of
//! [`failure::Failure`].

mod bench;
mod context;
mod convert;
mod decoding;
mod device;
mod embed;
mod engine;
mod failure;
mod inspect;
mod interrupt;
mod output;
mod pictures;
mod profile;
mod run;
mod search;
mod tasks;
mod tokenize;
#[cfg_attr(not(feature = "train"), path = "train_absent.rs")]
mod train;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use self::context::Context;
use self::device::DeviceChoice;
use self::failure::Outcome;
use self::usage::whole_number;

const AFTER_HELP: &str = "\
Examples:
  multiway run caption --image cat.png
  multiway run vqa --image cat.png --set question='what color is the shape?'
  cat cat.png | multiway run caption --image - --json
  multiway tasks
  multiway search index pictures/ --out pictures.index
  multiway search query pictures.index --text 'a red apple'

Exit codes:
  0    done
  1    something failed while running
  2    the command line or an input is wrong
  130  interrupted (Ctrl-C)

Results go to standard output, errors to standard error as `error: ...`.
With --json, standard output holds exactly one line: the result (of `bench`, a line for
each), or {\"error\": {\"kind\", \"message\", \"exit_code\"}}, also where the command line is wrong.
A reader that closes the pipe early (`multiway ... | head -1`) is no error.";

/// Runs image-and-text tasks with one small model: captions, questions, classes, search.
#[derive(Debug, Parser)]
#[command(name = "multiway", version, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    verb: Verb,
}

/// Holds the options that every verb takes.
#[derive(Debug, Args)]
struct GlobalArgs {
    /// Use this checkpoint instead of the embedded one: a folder, a .pth file, or OWNER/NAME[@REVISION] on the hub, which
    /// is fetched into the cache that other tools share; `hf:` in front means the hub even where there is such a folder
    #[arg(long, global = true, value_name = "PLACE", help_heading = "Global options")]
    checkpoint: Option<PathBuf>,

    /// Fetch nothing: of the hub's checkpoints use those that were fetched before
    #[arg(long, global = true, help_heading = "Global options")]
    offline: bool,

    /// Read the *.task files of this folder too; they override built-in tasks of the same name (repeatable)
    #[arg(
        long = "task-dir",
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    task_dirs: Vec<PathBuf>,

    /// Compute on this device: `cpu`, `cuda:N` for the GPU of number N, or `auto` for the first GPU where the binary was built
    /// with CUDA and there is one, else the CPU
    #[arg(
        long,
        global = true,
        value_name = "DEVICE",
        default_value = "auto",
        hide_default_value = true,
        help_heading = "Global options"
    )]
    device: DeviceChoice,

    /// Compute with this many threads [default: all cores]
    #[arg(long, global = true, value_name = "N", help_heading = "Global options",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// Seed of the sampling; the same seed gives the same text
    #[arg(long, global = true, value_name = "N", help_heading = "Global options", value_parser = whole_number::<u64>)]
    seed: Option<u64>,

    /// Print results and errors only: no progress bars, no notes
    #[arg(long, short, global = true, help_heading = "Global options")]
    quiet: bool,

    /// Log to standard error what this filter selects, such as `info` or `multiway_runtime=debug`
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Global options")]
    log: Option<String>,
}

/// Names what the command line can do.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a task on pictures and text, and stream the answer
    Run(Box<run::RunArgs>),
    /// List the tasks, show one, or run the worked examples in their files
    Tasks(tasks::TasksArgs),
    /// Turn a picture or a text into a vector
    Embed(embed::EmbedArgs),
    /// Index a folder of pictures, and find pictures by text or by picture
    Search(search::SearchArgs),
    /// Show the token ids and pieces of a text, or of a task's prompt
    Tokenize(tokenize::TokenizeArgs),
    /// Show what a checkpoint holds: configuration, parameter counts, tensors
    Inspect(inspect::InspectArgs),
    /// Write a checkpoint of any kind as a folder of safetensors
    Convert(convert::ConvertArgs),
    /// Measure how fast a model encodes, decodes and loads on this machine
    Bench(bench::BenchArgs),
    /// Make a checkpoint from training data, and score it (feature `train`)
    Train(train::TrainArgs),
}

impl Verb {
    /// Tells whether standard output must hold one line of JSON, errors included.
    fn json(&self) -> bool {
        match self {
            Verb::Run(args) => args.json,
            Verb::Tasks(args) => args.json(),
            Verb::Embed(_) => true,
            Verb::Search(args) => args.json(),
            Verb::Tokenize(args) => args.json,
            Verb::Inspect(args) => args.json,
            Verb::Convert(args) => args.json,
            Verb::Bench(args) => args.json(),
            Verb::Train(args) => args.json(),
        }
    }

    fn run(self, context: &Context) -> Outcome {
        match self {
            Verb::Run(args) => run::run(context, &args),
            Verb::Tasks(args) => tasks::run(context, args),
            Verb::Embed(args) => embed::run(context, args),
            Verb::Search(args) => search::run(context, args),
            Verb::Tokenize(args) => tokenize::run(context, &args),
            Verb::Inspect(args) => inspect::run(context, args),
            Verb::Convert(args) => convert::run(context, args),
            Verb::Bench(args) => bench::run(context, args),
            Verb::Train(args) => train::run(context, args),
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
