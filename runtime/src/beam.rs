//! Beam search over one answer: a plain data structure, without tensors.
//!
//! It reproduces the beam search of `transformers` 4.57 (`generation/utils.py`) hypothesis by hypothesis: the
//! candidates are the top `2 * width` continuations of all beams (more, where there are several EOS tokens);
//! those among the first `width` that end are finished, with their score divided by a power of their length;
//! the best that do not end are the next beams.
//!
//! Captions of BEiT-3 follow the rules of its authors' evaluation instead ([`Rules::Beit3`]).

use std::cmp::Ordering;

use multiway_prompts::EarlyStopping;

use crate::eos::EosTokens;
use crate::tokenizer::TokenId;

/// Which implementation to reproduce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// That of `transformers` 4.57.
    Transformers,
    /// That of `microsoft/unilm`, `beit3/engine_for_finetuning.py`, `CaptioningHandler`. The finished list
    /// holds as many answers as are requested, not as there are beams; an answer that ends is finished
    /// whatever its rank; its length includes `<s>`; and in an answer that is cut off, `</s>` replaces the
    /// last token.
    Beit3,
}

/// Parameters of a search.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BeamParams {
    pub(crate) rules: Rules,
    /// How many answers are requested.
    pub(crate) answers: usize,
    pub(crate) width: usize,
    pub(crate) length_penalty: f32,
    pub(crate) early_stopping: EarlyStopping,
    pub(crate) max_new_tokens: usize,
    pub(crate) ends: EosTokens,
}

/// A running beam.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Beam {
    /// The new tokens, without the forced prefix.
    pub(crate) tokens: Vec<TokenId>,
    /// The log-probability of each token.
    pub(crate) log_probabilities: Vec<f32>,
    /// Their sum.
    pub(crate) score: f32,
}

/// A finished hypothesis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finished {
    pub(crate) tokens: Vec<TokenId>,
    /// The log-probability of each token.
    pub(crate) log_probabilities: Vec<f32>,
    /// Their sum, divided by a power of the length: the length penalty.
    pub(crate) score: f32,
    /// Whether it was cut off at `max_new_tokens`.
    pub(crate) cut: bool,
}

/// A running search.
#[derive(Debug)]
pub(crate) struct BeamSearch {
    params: BeamParams,
    beams: Vec<Beam>,
    finished: Vec<Finished>,
    /// Whether a running beam may still beat the worst finished hypothesis.
    can_improve: bool,
    all_ended: bool,
}

/// A continuation of a beam by one token.
struct Candidate {
    score: f32,
    log_probability: f32,
    parent: usize,
    token: TokenId,
}

impl BeamSearch {
    pub(crate) fn new(params: BeamParams) -> Self {
        let root = Beam {
            tokens: Vec::new(),
            log_probabilities: Vec::new(),
            score: 0.0,
        };
        Self {
            params,
            beams: vec![root],
            finished: Vec::new(),
            can_improve: true,
            all_ended: false,
        }
    }

    /// Lists the running beams, the best first; at the start there is one.
    pub(crate) fn beams(&self) -> &[Beam] {
        &self.beams
    }

    /// Returns the `k` of the top-k tokens that each beam has to offer: the width, and once more for each EOS
    /// token, so that at least `width` candidates do not end.
    pub(crate) fn candidates_per_beam(&self) -> usize {
        (1 + self.params.ends.len()) * self.params.width
    }

    /// Expands the beams by their top-k tokens with log-probabilities, `k` being at least
    /// [`BeamSearch::candidates_per_beam`], and returns the parent of each new beam.
    ///
    /// Returns `None` if no continuation is possible.
    pub(crate) fn expand(&mut self, rows: &[Vec<(TokenId, f32)>]) -> Option<Vec<usize>> {
        let candidates = self.candidates(rows);
        if candidates.is_empty() {
            return None;
        }
        let length = self.beams.first().map_or(0, |beam| beam.tokens.len()) + 1;
        let full = length >= self.params.max_new_tokens;
        if self.params.rules == Rules::Beit3 {
            return Some(self.expand_beit3(&candidates, length));
        }
        let (mut beams, mut parents) = (Vec::new(), Vec::new());
        let is_open = self.can_improve && !self.is_full_and_early();
        self.all_ended = true;
        for (rank, candidate) in candidates.iter().enumerate() {
            let beam = self.continued(candidate);
            if full || self.params.ends.contains(candidate.token) {
                if rank < self.params.width && is_open {
                    let cut = !self.params.ends.contains(candidate.token);
                    self.insert_finished(beam, length, self.params.width, cut);
                }
                continue;
            }
            self.all_ended = false;
            if beams.len() < self.params.width {
                beams.push(beam);
                parents.push(candidate.parent);
            }
        }
        self.beams = beams;
        self.can_improve &= self.could_improve(length);
        Some(parents)
    }

