//! One answer searched for with several beams.

use super::scoring::CacheChanges;
use super::sequence::Events;
use crate::beam::{BeamParams, BeamSearch, Finished};
use crate::error::RequestError;
use crate::logits::LogitsProcessor;
use crate::request::Prepared;
use crate::sampling::LogNormalizer;
use crate::stop::StopMatcher;
use crate::stream::{FinishReason, Hypothesis, StreamEvent, Timings, Usage};
use crate::tokenizer::{TokenId, Tokenizer};
use tokio::sync::oneshot;

pub(crate) type ListReply = oneshot::Sender<Result<Vec<Hypothesis>, RequestError>>;

/// Who waits for the answers.
#[derive(Debug)]
pub(crate) enum SearchReply {
    /// A stream, which gets the best answer once it is certain.
    Stream(Events),
    /// A caller who wants several answers with their scores.
    List(Option<ListReply>),
}

/// Runs a beam search in the engine: one row and one cache slot for each beam, one memory for all.
#[derive(Debug)]
pub(crate) struct Search {
    search: BeamSearch,
    processor: LogitsProcessor,
    /// The start token and the forced prefix.
    forced: Vec<TokenId>,
    /// How many of them the decoder has read.
    position: usize,
    slots: Vec<usize>,
    /// The slot of each running beam.
    beam_slots: Vec<usize>,
    end: TokenId,
    answers: usize,
    stop: Vec<String>,
    show_special: bool,
    tokenizer: Tokenizer,
    reply: SearchReply,
    steps: usize,
}

impl Search {
    pub(crate) fn new(prepared: &Prepared, tokenizer: &Tokenizer, end: TokenId, reply: SearchReply) -> Self {
        let sampling = &prepared.sampling;
        let params = BeamParams {
            width: sampling.beams,
            length_penalty: sampling.length_penalty,
            early_stopping: sampling.early_stopping,
            max_new_tokens: sampling.max_new_tokens,
            end,
        };
        Self {
            search: BeamSearch::new(params),
            processor: LogitsProcessor::new(sampling, prepared.start.len(), end),
            forced: prepared.start.clone(),
            position: 0,
            slots: Vec::new(),
            beam_slots: Vec::new(),
            end,
            answers: sampling.answers,
            stop: sampling.stop.clone(),
            show_special: sampling.show_special,
            tokenizer: tokenizer.clone(),
            reply,
            steps: 0,
        }
    }

    /// Starts in the slots that the request was given.
    pub(crate) fn begin(&mut self, slots: Vec<usize>) {
        self.beam_slots = slots.iter().take(1).copied().collect();
        self.slots = slots;
    }

