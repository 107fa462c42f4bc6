//! `multiway bench growth`.

use clap::Args;
use indicatif::ProgressBar;
use multiway::measure::{self, Case, Machine, Prediction, StepWork};
use serde_json::{Value, json};

use super::args::{CommonArgs, count};
use super::report::{Report, milliseconds, rounded};
use super::roofline::{MACHINE_COLUMNS, told};
use super::subject::{ENGINE, Subject, on_threads, progress_bar, refused};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::print_line;

pub(super) const HELP: &str = "\
Examples:
  multiway bench growth --checkpoint DIR --threads 2
  multiway bench growth --checkpoint DIR --dtype int8 --batch 1,8,64 --source-length 64,1024 --json
  multiway bench growth --batch 1 --source-length 32 --texts 32 --repeats 9

Runs on one thread, then on --threads: measures the machine like `multiway bench roofline`, then
times these stages and compares each with a lower bound that the machine implies.

  decode  mean decode step over --new-tokens tokens: each --batch at the first --source-length,
          and each --source-length at the first --batch
  encode  batches of texts of equal length, 16 to 256, each batch of about the same number of tokens
  ragged  one batch of --texts texts with random lengths (--seed) of 16 to 256, or up to the
          model's maximum

For decode and encode, predicted_ms is the sum over all kernels of

  max(memory bytes / memory_gb_s + cache bytes / cache_gb_s, operations / peak)

Memory bytes are the weights, read once for all rows, and in a decode step the KV cache of each row
(prompt, and the answer at its mean length) in --cache-dtype. Cache bytes are the activations. The
peak is int8_gop_s for linear layers with --dtype int8, else f32_gflop_s. ratio = ms / predicted_ms
is below 1 only if CPU caches hold the weights, as with small models. For ragged, predicted_ms sums
each token's time in batches of equal length, interpolated linearly between the encode rows; a ratio
of 1 means that packing has no cost.

With --json, for each thread count one line about the machine, as from
`multiway bench roofline --machine`, then one line per case: {engine, dtype, cache, model, threads,
stage, batch, src, tokens, new_tokens, ms, predicted_ms, ratio, tokens_per_s,
predicted_tokens_per_s}. tokens counts one decode step, or all texts; src is null for ragged, and
new_tokens is null except for decode. Prompts are text only. Models without a decoder have no decode
rows.";

const COLUMNS: &[&str] = &[
    "stage",
    "threads",
    "batch",
    "src",
    "tokens",
    "ms",
    "predicted_ms",
    "ratio",
    "tokens_per_s",
    "predicted_tokens_per_s",
];

/// The default prompt lengths, up to the model's maximum.
const SOURCE_LENGTHS: [usize; 4] = [64, 256, 1024, 4096];

/// At which lengths the cost of a token is measured, as far as the model takes them; ragged texts are between
/// the first and the last.
const TEXT_LENGTHS: [usize; 4] = [16, 64, 128, 256];

/// Names the cases by which growth is seen.
#[derive(Debug, Args)]
pub(super) struct GrowthArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,

    /// Batch size in answers (a list makes several cases)
    #[arg(
        long, value_name = "N,..", value_delimiter = ',', default_value = "1,2,4,8,16,32,64", value_parser = count
    )]
    batch: Vec<usize>,

    /// Length of each prompt in tokens (a list makes several cases) [default: 64,256,1024,4096, up to the
    /// model's maximum]
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = count)]
    source_length: Vec<usize>,

    /// Number of decode steps to average over
    #[arg(long, value_name = "N", default_value = "16", value_parser = count)]
    new_tokens: usize,

    /// Number of texts in the ragged batch
    #[arg(long, value_name = "N", default_value = "16", value_parser = count)]
    texts: usize,

    /// Timed runs of each case, after one warm-up run; the median is reported
    #[arg(long, value_name = "N", default_value = "3", value_parser = count)]
    repeats: usize,
}

