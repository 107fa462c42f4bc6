//! The engine's thread: receive, reap, expire, abandon, admit, encode, decode, report.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use multiway_model::kernels::{Ranking, rank_rows};
use multiway_model::{DecoderRow, ForwardError};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::command::{Command, Shutdown, Submission};
use super::decode::{StepOutcome, StepRow};
use super::forward::Forward;
use super::job::{Job, Work};
use super::logits_row::LogitsRow;
use super::readout::EncodedPrompt;
use super::stats::Counters;
use super::telemetry;
use crate::error::{NOT_FINITE, RequestError};
use crate::scheduler::{Demand, RequestId, Scheduler};

/// How many rows are encoded at a time while others decode.
const SLICE_ROWS: usize = 128;

/// Whether the loop goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

/// The requests whose prompts are being encoded.
struct EncodingRequests {
    ids: Vec<RequestId>,
    /// How long the encoder has worked for them.
    busy: Duration,
}

/// Owns the model and every running request.
pub(crate) struct Worker<F> {
    forward: F,
    commands: UnboundedReceiver<Command>,
    scheduler: Scheduler,
    jobs: BTreeMap<RequestId, Job>,
    encoding: Option<EncodingRequests>,
    /// How long the last step took.
    step_time: Duration,
    /// The logits of the last step, `[B * V]`; the next one writes into the same memory.
    logits: Vec<f32>,
    /// The highest logits of each row of the last step.
    rankings: Vec<Ranking>,
    counters: Arc<Counters>,
    /// How many of the model's logits are in the tokenizer's vocabulary.
    vocabulary: usize,
    /// The epoch of deadlines.
    started: Instant,
    draining: bool,
}

impl<F: Forward> Worker<F> {
    pub(crate) fn new(
        forward: F,
        commands: UnboundedReceiver<Command>,
        scheduler: Scheduler,
        counters: Arc<Counters>,
        vocabulary: usize,
    ) -> Self {
        Self {
            forward,
            commands,
            scheduler,
            jobs: BTreeMap::new(),
            encoding: None,
            step_time: Duration::ZERO,
            logits: Vec::new(),
            rankings: Vec::new(),
            counters,
            vocabulary,
            started: Instant::now(),
            draining: false,
        }
    }

