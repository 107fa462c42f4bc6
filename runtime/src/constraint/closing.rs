//! Completing an answer before its tokens run out.

use super::language::{Expression, Language};
use super::vocabulary::Vocabulary;
use crate::tokenizer::TokenId;
use std::collections::HashMap;
use std::sync::Arc;

/// Knows, wherever an answer is, tokens that complete it.
#[derive(Clone, Debug)]
pub(super) struct Closing {
    language: Language,
    state: Expression,
    /// Tokens that complete the answer from here; never more than there is room for.
    plan: Vec<TokenId>,
    vocabulary: Arc<Vocabulary>,
    /// The tokens that complete what may follow; nothing where they are too many.
    completions: HashMap<Expression, Option<Vec<TokenId>>>,
}

/// Where a token leads to.
#[derive(Clone, Debug)]
pub(super) struct Step {
    state: Expression,
    plan: Vec<TokenId>,
}

/// The longest completion, in bytes; a token is at least one.
const MAX_COMPLETION_BYTES: usize = 1 << 15;

impl Closing {
    /// Finds the shortest answer of a language.
    ///
    /// # Errors
    /// Why there is none: the language is empty, or the vocabulary lacks a character.
    pub(super) fn new(
        language: Language,
        start: Expression,
        vocabulary: Arc<Vocabulary>,
    ) -> Result<Self, String> {
        let text = language
            .completion(start, MAX_COMPLETION_BYTES)
            .ok_or_else(|| "no text fits it, or only one of more than 32768 bytes".to_owned())?;
        let plan = vocabulary
            .cut(&text)
            .map_err(|character| format!("this model's vocabulary cannot spell {character:?}"))?;
        Ok(Self {
            language,
            state: start,
            plan,
            vocabulary,
            completions: HashMap::new(),
        })
    }

    /// Counts the tokens that complete the answer, its end included.
    pub(super) fn needed(&self) -> usize {
        self.plan.len() + 1
    }

    /// Tells whether the answer is complete.
    pub(super) fn is_complete(&self) -> bool {
        self.language.is_accepting(self.state)
    }

    /// The token that the plan writes next; nothing where it is to end.
    pub(super) fn planned(&self) -> Option<TokenId> {
        self.plan.first().copied()
    }

    /// Finds out where a token leads, if the answer can then be completed with `room` more tokens, its end included.
    pub(super) fn after(&mut self, token: TokenId, room: usize) -> Option<Step> {
        let state = self.language.read(self.state, self.vocabulary.bytes(token))?;
        let planned = match self.plan.split_first() {
            Some((first, rest)) if *first == token => Some(rest.to_vec()),
            _ => None,
        };
        let shortest = self.completion(state);
        let plan = [planned, shortest].into_iter().flatten().min_by_key(Vec::len)?;
        (plan.len() < room).then_some(Step { state, plan })
    }

    pub(super) fn take(&mut self, step: Step) {
        self.state = step.state;
        self.plan = step.plan;
    }

    fn completion(&mut self, state: Expression) -> Option<Vec<TokenId>> {
        let Self {
            language,
            vocabulary,
            completions,
            ..
        } = self;
        let found = completions.entry(state).or_insert_with(|| {
            let text = language.completion(state, MAX_COMPLETION_BYTES)?;
            vocabulary.cut(&text).ok()
        });
        found.clone()
    }
}
