//! One answer searched for with several beams.

use multiway_model::ModelConfig;
use multiway_model::kernels::Ranking;

use super::prepared::Prepared;
use super::reading::log_probabilities;
use super::reply::{Reply, answer, is_gone};
use super::row::Row;
use super::scoring::CacheChanges;
use crate::answer::{Answered, FinishReason, Hypothesis, Timings, Usage};
use crate::beam::{BeamParams, BeamSearch, Finished, Rules};
use crate::beam_slots::BeamSlots;
use crate::ends::Ends;
use crate::error::RequestError;
use crate::logits::LogitsProcessor;
use crate::stop::StopMatcher;
use crate::stream::{Ended, Events, Written};
use crate::tokenizer::{TokenId, Tokenizer};

/// Who waits for the answers; none once they have come.
#[derive(Debug)]
pub(crate) enum SearchReply {
    /// A stream, which gets the best answer once it is certain.
    Stream(Option<Events>),
    /// A caller who wants several answers with their scores.
    List(Reply<Vec<Hypothesis>>),
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
    slots: BeamSlots,
    ends: Ends,
    answers: usize,
    stop: Vec<String>,
    show_special: bool,
    tokenizer: Tokenizer,
    reply: SearchReply,
    steps: usize,
}

impl Search {
    pub(crate) fn new(
        prepared: &Prepared,
        tokenizer: &Tokenizer,
        config: &ModelConfig,
        ends: &Ends,
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
            steps: 0,
        }
    }

    /// Starts in the slots that the request was given.
    pub(crate) fn begin(&mut self, slots: Vec<usize>) {
        self.slots = BeamSlots::new(slots);
    }

    /// Tells whether nobody waits for the answers any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        match &self.reply {
            SearchReply::Stream(events) => events.as_ref().is_none_or(|events| !events.is_wanted()),
            SearchReply::List(reply) => is_gone(reply),
        }
    }

    /// Lists the rows of the next step: a token and a slot each.
    pub(crate) fn rows(&self) -> Vec<(TokenId, usize)> {
        let forced = self.forced.get(self.position).copied();
        let beams = self.search.beams().iter().zip(self.slots.held());
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

    /// Tells how many of the likeliest tokens must be known, where the beams go on by the logits as they are.
    pub(crate) fn ranks(&self) -> Option<usize> {
        let chooses = self.position + 1 >= self.forced.len();
        (chooses && self.processor.is_idle()).then(|| self.search.looked_at())
    }

    /// Takes the logits of the rows.
    pub(crate) fn advance(&mut self, rows: &[Row<'_>]) -> Result<CacheChanges, String> {
        if self.position + 1 < self.forced.len() {
            self.position += 1;
            return Ok(CacheChanges::default());
        }
        let broken = || {
            "no next token is possible: the model's logits are not finite numbers, or all tokens are banned"
                .to_owned()
        };
        let count = self.search.looked_at();
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
        let rows: Option<Vec<Vec<(TokenId, f32)>>> = rows.collect();
        let parents = self
            .search
            .advance(&rows.ok_or_else(broken)?)
            .ok_or_else(broken)?;
        self.steps += 1;
        Ok(CacheChanges {
            copies: self.slots.advance(&parents),
            clears: Vec::new(),
        })
    }

    /// Tells whether the search is over.
    pub(crate) fn is_done(&self) -> bool {
        self.search.is_done()
    }

    /// Gives out the answers.
    pub(crate) fn finish(&mut self, usage: Usage, timings: Timings) {
        let finished = self.search.finished();
        let best = finished.iter().take(self.answers);
        let answers: Vec<Hypothesis> = best.map(|answer| self.hypothesis(answer)).collect();
        match &mut self.reply {
            SearchReply::List(reply) => {
                let new_tokens = answers.iter().map(|answer| answer.tokens.len()).sum();
                let usage = Usage { new_tokens, ..usage };
                answer(reply, Ok(Answered::new(answers, usage, timings)));
            }
            SearchReply::Stream(events) => {
                if let Some((events, best)) = events.take().zip(finished.first()) {
                    self.stream(events, best, usage, timings);
                }
            }
        }
    }

    fn hypothesis(&self, answer: &Finished) -> Hypothesis {
        Hypothesis {
            text: self.pieces(answer).0.concat(),
            tokens: answer.tokens.clone(),
            score: answer.score,
        }
    }

    /// Spells an answer: the text that each token adds, up to the token in which a stop string is complete; and whether
    /// there was one.
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

    /// Streams the best answer, token by token.
    fn stream(&self, events: Events, best: &Finished, usage: Usage, timings: Timings) {
        let (pieces, stopped) = self.pieces(best);
        let new_tokens = pieces.len();
        let tokens = best.tokens.iter().zip(&best.log_probabilities);
        for ((token, log_probability), text) in tokens.zip(pieces) {
            events.give(Written {
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
        events.finish(Ok(Ended {
            finish_reason,
            usage: Usage { new_tokens, ..usage },
            timings,
        }));
    }

    /// Gives out an error instead.
    pub(crate) fn fail(&mut self, error: RequestError) {
        match &mut self.reply {
            SearchReply::Stream(events) => drop(events.take().map(|events| events.finish(Err(error)))),
            SearchReply::List(reply) => answer(reply, Err(error)),
        }
    }
}
