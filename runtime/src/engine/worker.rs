//! The engine's thread: receive, reap, admit, encode, decode, sample, emit, retire.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use multiway_model::kernels::{Ranking, rank_rows};
use multiway_model::{DecoderRow, ForwardError, PromptMemory};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::forward::Forward;
use super::prepared::Prepared;
use super::reading::{PromptToRead, Read, Reading};
use super::reply::{Reply, answer, is_gone};
use super::row::Row;
use super::samples::Samples;
use super::scoring::{CacheChanges, Scoring};
use super::search::Search;
use super::sequence::Sequence;
use super::stats::Counters;
use super::telemetry::{self, Clock};
use crate::answer::{Answered, CodeScore, FinishReason, Usage, WordScore};
use crate::error::RequestError;
use crate::scheduler::{Demand, RequestId, Scheduler};

/// What the engine's handles tell its thread. Requests are bounded by their places, so commands need no bound and
/// none waits behind a full queue.
#[derive(Debug)]
pub(crate) enum Command {
    Submit(Box<Submission>),
    Shutdown(Shutdown),
}

/// How to shut an engine down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Finish every request that was accepted, then stop.
    Drain,
    /// Stop before the next step; unfinished requests end with [`RequestError::ShutDown`].
    Abort,
}

/// A request on its way into the engine.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) prepared: Prepared,
    /// What is to be read off the encoded prompt.
    pub(crate) reading: Reading,
    pub(crate) work: Work,
    pub(crate) demand: Demand,
    pub(crate) usage: Usage,
    /// The place in the queue, given back when the request is admitted.
    pub(crate) place: OwnedSemaphorePermit,
    pub(crate) clock: Clock,
}

/// What a request is for.
#[derive(Debug)]
pub(crate) enum Work {
    Generate(Box<Sequence>),
    Samples(Box<Samples>),
    Search(Box<Search>),
    Score(Scoring),
    Embed(Reply<Vec<f32>>),
    /// Scores of the head's classes.
    Classify(Reply<Vec<f32>>),
    /// The likeliest words at each mask.
    Unmask(Reply<Vec<Vec<WordScore>>>),
    /// The likeliest visual codes of each hidden patch.
    Uncover(Reply<Vec<Vec<CodeScore>>>),
}

impl Work {
    /// Tells how many of the likeliest next tokens each of its rows must know, if any.
    fn ranks(&self) -> Option<usize> {
        match self {
            Self::Generate(sequence) => sequence.ranks(),
            Self::Samples(samples) => samples.ranks(),
            Self::Search(search) => search.ranks(),
            Self::Score(scoring) => scoring.ranks(),
            Self::Embed(_) | Self::Classify(_) | Self::Unmask(_) | Self::Uncover(_) => None,
        }
    }

    fn is_cancelled(&self) -> bool {
        match self {
            Self::Generate(sequence) => sequence.is_cancelled(),
            Self::Samples(samples) => samples.is_cancelled(),
            Self::Search(search) => search.is_cancelled(),
            Self::Score(scoring) => scoring.is_cancelled(),
            Self::Embed(reply) | Self::Classify(reply) => is_gone(reply),
            Self::Unmask(reply) => is_gone(reply),
            Self::Uncover(reply) => is_gone(reply),
        }
    }

    fn fail(&mut self, error: RequestError) {
        match self {
            Self::Generate(sequence) => sequence.fail(error),
            Self::Samples(samples) => samples.fail(&error),
            Self::Search(search) => search.fail(error),
            Self::Score(scoring) => scoring.fail(error),
            Self::Embed(reply) | Self::Classify(reply) => answer(reply, Err(error)),
            Self::Unmask(reply) => answer(reply, Err(error)),
            Self::Uncover(reply) => answer(reply, Err(error)),
        }
    }
}

/// A request that the engine has accepted.
struct Job {
    prepared: Prepared,
    reading: Reading,
    work: Work,
    usage: Usage,
    place: Option<OwnedSemaphorePermit>,
    clock: Clock,
    /// The first slot; a score has more and knows them itself.
    slot: usize,
    memory: Option<PromptMemory>,
}

/// The prompts that are being encoded.
struct Encoding {
    ids: Vec<RequestId>,
    /// How long the encoder has worked on them.
    busy: Duration,
}

/// How many rows are encoded at a time while texts are being written.
const SLICE_ROWS: usize = 128;

/// What a request is told whose logits cannot be ranked.
const NOT_FINITE: &str = "the model's logits are not finite numbers; its weights may be damaged";

/// Whether the thread goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