    /// Tells whether nobody waits for the answers any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        match &self.reply {
            SearchReply::Stream(events) => events.is_closed(),
            SearchReply::List(reply) => reply.as_ref().is_none_or(oneshot::Sender::is_closed),
        }
    }

    /// Lists the rows of the next step: a token and a slot each.
    pub(crate) fn rows(&self) -> Vec<(TokenId, usize)> {
        let forced = self.forced.get(self.position).copied();
        let beams = self.search.beams().iter().zip(&self.beam_slots);
        let row = |(beam, slot): (&crate::beam::Beam, &usize)| {
            let token = beam.tokens.last().copied().or(forced)?;
            Some((token, *slot))
        };
        beams.filter_map(row).collect()
    }

    /// Counts the tokens that each running beam has.
    pub(crate) fn new_tokens(&self) -> usize {
        self.steps
    }

    /// Takes the logits of the rows, `[B, V]`, one slice each.
    pub(crate) fn advance(&mut self, logits: &[&[f32]]) -> Result<CacheChanges, String> {
        if self.position + 1 < self.forced.len() {
            self.position += 1;
            return Ok(CacheChanges::default());
        }
        let broken = || "the model's logits are not finite numbers; its weights may be damaged".to_owned();
        let beams = self.search.beams().iter().zip(logits);
        let rows = beams.map(|(beam, logits)| {
            let mut row = LogNormalizer::of(logits)?.log_probabilities(logits);
            let read = [self.forced.as_slice(), &beam.tokens].concat();
            self.processor.process(&read, &mut row);
            Some(row)
        });
        let rows: Option<Vec<Vec<f32>>> = rows.collect();
        let parents = self
            .search
            .advance(&rows.ok_or_else(broken)?)
            .ok_or_else(broken)?;
        self.steps += 1;
        Ok(self.move_to(&parents))
    }

    /// Gives each new beam a slot: the first that continues a beam keeps its slot, others get a copy of it in a slot
    /// that no beam needs any more.
    fn move_to(&mut self, parents: &[usize]) -> CacheChanges {
        let mut taken = vec![false; self.beam_slots.len()];
        for parent in parents {
            if let Some(taken) = taken.get_mut(*parent) {
                *taken = true;
            }
        }
        let kept: Vec<usize> = self
            .beam_slots
            .iter()
            .zip(&taken)
            .filter(|(_, taken)| **taken)
            .map(|(slot, _)| *slot)
            .collect();
        let mut free = self.slots.iter().copied().filter(|slot| !kept.contains(slot));
        let mut changes = CacheChanges::default();
        let mut slots = Vec::with_capacity(parents.len());
        for parent in parents {
            let Some(own) = self.beam_slots.get(*parent).copied() else {
                continue;
            };
            if !slots.contains(&own) {
                slots.push(own);
            } else if let Some(slot) = free.next() {
                changes.copies.push((own, slot));
                slots.push(slot);
            }
        }
        self.beam_slots = slots;
        changes
    }

    /// Tells whether the search is over.
    pub(crate) fn is_done(&self) -> bool {
        self.search.is_done()
    }

    /// Gives out the answers.
    pub(crate) fn finish(&mut self, usage: Usage, timings: Timings) {
        let finished = self.search.clone().into_finished();
        if let SearchReply::List(reply) = &mut self.reply {
            let reply = reply.take();
            let best = finished.iter().take(self.answers);
            let answers = best.map(|answer| self.hypothesis(answer)).collect();
            // A caller that has gone wants no answer.
            drop(reply.map(|reply| reply.send(Ok(answers))));
        } else if let Some(best) = finished.first() {
            self.stream(best, usage, timings);
        }
    }

    fn hypothesis(&self, answer: &Finished) -> Hypothesis {
        let mut text = self.text();
        let mut stop = StopMatcher::new(&self.stop);
        let mut whole = String::new();
        for token in answer.tokens.iter().filter(|token| **token != self.end) {
            let (piece, stopped) = stop.push(&text.push(*token));
            whole.push_str(&piece);
            if stopped {
                break;
            }
        }
        whole.push_str(&stop.push(&text.take_rest()).0);
        whole.push_str(&stop.finish());
        Hypothesis {
            text: whole,
            tokens: answer.tokens.clone(),
            score: answer.score,
        }
    }

    fn text(&self) -> crate::tokenizer::DecodeStream {
        if self.show_special {
            self.tokenizer.decode_stream_with_special()
        } else {
            self.tokenizer.decode_stream()
        }
    }

    /// Streams the best answer, token by token.
    fn stream(&self, best: &Finished, usage: Usage, timings: Timings) {
        let hypothesis = self.hypothesis(best);
        let mut text = self.text();
        let mut rest = hypothesis.text.as_str();
        let count = best.tokens.len();
        for (index, (token, log_probability)) in best.tokens.iter().zip(&best.log_probabilities).enumerate() {
            let piece = if *token == self.end {
                String::new()
            } else {
                text.push(*token)
            };
            let length = if index + 1 == count {
                rest.len()
            } else {
                piece.len().min(rest.len())
            };
            let (now, later) = rest.split_at_checked(length).unwrap_or((rest, ""));
            rest = later;
            self.send(Ok(StreamEvent::Token {
                id: *token,
                text: now.to_owned(),
                log_probability: *log_probability,
            }));
        }
        let ended = best.tokens.last() == Some(&self.end);
        self.send(Ok(StreamEvent::Finished {
            finish_reason: if ended {
                FinishReason::Stop
            } else {
                FinishReason::Length
            },
            usage: Usage {
                new_tokens: count,
                ..usage
            },
            timings,
        }));
    }

    /// Gives out an error instead.
    pub(crate) fn fail(&mut self, error: RequestError) {
        match &mut self.reply {
            SearchReply::Stream(_) => self.send(Err(error)),
            SearchReply::List(reply) => drop(reply.take().map(|reply| reply.send(Err(error)))),
        }
    }

    fn send(&self, event: Result<StreamEvent, RequestError>) {
        if let SearchReply::Stream(events) = &self.reply {
            drop(events.send(event));
        }
    }
}
