//! Beam search in the engine.

use multiway_model::ModelConfig;
use multiway_model::kernels::Ranking;

use super::decode::{Decode, StepOutcome, StepRow};
use super::logits_row::LogitsRow;
use super::prepared::PreparedRequest;
use super::reply::Reply;
use crate::answer::{Answered, FinishReason, Hypothesis, Timings, Usage};
use crate::beam::{BeamParams, BeamSearch, Finished, Rules};
use crate::beam_slots::BeamSlots;
use crate::eos::EosTokens;
use crate::error::RequestError;
use crate::logits::LogitsProcessor;
use crate::stop::StopMatcher;
use crate::stream::{EndEvent, EventSender, TokenEvent};
use crate::tokenizer::{TokenId, Tokenizer};
use crate::top_k::{TopK, log_probabilities};

/// Where the answers are sent; empty once they are.
#[derive(Debug)]
pub(crate) enum SearchReply {
    /// A stream of the best answer, at the end of the search.
    Stream(Option<EventSender>),
    /// A list of answers with their scores.
    List(Reply<Vec<Hypothesis>>),
}

/// Decodes with a beam search: one row and one cache slot for each beam, one memory for all.
#[derive(Debug)]
pub(crate) struct Search {
    search: BeamSearch,
    processor: LogitsProcessor,
    /// The start token and the forced prefix.
    forced: Vec<TokenId>,
    /// How many of them are decoded.
    position: usize,
    slots: BeamSlots,
    ends: EosTokens,
    answers: usize,
    stop: Vec<String>,
    show_special: bool,
    tokenizer: Tokenizer,
    reply: SearchReply,
}

impl Search {
    pub(crate) fn new(
        prepared: &PreparedRequest,
        tokenizer: &Tokenizer,
        config: &ModelConfig,
        ends: &EosTokens,
        reply: SearchReply,
    ) -> Self {
        let sampling = &prepared.sampling;
        let params = BeamParams {
            rules: match config.writing_mask() {
                Some(_) => Rules::Beit3,
                None => Rules::Transformers,
            },
            answers: sampling.answers,
            width: sampling.beams,
            length_penalty: sampling.length_penalty,
            early_stopping: sampling.early_stopping,
            max_new_tokens: sampling.max_new_tokens,
            ends: ends.clone(),
        };
        Self {
            search: BeamSearch::new(params),
            processor: LogitsProcessor::new(sampling, prepared.start.len(), ends.clone()),
            forced: prepared.start.clone(),
            position: 0,
            slots: BeamSlots::default(),
            ends: ends.clone(),
            answers: sampling.answers,
            stop: sampling.stop.clone(),
            show_special: sampling.show_special,
            tokenizer: tokenizer.clone(),
            reply,
        }
    }

    fn hypothesis(&self, answer: &Finished) -> Hypothesis {
        Hypothesis {
            text: self.pieces(answer).0.concat(),
            tokens: answer.tokens.clone(),
            score: answer.score,
        }
    }

    /// Detokenizes an answer: the text that each token adds, up to the first stop string; and whether there
    /// was one.
    fn pieces(&self, answer: &Finished) -> (Vec<String>, bool) {
        let mut text = if self.show_special {
            self.tokenizer.decode_stream_with_special()
        } else {
            self.tokenizer.decode_stream()
        };
        let mut stop = StopMatcher::new(&self.stop);
        let mut pieces = Vec::with_capacity(answer.tokens.len());
        for token in &answer.tokens {
            let piece = if self.ends.contains(*token) {
                String::new()
            } else {
                text.push(*token)
            };
            let (piece, stopped) = stop.push(&piece);
            pieces.push(piece);
            if stopped {
                return (pieces, true);
            }
        }
        let (rest, stopped) = stop.push(&text.take_rest());
        let last = if stopped { String::new() } else { stop.finish() };
        if let Some(piece) = pieces.last_mut() {
            piece.push_str(&rest);
            piece.push_str(&last);
        }
        (pieces, stopped)
    }

