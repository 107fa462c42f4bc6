//! The options that say how an answer is written, and what they add to it.

use std::collections::BTreeMap;

use anyhow::anyhow;
use clap::Args;
use multiway::engine::{EarlyStopping, RequestError, SamplingOptions};
use multiway::prompt::ParameterError;
use multiway::task::{ScoredToken, TaskOutcome};
use multiway::tokenizer::{TokenId, Tokenizer};

use super::failure::{Failure, Outcome};
use super::output::{note, print_line};
use super::usage::whole_number;

/// Holds the command line's layer of sampling parameters; what is not given is as the task file says, or else
/// the checkpoint.
#[derive(Debug, Args)]
#[command(next_help_heading = "Decoding options")]
pub(crate) struct DecodingArgs {
    /// Maximum length of the answer in tokens [default: the task's]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_new_tokens: Option<usize>,

    /// Minimum length of the answer in tokens [default: the task's]
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>)]
    min_new_tokens: Option<usize>,

    /// Sampling temperature; 0 decodes greedily [default: the task's]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,

    /// Top-k sampling: keep only the K most probable tokens
    #[arg(long, value_name = "K", value_parser = at_least_one)]
    top_k: Option<usize>,

    /// Top-p (nucleus) sampling: keep the most probable tokens that together reach probability P
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,

    /// Min-p sampling: keep tokens of at least P times the highest probability
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,

    /// Locally typical sampling: keep the most typical tokens that together reach probability P
    #[arg(long, value_name = "P")]
    typical_p: Option<f32>,

    /// Repetition penalty on tokens of the task's prefix and of the answer so far; above 1, they become less
    /// likely
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,

    /// Presence penalty: subtract X from the logit of each generated token, -2 to 2
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,

    /// Frequency penalty: subtract X from the logit of a token each time it was generated, -2 to 2
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,

    /// Never generate an n-gram of N tokens twice; 0 turns this off
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>)]
    no_repeat_ngram_size: Option<usize>,

    /// Add a bias from -100 to 100 to the logit of a token id (repeatable)
    #[arg(long, value_name = "ID=BIAS", value_parser = bias)]
    logit_bias: Vec<(TokenId, f32)>,

    /// Add a bias to the logit of the last of these token ids when it would complete the sequence
    /// (repeatable)
    #[arg(long, value_name = "ID,..=BIAS", value_parser = sequence_bias)]
    sequence_bias: Vec<(Vec<TokenId>, f32)>,

    /// Never generate this text at the start of a word (repeatable)
    #[arg(long = "bad-word", value_name = "TEXT")]
    bad_words: Vec<String>,

    /// Never generate these token ids
    #[arg(long, value_name = "ID,..", value_delimiter = ',', value_parser = whole_number::<TokenId>)]
    suppress_tokens: Vec<TokenId>,

    /// Do not generate these token ids first
    #[arg(long, value_name = "ID,..", value_delimiter = ',', value_parser = whole_number::<TokenId>)]
    begin_suppress_tokens: Vec<TokenId>,

    /// Force the first token to this id; not for tasks with a prefix
    #[arg(long, value_name = "ID", value_parser = whole_number::<TokenId>)]
    forced_bos_token_id: Option<TokenId>,

    /// Force the last token at --max-new-tokens to be one of these ids
    #[arg(long, value_name = "ID,..", value_delimiter = ',', value_parser = whole_number::<TokenId>)]
    forced_eos_token_id: Option<Vec<TokenId>>,

    /// After N tokens, raise the logit of the end-of-sequence token exponentially by FACTOR
    #[arg(long, value_name = "N,FACTOR", value_parser = decay)]
    exponential_decay_length_penalty: Option<(usize, f32)>,

    /// Stop string: end the answer before this text (repeatable)
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,

    /// Beam search with N beams; prints the best answer [default: the task's]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    beams: Option<usize>,

    /// Beam search: divide a beam's score by its length to the power X; above 0 favors longer answers
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    length_penalty: Option<f32>,

    /// Beam search: when to stop early: at_once, when_no_better or never, as in task files
    #[arg(long, value_name = "WHEN", value_parser = early_stopping)]
    early_stopping: Option<EarlyStopping>,

    /// Number of answers to sample and print; needs a temperature
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    samples: Option<usize>,

    /// Number of answers to sample, of which the best by mean log-probability, or the best --samples, are
    /// printed
    #[arg(long, value_name = "M", value_parser = at_least_one)]
    best_of: Option<usize>,

    /// List each generated token with the K most probable alternatives, 1 to 20
    #[arg(long, value_name = "K", value_parser = at_least_one)]
    top_log_probabilities: Option<usize>,

    /// Print special tokens in the answer by name
    #[arg(long)]
    show_special: bool,
}

impl DecodingArgs {
    /// Turns the options into a layer of sampling parameters, but for what only a tokenizer can read.
    pub(crate) fn options(&self, seed: Option<u64>) -> Outcome<SamplingOptions> {
        let mut logit_bias = BTreeMap::new();
        for (id, bias) in &self.logit_bias {
            if logit_bias.insert(*id, *bias).is_some() {
                return Err(Failure::Input(anyhow!("token {id} has two biases")));
            }
        }
        let options = SamplingOptions {
            max_new_tokens: self.max_new_tokens,
            min_new_tokens: self.min_new_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            seed,
            beams: self.beams,
            length_penalty: self.length_penalty,
            early_stopping: self.early_stopping,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias,
            no_repeat_ngram_size: self.no_repeat_ngram_size,
            stop: self.stop.clone(),
            sequence_bias: self.sequence_bias.clone(),
            bad_words_ids: Vec::new(),
            suppress_tokens: self.suppress_tokens.clone(),
            begin_suppress_tokens: self.begin_suppress_tokens.clone(),
            forced_bos_token_id: self.forced_bos_token_id,
            forced_eos_token_id: self.forced_eos_token_id.clone(),
            exponential_decay_length_penalty: self.exponential_decay_length_penalty,
            samples: self.samples,
            best_of: self.best_of,
            top_log_probabilities: self.top_log_probabilities,
            show_special: self.show_special.then_some(true),
        };
        options.check().map_err(|error| wrong_flag(&error))?;
        Ok(options)
    }