/// Owns the model and every running request.
pub(crate) struct Worker<F> {
    forward: F,
    commands: UnboundedReceiver<Command>,
    scheduler: Scheduler,
    jobs: BTreeMap<RequestId, Job>,
    encoding: Option<Encoding>,
    /// How long the last step took.
    step_time: Duration,
    /// The logits of the last step, `[B * V]`.
    logits: Vec<f32>,
    /// The likeliest tokens of each row of the last step.
    rankings: Vec<Ranking>,
    counters: Arc<Counters>,
    /// How many of the model's logits are in the tokenizer's vocabulary.
    vocabulary: usize,
    /// Where the clock of deadlines starts.
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

    /// Runs until the engine is shut down or its last handle is gone. Where the engine itself is broken, says so to every
    /// request that is there and to those that come.
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
            job.work.fail(end.clone());
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

    /// Takes all commands that have come; waits for one where there is nothing else to do.
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
            reading,
            mut work,
            demand,
            usage,
            place,
            mut clock,
        } = submission;
        let deadline = prepared
            .timeout
            .map(|timeout| clock.deadline(self.started, timeout));
        let id = self.scheduler.submit(Demand { deadline, ..demand });
        clock.taken(id.map(RequestId::number), usage);
        let Some(id) = id else {
            // The handles refuse what does not fit.
            let cause = "the request needs more than the engine can hold".to_owned();
            work.fail(RequestError::Failed { cause });
            self.counters.failed();
            return self.counters.retired();
        };
        let _request = clock.enter();
        tracing::debug!(request = id.number(), ?demand, ?usage, "request accepted");
        let job = Job {
            prepared,
            reading,
            work,
            usage,
            place: Some(place),
            clock,
            slot: 0,
            memory: None,
        };
        self.jobs.insert(id, job);
    }

    /// Forgets the requests that nobody waits for.
    fn reap(&mut self) {
        let cancelled = self.jobs.iter().filter(|(_, job)| job.work.is_cancelled());
        for id in cancelled.map(|(id, _)| *id).collect::<Vec<_>>() {
            let _request = self.jobs.get(&id).map(|job| job.clock.enter());
            tracing::debug!(request = id.number(), status = ?self.scheduler.status(id), "request cancelled");
            self.counters.cancelled();
            self.retire(id);
        }
    }

    /// Gives up the requests whose time has run out.
    fn expire(&mut self) {
        for id in self.scheduler.expired(self.started.elapsed()) {
            if let Some(job) = self.jobs.get_mut(&id) {
                let _request = job.clock.enter();
                let after = job.prepared.timeout.unwrap_or_default();
                tracing::debug!(request = id.number(), ?after, "request expired");
                job.work.fail(RequestError::DeadlineExceeded { after });
                self.counters.expired();
                self.retire(id);
            }
        }
    }

    /// Starts the requests that fit, and begins to encode their prompts, all in one packed batch.
    fn admit(&mut self) {
        let mut ids = Vec::new();
        let mut prompts = Vec::new();
        for admission in self.scheduler.admit() {
            let Some(job) = self.jobs.get_mut(&admission.id) else {
                continue;
            };
            job.place = None;
            job.clock.admitted(job.usage);
            job.slot = admission.slots.first().copied().unwrap_or_default();
            match &mut job.work {
                Work::Search(search) => search.begin(admission.slots),
                Work::Score(scoring) => scoring.begin(admission.slots),
                Work::Samples(samples) => samples.begin(&admission.slots),
                _ => {}
            }
            ids.push(admission.id);
            prompts.push(PromptToRead {
                images: std::mem::take(&mut job.prepared.images),
                pictures: job.prepared.pictures,
                tokens: job.prepared.tokens.clone(),
                reading: job.reading.clone(),
            });
        }
        if ids.is_empty() {
            return;
        }
        self.report();
        let since = Instant::now();
        let forward = &mut self.forward;
        let begun = guard(|| forward.begin(prompts));
        self.encoding = Some(Encoding {
            ids,
            busy: since.elapsed(),
        });
        if let Err(cause) = begun {
            self.fail_encoding(&cause);
        }
    }

    /// Goes on with encoding for as long as a step takes, so that what is written beside it waits at most about twice as
    /// long as else; without any, until the encoder has done a part of a layer.
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
        let forward = &mut self.forward;
        let slices = || {
            loop {
                let read = forward.advance(rows)?;
                if read.is_some() || since.elapsed() >= time {
                    return Ok(read);
                }
            }
        };
        let read = guard(slices);
        encoding.busy += since.elapsed();
        match read {
            Ok(None) => {}
            Ok(Some(reads)) if reads.len() == encoding.ids.len() => self.hand_out(reads),
            Ok(Some(reads)) => {
                let cause = format!("{} prompts gave {} results", encoding.ids.len(), reads.len());
                self.fail_encoding(&cause);
            }
            Err(cause) => self.fail_encoding(&cause),
        }
    }

    /// Hands what was read off the encoded prompts to those that have not gone meanwhile.
    fn hand_out(&mut self, reads: Vec<Read>) {
        let Some(encoding) = self.encoding.take() else {
            return;
        };
        self.counters.encoded(encoding.busy);
        for (id, read) in encoding.ids.into_iter().zip(reads) {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.clock.encoded(encoding.busy);
            }
            self.take(id, read);
        }
    }

    fn fail_encoding(&mut self, cause: &str) {
        self.forward.abandon();
        if let Some(encoding) = self.encoding.take() {
            self.fail_all(&encoding.ids, cause);
        }
    }

    /// Gives up encoding where all have gone that wait for it.
    fn abandon(&mut self) {
        let encoding = self.encoding.as_ref();
        if encoding.is_some_and(|encoding| !encoding.ids.iter().any(|id| self.jobs.contains_key(id))) {
            tracing::debug!("encoding given up");
            self.forward.abandon();
            self.encoding = None;
        }
    }

    /// Hands what was read off a prompt to its request: a memory to go on with, or the answer itself.
    fn take(&mut self, id: RequestId, read: Read) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (usage, timings) = (job.usage, job.clock.stop());
        match (&mut job.work, read) {
            (
                Work::Generate(_) | Work::Samples(_) | Work::Search(_) | Work::Score(_),
                Read::Memory(memory),
            ) => {
                job.memory = Some(memory);
                return self.scheduler.encoded(id);
            }
            (Work::Embed(reply), Read::Embedding(embedding)) => {
                answer(reply, Ok(Answered::new(embedding, usage, timings)))
            }
            (Work::Classify(reply), Read::Classes(scores)) => {
                answer(reply, Ok(Answered::new(scores, usage, timings)))
            }
            (Work::Unmask(reply), Read::Words(words)) => {
                answer(reply, Ok(Answered::new(words, usage, timings)))
            }
            (Work::Uncover(reply), Read::Codes(codes)) => {
                answer(reply, Ok(Answered::new(codes, usage, timings)))
            }
            (_, read) => {
                let cause = match read {
                    Read::NotFinite => NOT_FINITE,
                    _ => "the model gave something else than what was asked for",
                };
                let cause = cause.to_owned();
                return self.fail(id, RequestError::Failed { cause });
            }
        }
        self.counters.finished();
        self.retire(id);
    }

    /// Advances every running request by one token.
    fn decode(&mut self) {
        let mut rows: Vec<DecoderRow> = Vec::new();
        // Which request has how many rows, in the order of the rows; and how many of the likeliest tokens each row must know.
        let mut owners: Vec<(RequestId, usize)> = Vec::new();
        let mut ranks: Vec<Option<usize>> = Vec::new();
        for id in self.scheduler.decoding() {
            let Some(job) = self.jobs.get(&id) else { continue };
            let Some(memory) = &job.memory else { continue };
            let before = rows.len();
            match &job.work {
                Work::Generate(sequence) => {
                    rows.extend(sequence.input().map(|token| DecoderRow {
                        token,
                        slot: job.slot,
                        memory,
                    }));
                }
                Work::Samples(samples) => {
                    let own = samples.rows().into_iter();
                    rows.extend(own.map(|(token, slot)| DecoderRow { token, slot, memory }));
                }
                Work::Search(search) => {
                    let own = search.rows().into_iter();
                    rows.extend(own.map(|(token, slot)| DecoderRow { token, slot, memory }));
                }
                Work::Score(scoring) => {
                    let own = scoring.rows().into_iter();
                    rows.extend(own.map(|(token, slot)| DecoderRow { token, slot, memory }));
                }
                Work::Embed(_) | Work::Classify(_) | Work::Unmask(_) | Work::Uncover(_) => {}
            }
            owners.push((id, rows.len() - before));
            ranks.resize(rows.len(), job.work.ranks());
        }
        if rows.is_empty() {
            return;
        }
        tracing::Span::current().record("rows", rows.len());
        let _span = tracing::debug_span!("decode", rows = rows.len()).entered();
        self.counters.step(rows.len());
        let since = Instant::now();
        let forward = &mut self.forward;
        // The next step writes into the same memory.
        let mut scores = std::mem::take(&mut self.logits);
        let mut rankings = std::mem::take(&mut self.rankings);
        let vocabulary = self.vocabulary;
        let step = guard(|| {
            forward.step(&rows, &mut scores)?;
            rank_rows(
                &scores,
                scores.len() / rows.len(),
                vocabulary,
                &ranks,
                &mut rankings,
            );
            Ok(())
        });
        let took = since.elapsed();
        self.counters.stepped(took);
        match step {
            Ok(()) => {
                let width = scores.len() / rows.len();
                let vocabulary = vocabulary.min(width);
                let ranked = rankings.iter().zip(&ranks);
                let ranked = ranked.map(|(ranking, ranks)| ranks.map(|_| ranking));
                let mut logits = scores
                    .chunks_exact(width.max(1))
                    .zip(ranked)
                    .filter_map(|(row, ranking)| Some(Row::new(row.get(..vocabulary)?, ranking)));
                for (id, count) in owners {
                    let own: Vec<Row> = logits.by_ref().take(count).collect();
                    self.advance(id, &own, took);
                }
            }
            Err(cause) => {
                let ids: Vec<RequestId> = owners.into_iter().map(|(id, _)| id).collect();
                self.fail_all(&ids, &cause);
            }
        }
        self.logits = scores;
        self.rankings = rankings;
        self.step_time = since.elapsed();
    }

    /// Hands the logits of a step, which took so long, to the request that they belong to.
    fn advance(&mut self, id: RequestId, logits: &[Row<'_>], took: Duration) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.clock.stepped(took);
        let outcome = match &mut job.work {
            Work::Generate(sequence) => {
                let outcome = sequence.advance(logits.first().copied().unwrap_or_default());
                if sequence.new_tokens() > 0 {
                    job.clock.token();
                    self.counters.token();
                }
                if let Ok(Some(reason)) = outcome {
                    finish(job, reason);
                }
                outcome.map(|reason| reason.is_some())
            }
            Work::Samples(samples) => match samples.advance(logits) {
                Ok(step) => {
                    if step.written > 0 {
                        job.clock.token();
                    }
                    (0..step.written).for_each(|_| self.counters.token());
                    apply(&mut self.forward, &step.changes).map(|()| {
                        samples.finish_ended(job.usage, job.clock.stop());
                        samples.is_done()
                    })
                }
                Err(cause) => Err(cause),
            },
            Work::Search(search) => match search.advance(logits) {
                Ok(changes) => {
                    if search.new_tokens() > 0 {
                        job.clock.token();
                        self.counters.token();
                    }
                    apply(&mut self.forward, &changes).map(|()| {
                        if search.is_done() {
                            search.finish(job.usage, job.clock.stop());
                        }
                        search.is_done()
                    })
                }
                Err(cause) => Err(cause),
            },
            Work::Score(scoring) => match scoring.advance(logits) {
                Ok(changes) => apply(&mut self.forward, &changes).map(|()| {
                    if scoring.is_done() {
                        scoring.finish(job.usage, job.clock.stop());
                    }
                    scoring.is_done()
                }),
                Err(cause) => Err(cause),
            },
            Work::Embed(_) | Work::Classify(_) | Work::Unmask(_) | Work::Uncover(_) => Ok(true),
        };
        match outcome {
            Ok(false) => job.clock.selected(),
            Ok(true) => {
                let _request = job.clock.enter();
                tracing::debug!(request = id.number(), "request finished");
                self.counters.finished();
                self.retire(id);
            }
            Err(cause) => self.fail(id, RequestError::Failed { cause }),
        }
    }

    fn fail_all(&mut self, ids: &[RequestId], cause: &str) {
        tracing::error!(requests = ids.len(), cause, "a step failed");
        for id in ids {
            self.fail(
                *id,
                RequestError::Failed {
                    cause: cause.to_owned(),
                },
            );
        }
    }

    fn fail(&mut self, id: RequestId, error: RequestError) {
        if let Some(job) = self.jobs.get_mut(&id) {
            let _request = job.clock.enter();
            tracing::debug!(request = id.number(), %error, "request failed");
            job.work.fail(error);
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
            self.forward.clear(slot);
        }
    }

    fn report(&self) {
        self.counters.set_load(&self.scheduler, self.forward.reuse());
    }
}

fn finish(job: &mut Job, reason: FinishReason) {
    if let Work::Generate(sequence) = &mut job.work {
        let usage = Usage {
            new_tokens: sequence.new_tokens(),
            ..job.usage
        };
        sequence.finish(reason, usage, job.clock.stop());
    }
}

fn apply(forward: &mut impl Forward, changes: &CacheChanges) -> Result<(), String> {
    for (from, to) in &changes.copies {
        guard(|| forward.copy(*from, *to))?;
    }
    for slot in &changes.clears {
        forward.clear(*slot);
    }
    Ok(())
}

/// Runs a part of a step; an error and a panic both come back as a cause.
///
/// After a panic only slots of that step's requests can be in disorder, and these are cleared when the requests end.
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
