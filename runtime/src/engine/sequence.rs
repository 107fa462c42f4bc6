//! One running answer.

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

/// Writes one answer token by token.
///
/// What goes into the stream is one item per new token and one end. So a client that does not read can neither stall the
/// engine nor grow without limit.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// What the decoder reads: the start token, the forced prefix, then what was written.
    inputs: Vec<TokenId>,
    /// How many of the inputs are not the model's own.
    forced: usize,
    /// How many inputs the decoder has read.
    position: usize,
    max_new_tokens: usize,
    ends: EosTokens,
    sampler: Sampler,
    processor: LogitsProcessor,
    constraint: Option<ConstraintState>,
    text: DecodeStream,
    stop: StopMatcher,
    /// Whoever listens; none after the end.
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

    /// Draws from another stream of random numbers of the request's seed.
    pub(crate) fn draw_from_stream(mut self, stream: u64) -> Self {
        self.sampler.set_stream(stream);
        self
    }

    /// Returns the token that the decoder reads next.
    pub(crate) fn input(&self) -> Option<TokenId> {
        self.inputs.get(self.position).copied()
    }

    /// Tells whether nobody listens any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.events
            .as_ref()
            .is_none_or(|events| !events.is_receiver_alive())
    }

    /// Counts the tokens written.
    pub(crate) fn new_tokens(&self) -> usize {
        self.inputs.len() - self.forced
    }

    /// Tells how many of the highest logits the next step has to find; none where they are changed before they are compared.
    pub(crate) fn top_logits(&self) -> Option<usize> {
        let chooses = self.position + 1 == self.inputs.len();
        (chooses && self.constraint.is_none() && self.processor.is_idle()).then(|| self.sampler.top_logits())
    }

    /// Chooses a token by the logits after the last input, writes it, and tells why the answer ends if it does.
    ///
    /// # Errors
    /// What is wrong with the logits.
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

    /// Draws the next token, of those that the constraint allows where there is one, and lists the likeliest in its place.
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

    /// Reads the text of a token that was written, and whether it ends the answer.
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

    /// Closes the stream with its last event.
    pub(crate) fn finish(&mut self, finish_reason: FinishReason, usage: Usage, timings: Timings) {
        self.end(Ok(EndEvent {
            finish_reason,
            usage,
            timings,
        }));
    }

    /// Closes the stream with an error.
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
