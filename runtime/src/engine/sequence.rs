//! One running sequence.

use super::logits_row::LogitsRow;
use super::prepared::PreparedRequest;
use crate::answer::{Alternative, FinishReason, Timings, Usage};
use crate::constraint::{ConstraintState, DrawContext};
use crate::eos::EosTokens;
use crate::error::{NOT_FINITE, RequestError};
use crate::logits::LogitsProcessor;
use crate::sampling::{Choice, Sampler};
use crate::stop::StopMatcher;
use crate::stream::{EndEvent, EventSender, TokenEvent};
use crate::tokenizer::{DecodeStream, TokenId, Tokenizer};

/// Generates one answer token by token.
///
/// The stream gets one item per new token and one end. So a client that does not read can neither stall the
/// engine nor make memory grow without bound.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// The decoder's inputs: the start token, the forced prefix, then the new tokens.
    inputs: Vec<TokenId>,
    /// How many of the inputs are the start token and the forced prefix.
    forced: usize,
    /// How many inputs are decoded.
    position: usize,
    max_new_tokens: usize,
    ends: EosTokens,
    sampler: Sampler,
    processor: LogitsProcessor,
    constraint: Option<ConstraintState>,
    text: DecodeStream,
    stop: StopMatcher,
    /// The stream; none after the end.
    events: Option<EventSender>,
}

impl Sequence {
    pub(crate) fn new(
        prepared: &PreparedRequest,
        tokenizer: &Tokenizer,
        ends: &EosTokens,
        events: EventSender,
    ) -> Self {
        let sampling = &prepared.sampling;
        let text = if sampling.show_special {
            tokenizer.decode_stream_with_special()
        } else {
            tokenizer.decode_stream()
        };
        let text = match prepared.constraint {
            Some(_) => text.without_spaced_words(),
            None => text,
        };
        Self {
            inputs: prepared.start.clone(),
            forced: prepared.start.len(),
            position: 0,
            max_new_tokens: sampling.max_new_tokens,
            ends: ends.clone(),
            sampler: Sampler::new(sampling),
            processor: LogitsProcessor::new(sampling, prepared.start.len(), ends.clone()),
            constraint: prepared.constraint.as_ref().map(|compiled| compiled.start()),
            text,
            stop: StopMatcher::new(&sampling.stop),
            events: Some(events),
        }
    }

    /// Draws from another random stream of the request's seed.
    pub(crate) fn draw_from_stream(mut self, stream: u64) -> Self {
        self.sampler.set_stream(stream);
        self
    }

    /// Returns the decoder's next input.
    pub(crate) fn input(&self) -> Option<TokenId> {
        self.inputs.get(self.position).copied()
    }

    /// Returns whether the stream's receiver was dropped.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.events
            .as_ref()
            .is_none_or(|events| !events.is_receiver_alive())
    }

    /// Counts the new tokens.
    pub(crate) fn new_tokens(&self) -> usize {
        self.inputs.len() - self.forced
    }

    /// Returns the `k` of the top-k logits that the step has to find; none where the logits are processed
    /// first.
    pub(crate) fn top_logits(&self) -> Option<usize> {
        let chooses = self.position + 1 == self.inputs.len();
        (chooses && self.constraint.is_none() && self.processor.is_idle()).then(|| self.sampler.top_logits())
    }

    /// Chooses a token by the logits of the last input, sends it, and returns why the answer ends if it does.
    ///
    /// # Errors
    /// The logits are not finite, or the constraint cannot be followed.
    pub(crate) fn consume_logits(&mut self, row: LogitsRow<'_>) -> Result<Option<FinishReason>, String> {
        self.position += 1;
        if self.position < self.inputs.len() {
            return Ok(None);
        }
        let mut changed = Vec::new();
        let processed = if self.processor.is_idle() {
            row
        } else {
            changed.extend_from_slice(row.logits);
            self.processor.process(&self.inputs, &mut changed);
            LogitsRow::new(&changed, None)
        };
        let (choice, alternatives) = self.choose(row.logits, processed)?;
        self.inputs.push(choice.id);
        let (mut text, reason) = self.decode_text(choice.id);
        if reason.is_some_and(|reason| reason != FinishReason::StopString) {
            let (more, stopped) = self.stop.push(&self.text.take_rest());
            text.push_str(&more);
            if !stopped {
                text.push_str(&self.stop.finish());
            }
        }
        if let Some(events) = &self.events {
            events.send(TokenEvent {
                id: choice.id,
                text,
                log_probability: choice.log_probability,
                alternatives,
            });
        }
        Ok(reason)
    }

    /// Chooses the next token, among those that the constraint allows if there is one, and lists the top-k
    /// alternatives.
    fn choose(
        &mut self,
        logits: &[f32],
        processed: LogitsRow<'_>,
    ) -> Result<(Choice, Vec<Alternative>), String> {
        let step = self.new_tokens();
        match &mut self.constraint {
            None => {
                let ranking = processed.ranking(self.sampler.top_logits());
                match self.sampler.choose(processed.logits, &ranking, step) {
                    Some(choice) => Ok((choice, self.sampler.alternatives_of(&ranking))),
                    None => Err(NOT_FINITE.to_owned()),
                }
            }
            Some(constraint) => constraint.draw(DrawContext {
                logits,
                processed: processed.logits,
                sampler: &mut self.sampler,
                step,
                left: self.max_new_tokens - step,
                ends: &self.ends,
            }),
        }
    }

    /// Detokenizes a new token, and returns why it ends the answer if it does.
    fn decode_text(&mut self, id: TokenId) -> (String, Option<FinishReason>) {
        if self.ends.contains(id) {
            return (String::new(), Some(FinishReason::Stop));
        }
        let (text, stopped) = self.stop.push(&self.text.push(id));
        let full = self.new_tokens() >= self.max_new_tokens;
        let reason = if stopped {
            Some(FinishReason::StopString)
        } else {
            full.then_some(FinishReason::Length)
        };
        (text, reason)
    }

    /// Ends the stream with its last event.
    pub(crate) fn finish(&mut self, finish_reason: FinishReason, usage: Usage, timings: Timings) {
        self.end(Ok(EndEvent {
            finish_reason,
            usage,
            timings,
        }));
    }

    /// Ends the stream with an error.
    pub(crate) fn fail(&mut self, error: RequestError) {
        self.end(Err(error));
    }

    /// Only the first end counts.
    fn end(&mut self, end: Result<EndEvent, RequestError>) {
        if let Some(events) = self.events.take() {
            events.finish(end);
        }
    }
}
