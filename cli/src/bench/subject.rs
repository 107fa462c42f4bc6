//! The model that is measured, and what all measurements of it share.

use std::sync::Arc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use multiway::checkpoint::{CacheType, LoadOptions, WeightType};
use multiway::measure::{Case, ForwardError, MeasureError, Model, Pool};
use serde_json::{Value, json};

use super::args::CommonArgs;
use super::report::{milliseconds, peak_memory_mb};
use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// The value of `engine` in each line, beside those of other engines.
pub(super) const ENGINE: &str = "multiway";

/// Does `work` with `threads` threads for kernels.
pub(super) fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let kernels = Arc::new(Pool::new(threads));
    pool.map_err(Failure::runtime)?.install(|| kernels.install(work))
}

/// The model that is measured.
pub(super) struct Subject {
    pub(super) model: Model,
    pub(super) name: String,
    pub(super) weights: WeightType,
    pub(super) cache: CacheType,
}

impl Subject {
    pub(super) fn load(context: &Context, common: &CommonArgs) -> Outcome<Self> {
        let checkpoint = context.checkpoint()?;
        let options = LoadOptions {
            weights: common.dtype,
            cache: common.cache_dtype,
            ..LoadOptions::default()
        };
        let is_narrow = common.dtype.is_some() || common.cache_dtype != CacheType::F32;
        let device = context.device(is_narrow || checkpoint.packed().is_some())?;
        let model = Model::load_with(&checkpoint, &device, &options).map_err(Failure::input)?;
        let name = checkpoint.name().to_owned();
        let weights = common.weights(&checkpoint);
        let cache = common.cache_dtype;
        Ok(Self {
            model,
            name,
            weights,
            cache,
        })
    }

    /// Writes down a case and how long its prompts took.
    pub(super) fn case(&self, case: &Case, encode_seconds: f64) -> Value {
        json!({
            "engine": ENGINE,
            "dtype": self.weights.name(),
            "cache": self.cache.name(),
            "model": self.name,
            "threads": rayon::current_num_threads(),
            "batch": case.batch,
            "src": case.source_length,
            "pictures": case.pictures,
            "beam": case.beams,
            "new_tokens": case.new_tokens,
            "encode_ms": milliseconds(encode_seconds),
            "decode_tokens_per_s": null,
            "rss_mb": peak_memory_mb(),
        })
    }
}

/// Sorts what went wrong into what another command line would avoid, and what not.
pub(super) fn refused(error: MeasureError) -> Failure {
    match error {
        MeasureError::Forward(ForwardError::Tensor(_)) | MeasureError::NotFinite => Failure::runtime(error),
        _ => Failure::input(error),
    }
}

/// Shows on a terminal how many cases are done.
pub(super) fn progress_bar(context: &Context, cases: usize) -> ProgressBar {
    let target = if context.quiet() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} cases {elapsed}");
    let bar = ProgressBar::with_draw_target(Some(cases as u64), target);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
