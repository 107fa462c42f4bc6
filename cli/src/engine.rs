//! The options of an engine, and of the requests that it is sent.

use std::time::Duration;

use anyhow::anyhow;
use bytesize::ByteSize;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use multiway::Engine;
use multiway::checkpoint::{CacheType, WeightType};
use multiway::engine::{EngineBuilder, EngineError};
use multiway::task::RequestTerms;

use super::failure::{Failure, Outcome};

/// Holds the budgets, element types and request terms of an engine; omitted options keep the library's
/// defaults.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine options")]
pub(crate) struct EngineArgs {
    /// Memory budget of running requests, such as 512MiB or 2GB: encoded prompts, KV cache and compiled
    /// constraints, without the weights. Requests beyond it wait; one that can never fit is refused [default:
    /// 1GiB]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = bytes)]
    memory_budget: Option<usize>,

    /// Memory budget of the cache of encoded prompts and images, which saves encoding the same input again; 0
    /// turns it off [default: 256MiB]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = bytes)]
    reuse_budget: Option<usize>,

    /// Number of engine replicas that share one set of weights; the threads and both budgets are divided
    /// among them. One usually gives the highest throughput, several isolate requests from each other
    /// [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    replicas: Option<u8>,

    /// Element type of the linear layers' weights on the CPU. Compared with f32, bf16 takes half the memory
    /// and int8 (quantized) a quarter, and decoding small batches speeds up accordingly; answers may differ
    /// slightly [default: f32, or the type of a packed checkpoint]
    #[arg(long, value_name = "TYPE", value_parser = weight_type())]
    dtype: Option<WeightType>,

    /// Element type of the KV cache on the CPU, for self- and cross-attention. Compared with f32, bf16 takes
    /// half the memory and int8 (quantized) about a quarter, so that more requests fit into --memory-budget
    /// and many long prompts decode faster; answers may differ slightly [default: f32]
    #[arg(long, value_name = "TYPE", value_parser = cache_type())]
    cache_dtype: Option<CacheType>,

    /// Priority of the request in the queue, higher first; may be negative [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = priority)]
    priority: Option<i32>,

    /// Timeout of each request, such as 500ms, 30s or 2m; a request that exceeds it fails with exit code 1
    /// [default: none]
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true, value_parser = duration)]
    timeout: Option<Duration>,
}

impl EngineArgs {
    /// Tells whether an option asks for what only the CPU can do.
    pub(crate) fn need_cpu(&self) -> bool {
        self.dtype.is_some() || self.cache_dtype.is_some()
    }

    /// Returns the priority and the timeout of requests.
    pub(crate) fn terms(&self) -> RequestTerms {
        RequestTerms {
            priority: self.priority.unwrap_or_default(),
            timeout: self.timeout,
        }
    }

    /// Builds an engine with these options; `threads` is the total over all replicas.
    pub(crate) fn build(&self, mut builder: EngineBuilder, threads: Option<u16>) -> Outcome<Engine> {
        let replicas = usize::from(self.replicas.unwrap_or(1));
        builder = builder.replicas(replicas);
        if let Some(threads) = threads {
            builder = builder.threads((usize::from(threads) / replicas).max(1));
        }
        if let Some(bytes) = self.memory_budget {
            builder = builder.memory_budget(bytes);
        }
        if let Some(bytes) = self.reuse_budget {
            builder = builder.reuse_budget(bytes);
        }
        if let Some(weights) = self.dtype {
            builder = builder.weights(weights);
        }
        if let Some(cache) = self.cache_dtype {
            builder = builder.cache(cache);
        }
        builder.build().map_err(|error| match error {
            EngineError::MemoryBudget { found, needed } => Failure::Input(anyhow!(
                "--memory-budget: expected at least {}, what a request of usual length needs with this model, for each \
                 replica; found {}",
                size(needed * replicas),
                size(found * replicas),
            )),
            EngineError::Load(_)
            | EngineError::Tokenizer(_)
            | EngineError::Labels { .. }
            | EngineError::Generation { .. }
            | EngineError::Option { .. } => Failure::input(error),
            _ => Failure::runtime(error),
        })
    }
}

fn size(bytes: usize) -> String {
    format!("{bytes} bytes ({})", ByteSize(bytes as u64))
}

/// Reads a number of bytes, with or without a unit.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    let size = text.trim().parse::<ByteSize>();
    let bytes = size.ok().and_then(|size| usize::try_from(size.as_u64()).ok());
    bytes.ok_or_else(|| format!("expected bytes, such as 1000000, 512MiB or 2GB, found '{text}'"))
}

/// Reads a duration above zero, with a unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text.trim()).ok();
    let duration = duration.filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| {
        format!("expected a duration above 0 with its unit, such as 500ms, 30s or 2m, found '{text}'")
    })
}

/// Reads one of the names of weight types, which `--help` lists.
pub(super) fn weight_type() -> impl TypedValueParser<Value = WeightType> {
    PossibleValuesParser::new(WeightType::ALL.map(WeightType::name)).map(|name| {
        let found = WeightType::ALL.into_iter().find(|weights| weights.name() == name);
        found.unwrap_or_default()
    })
}

/// Reads one of the names of cache types, which `--help` lists.
pub(crate) fn cache_type() -> impl TypedValueParser<Value = CacheType> {
    PossibleValuesParser::new(CacheType::ALL.map(CacheType::name)).map(|name| {
        let found = CacheType::ALL.into_iter().find(|cache| cache.name() == name);
        found.unwrap_or_default()
    })
}

fn priority(text: &str) -> Result<i32, String> {
    let number = text.parse();
    number.map_err(|_| format!("expected a whole number, below 0 or not, found '{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_with_decimal_and_binary_units_and_without() {
        let read = ["7", "2GiB", "2 gb", "1.5KiB", "512MiB"].map(|text| bytes(text).unwrap());
        assert_eq!(read, [7, 2 << 30, 2_000_000_000, 1536, 512 << 20]);
        for wrong in ["", "GiB", "-1", "2 parsecs", "1e99", "NaN", "2GiB2"] {
            let message = bytes(wrong).unwrap_err();
            assert!(message.ends_with(&format!("found '{wrong}'")), "{message}");
        }
    }

    #[test]
    fn durations_have_a_unit_and_are_above_zero() {
        let read = ["500ms", "30s", "2m", "1h 30m"].map(|text| duration(text).unwrap().as_millis());
        assert_eq!(read, [500, 30_000, 120_000, 5_400_000]);
        for wrong in ["", "30", "0s", "-1s", "1.2.3s", "soon", "99999999999999999999y"] {
            let message = duration(wrong).unwrap_err();
            assert!(message.ends_with(&format!("found '{wrong}'")), "{message}");
        }
    }
}
