//! Greedy decoding and sampling: one answer or several to one prompt.

use super::decode::{Decode, StepOutcome, StepRow};
use super::logits_row::LogitsRow;
use super::prepared::PreparedRequest;
use super::sequence::Sequence;
use crate::answer::{FinishReason, Timings, Usage};
use crate::eos::EosTokens;
use crate::error::RequestError;
use crate::stream::EventSender;
use crate::tokenizer::Tokenizer;

/// Decodes a group of samples: one row and one cache slot for each, one memory for all.
///
/// What all have in common, the start token and the forced prefix, is decoded once, in the slot of the first,
/// which is copied when the first new tokens are chosen.
#[derive(Debug)]
pub(crate) struct Samples {
    running: Vec<Sample>,
    /// Samples that have ended and are not sent yet.
    ended: Vec<Sample>,
    /// Whether all samples still share one row.
    is_shared: bool,
}

#[derive(Debug)]
struct Sample {
    sequence: Sequence,
    slot: usize,
    /// Why it ended, if it has.
    reason: Option<FinishReason>,
}

impl Samples {
    /// Starts one sample for each stream; sample `i` draws from random stream `i` of the seed.
    pub(crate) fn new(
        prepared: &PreparedRequest,
        tokenizer: &Tokenizer,
        ends: &EosTokens,
        listeners: Vec<EventSender>,
    ) -> Self {
        let sample = |(index, events): (u64, EventSender)| Sample {
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

    /// Moves the samples that have ended out of the running ones.
    fn part(&mut self) {
        if self.running.iter().any(|sample| sample.reason.is_some()) {
            let all = std::mem::take(&mut self.running).into_iter();
            (self.ended, self.running) = all.partition(|sample| sample.reason.is_some());
        }
    }
}

impl Decode for Samples {
    fn start(&mut self, slots: Vec<usize>) {
        for (sample, slot) in self.running.iter_mut().zip(slots) {
            sample.slot = slot;
        }
    }

    /// The caller waits for all samples, so one closed stream is enough.
    fn is_cancelled(&self) -> bool {
        self.running.iter().any(|sample| sample.sequence.is_cancelled())
    }

    fn push_rows(&self, rows: &mut Vec<StepRow>) {
        let count = if self.is_shared { 1 } else { self.running.len() };
        let row = |sample: &Sample| {
            Some(StepRow {
                token: sample.sequence.input()?,
                slot: sample.slot,
            })
        };
        rows.extend(self.running.iter().take(count).filter_map(row));
    }

    /// All samples have the same settings.
    fn top_logits(&self) -> Option<usize> {
        self.running
            .first()
            .and_then(|sample| sample.sequence.top_logits())
    }

    /// Where one sample fails, all do.
    fn consume_logits(&mut self, rows: &[LogitsRow<'_>]) -> Result<StepOutcome, String> {
        let was_shared = self.is_shared;
        let mut step = StepOutcome::default();
        for (row, sample) in self.running.iter_mut().enumerate() {
            let row = rows.get(if was_shared { 0 } else { row });
            sample.reason = sample.sequence.consume_logits(row.copied().unwrap_or_default())?;
            step.written += usize::from(sample.sequence.new_tokens() > 0);
        }
        self.is_shared = step.written == 0;
        let first = self.running.first().map(|sample| sample.slot);
        self.part();
        if was_shared && !self.is_shared {
            let others = self.running.iter().map(|sample| sample.slot);
            let copy = |slot: usize| first.filter(|first| *first != slot).map(|first| (first, slot));
            step.copies = others.filter_map(copy).collect();
        }
        // Those of the last samples are cleared with the request.
        if !self.running.is_empty() {
            step.clears = self.ended.iter().map(|sample| sample.slot).collect();
        }
        Ok(step)
    }

    fn send_completed(&mut self, usage: Usage, timings: Timings) {
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

    fn is_done(&self) -> bool {
        self.running.is_empty()
    }

    fn fail(&mut self, error: RequestError) {
        for sample in self.running.iter_mut().chain(&mut self.ended) {
            sample.sequence.fail(error.clone());
        }
    }
}
