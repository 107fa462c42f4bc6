//! The state of a constraint in one answer.

use std::sync::Arc;

use llguidance::Matcher;
use multiway_model::kernels::Ranking;

use super::choices::ChoiceTrie;
use super::closing::{Closing, Continuation};
use super::compiled::{Compiled, CompiledForm, CompiledGrammar, first_lines};
use crate::answer::Alternative;
use crate::eos::EosTokens;
use crate::error::NOT_FINITE;
use crate::sampling::{Choice, Sampler};
use crate::tokenizer::TokenId;

/// How many of the top-k tokens are reconsidered if the chosen one leaves no room to complete the answer.
const CONSIDERED: usize = 32;

/// Masks the next token, and advances by the chosen one.
pub(crate) struct ConstraintState {
    form: FormState,
}

enum FormState {
    Choices {
        trie: Arc<ChoiceTrie>,
        place: usize,
    },
    Grammar {
        follower: Box<Follower>,
        closing: Option<Box<Closing>>,
    },
}

/// The number of tokens between two updates of the shared lexer's size.
const NOTED_EVERY: usize = 16;

/// Follows a grammar.
struct Follower {
    matcher: Matcher,
    written: Vec<TokenId>,
    /// The grammar whose lexer it shares; `None` once it has its own.
    origin: Option<Arc<CompiledGrammar>>,
}

impl Follower {
    /// Queries the matcher. If that fails, another answer may have exhausted the shared lexer: then it
    /// retries with a lexer of its own.
    fn ask<T>(&mut self, ask: impl Fn(&mut Matcher) -> Result<T, String>) -> Result<T, String> {
        match ask(&mut self.matcher) {
            Ok(found) => Ok(found),
            Err(error) => {
                let origin = self.origin.take().ok_or_else(|| too_complex(&error))?;
                self.matcher = origin
                    .resume(&self.written)
                    .map_err(|error| too_complex(&error))?;
                ask(&mut self.matcher).map_err(|error| too_complex(&error))
            }
        }
    }

    fn allowed(&mut self) -> Result<Vec<TokenId>, String> {
        let mask = self.ask(|matcher| matcher.compute_mask_or_eos().map_err(|error| error.to_string()))?;
        Ok(mask.iter().collect())
    }

    fn follow(&mut self, id: TokenId) -> Result<(), String> {
        self.ask(|matcher| matcher.consume_token(id).map_err(|error| error.to_string()))?;
        self.written.push(id);
        if self.written.len().is_multiple_of(NOTED_EVERY) {
            self.note_wear();
        }
        Ok(())
    }

    fn note_wear(&self) {
        if let Some(origin) = &self.origin {
            origin.note_wear();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.note_wear();
    }
}

impl std::fmt::Debug for ConstraintState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConstraintState").finish_non_exhaustive()
    }
}

/// The inputs of choosing a constrained token.
pub(crate) struct DrawContext<'a> {
    /// The model's logits, `[V]`.
    pub(crate) logits: &'a [f32],
    /// The processed logits, `[V]`.
    pub(crate) processed: &'a [f32],
    pub(crate) sampler: &'a mut Sampler,
    /// How many tokens were chosen.
    pub(crate) step: usize,
    /// How many tokens are left, this one included.
    pub(crate) left: usize,
    pub(crate) ends: &'a EosTokens,
}

impl Compiled {
    /// Starts an answer.
    pub(crate) fn start(&self) -> ConstraintState {
        match &self.0 {
            CompiledForm::Choices(trie) => ConstraintState::choices(Arc::clone(trie)),
            CompiledForm::Grammar(grammar) => ConstraintState::grammar(Arc::clone(grammar)),
        }
    }
}

impl ConstraintState {
    fn choices(trie: Arc<ChoiceTrie>) -> Self {
        Self {
            form: FormState::Choices { trie, place: 0 },
        }
    }

    fn grammar(origin: Arc<CompiledGrammar>) -> Self {
        let (matcher, closing) = origin.start();
        let follower = Follower {
            matcher,
            written: Vec::new(),
            origin: Some(origin),
        };
        Self {
            form: FormState::Grammar {
                follower: Box::new(follower),
                closing: closing.map(Box::new),
            },
        }
    }

    /// Chooses the next token among the allowed ones, and advances; with the requested top-k alternatives.
    ///
    /// # Errors
    /// If the logits are not finite, or the grammar turns out to be too complex.
    pub(crate) fn draw(&mut self, draw: DrawContext<'_>) -> Result<(Choice, Vec<Alternative>), String> {
        let DrawContext {
            logits,
            processed,
            sampler,
            step,
            left,
            ends,
        } = draw;
        let ids = self.allowed()?;
        let mut allowed = Allowed::new(ids, processed);
        if allowed.logits.iter().all(|logit| *logit == f32::NEG_INFINITY) {
            allowed = Allowed::new(allowed.ids, logits);
        }
        let broken = || NOT_FINITE.to_owned();
        let drawn = allowed.sample(sampler, step).ok_or_else(broken)?;
        let choice = match self.room_for(drawn.id, left, ends) {
            Room::Enough => drawn,
            Room::TooLittle(planned) => {
                let fitting = self.fitting(&allowed, &planned, left, ends);
                let id = fitting.sample(sampler, step).ok_or_else(broken)?.id;
                // A token that a penalty had banned is reported by the model's own logits.
                let told = allowed.log_probability(id).filter(|told| told.is_finite());
                let own = || Allowed::new(allowed.ids.clone(), logits).log_probability(id);
                let log_probability = told.or_else(own).ok_or_else(broken)?;
                Choice { id, log_probability }
            }
        };
        self.follow(choice.id, left, ends)?;
        Ok((choice, allowed.alternatives(sampler)))
    }

