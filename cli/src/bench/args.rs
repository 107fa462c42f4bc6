//! What can be measured, and how it is said.

use clap::Args;
use multiway::Checkpoint;
use multiway::checkpoint::{CacheType, ModelConfig, WeightType};
use multiway::measure::Case;

use crate::engine::{cache_type, weight_type};

/// The largest value of a number that memory grows with.
const MAX_COUNT: usize = 1 << 16;

/// Holds the options that every measurement takes.
#[derive(Debug, Args)]
pub(super) struct CommonArgs {
    /// Element type of the linear layers' weights on the CPU [default: f32, or the type of a packed
    /// checkpoint]
    #[arg(long, value_name = "TYPE", value_parser = weight_type())]
    pub(super) dtype: Option<WeightType>,

    /// Element type of the KV cache on the CPU, for self- and cross-attention
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = cache_type())]
    pub(super) cache_dtype: CacheType,

    /// Print lines of JSON instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

impl CommonArgs {
    /// Says what the weights of linear layers are kept in.
    pub(super) fn weights(&self, checkpoint: &Checkpoint) -> WeightType {
        self.dtype.or(checkpoint.packed()).unwrap_or_default()
    }
}

/// Names the prompts of the cases; a list makes a case of each of its values with each of the others.
#[derive(Debug, Args)]
pub(super) struct CaseArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,

    /// Batch size in prompts (a list makes several cases)
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1", value_parser = count)]
    batch: Vec<usize>,

    /// Length of each prompt in text tokens; 0 for images only (a list makes several cases)
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "64", value_parser = length)]
    source_length: Vec<usize>,

    /// Number of random images in each prompt [default: 1 for models with image input, else 0]
    #[arg(long, value_name = "N", value_parser = length)]
    pictures: Option<usize>,

    /// Timed runs of each case, after one warm-up run; the median is reported
    #[arg(long, value_name = "N", default_value = "3", value_parser = count)]
    repeats: usize,
}

/// Names the prompts and the answers of the cases.
#[derive(Debug, Args)]
pub(super) struct WritingArgs {
    #[command(flatten)]
    pub(super) cases: CaseArgs,

    /// Length of each answer in tokens
    #[arg(long, value_name = "N", default_value = "64", value_parser = count)]
    pub(super) new_tokens: usize,

    /// Number of beams of each answer; 1 decodes greedily (a list makes several cases)
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1", value_parser = count)]
    pub(super) beams: Vec<usize>,

    /// With --json, add the token ids of each answer
    #[arg(long, requires = "json")]
    pub(super) show_tokens: bool,
}

/// Names what is asked of a model once it is loaded.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,

    /// Length of the first prompt in text tokens
    #[arg(long, value_name = "N", default_value = "64", value_parser = length)]
    source_length: usize,

    /// Number of random images in the first prompt [default: 1 for models with image input, else 0]
    #[arg(long, value_name = "N", value_parser = length)]
    pictures: Option<usize>,
}

impl CaseArgs {
    /// Lists the cases, sources and then beams changing fastest.
    pub(super) fn cases(
        &self,
        config: &ModelConfig,
        seed: Option<u64>,
        beams: &[usize],
        new_tokens: usize,
    ) -> Vec<Case> {
        let mut cases = Vec::new();
        for &batch in &self.batch {
            for &source_length in &self.source_length {
                cases.extend(beams.iter().map(|&beams| Case {
                    batch,
                    source_length,
                    pictures: pictures(config, self.pictures),
                    beams,
                    new_tokens,
                    repeats: self.repeats,
                    seed: seed.unwrap_or_default(),
                }));
            }
        }
        cases
    }
}

impl LoadArgs {
    pub(super) fn case(&self, config: &ModelConfig, seed: Option<u64>) -> Case {
        Case {
            batch: 1,
            source_length: self.source_length,
            pictures: pictures(config, self.pictures),
            beams: 1,
            new_tokens: 1,
            repeats: 1,
            seed: seed.unwrap_or_default(),
        }
    }
}

/// Reads a number of at least 1.
pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=MAX_COUNT).contains(&number) => Ok(number),
        _ => Err(format!(
            "expected a whole number from 1 to {MAX_COUNT}, found '{text}'"
        )),
    }
}

/// Reads a number that may be 0.
pub(super) fn length(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number <= MAX_COUNT => Ok(number),
        _ => Err(format!(
            "expected a whole number from 0 to {MAX_COUNT}, found '{text}'"
        )),
    }
}

/// Returns the number of pictures of a prompt; default: one, if the model takes any.
pub(super) fn pictures(config: &ModelConfig, asked: Option<usize>) -> usize {
    asked.unwrap_or(config.max_images().min(1))
}
