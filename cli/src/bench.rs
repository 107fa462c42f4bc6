//! `multiway bench`: how fast a model encodes, decodes and loads on this machine, and how much faster it
//! could be.

mod args;
mod growth;
mod report;
mod roofline;
mod subject;

use std::thread::available_parallelism;
use std::time::Instant;

use clap::{Args, Subcommand};
use multiway::measure;
use serde_json::{Value, json};

use self::args::{CaseArgs, LoadArgs, WritingArgs};
use self::growth::GrowthArgs;
use self::report::{Report, peak_memory_mb, rounded};
use self::roofline::{KernelsArgs, RooflineArgs};
use self::subject::{ENGINE, Subject, on_threads, progress_bar, refused};
use super::context::Context;
use super::failure::Outcome;

/// The columns of cases, in `encode` and `decode` alike.
const CASE_COLUMNS: &[&str] = &[
    "engine",
    "dtype",
    "cache",
    "model",
    "threads",
    "batch",
    "src",
    "pictures",
    "beam",
    "new_tokens",
    "encode_ms",
    "decode_tokens_per_s",
    "rss_mb",
];

const AFTER_HELP: &str = "\
Examples:
  multiway bench decode --checkpoint DIR --threads 2 --batch 1,8,32 --source-length 64
  multiway bench encode --batch 1,8 --source-length 32 --json
  multiway bench load --checkpoint DIR
  multiway bench roofline --threads 2
  multiway bench growth --checkpoint DIR --threads 2

Start with `roofline`: it shows the limits of the machine, and which kernels are far from
them. `growth` shows how time grows with batch size, prompt length and threads, and how it
should. Prompts are random token ids (and random images for models with image input); the
same --seed gives the same prompts. Answers have exactly the requested length: the
end-of-sequence token is suppressed. Other load on the machine distorts the results.";

const ENCODE_HELP: &str = "\
Examples:
  multiway bench encode --checkpoint DIR --threads 2 --batch 1,32 --source-length 64,256
  multiway bench encode --checkpoint BEIT3_DIR --batch 1 --source-length 32 --pictures 1 --json

encode_ms is the median time of encoding the whole batch, for models with a decoder
including the cross-attention keys and values (the prefill). src counts the text tokens of
each prompt, without its images. rss_mb is the peak resident memory of the process so far
in 10^6 bytes: run each case in its own process to compare it.

With --json, one line per case: {engine, dtype, cache, model, threads, batch, src, pictures,
beam, new_tokens, encode_ms, decode_tokens_per_s, rss_mb}; values not measured are null.";

const DECODE_HELP: &str = "\
Examples:
  multiway bench decode --checkpoint DIR --dtype f32 --threads 2 --batch 8 \\
      --source-length 64 --new-tokens 64 --beams 1 --repeats 3 --json
  multiway bench decode --checkpoint DIR --batch 1,8,32 --beams 1,4
  multiway bench decode --checkpoint DIR --cache-dtype int8 --batch 32 --source-length 256

Decodes greedily, or with --beams by beam search like `multiway run --beams`.
decode_tokens_per_s is the throughput: batch times new_tokens, divided by the median time
from the end of encoding to the last token; only the final answers count, not all beams.
For encode_ms and rss_mb see `multiway bench encode --help`. Each step reads the weights
once and the KV cache of every sequence: with many long prompts the KV cache dominates,
and --cache-dtype bf16 or int8 cuts it to a half or about a quarter.

With --json, one line per case, as from `multiway bench encode`. --show-tokens adds the key
tokens, the token ids of each answer, to compare with another engine.";

const LOAD_HELP: &str = "\
Examples:
  multiway bench load --checkpoint DIR --threads 2
  multiway bench load --checkpoint DIR --source-length 64 --json

load_s is the time to open the checkpoint and load its weights; first_token_s is the time
from the same start to the first token of an answer, or for models without a decoder to the
encoded prompt. Run it twice to measure with a warm page cache. A packed checkpoint
(`multiway convert --dtype int8`) is memory-mapped, without loading or packing.

With --json, one line: {engine, dtype, cache, model, threads, src, pictures, load_s,
first_token_s, rss_mb}.";

/// Selects a benchmark.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    verb: BenchVerb,
}

