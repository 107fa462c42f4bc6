//! The options that say how an answer is written, and what they add to it.

use std::collections::BTreeMap;

use anyhow::anyhow;
use clap::Args;
use multiway::engine::FinishReason;
use multiway::task::{SamplingOverrides, ScoredToken, TaskOutcome, TaskSample, WrittenToken};
use multiway::tokenizer::TokenId;
use serde::Serialize;

use super::failure::{Failure, Outcome};
use super::output::{note, print_line};
use super::usage::whole_number;

/// Holds how to decode; what is not given is as the task file says, or else the checkpoint.
#[derive(Debug, Args)]
#[command(next_help_heading = "Decoding options")]
pub(crate) struct DecodingArgs {
    /// The most tokens that the answer may have [default: what the task file says]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_new_tokens: Option<usize>,

    /// The fewest tokens that the answer may have [default: what the task file says]
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>)]
    min_new_tokens: Option<usize>,

    /// The sampling temperature; 0 takes the most likely token [default: what the task file says]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,

    /// Sample from this many of the most likely tokens
    #[arg(long, value_name = "K", value_parser = at_least_one)]
    top_k: Option<usize>,

    /// Sample from the fewest most likely tokens that have this probability together
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,

    /// Sample from the tokens that have at least this share of the most likely one's probability
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,

    /// Sample from the most typical tokens that have this probability together
    #[arg(long, value_name = "P")]
    typical_p: Option<f32>,

    /// Take this from the logit of every token that was written before, -2 to 2
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,

    /// Take this from the logit of a token for each time that it was written before, -2 to 2
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,

    /// Add to the logit of a token, by its id, -100 to 100 (repeatable)
    #[arg(long, value_name = "ID=BIAS", value_parser = bias)]
    logit_bias: Vec<(TokenId, f32)>,

    /// Follow this many continuations at a time and print the best [default: the task's]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    beams: Option<usize>,

    /// Sample this many answers and print each; needs a temperature
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    samples: Option<usize>,

    /// Sample this many answers and print the best, by log-probability per token, or as many as --samples says
    #[arg(long, value_name = "M", value_parser = at_least_one)]
    best_of: Option<usize>,

    /// Tell with each token this many of the most likely ones in its place, 1 to 20
    #[arg(long, value_name = "K", value_parser = at_least_one)]
    top_log_probabilities: Option<usize>,
}

impl DecodingArgs {
    /// Turns the options into what a task takes.
    pub(crate) fn overrides(&self, seed: Option<u64>) -> Outcome<SamplingOverrides> {
        let mut logit_bias = BTreeMap::new();
        for (id, bias) in &self.logit_bias {
            if logit_bias.insert(*id, *bias).is_some() {
                return Err(Failure::Input(anyhow!("token {id} has two biases")));
            }
        }
        Ok(SamplingOverrides {
            max_new_tokens: self.max_new_tokens,
            min_new_tokens: self.min_new_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias,
            beams: self.beams,
            samples: self.samples,
            best_of: self.best_of,
            top_log_probabilities: self.top_log_probabilities,
            seed,
        })
    }
}

/// Reads a number of at least 1.
fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("expected a whole number of at least 1, found '{text}'")),
        Ok(number) => Ok(number),
    }
}

fn bias(text: &str) -> Result<(TokenId, f32), String> {
    let parsed = text
        .split_once('=')
        .and_then(|(id, bias)| id.parse().ok().zip(bias.parse().ok()));
    parsed.ok_or_else(|| format!("expected ID=BIAS, a token's id and a number, found '{text}'"))
}

/// What `--json` prints of an answer that was drawn.
#[derive(Debug, Serialize)]
pub(crate) struct SampleReport<'a> {
    text: Option<&'a str>,
    finish_reason: FinishReason,
    mean_log_probability: f64,
    #[serde(skip_serializing_if = "<[WrittenToken]>::is_empty")]
    tokens: &'a [WrittenToken],
}

impl<'a> SampleReport<'a> {
    pub(crate) fn new(sample: &'a TaskSample) -> SampleReport<'a> {
        SampleReport {
            text: sample.answer.text(),
            finish_reason: sample.finish_reason,
            mean_log_probability: sample.mean_log_probability,
            tokens: &sample.tokens,
        }
    }
}

/// Prints the drawn answers after the first, one a line.
pub(crate) fn print_samples(outcome: &TaskOutcome) -> Outcome {
    let texts = outcome.samples.iter().skip(1);
    let mut texts = texts.filter_map(|sample| sample.answer.text());
    texts.try_for_each(print_line)
}

/// Lists the tokens of the answer and the likeliest in their places, on standard error: they are for people, scripts have
/// `--json`.
pub(crate) fn note_tokens(outcome: &TaskOutcome) {
    for written in &outcome.tokens {
        let others: Vec<String> = written.alternatives.iter().map(spell).collect();
        note(&format!(
            "  {}   among {}",
            spell(&written.token),
            others.join(", ")
        ));
    }
}

fn spell(token: &ScoredToken) -> String {
    format!("{} {:.3}", token.piece, token.log_probability)
}
