//! `multiway bench kernels` and `multiway bench roofline`.

use clap::Args;
use multiway::checkpoint::ModelConfig;
use multiway::measure::{KernelTiming, Machine, Workload, kernels as time_kernels};
use serde_json::{Value, json};

use super::args::{CommonArgs, count, length, pictures};
use super::report::{Report, rounded};
use super::subject::ENGINE;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::print_line;

pub(super) const KERNELS_HELP: &str = "\
Examples:
  multiway bench kernels
  multiway bench kernels --checkpoint DIR --threads 2 --batch 8 --source-length 64 --json

Each kernel runs alone, at the shapes of the checkpoint's model: `encode` with batch times
source rows, `decode` with one row per sequence. Weights and the keys and values of prompts
come from memory as they do in the model, not from a CPU cache: calls cycle through many
copies of them.

With --json, one line per kernel: {engine, dtype, cache, model, threads, batch, src, stage,
kernel, shape, us, gflop_s, gb_s}. us is the time of a call in microseconds; shape is rows x
inputs x outputs of a linear layer, batch x source x heads x head size of attention; gb_s
counts memory traffic and activations.";

pub(super) const ROOFLINE_HELP: &str = "\
Examples:
  multiway bench roofline --threads 2
  multiway bench roofline --machine --json
  multiway bench roofline --checkpoint DIR --batch 1,32 --source-length 64

Measures the threads' read bandwidth from memory (512 MiB, larger than any cache) and from
their own caches, and the peak throughput of f32, bf16 and int8 instructions. Then times
each kernel like `multiway bench kernels`. share is the fraction of the roofline that a
kernel reaches: the minimum time for its bytes or its operations, whichever is longer,
divided by the measured time. It exceeds 1 only if CPU caches hold some of the data.

With --json, first one line: {engine, threads, memory_gb_s, cache_gb_s, f32_gflop_s,
bf16_gflop_s, int8_gop_s}, with null where the machine has no such instructions; then,
without --machine, one line per kernel as from `multiway bench kernels`, with share.";

/// The columns of kernels.
const COLUMNS: &[&str] = &[
    "stage", "kernel", "batch", "src", "shape", "us", "gflop_s", "gb_s",
];

/// The same, with their shares.
const SHARE_COLUMNS: &[&str] = &[
    "stage", "kernel", "batch", "src", "shape", "us", "gflop_s", "gb_s", "share",
];

pub(super) const MACHINE_COLUMNS: &[&str] = &[
    "threads",
    "memory_gb_s",
    "cache_gb_s",
    "f32_gflop_s",
    "bf16_gflop_s",
    "int8_gop_s",
];

/// Names the shapes of the kernels.
#[derive(Debug, Args)]
pub(super) struct KernelsArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,

    /// Batch size in prompts (a list makes several cases)
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1", value_parser = count)]
    batch: Vec<usize>,

    /// Length of each prompt in text tokens (a list makes several cases)
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "64", value_parser = count)]
    source_length: Vec<usize>,

    /// Number of images in each prompt [default: 1 for models with image input, else 0]
    #[arg(long, value_name = "N", value_parser = length)]
    pictures: Option<usize>,

    /// Timed rounds of each kernel, after one warm-up round; the median is reported
    #[arg(long, value_name = "N", default_value = "5", value_parser = count)]
    repeats: usize,
}

/// Names the shapes of the kernels, if they are to be timed.
#[derive(Debug, Args)]
pub(super) struct RooflineArgs {
    #[command(flatten)]
    pub(super) kernels: KernelsArgs,

    /// Measure only the machine, no kernels
    #[arg(long)]
    machine: bool,
}

/// Runs `multiway bench kernels`.
pub(super) fn kernels(context: &Context, args: &KernelsArgs) -> Outcome {
    let mut report = Report::new(args.common.json, COLUMNS);
    each_kernel(context, args, |line, _| report.print(&line))
}

/// Runs `multiway bench roofline`.
pub(super) fn run(context: &Context, args: &RooflineArgs) -> Outcome {
    let json = args.kernels.common.json;
    let machine = Machine::measure();
    Report::new(json, MACHINE_COLUMNS).print(&told(&machine))?;
    if args.machine {
        return Ok(());
    }
    if !json {
        print_line("")?;
    }
    let mut report = Report::new(json, SHARE_COLUMNS);
    each_kernel(context, &args.kernels, |mut line, timing| {
        line["share"] = rounded(timing.share(&machine));
        report.print(&line)
    })
}

/// Times the kernels of every case, and hands over a line for each.
fn each_kernel(
    context: &Context,
    args: &KernelsArgs,
    mut print: impl FnMut(Value, &KernelTiming) -> Outcome,
) -> Outcome {
    let checkpoint = context.checkpoint()?;
    let (config, weights) = (checkpoint.config(), args.common.weights(&checkpoint));
    for &batch in &args.batch {
        for &source_length in &args.source_length {
            let work = Workload {
                batch,
                source: source_length + picture_rows(config, pictures(config, args.pictures)),
                weights,
                cache: args.common.cache_dtype,
                repeats: args.repeats,
            };
            for timing in time_kernels(config, work).map_err(Failure::runtime)? {
                let mut line = json!({
                    "engine": ENGINE,
                    "dtype": weights.name(),
                    "cache": args.common.cache_dtype.name(),
                    "model": checkpoint.name(),
                    "threads": rayon::current_num_threads(),
                    "batch": batch,
                    "src": source_length,
                });
                describe(&mut line, &timing);
                print(line, &timing)?;
            }
        }
    }
    Ok(())
}

/// Counts the rows of pictures: a class row each, and their patches.
fn picture_rows(config: &ModelConfig, pictures: usize) -> usize {
    pictures * (1 + config.patches())
}

fn describe(line: &mut Value, timing: &KernelTiming) {
    let bytes = timing.cost.memory_bytes + timing.cost.cache_bytes;
    let shape: Vec<String> = timing.shape.iter().map(ToString::to_string).collect();
    line["stage"] = timing.stage.into();
    line["kernel"] = timing.kernel.into();
    line["shape"] = shape.join("x").into();
    line["us"] = rounded(timing.seconds * 1e6);
    line["gflop_s"] = rounded(timing.cost.operations / timing.seconds / 1e9);
    line["gb_s"] = rounded(bytes / timing.seconds / 1e9);
}

pub(super) fn told(machine: &Machine) -> Value {
    let giga = |rate: f64| rounded(rate / 1e9);
    json!({
        "engine": ENGINE,
        "threads": machine.threads,
        "memory_gb_s": giga(machine.memory_bytes),
        "cache_gb_s": giga(machine.cache_bytes),
        "f32_gflop_s": giga(machine.f32_operations),
        "bf16_gflop_s": machine.bf16_operations.map(giga),
        "int8_gop_s": machine.int8_operations.map(giga),
    })
}
