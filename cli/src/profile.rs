//! `multiway run --profile`: where the time of a request went.

use std::time::{Duration, Instant};

use multiway::engine::{Timings, Usage};
use multiway::task::TaskOutcome;
use serde::Serialize;

use super::output::{milliseconds, note};

/// Measures what the command line does around a request. Its parts follow each other.
#[derive(Debug)]
pub(crate) struct Profile {
    started: Instant,
    open: Duration,
    render: Duration,
    pictures: Duration,
    load: Duration,
    answer: Duration,
}

/// A stage of the command line's work.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// Opening the checkpoint and the task files.
    Open,
    /// Reading the inputs and rendering the prompt.
    Render,
    /// Reading, decoding and resizing the pictures.
    Pictures,
    /// Loading the weights and starting the engine.
    Load,
    /// Sending the request, and taking and printing its answer.
    Answer,
}

impl Profile {
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
            open: Duration::ZERO,
            render: Duration::ZERO,
            pictures: Duration::ZERO,
            load: Duration::ZERO,
            answer: Duration::ZERO,
        }
    }

    /// Does something, and adds how long it took.
    pub(crate) fn time<T>(&mut self, part: Part, work: impl FnOnce() -> T) -> T {
        let since = Instant::now();
        let done = work();
        *match part {
            Part::Open => &mut self.open,
            Part::Render => &mut self.render,
            Part::Pictures => &mut self.pictures,
            Part::Load => &mut self.load,
            Part::Answer => &mut self.answer,
        } += since.elapsed();
        done
    }

    /// Returns how long everything took until now.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sums up, with what the engine says of the request.
    pub(crate) fn report(&self, outcome: &TaskOutcome) -> ProfileReport {
        self.sum(self.elapsed(), outcome.timings, outcome.usage)
    }

    fn sum(&self, total: Duration, timings: Timings, usage: Usage) -> ProfileReport {
        let parts = PartsMs {
            open: milliseconds(self.open),
            pictures: milliseconds(self.pictures),
            render: milliseconds(self.render),
            load: milliseconds(self.load),
            prepare: milliseconds(timings.prepare),
            queue: milliseconds(timings.queued),
            encode: milliseconds(timings.encode),
            decode: milliseconds(timings.decode),
            select: milliseconds(timings.select),
            // The request's time is within the answer's.
            read_out: milliseconds(self.answer.saturating_sub(timings.total)),
            other: 0.0,
        };
        let known: f64 = parts.list().iter().map(|part| part.ms).sum();
        let written = !timings.first_token.is_zero();
        let tokens = if written { usage.new_tokens } else { 0 };
        ProfileReport {
            parts_ms: PartsMs {
                // The sum of what is rounded can be a little more than the total.
                other: round((milliseconds(total) - known).max(0.0)),
                ..parts
            },
            total_ms: milliseconds(total),
            steps: timings.steps,
            ms_per_step: each(timings.decode, timings.steps),
            tokens,
            ms_per_token: each(timings.decode + timings.select, tokens),
            first_token_ms: written.then(|| milliseconds(timings.first_token)),
        }
    }
}

/// Returns the mean time per item in milliseconds; `None` without items.
fn each(time: Duration, count: usize) -> Option<f64> {
    (count > 0).then(|| round(milliseconds(time) / count as f64))
}

