//! Writing to standard output, and notes to standard error.

use std::io::{self, Write};
use std::time::Duration;

use multiway::engine::Timings;
use serde::Serialize;

use super::failure::{Failure, Outcome};

/// Writes one line of JSON to standard output.
pub(crate) fn print_json(value: &impl Serialize) -> Outcome {
    let line = serde_json::to_string(value).map_err(Failure::runtime)?;
    print_line(&line)
}

/// Writes a line to standard output.
pub(crate) fn print_line(line: &str) -> Outcome {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(Failure::output)
}

/// Writes text to standard output at once, without ending the line.
pub(crate) fn print_piece(piece: &str) -> Outcome {
    let mut out = io::stdout().lock();
    write!(out, "{piece}")
        .and_then(|()| out.flush())
        .map_err(Failure::output)
}

/// Writes a line to standard error; a closed standard error is ignored.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// How long things took, in milliseconds. What does not apply to the kind of answer is 0.
#[derive(Debug, Serialize)]
pub(crate) struct TimingsMs {
    load: f64,
    queued: f64,
    encode: f64,
    first_token: f64,
    total: f64,
}

impl TimingsMs {
    /// `load` is what came before the request: opening the checkpoint, the pictures, and the engine.
    pub(crate) fn new(load: Duration, timings: Timings) -> Self {
        Self {
            load: milliseconds(load),
            queued: milliseconds(timings.queued),
            encode: milliseconds(timings.encode),
            first_token: milliseconds(timings.first_token),
            total: milliseconds(timings.total),
        }
    }
}

/// Converts to milliseconds, rounded to microseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