    /// Expands by [`Rules::Beit3`].
    fn expand_beit3(&mut self, candidates: &[Candidate], length: usize) -> Vec<usize> {
        let full = length >= self.params.max_new_tokens;
        let (mut beams, mut parents) = (Vec::new(), Vec::new());
        let best = candidates.first().map_or(f32::NEG_INFINITY, |best| best.score);
        let longest = self.params.max_new_tokens + 1;
        let worst = self.finished.last().filter(|_| self.is_full());
        let is_over = self.params.early_stopping == EarlyStopping::AtOnce
            || worst.is_some_and(|worst| worst.score >= self.normalised(best, longest));
        if worst.is_some() && is_over {
            self.can_improve = false;
            self.beams.clear();
            return parents;
        }
        for candidate in candidates {
            let mut beam = self.continued(candidate);
            if full || self.params.ends.contains(candidate.token) {
                if let Some(last) = beam.tokens.last_mut() {
                    *last = self.params.ends.first();
                }
                let cut = !self.params.ends.contains(candidate.token);
                self.insert_finished(beam, length + 1, self.params.answers, cut);
            } else {
                beams.push(beam);
                parents.push(candidate.parent);
            }
            if beams.len() == self.params.width {
                break;
            }
        }
        self.beams = beams;
        parents
    }

    /// Appends a candidate's token to its parent.
    fn continued(&self, candidate: &Candidate) -> Beam {
        let Candidate { score, token, .. } = *candidate;
        let parent_beam = self.beams.get(candidate.parent);
        let mut tokens = parent_beam.map_or_else(Vec::new, |beam| beam.tokens.clone());
        let mut log_probabilities = parent_beam.map_or_else(Vec::new, |beam| beam.log_probabilities.clone());
        tokens.push(token);
        log_probabilities.push(candidate.log_probability);
        Beam {
            tokens,
            log_probabilities,
            score,
        }
    }

    /// Inserts a finished hypothesis, and truncates the list to the best `count`.
    fn insert_finished(&mut self, beam: Beam, length: usize, count: usize, cut: bool) {
        let score = self.normalised(beam.score, length);
        // The order of equal scores is stable.
        let place = self.finished.partition_point(|other| other.score >= score);
        self.finished.insert(
            place,
            Finished {
                tokens: beam.tokens,
                log_probabilities: beam.log_probabilities,
                score,
                cut,
            },
        );
        self.finished.truncate(count);
    }

    /// Returns whether the search is over.
    pub(crate) fn is_done(&self) -> bool {
        self.all_ended || !self.can_improve || self.is_full_and_early() || self.beams.is_empty()
    }

    /// Lists the finished hypotheses, the best first.
    pub(crate) fn finished(&self) -> &[Finished] {
        &self.finished
    }

    fn is_full(&self) -> bool {
        let wanted = match self.params.rules {
            Rules::Transformers => self.params.width,
            Rules::Beit3 => self.params.answers,
        };
        self.finished.len() >= wanted
    }

    fn is_full_and_early(&self) -> bool {
        self.is_full() && self.params.early_stopping == EarlyStopping::AtOnce
    }

    /// Lists the best continuations of all beams, the best first.
    fn candidates(&self, rows: &[Vec<(TokenId, f32)>]) -> Vec<Candidate> {
        let all = self.beams.iter().zip(rows).enumerate();
        let mut all: Vec<Candidate> = all
            .flat_map(|(parent, (beam, row))| {
                let row = row.iter().filter(|(_, value)| value.is_finite());
                row.map(move |(token, value)| Candidate {
                    score: beam.score + value,
                    log_probability: *value,
                    parent,
                    token: *token,
                })
            })
            .collect();
        all.sort_unstable_by(best_first);
        all.truncate(self.candidates_per_beam());
        all
    }

    fn normalised(&self, score: f32, length: usize) -> f32 {
        score / (length as f32).powf(self.params.length_penalty)
    }

    /// Returns whether the best score that a running beam can reach beats the worst finished one.
    fn could_improve(&self, length: usize) -> bool {
        let Some(worst) = self.finished.last().filter(|_| self.is_full()) else {
            return true;
        };
        let never = self.params.early_stopping == EarlyStopping::Never && self.params.length_penalty > 0.0;
        let length = if never { self.params.max_new_tokens } else { length };
        let best = self.beams.first().map(|beam| self.normalised(beam.score, length));
        best.is_some_and(|best| best > worst.score)
    }
}

fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
    let order = b.score.total_cmp(&a.score);
    order.then(a.parent.cmp(&b.parent)).then(a.token.cmp(&b.token))
}

#[cfg(test)]
mod tests {
    use multiway_model::kernels::Ranking;
    use proptest::prelude::*;

    use super::*;

    const END: TokenId = 1;

    fn params(width: usize, max_new_tokens: usize) -> BeamParams {
        BeamParams {
            rules: Rules::Transformers,
            answers: 1,
            width,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::WhenNoBetter,
            max_new_tokens,
            ends: EosTokens::one(END),
        }
    }

    /// Searches with probabilities that depend on the last token alone.
    fn search(params: BeamParams, table: &[Vec<f32>]) -> Vec<Finished> {
        let mut search = BeamSearch::new(params);
        while !search.is_done() {
            let row = |beam: &Beam| {
                let row = &table[beam.tokens.last().map_or(0, |token| *token as usize)];
                Ranking::of(row, search.candidates_per_beam()).highest
            };
            let rows: Vec<_> = search.beams().iter().map(row).collect();
            search.expand(&rows).unwrap();
        }
        search.finished
    }

    /// Scores every answer there is.
    fn exhaustive(params: BeamParams, table: &[Vec<f32>]) -> Vec<Finished> {
        let (mut open, mut ended) = (vec![(Vec::new(), 0.0_f32)], Vec::new());
        while let Some((tokens, score)) = open.pop() {
            let last = tokens.last().map_or(0, |token: &TokenId| *token as usize);
            for (token, value) in (0..).zip(&table[last]) {
                let mut longer = tokens.clone();
                longer.push(token);
                let score = score + value;
                if token == END || longer.len() == params.max_new_tokens {
                    let score = score / (longer.len() as f32).powf(params.length_penalty);
                    ended.push(Finished {
                        tokens: longer,
                        log_probabilities: Vec::new(),
                        score,
                        cut: token != END,
                    });
                } else {
                    open.push((longer, score));
                }
            }
        }
        ended.sort_by(|a, b| b.score.total_cmp(&a.score));
        ended
    }

    fn table() -> impl Strategy<Value = Vec<Vec<f32>>> {
        prop::collection::vec(prop::collection::vec(0.05_f32..1.0, 4), 4).prop_map(|rows| {
            let normalise = |row: Vec<f32>| {
                let sum: f32 = row.iter().sum();
                row.into_iter().map(|p| (p / sum).ln()).collect()
            };
            rows.into_iter().map(normalise).collect()
        })
    }

    proptest! {
        #[test]
        fn a_beam_as_wide_as_the_tree_finds_the_best_answer(table in table()) {
            let params = BeamParams { early_stopping: EarlyStopping::Never, ..params(64, 3) };
            let found = search(params.clone(), &table);
            // Of answers that are equally likely (`[0, 2, 0]` and `[2, 0, 0]` always are) each is a best one.
            let all = exhaustive(params, &table);
            let is_best = |answer: &&Finished| (all[0].score - answer.score).abs() < 1e-6;
            let mut best = all.iter().take_while(is_best);
            prop_assert!(is_best(&&found[0]));
            prop_assert!(best.any(|answer| answer.tokens == found[0].tokens));
        }

        #[test]
        fn a_beam_of_one_without_penalty_is_greedy(table in table()) {
            let params = BeamParams { length_penalty: 0.0, ..params(1, 6) };
            let (mut greedy, mut last) = (Vec::new(), 0_usize);
            while greedy.len() < 6 && greedy.last() != Some(&END) {
                let best = (0..4_usize).max_by(|a, b| table[last][*a].total_cmp(&table[last][*b])).unwrap();
                greedy.push(TokenId::try_from(best).unwrap());
                last = best;
            }
            prop_assert_eq!(&search(params, &table)[0].tokens, &greedy);
        }

        #[test]
        fn what_is_returned_is_sorted_different_and_complete(table in table(), width in 1..5_usize) {
            let found = search(params(width, 5), &table);
            prop_assert!(!found.is_empty() && found.len() <= width);
            for pair in found.windows(2) {
                prop_assert!(pair[0].score >= pair[1].score);
                prop_assert!(pair[0].tokens != pair[1].tokens);
            }
            for answer in found {
                prop_assert!(answer.tokens.last() == Some(&END) || answer.tokens.len() == 5);
            }
        }
    }
}
