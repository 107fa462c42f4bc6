//! Several answers to one prompt, each drawn by itself.

use super::prepared::Prepared;
use super::row::Row;
use super::scoring::CacheChanges;
use super::sequence::Sequence;
use crate::answer::{FinishReason, Timings, Usage};
use crate::ends::Ends;
use crate::error::RequestError;
use crate::stream::Events;
use crate::tokenizer::{TokenId, Tokenizer};

/// Draws answers in the engine: one row and one cache slot for each, one memory for all.
///
/// What all begin with, the start token and the forced prefix, is read once, in the first one's slot, which is copied
/// when the first tokens are drawn.
#[derive(Debug)]
pub(crate) struct Samples {
    running: Vec<Sample>,
    /// Those that have ended and whose callers do not know it yet.
    ended: Vec<Sample>,
    /// Whether no token was drawn yet.
    is_shared: bool,
}

#[derive(Debug)]
struct Sample {
    sequence: Sequence,
    slot: usize,
    /// Why it has ended, if it has.
    reason: Option<FinishReason>,
}

/// What a step did.
#[derive(Debug)]
pub(crate) struct SamplesStep {
    pub(crate) changes: CacheChanges,
    /// How many tokens were written.
    pub(crate) written: usize,
}

impl Samples {
    /// Takes whoever listens to each sample; the `i`-th draws from the `i`-th stream of the seed.
    pub(crate) fn new(
        prepared: &Prepared,
        tokenizer: &Tokenizer,
        ends: &Ends,
        listeners: Vec<Events>,
    ) -> Self {
        let sample = |(index, events): (u64, Events)| Sample {
            sequence: Sequence::new(prepared, tokenizer, ends, events).draw_from_stream(index),
            slot: 0,
            reason: None,
        };
        Self {
            running: (0..).zip(listeners).map(sample).collect(),
            ended: Vec::new(),
            is_shared: true,
        }
    }

    /// Starts in the slots that the request was given.
    pub(crate) fn begin(&mut self, slots: &[usize]) {
        for (sample, slot) in self.running.iter_mut().zip(slots) {
            sample.slot = *slot;
        }
    }

    /// Tells whether nobody waits for the answers any more. Whoever waits does so for all of them.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.running.iter().any(|sample| sample.sequence.is_cancelled())
    }

    /// Lists the rows of the next step: a token and a slot each.
    pub(crate) fn rows(&self) -> Vec<(TokenId, usize)> {
        let count = if self.is_shared { 1 } else { self.running.len() };
        let row = |sample: &Sample| Some((sample.sequence.input()?, sample.slot));
        self.running.iter().take(count).filter_map(row).collect()
    }

    /// Tells how many of the likeliest tokens each row must know: all have the same settings.
    pub(crate) fn ranks(&self) -> Option<usize> {
        self.running.first().and_then(|sample| sample.sequence.ranks())
    }

    /// Takes the logits of the rows. Where one sample fails, all do.
    pub(crate) fn advance(&mut self, rows: &[Row<'_>]) -> Result<SamplesStep, String> {
        let was_shared = self.is_shared;
        let mut written = 0;
        for (row, sample) in self.running.iter_mut().enumerate() {
            let next = rows.get(if was_shared { 0 } else { row });
            sample.reason = sample.sequence.advance(next.copied().unwrap_or_default())?;
            written += usize::from(sample.sequence.new_tokens() > 0);
        }
        self.is_shared = written == 0;
        let first = self.running.first().map(|sample| sample.slot);
        let running = std::mem::take(&mut self.running).into_iter();
        let (ended, running) = running.partition(|sample| sample.reason.is_some());
        (self.ended, self.running) = (ended, running);
        let mut changes = CacheChanges::default();
        if was_shared && !self.is_shared {
            let others = self.running.iter().map(|sample| sample.slot);
            let copy = |slot: usize| first.filter(|first| *first != slot).map(|first| (first, slot));
            changes.copies = others.filter_map(copy).collect();
        }
        changes.clears = self.ended.iter().map(|sample| sample.slot).collect();
        Ok(SamplesStep { changes, written })
    }

    /// Tells whether every sample has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.running.is_empty()
    }

    /// Gives out the ends of the samples that the last step has ended.
    pub(crate) fn finish_ended(&mut self, usage: Usage, timings: Timings) {
        for Sample {
            mut sequence, reason, ..
        } in self.ended.drain(..)
        {
            let new_tokens = sequence.new_tokens();
            if let Some(reason) = reason {
                sequence.finish(reason, Usage { new_tokens, ..usage }, timings);
            }
        }
    }

    /// Gives out an error to every sample instead.
    pub(crate) fn fail(&mut self, error: &RequestError) {
        for sample in self.running.iter_mut().chain(&mut self.ended) {
            sample.sequence.fail(error.clone());
        }
    }
}