#[derive(Debug, Subcommand)]
enum BenchVerb {
    /// Time the encoding of prompts
    #[command(after_help = ENCODE_HELP)]
    Encode(CaseArgs),
    /// Measure decoding throughput
    #[command(after_help = DECODE_HELP)]
    Decode(WritingArgs),
    /// Time loading and the latency of the first token
    #[command(after_help = LOAD_HELP)]
    Load(LoadArgs),
    /// Time each kernel alone, at the model's shapes
    #[command(after_help = roofline::KERNELS_HELP)]
    Kernels(KernelsArgs),
    /// Measure this machine's bandwidth and peak throughput, and each kernel's share of that roofline
    #[command(after_help = roofline::ROOFLINE_HELP)]
    Roofline(RooflineArgs),
    /// Time decode steps and encoding over batch size and length, with a predicted lower bound
    #[command(after_help = growth::HELP)]
    Growth(GrowthArgs),
}

impl BenchArgs {
    /// Tells whether standard output must hold lines of JSON.
    pub(crate) fn json(&self) -> bool {
        match &self.verb {
            BenchVerb::Encode(args) => args.common.json,
            BenchVerb::Decode(args) => args.cases.common.json,
            BenchVerb::Load(args) => args.common.json,
            BenchVerb::Kernels(args) => args.common.json,
            BenchVerb::Roofline(args) => args.kernels.common.json,
            BenchVerb::Growth(args) => args.common.json,
        }
    }
}

/// Runs the verb, on as many threads as were asked for.
pub(crate) fn run(context: &Context, args: BenchArgs) -> Outcome {
    let cores = || available_parallelism().map_or(1, usize::from);
    let threads = context.threads().unwrap_or_else(cores);
    if matches!(
        args.verb,
        BenchVerb::Kernels(_) | BenchVerb::Roofline(_) | BenchVerb::Growth(_)
    ) {
        context.require_cpu("what is measured")?;
    }
    match args.verb {
        BenchVerb::Encode(args) => on_threads(threads, || encode(context, &args)),
        BenchVerb::Decode(args) => on_threads(threads, || decode(context, &args)),
        BenchVerb::Load(args) => on_threads(threads, || load(context, &args)),
        BenchVerb::Kernels(args) => on_threads(threads, || roofline::kernels(context, &args)),
        BenchVerb::Roofline(args) => on_threads(threads, || roofline::run(context, &args)),
        BenchVerb::Growth(args) => growth::run(context, threads, &args),
    }
}

fn encode(context: &Context, args: &CaseArgs) -> Outcome {
    let subject = Subject::load(context, &args.common)?;
    let cases = args.cases(subject.model.config(), context.seed(), &[1], 0);
    let bar = progress_bar(context, cases.len());
    let mut report = Report::new(args.common.json, CASE_COLUMNS);
    for case in cases {
        let seconds = measure::encoding(&subject.model, &case).map_err(refused)?;
        let mut line = subject.case(&case, seconds);
        line["beam"] = Value::Null;
        line["new_tokens"] = Value::Null;
        bar.suspend(|| report.print(&line))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn decode(context: &Context, args: &WritingArgs) -> Outcome {
    let common = &args.cases.common;
    let subject = Subject::load(context, common)?;
    let config = subject.model.config();
    let cases = args
        .cases
        .cases(config, context.seed(), &args.beams, args.new_tokens);
    let bar = progress_bar(context, cases.len());
    let mut report = Report::new(common.json, CASE_COLUMNS);
    for case in cases {
        let decoded = measure::decoding(&subject.model, &case).map_err(refused)?;
        let mut line = subject.case(&case, decoded.encode_seconds);
        let tokens = case.batch * case.new_tokens;
        line["decode_tokens_per_s"] = rounded(tokens as f64 / decoded.decode_seconds);
        if args.show_tokens {
            line["tokens"] = json!(decoded.tokens);
        }
        bar.suspend(|| report.print(&line))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn load(context: &Context, args: &LoadArgs) -> Outcome {
    let start = Instant::now();
    let subject = Subject::load(context, &args.common)?;
    let loaded = start.elapsed();
    let case = args.case(subject.model.config(), context.seed());
    measure::first_token(&subject.model, &case).map_err(refused)?;
    let answered = start.elapsed();
    let columns = &[
        "engine",
        "dtype",
        "cache",
        "model",
        "threads",
        "src",
        "pictures",
        "load_s",
        "first_token_s",
        "rss_mb",
    ];
    Report::new(args.common.json, columns).print(&json!({
        "engine": ENGINE,
        "dtype": subject.weights.name(),
        "cache": args.common.cache_dtype.name(),
        "model": subject.name,
        "threads": rayon::current_num_threads(),
        "src": case.source_length,
        "pictures": case.pictures,
        "load_s": rounded(loaded.as_secs_f64()),
        "first_token_s": rounded(answered.as_secs_f64()),
        "rss_mb": peak_memory_mb(),
    }))
}