/// Rounds to microseconds.
fn round(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

/// Where the time of a request went. The parts follow each other, and add up to the total.
#[derive(Debug, Serialize)]
pub(crate) struct ProfileReport {
    parts_ms: PartsMs,
    total_ms: f64,
    /// Steps of the decoder that the request was in, those that read the forced prefix included.
    steps: usize,
    ms_per_step: Option<f64>,
    /// Tokens that were written.
    tokens: usize,
    /// What decoding and choosing took for each.
    ms_per_token: Option<f64>,
    /// From the request to its first token; it is among the parts.
    first_token_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
struct PartsMs {
    open: f64,
    pictures: f64,
    render: f64,
    load: f64,
    prepare: f64,
    queue: f64,
    encode: f64,
    decode: f64,
    select: f64,
    read_out: f64,
    other: f64,
}

/// A line of the table.
struct PartLine {
    name: &'static str,
    ms: f64,
    about: &'static str,
}

impl PartsMs {
    fn list(&self) -> [PartLine; 11] {
        let part = |name, ms, about| PartLine { name, ms, about };
        [
            part("open", self.open, "checkpoint and task files"),
            part("pictures", self.pictures, "reading, decoding and resizing them"),
            part("render", self.render, "inputs and prompt"),
            part("load", self.load, "weights, and starting the engine"),
            part("prepare", self.prepare, "checking the request, tokenizing"),
            part("queue", self.queue, "waiting to be admitted"),
            part("encode", self.encode, "the prompt, by the encoder"),
            part("decode", self.decode, "steps of the decoder"),
            part("select", self.select, "choosing tokens and making text of them"),
            part("read out", self.read_out, "taking and printing the answer"),
            part("other", self.other, "what is in no part"),
        ]
    }
}

impl ProfileReport {
    /// Prints the table on standard error.
    pub(crate) fn print(&self) {
        self.lines().iter().for_each(|line| note(line));
    }

    fn lines(&self) -> Vec<String> {
        let line = |name: &str, ms: f64, about: &str| {
            let share = 100.0 * ms / self.total_ms.max(f64::MIN_POSITIVE);
            format!("{name:<10}{ms:>10.3} ms {share:>5.1} %  {about}")
                .trim_end()
                .to_owned()
        };
        let parts = self.parts_ms.list();
        let mut lines: Vec<String> = parts
            .iter()
            .map(|part| line(part.name, part.ms, part.about))
            .collect();
        lines.push(line("total", self.total_ms, ""));
        for (count, what, each) in [
            (self.steps, "steps of the decoder", self.ms_per_step),
            (self.tokens, "tokens, decoded and chosen", self.ms_per_token),
        ] {
            lines.extend(each.map(|ms| format!("{count} {what}: {ms:.3} ms each")));
        }
        if let Some(ms) = self.first_token_ms {
            lines.push(format!("first token: {ms:.3} ms after the request"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A profile of whole milliseconds: 1 to 4 around a request of 40, which the answer exceeds by 5.
    fn report(new_tokens: usize) -> ProfileReport {
        let ms = Duration::from_millis;
        let profile = Profile {
            open: ms(1),
            render: ms(2),
            pictures: ms(3),
            load: ms(4),
            answer: ms(45),
            ..Profile::start()
        };
        let mut timings = Timings::default();
        (timings.prepare, timings.queued, timings.encode) = (ms(6), ms(7), ms(8));
        (timings.decode, timings.select, timings.steps) = (ms(9), ms(3), 3 * new_tokens / 2);
        timings.total = ms(40);
        timings.first_token = ms(if new_tokens > 0 { 25 } else { 0 });
        let usage = Usage {
            new_tokens,
            ..Usage::default()
        };
        profile.sum(ms(60), timings, usage)
    }

    #[test]
    fn the_parts_add_up_to_the_total_and_what_is_left_is_other() {
        let report = report(2);
        let parts = report.parts_ms.list().map(|part| part.ms.to_string()).join(" ");
        assert_eq!(parts, "1 3 2 4 6 7 8 9 3 5 12");
        let sum: f64 = report.parts_ms.list().iter().map(|part| part.ms).sum();
        assert!((sum - 60.0).abs() < 1e-9);
    }

    #[test]
    fn the_table_is_aligned_and_tells_of_tokens_only_where_some_were_written() {
        let lines = report(2).lines();
        let columns = |line: &String| (line.find(" ms"), line.find(" %"));
        let (parts, rest) = lines.split_at(12);
        assert!(
            parts.iter().all(|line| columns(line) == columns(&lines[0])),
            "{lines:#?}"
        );
        assert_eq!(parts[11], "total         60.000 ms 100.0 %");
        assert_eq!(
            rest,
            [
                "3 steps of the decoder: 3.000 ms each",
                "2 tokens, decoded and chosen: 6.000 ms each",
                "first token: 25.000 ms after the request",
            ]
        );
        assert_eq!(report(0).lines().len(), 12);
    }
}