    /// Runs until the engine is shut down or its last handle is dropped. After a panic outside of a step,
    /// fails all requests, now and later, with the cause.
    pub(crate) fn run(mut self, poison: &OnceLock<String>) {
        tracing::debug!("engine started");
        let turns = catch_unwind(AssertUnwindSafe(|| self.turn()));
        let mut end = RequestError::ShutDown;
        if let Err(panic) = turns {
            let cause = message(&*panic).to_owned();
            tracing::error!(cause, "the engine panicked outside of a step");
            end = RequestError::Poisoned {
                cause: poison.get_or_init(|| cause).clone(),
            };
        }
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Submit(submission) = command {
                self.accept(*submission);
            }
        }
        for (id, mut job) in std::mem::take(&mut self.jobs) {
            job.fail(end.clone());
            self.scheduler.finish(id);
            self.counters.failed();
            self.counters.retired();
        }
        self.report();
        tracing::debug!("engine stopped");
    }

    fn turn(&mut self) {
        while self.receive() == Flow::Continue {
            let _step = telemetry::step_span();
            self.reap();
            self.expire();
            self.abandon();
            self.admit();
            self.encode();
            self.decode();
            self.report();
        }
    }

    /// Receives all pending commands; blocks if there is nothing else to do.
    fn receive(&mut self) -> Flow {
        loop {
            let command = if self.jobs.is_empty() {
                if self.draining && self.commands.is_empty() {
                    return Flow::Stop;
                }
                self.commands.blocking_recv().ok_or(TryRecvError::Disconnected)
            } else {
                self.commands.try_recv()
            };
            match command {
                Ok(Command::Submit(submission)) => self.accept(*submission),
                Ok(Command::Shutdown(Shutdown::Drain)) => self.draining = true,
                Ok(Command::Shutdown(Shutdown::Abort)) => return Flow::Stop,
                Err(TryRecvError::Empty) => return Flow::Continue,
                Err(TryRecvError::Disconnected) if self.draining && !self.jobs.is_empty() => {
                    return Flow::Continue;
                }
                Err(TryRecvError::Disconnected) => return Flow::Stop,
            }
        }
    }

    fn accept(&mut self, submission: Submission) {
        let Submission {
            prepared,
            work,
            demand,
            usage,
            permit,
            mut clock,
        } = submission;
        let deadline = prepared
            .timeout
            .map(|timeout| clock.deadline(self.started, timeout));
        let id = self.scheduler.submit(Demand { deadline, ..demand });
        clock.taken(id.map(RequestId::number), usage);
        let mut job = Job {
            prepared,
            work,
            usage,
            permit: Some(permit),
            clock,
            memory: None,
        };
        let Some(id) = id else {
            // The handles refuse what could never be admitted.
            let cause = "the request needs more than the engine can hold".to_owned();
            job.fail(RequestError::Failed { cause });
            self.counters.failed();
            return self.counters.retired();
        };
        let _request = job.clock.enter();
        tracing::debug!(request = id.number(), ?demand, ?usage, "request accepted");
        self.jobs.insert(id, job);
    }

    /// Drops the requests that were cancelled.
    fn reap(&mut self) {
        let cancelled = self.jobs.iter().filter(|(_, job)| job.is_cancelled());
        for id in cancelled.map(|(id, _)| *id).collect::<Vec<_>>() {
            let _request = self.jobs.get(&id).map(|job| job.clock.enter());
            tracing::debug!(request = id.number(), status = ?self.scheduler.status(id), "request cancelled");
            self.counters.cancelled();
            self.retire(id);
        }
    }

    /// Fails the requests whose deadline has passed.
    fn expire(&mut self) {
        for id in self.scheduler.expired(self.started.elapsed()) {
            if let Some(job) = self.jobs.get_mut(&id) {
                let _request = job.clock.enter();
                let after = job.prepared.timeout.unwrap_or_default();
                tracing::debug!(request = id.number(), ?after, "request expired");
                job.fail(RequestError::DeadlineExceeded { after });
                self.counters.expired();
                self.retire(id);
            }
        }
    }

    /// Abandons the encoding if all of its requests have gone.
    fn abandon(&mut self) {
        let encoding = self.encoding.as_ref();
        if encoding.is_some_and(|encoding| !encoding.ids.iter().any(|id| self.jobs.contains_key(id))) {
            tracing::debug!("encoding given up");
            self.forward.abandon_encoding();
            self.encoding = None;
        }
    }

    /// Admits the requests that fit, and begins to encode their prompts in one packed batch.
    fn admit(&mut self) {
        let mut ids = Vec::new();
        let mut prompts = Vec::new();
        for admission in self.scheduler.admit() {
            if let Some(job) = self.jobs.get_mut(&admission.id) {
                job.start(admission.slots);
                ids.push(admission.id);
                prompts.push(job.prompt());
            }
        }
        if ids.is_empty() {
            return;
        }
        self.report();
        let since = Instant::now();
        let begun = guard(|| self.forward.begin_encoding(prompts));
        self.encoding = Some(EncodingRequests {
            ids,
            busy: since.elapsed(),
        });
        if let Err(cause) = begun {
            self.fail_encoding(&cause);
        }
    }

    /// Encodes for as long as the last step took, so that running streams are at most about twice as slow;
    /// without any, one part of a layer.
    fn encode(&mut self) {
        let Some(encoding) = &mut self.encoding else {
            return;
        };
        let (rows, time) = match self.scheduler.decoding().next() {
            Some(_) => (SLICE_ROWS, self.step_time),
            None => (usize::MAX, Duration::ZERO),
        };
        tracing::Span::current().record("encoded", encoding.ids.len());
        let _span = tracing::debug_span!("encode", requests = encoding.ids.len()).entered();
        let since = Instant::now();
        let encoded = guard(|| {
            loop {
                let encoded = self.forward.advance_encoding(rows)?;
                if encoded.is_some() || since.elapsed() >= time {
                    return Ok(encoded);
                }
            }
        });
        encoding.busy += since.elapsed();
        match encoded {
            Ok(None) => {}
            Ok(Some(prompts)) if prompts.len() == encoding.ids.len() => self.hand_out(prompts),
            Ok(Some(prompts)) => {
                let cause = format!("{} prompts gave {} results", encoding.ids.len(), prompts.len());
                self.fail_encoding(&cause);
            }
            Err(cause) => self.fail_encoding(&cause),
        }
    }

    /// Distributes the encoded prompts to the requests that are still there.
    fn hand_out(&mut self, prompts: Vec<EncodedPrompt>) {
        let Some(encoding) = self.encoding.take() else {
            return;
        };
        self.counters.encoded(encoding.busy);
        for (id, prompt) in encoding.ids.into_iter().zip(prompts) {
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            job.clock.encoded(encoding.busy);
            match prompt {
                EncodedPrompt::Memory(memory) => {
                    job.memory = Some(memory);
                    self.scheduler.encoded(id);
                }
                EncodedPrompt::Value(value) => {
                    job.answer(value);
                    self.counters.finished();
                    self.retire(id);
                }
                EncodedPrompt::NotFinite => self.fail(id, NOT_FINITE.to_owned()),
            }
        }
    }

    fn fail_encoding(&mut self, cause: &str) {
        self.forward.abandon_encoding();
        if let Some(encoding) = self.encoding.take() {
            self.fail_all(&encoding.ids, cause);
        }
    }

    /// Advances every running request by one token.
    fn decode(&mut self) {
        let mut rows: Vec<DecoderRow> = Vec::new();
        // The number of rows of each request, in the order of the rows; and the top-k logits that each row
        // needs.
        let mut owners: Vec<(RequestId, usize)> = Vec::new();
        let mut top_logits: Vec<Option<usize>> = Vec::new();
        let mut own: Vec<StepRow> = Vec::new();
        for id in self.scheduler.decoding() {
            if let Some((decode, memory)) = self.jobs.get(&id).and_then(Job::decoding) {
                decode.push_rows(&mut own);
                owners.push((id, own.len()));
                let row = |StepRow { token, slot }| DecoderRow { token, slot, memory };
                rows.extend(own.drain(..).map(row));
                top_logits.resize(rows.len(), decode.top_logits());
            }
        }
        if rows.is_empty() {
            return;
        }
        tracing::Span::current().record("rows", rows.len());
        let _span = tracing::debug_span!("decode", rows = rows.len()).entered();
        self.counters.step(rows.len());
        let since = Instant::now();
        let mut logits = std::mem::take(&mut self.logits);
        let mut rankings = std::mem::take(&mut self.rankings);
        let step = guard(|| {
            self.forward.decode_step(&rows, &mut logits)?;
            let width = logits.len() / rows.len();
            rank_rows(&logits, width, self.vocabulary, &top_logits, &mut rankings);
            Ok(width)
        });
        let took = since.elapsed();
        self.counters.stepped(took);
        match step {
            Ok(width) => {
                let vocabulary = self.vocabulary.min(width);
                let ranked = rankings.iter().zip(&top_logits);
                let ranked = ranked.map(|(ranking, wanted)| wanted.map(|_| ranking));
                let rows = logits.chunks_exact(width.max(1)).zip(ranked);
                let rows =
                    rows.filter_map(|(row, ranking)| Some(LogitsRow::new(row.get(..vocabulary)?, ranking)));
                let rows: Vec<LogitsRow> = rows.collect();
                let mut rest = rows.as_slice();
                for (id, count) in owners {
                    let (own, others) = rest.split_at(count.min(rest.len()));
                    rest = others;
                    self.consume_logits(id, own, took);
                }
            }
            Err(cause) => {
                let ids: Vec<RequestId> = owners.into_iter().map(|(id, _)| id).collect();
                self.fail_all(&ids, &cause);
            }
        }
        self.logits = logits;
        self.rankings = rankings;
        self.step_time = since.elapsed();
    }

    /// Lets a request choose its next tokens by the logits of its rows.
    fn consume_logits(&mut self, id: RequestId, rows: &[LogitsRow<'_>], took: Duration) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Work::Decode(decode) = &mut job.work else {
            return;
        };
        job.clock.stepped(took);
        let step = match decode.consume_logits(rows) {
            Ok(step) => step,
            Err(cause) => return self.fail(id, cause),
        };
        if step.written > 0 {
            job.clock.token();
            self.counters.tokens(step.written);
        }
        if let Err(cause) = update_cache(&mut self.forward, &step) {
            return self.fail(id, cause);
        }
        decode.send_completed(job.usage, job.clock.stop());
        if decode.is_done() {
            let _request = job.clock.enter();
            tracing::debug!(request = id.number(), "request finished");
            self.counters.finished();
            self.retire(id);
        }
    }

    fn fail_all(&mut self, ids: &[RequestId], cause: &str) {
        tracing::error!(requests = ids.len(), cause, "a step failed");
        for id in ids {
            self.fail(*id, cause.to_owned());
        }
    }

    fn fail(&mut self, id: RequestId, cause: String) {
        if let Some(job) = self.jobs.get_mut(&id) {
            let _request = job.clock.enter();
            let error = RequestError::Failed { cause };
            tracing::debug!(request = id.number(), %error, "request failed");
            job.fail(error);
            self.counters.failed();
            self.retire(id);
        }
    }

    /// Frees everything that a request holds.
    fn retire(&mut self, id: RequestId) {
        if self.jobs.remove(&id).is_some() {
            self.counters.retired();
        }
        for slot in self.scheduler.finish(id) {
            self.forward.clear_slot(slot);
        }
    }

    fn report(&self) {
        self.counters.set_load(&self.scheduler, self.forward.reuse());
    }
}

fn update_cache(forward: &mut impl Forward, step: &StepOutcome) -> Result<(), String> {
    for (from, to) in &step.copies {
        guard(|| forward.copy_slot(*from, *to))?;
    }
    for slot in &step.clears {
        forward.clear_slot(*slot);
    }
    Ok(())
}

/// Runs a part of a step; turns an error or a panic into a cause.
///
/// After a panic only the slots of that step's requests can be inconsistent, and these are cleared when the
/// requests end.
fn guard<T>(part: impl FnOnce() -> Result<T, ForwardError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(part)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("the model panicked: {}", message(&*panic))),
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
