//! Scoring candidates: the log-likelihood of given answers.

use std::ops::Range;

use super::decode::{Decode, StepOutcome, StepRow};
use super::logits_row::LogitsRow;
use super::reply::Reply;
use crate::answer::{Answered, Score, Timings, Usage};
use crate::error::{NOT_FINITE, RequestError};
use crate::tokenizer::TokenId;

/// Scores candidates in waves, walking the trie of their tokens: a common prefix is decoded once.
///
/// Candidates are sorted, so those with a common prefix are adjacent. A wave has one cache slot per
/// candidate; a group with a common prefix uses the slot of its first member, which is copied where the group
/// splits.
#[derive(Debug)]
pub(crate) struct CandidateScoring {
    /// The decoder's start token.
    start: TokenId,
    /// How many tokens of each target are the forced prefix, which is not scored.
    prefix: usize,
    /// Sorted targets: prefix, candidate, `</s>`.
    targets: Vec<Vec<TokenId>>,
    /// The candidate's index of each sorted target.
    order: Vec<usize>,
    /// The log-probabilities of each sorted target's tokens after the forced prefix, as far as they are
    /// decoded.
    log_probabilities: Vec<Vec<f32>>,
    slots: Vec<usize>,
    wave: Range<usize>,
    /// How many tokens of this wave's targets are decoded.
    depth: usize,
    groups: Vec<Range<usize>>,
    reply: Reply<Vec<Score>>,
}

impl CandidateScoring {
    /// Starts scoring targets that all begin with the same `prefix` tokens and end in `</s>`.
    pub(crate) fn new(
        start: TokenId,
        prefix: usize,
        targets: Vec<Vec<TokenId>>,
        reply: Reply<Vec<Score>>,
    ) -> Self {
        let mut indexed: Vec<(usize, Vec<TokenId>)> = targets.into_iter().enumerate().collect();
        indexed.sort_by(|(_, a), (_, b)| a.cmp(b));
        let (order, targets): (Vec<usize>, Vec<Vec<TokenId>>) = indexed.into_iter().unzip();
        let log_probabilities = vec![Vec::new(); targets.len()];
        Self {
            start,
            prefix,
            targets,
            order,
            log_probabilities,
            slots: Vec::new(),
            wave: 0..0,
            depth: 0,
            groups: Vec::new(),
            reply,
        }
    }

    fn next_wave(&mut self) {
        let start = self.wave.end;
        let end = self.targets.len().min(start + self.slots.len());
        self.wave = start..end;
        self.depth = 0;
        self.groups = (start < end).then_some(start..end).into_iter().collect();
    }

    fn token(&self, target: usize, position: usize) -> Option<TokenId> {
        self.targets.get(target)?.get(position).copied()
    }

    fn slot(&self, target: usize) -> Option<usize> {
        self.slots.get(target.checked_sub(self.wave.start)?).copied()
    }

    /// Records the log-probability of the next token of each member of a group.
    fn note(&mut self, group: Range<usize>, row: LogitsRow<'_>) -> Result<(), String> {
        if self.depth < self.prefix {
            return Ok(());
        }
        let ranking = row.ranking(0);
        for member in group {
            let token = self
                .token(member, self.depth)
                .and_then(|token| usize::try_from(token).ok());
            let logit = token.and_then(|token| row.logits.get(token));
            let value = logit.and_then(|logit| ranking.log_probability(*logit));
            match (value, self.log_probabilities.get_mut(member)) {
                (Some(value), Some(log_probabilities)) => log_probabilities.push(value),
                _ => {
                    return Err(NOT_FINITE.to_owned());
                }
            }
        }
        Ok(())
    }

    /// Splits a group by its next token; members that end with that token drop out.
    fn split(&self, group: Range<usize>) -> Vec<Range<usize>> {
        let mut parts: Vec<Range<usize>> = Vec::new();
        for member in group {
            if self
                .targets
                .get(member)
                .is_none_or(|target| target.len() <= self.depth + 1)
            {
                continue;
            }
            match parts.last_mut() {
                Some(part) if self.token(part.start, self.depth) == self.token(member, self.depth) => {
                    part.end = member + 1;
                }
                _ => parts.push(member..member + 1),
            }
        }
        parts
    }
}

impl Decode for CandidateScoring {
    fn start(&mut self, slots: Vec<usize>) {
        self.slots = slots;
        self.next_wave();
    }

    fn is_cancelled(&self) -> bool {
        self.reply.is_closed()
    }

    fn push_rows(&self, rows: &mut Vec<StepRow>) {
        let row = |group: &Range<usize>| {
            let token = match self.depth.checked_sub(1) {
                None => self.start,
                Some(last) => self.token(group.start, last)?,
            };
            let slot = self.slot(group.start)?;
            Some(StepRow { token, slot })
        };
        rows.extend(self.groups.iter().filter_map(row));
    }

    /// A target's log-probability needs the log-sum-exp alone, no top-k.
    fn top_logits(&self) -> Option<usize> {
        (self.depth >= self.prefix).then_some(0)
    }

    fn consume_logits(&mut self, rows: &[LogitsRow<'_>]) -> Result<StepOutcome, String> {
        let mut step = StepOutcome::default();
        let mut next = Vec::new();
        let groups = std::mem::take(&mut self.groups);
        for (group, row) in groups.into_iter().zip(rows) {
            self.note(group.clone(), *row)?;
            for part in self.split(group.clone()) {
                if part.start != group.start {
                    step.copies
                        .extend(self.slot(group.start).zip(self.slot(part.start)));
                }
                next.push(part);
            }
        }
        self.depth += 1;
        self.groups = next;
        if self.groups.is_empty() {
            step.clears.clone_from(&self.slots);
            self.next_wave();
        }
        Ok(step)
    }

    fn send_completed(&mut self, usage: Usage, timings: Timings) {
        if !self.is_done() {
            return;
        }
        let targets = std::mem::take(&mut self.targets).into_iter();
        let scores = targets
            .zip(std::mem::take(&mut self.log_probabilities))
            .map(|(mut target, log_probabilities)| score(target.split_off(self.prefix), log_probabilities));
        let mut indexed: Vec<(usize, Score)> = self.order.iter().copied().zip(scores).collect();
        indexed.sort_unstable_by_key(|(index, _)| *index);
        let scores = indexed.into_iter().map(|(_, score)| score).collect();
        self.reply.send(Ok(Answered::new(scores, usage, timings)));
    }

    fn is_done(&self) -> bool {
        self.groups.is_empty()
    }

    fn fail(&mut self, error: RequestError) {
        self.reply.send(Err(error));
    }
}

/// Sums the log-probabilities of a candidate's tokens.
fn score(tokens: Vec<TokenId>, log_probabilities: Vec<f32>) -> Score {
    let sum: f64 = log_probabilities.iter().map(|value| f64::from(*value)).sum();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "log-probabilities are given out in 32 bits"
    )]
    let log_probability = sum as f32;
    Score {
        log_probability,
        tokens,
        log_probabilities,
    }
}