    /// Sends the best answer as a stream of tokens.
    fn stream(&self, events: EventSender, best: &Finished, usage: Usage, timings: Timings) {
        let (pieces, stopped) = self.pieces(best);
        let new_tokens = pieces.len();
        let tokens = best.tokens.iter().zip(&best.log_probabilities);
        for ((token, log_probability), text) in tokens.zip(pieces) {
            events.send(TokenEvent {
                id: *token,
                text,
                log_probability: *log_probability,
                alternatives: Vec::new(),
            });
        }
        let finish_reason = if stopped {
            FinishReason::StopString
        } else if !best.cut {
            FinishReason::Stop
        } else {
            FinishReason::Length
        };
        events.finish(Ok(EndEvent {
            finish_reason,
            usage: Usage { new_tokens, ..usage },
            timings,
        }));
    }
}

impl Decode for Search {
    fn start(&mut self, slots: Vec<usize>) {
        self.slots = BeamSlots::new(slots);
    }

    fn is_cancelled(&self) -> bool {
        match &self.reply {
            SearchReply::Stream(events) => events.as_ref().is_none_or(|events| !events.is_receiver_alive()),
            SearchReply::List(reply) => reply.is_closed(),
        }
    }

    fn push_rows(&self, rows: &mut Vec<StepRow>) {
        let forced = self.forced.get(self.position).copied();
        let beams = self.search.beams().iter().zip(self.slots.held());
        rows.extend(beams.filter_map(|(beam, slot)| {
            Some(StepRow {
                token: beam.tokens.last().copied().or(forced)?,
                slot: *slot,
            })
        }));
    }

    fn top_logits(&self) -> Option<usize> {
        let chooses = self.position + 1 >= self.forced.len();
        (chooses && self.processor.is_idle()).then(|| self.search.candidates_per_beam())
    }

    fn consume_logits(&mut self, rows: &[LogitsRow<'_>]) -> Result<StepOutcome, String> {
        if self.position + 1 < self.forced.len() {
            self.position += 1;
            return Ok(StepOutcome::default());
        }
        let broken = || {
            "no next token is possible: the model's logits are not finite numbers, or all tokens are banned"
                .to_owned()
        };
        let count = self.search.candidates_per_beam();
        let beams = self.search.beams().iter().zip(rows);
        let rows = beams.map(|(beam, row)| {
            if self.processor.is_idle() {
                return log_probabilities(&row.ranking(count));
            }
            let ranking = row.ranking(0);
            let all = row.logits.iter().map(|logit| ranking.log_probability(*logit));
            let mut all: Vec<f32> = all.collect::<Option<_>>()?;
            let read = [self.forced.as_slice(), &beam.tokens].concat();
            self.processor.process(&read, &mut all);
            Some(Ranking::highest_of(&all, count))
        });
        let rows: Option<Vec<TopK>> = rows.collect();
        let parents = self.search.expand(&rows.ok_or_else(broken)?).ok_or_else(broken)?;
        Ok(StepOutcome {
            written: 1,
            copies: self.slots.reassign(&parents),
            clears: Vec::new(),
        })
    }

    fn send_completed(&mut self, usage: Usage, timings: Timings) {
        if !self.is_done() {
            return;
        }
        let finished = self.search.finished();
        let best = finished.iter().take(self.answers);
        let answers: Vec<Hypothesis> = best.map(|answer| self.hypothesis(answer)).collect();
        match &mut self.reply {
            SearchReply::List(reply) => {
                let new_tokens = answers.iter().map(|answer| answer.tokens.len()).sum();
                let usage = Usage { new_tokens, ..usage };
                reply.send(Ok(Answered::new(answers, usage, timings)));
            }
            SearchReply::Stream(events) => {
                if let Some((events, best)) = events.take().zip(finished.first()) {
                    self.stream(events, best, usage, timings);
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        self.search.is_done()
    }

    fn fail(&mut self, error: RequestError) {
        match &mut self.reply {
            SearchReply::Stream(events) => drop(events.take().map(|events| events.finish(Err(error)))),
            SearchReply::List(reply) => reply.send(Err(error)),
        }
    }
}