/// Runs `multiway bench growth`, on one thread and on `threads`.
pub(super) fn run(context: &Context, threads: usize, args: &GrowthArgs) -> Outcome {
    let subject = on_threads(threads, || Subject::load(context, &args.common))?;
    let growth = Growth::new(context, args, &subject);
    let counts = if threads > 1 { vec![1, threads] } else { vec![1] };
    let bar = progress_bar(context, counts.len() * growth.cases());
    for (index, threads) in counts.into_iter().enumerate() {
        if index > 0 && !args.common.json {
            bar.suspend(|| print_line(""))?;
        }
        on_threads(threads, || growth.measure(&bar))?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// What is measured on each number of threads.
struct Growth<'a> {
    args: &'a GrowthArgs,
    subject: &'a Subject,
    seed: u64,
    /// The batch and the source length of each case of decoding.
    steps: Vec<(usize, usize)>,
    /// The lengths of texts of one length.
    uniform: Vec<usize>,
    /// The lengths of texts of different lengths.
    ragged: Vec<usize>,
}

/// One case: what was done, how long it took, and how long it was predicted to take.
struct Point {
    stage: &'static str,
    batch: usize,
    source: Option<usize>,
    tokens: usize,
    new_tokens: Option<usize>,
    seconds: f64,
    predicted: f64,
}

impl<'a> Growth<'a> {
    fn new(context: &Context, args: &'a GrowthArgs, subject: &'a Subject) -> Self {
        let config = subject.model.config();
        let seed = context.seed().unwrap_or_default();
        let uniform = up_to(&TEXT_LENGTHS, config.max_text_length);
        let shortest = uniform.first().copied().unwrap_or(1);
        let longest = uniform.last().copied().unwrap_or(shortest);
        let sources = match args.source_length.as_slice() {
            [] => up_to(&SOURCE_LENGTHS, config.max_text_length),
            given => given.to_vec(),
        };
        let has_decoder = config.decoder_layers() > 0;
        Growth {
            args,
            subject,
            seed,
            steps: if has_decoder {
                sweep(&args.batch, &sources)
            } else {
                Vec::new()
            },
            ragged: measure::ragged_lengths(args.texts, shortest..=longest, seed),
            uniform,
        }
    }

    fn cases(&self) -> usize {
        self.steps.len() + self.uniform.len() + 1
    }

    /// Measures the machine and every case, on the threads of the pools that are installed.
    fn measure(&self, bar: &ProgressBar) -> Outcome {
        let json = self.args.common.json;
        let machine = Machine::measure();
        bar.suspend(|| Report::new(json, MACHINE_COLUMNS).print(&told(&machine)))?;
        if !json {
            bar.suspend(|| print_line(""))?;
        }
        let mut report = Report::new(json, COLUMNS);
        let mut print = |point: Point| {
            bar.inc(1);
            bar.suspend(|| report.print(&self.line(&point)))
        };
        for &(batch, source) in &self.steps {
            print(self.step(&machine, batch, source)?)?;
        }
        let mut costs = Vec::new();
        for &length in &self.uniform {
            let point = self.uniform(&machine, length)?;
            costs.push((length, point.seconds / point.tokens as f64));
            print(point)?;
        }
        print(self.ragged(&costs)?)
    }

    fn step(&self, machine: &Machine, batch: usize, source: usize) -> Outcome<Point> {
        let model = &self.subject.model;
        let new_tokens = self.args.new_tokens;
        let work = StepWork {
            batch,
            source,
            new_tokens,
            weights: self.subject.weights,
            cache: self.subject.cache,
        };
        Ok(Point {
            stage: "decode",
            batch,
            source: Some(source),
            tokens: batch,
            new_tokens: Some(new_tokens),
            seconds: measure::decode_step(model, &self.case(batch, source)).map_err(refused)?,
            predicted: Prediction::decode_step(model.config(), work).seconds(machine),
        })
    }

    /// Encodes texts of one length, about as many tokens as the ragged batch has.
    fn uniform(&self, machine: &Machine, length: usize) -> Outcome<Point> {
        let (model, weights) = (&self.subject.model, self.subject.weights);
        let batch = (self.ragged.iter().sum::<usize>() / length).max(1);
        Ok(Point {
            stage: "encode",
            batch,
            source: Some(length),
            tokens: batch * length,
            new_tokens: None,
            seconds: measure::encoding(model, &self.case(batch, length)).map_err(refused)?,
            predicted: Prediction::encoding(model.config(), weights, batch, length).seconds(machine),
        })
    }

    /// Encodes texts of different lengths, beside the sum of what their tokens cost.
    fn ragged(&self, costs: &[(usize, f64)]) -> Outcome<Point> {
        let (model, lengths) = (&self.subject.model, &self.ragged);
        let seconds = measure::ragged_encoding(model, lengths, self.seed, self.args.repeats);
        let cost = |&length: &usize| length as f64 * between(costs, length);
        Ok(Point {
            stage: "ragged",
            batch: lengths.len(),
            source: None,
            tokens: lengths.iter().sum(),
            new_tokens: None,
            seconds: seconds.map_err(refused)?,
            predicted: lengths.iter().map(cost).sum(),
        })
    }

    fn case(&self, batch: usize, source_length: usize) -> Case {
        Case {
            batch,
            source_length,
            pictures: 0,
            beams: 1,
            new_tokens: self.args.new_tokens,
            repeats: self.args.repeats,
            seed: self.seed,
        }
    }

    fn line(&self, point: &Point) -> Value {
        let tokens = point.tokens as f64;
        json!({
            "engine": ENGINE,
            "dtype": self.subject.weights.name(),
            "cache": self.subject.cache.name(),
            "model": self.subject.name,
            "threads": rayon::current_num_threads(),
            "stage": point.stage,
            "batch": point.batch,
            "src": point.source,
            "tokens": point.tokens,
            "new_tokens": point.new_tokens,
            "ms": milliseconds(point.seconds),
            "predicted_ms": milliseconds(point.predicted),
            "ratio": rounded(point.seconds / point.predicted),
            "tokens_per_s": rounded(tokens / point.seconds),
            "predicted_tokens_per_s": rounded(tokens / point.predicted),
        })
    }
}

/// Lists each batch with the first source, and each other source with the first batch.
fn sweep(batches: &[usize], sources: &[usize]) -> Vec<(usize, usize)> {
    let (Some(&batch), Some(&source)) = (batches.first(), sources.first()) else {
        return Vec::new();
    };
    let at_source = batches.iter().map(|&batch| (batch, source));
    let at_batch = sources.iter().skip(1).map(|&source| (batch, source));
    at_source.chain(at_batch).collect()
}

/// Cuts lengths off at the longest that a model takes.
fn up_to(lengths: &[usize], limit: usize) -> Vec<usize> {
    let mut taken: Vec<usize> = lengths.iter().map(|length| *length.min(&limit)).collect();
    taken.dedup();
    taken
}

/// Finds the cost of a token of a text of `length` on the straight line between the costs at two neighbouring
/// lengths.
fn between(costs: &[(usize, f64)], length: usize) -> f64 {
    let after = costs.partition_point(|(at, _)| *at < length);
    match (
        after.checked_sub(1).and_then(|before| costs.get(before)),
        costs.get(after),
    ) {
        (Some(&(short, low)), Some(&(long, high))) => {
            low + (high - low) * (length - short) as f64 / (long - short) as f64
        }
        (Some(&(_, cost)), None) | (None, Some(&(_, cost))) => cost,
        (None, None) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_meets_the_first_source_and_every_source_the_first_batch() {
        assert_eq!(
            sweep(&[1, 8], &[64, 256, 1024]),
            [(1, 64), (8, 64), (1, 256), (1, 1024)]
        );
    }

    #[test]
    fn lengths_go_as_far_as_the_model() {
        assert_eq!(up_to(&SOURCE_LENGTHS, 300), [64, 256, 300]);
        assert_eq!(up_to(&SOURCE_LENGTHS, 40), [40]);
    }

    #[test]
    fn the_cost_of_a_token_lies_between_those_at_the_lengths_beside_its_own() {
        let costs = [(16, 2.0), (64, 8.0), (128, 10.0)];
        let expected = [(16, 2.0), (24, 3.0), (64, 8.0), (96, 9.0), (128, 10.0)];
        for (length, cost) in expected {
            assert!((between(&costs, length) - cost).abs() < 1e-9, "{length}");
        }
        assert!((between(&[(7, 3.0)], 7) - 3.0).abs() < 1e-9);
    }
}