    /// Adds the texts that may not be written, as the tokens that they are.
    pub(crate) fn ban_words(&self, tokenizer: &Tokenizer, options: &mut SamplingOptions) -> Outcome {
        for word in &self.bad_words {
            let ids = tokenizer.encode_text(word).map_err(RequestError::from);
            options.bad_words_ids.push(ids.map_err(Failure::input)?);
        }
        options.check().map_err(|error| wrong_flag(&error))
    }
}

fn wrong_flag(error: &ParameterError) -> Failure {
    let ParameterError {
        parameter,
        expected,
        found,
        ..
    } = error;
    let flag = flag(parameter);
    Failure::Input(anyhow!("--{flag} is {found}, expected {expected}"))
}

/// Names the flag that a sampling parameter has.
fn flag(parameter: &str) -> String {
    match parameter {
        "bad_words_ids" => "bad-word".to_owned(),
        parameter => parameter.replace('_', "-"),
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

fn sequence_bias(text: &str) -> Result<(Vec<TokenId>, f32), String> {
    let parsed = text.split_once('=').and_then(|(ids, bias)| {
        let ids = ids.split(',').map(|id| id.trim().parse().ok());
        ids.collect::<Option<Vec<_>>>().zip(bias.parse().ok())
    });
    parsed.ok_or_else(|| format!("expected ID,..=BIAS, ids of tokens and a number, found '{text}'"))
}

fn decay(text: &str) -> Result<(usize, f32), String> {
    let parsed = text
        .split_once(',')
        .and_then(|(start, factor)| start.parse().ok().zip(factor.trim().parse().ok()));
    parsed.ok_or_else(|| format!("expected N,FACTOR, a length and a number, found '{text}'"))
}

fn early_stopping(text: &str) -> Result<EarlyStopping, String> {
    let named = EarlyStopping::ALL.iter().find(|(name, _)| *name == text);
    named.map(|(_, stopping)| *stopping).ok_or_else(|| {
        let names = EarlyStopping::ALL.map(|(name, _)| name).join(", ");
        format!("expected one of {names}, found '{text}'")
    })
}

/// Prints the drawn answers after the first, one a line.
pub(crate) fn print_samples(outcome: &TaskOutcome) -> Outcome {
    let texts = outcome.samples.iter().skip(1);
    let mut texts = texts.filter_map(|sample| sample.answer.text());
    texts.try_for_each(print_line)
}

/// Lists the tokens of the answer and their top-k alternatives, on standard error: they are for people,
/// scripts have `--json`.
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

#[cfg(test)]
mod tests {
    use clap::{Command, Parser};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        decoding: DecodingArgs,
    }

    #[test]
    fn every_sampling_parameter_has_a_flag_and_the_seed_is_one_of_all_verbs() {
        let command = DecodingArgs::augment_args(Command::new("run"));
        let flags: Vec<&str> = command
            .get_arguments()
            .filter_map(|flag| flag.get_long())
            .collect();
        for parameter in SamplingOptions::NAMES {
            let flag = flag(parameter);
            assert_eq!(flags.contains(&flag.as_str()), parameter != "seed", "{flag}");
        }
        assert_eq!(flags.len(), SamplingOptions::NAMES.len() - 1);
    }

    #[test]
    fn every_flag_arrives_in_the_layer() {
        let line = "run --max-new-tokens 9 --temperature 0.5 --top-k 4 --top-p 0.5 --min-p 0.5 --typical-p 0.5 --beams 2 \
                    --length-penalty -1 --early-stopping never --repetition-penalty 2 --presence-penalty -1 \
                    --frequency-penalty -1 --logit-bias 3=-1 --no-repeat-ngram-size 3 --min-new-tokens 2 --stop x \
                    --sequence-bias 3,4=-1 --suppress-tokens 3,4 --begin-suppress-tokens 3 --forced-bos-token-id 3 \
                    --forced-eos-token-id 3,4 --exponential-decay-length-penalty 3,1.5 --samples 2 --best-of 3 \
                    --top-log-probabilities 2 --show-special";
        let options = Line::parse_from(line.split_whitespace())
            .decoding
            .options(Some(7))
            .unwrap();
        let written = serde_json::to_value(&options).unwrap();
        let names: Vec<&String> = written.as_object().unwrap().keys().collect();
        // The tokens of words are known once a tokenizer is.
        let expected = SamplingOptions::NAMES
            .into_iter()
            .filter(|name| *name != "bad_words_ids");
        assert_eq!(names, expected.collect::<Vec<_>>());
        assert_eq!(options.suppress_tokens, [3, 4]);
        assert_eq!(options.sequence_bias, [(vec![3, 4], -1.0)]);
    }

    #[test]
    fn token_ids_are_read_with_what_goes_with_them() {
        assert_eq!(sequence_bias("7, 8=-1.5"), Ok((vec![7, 8], -1.5)));
        assert!(sequence_bias("7,=1").is_err() && sequence_bias("7").is_err());
        assert_eq!(decay("12,1.5"), Ok((12, 1.5)));
        assert!(decay("12").is_err());
        assert_eq!(early_stopping("never"), Ok(EarlyStopping::Never));
        assert!(early_stopping("soon").is_err());
    }
}