    /// Lists the allowed tokens, in order.
    pub(crate) fn allowed(&mut self) -> Result<Vec<TokenId>, String> {
        match &mut self.form {
            FormState::Choices { trie, place } => {
                let mut ids: Vec<TokenId> = trie.allowed(*place).collect();
                ids.sort_unstable();
                Ok(ids)
            }
            FormState::Grammar { follower, .. } => follower.allowed(),
        }
    }

    fn room_for(&mut self, id: TokenId, left: usize, ends: &EosTokens) -> Room {
        let FormState::Grammar {
            closing: Some(closing),
            ..
        } = &mut self.form
        else {
            return Room::Enough;
        };
        if ends.contains(id) || closing.after(id, left.saturating_sub(1)).is_some() {
            return Room::Enough;
        }
        Room::TooLittle(match closing.planned() {
            Some(planned) => vec![planned],
            None => ends.iter().collect(),
        })
    }

    /// Keeps the allowed tokens that leave room to complete the answer: the next of the plan, and those of
    /// the top k that do.
    fn fitting(&mut self, allowed: &Allowed, planned: &[TokenId], left: usize, ends: &EosTokens) -> Allowed {
        let fits = |id: &TokenId| matches!(self.room_for(*id, left, ends), Room::Enough);
        let mut ids: Vec<TokenId> = allowed.likeliest(CONSIDERED).into_iter().filter(fits).collect();
        ids.extend(planned);
        ids.sort_unstable();
        ids.dedup();
        // A penalty may have banned the plan's token.
        let logit = |id: &TokenId| allowed.logit(*id).unwrap_or(f32::MIN).max(f32::MIN);
        Allowed {
            logits: ids.iter().map(logit).collect(),
            ids,
        }
    }

    /// Advances by a token.
    fn follow(&mut self, id: TokenId, left: usize, ends: &EosTokens) -> Result<(), String> {
        match &mut self.form {
            FormState::Choices { trie, place } => *place = trie.step(*place, id),
            FormState::Grammar { closing, .. } if ends.contains(id) => {
                if closing.as_ref().is_some_and(|closing| !closing.is_complete()) {
                    return Err("the answer ended before it was complete".to_owned());
                }
            }
            FormState::Grammar { follower, closing } => {
                follower.follow(id)?;
                if let Some(closing) = closing {
                    let step: Option<Continuation> = closing.after(id, left.saturating_sub(1));
                    let step =
                        step.ok_or_else(|| "the answer can no longer be completed in time".to_owned())?;
                    closing.follow(step);
                }
            }
        }
        Ok(())
    }
}

/// The allowed tokens, in order, and their logits.
struct Allowed {
    ids: Vec<TokenId>,
    logits: Vec<f32>,
}

impl Allowed {
    fn new(ids: Vec<TokenId>, all: &[f32]) -> Self {
        let logit = |id: &TokenId| all.get(*id as usize).copied().unwrap_or(f32::NEG_INFINITY);
        Self {
            logits: ids.iter().map(logit).collect(),
            ids,
        }
    }

    /// Chooses one; the choice and its log-probability are those of all logits with the others banned.
    fn sample(&self, sampler: &mut Sampler, step: usize) -> Option<Choice> {
        let choice = sampler.sample(&self.logits, step)?;
        Some(Choice {
            id: *self.ids.get(choice.id as usize)?,
            ..choice
        })
    }

    fn alternatives(&self, sampler: &Sampler) -> Vec<Alternative> {
        let mut alternatives = sampler.alternatives(&self.logits);
        for alternative in &mut alternatives {
            if let Some(id) = self.ids.get(alternative.id as usize) {
                alternative.id = *id;
            }
        }
        alternatives
    }

    fn place(&self, id: TokenId) -> Option<usize> {
        self.ids.binary_search(&id).ok()
    }

    fn logit(&self, id: TokenId) -> Option<f32> {
        self.logits.get(self.place(id)?).copied()
    }

    fn log_probability(&self, id: TokenId) -> Option<f32> {
        Ranking::of(&self.logits, 0).log_probability(self.logit(id)?)
    }

    /// Lists the top k; ties by position.
    fn likeliest(&self, count: usize) -> Vec<TokenId> {
        let highest = Ranking::highest_of(&self.logits, count);
        let id = |(place, _): (u32, f32)| self.ids.get(place as usize).copied();
        highest.into_iter().filter_map(id).collect()
    }
}

/// Whether an answer can still be completed after a token.
enum Room {
    Enough,
    /// No; with these tokens it can.
    TooLittle(Vec<TokenId>),
}

fn too_complex(message: &str) -> String {
    format!(
        "the answer's constraint cannot be followed further: {}",
        first_lines(message)
    )
}
