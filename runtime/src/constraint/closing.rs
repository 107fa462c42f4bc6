//! Completing an answer before its tokens run out.

use super::language::{Expression, Language};
use super::vocabulary::Vocabulary;
use crate::tokenizer::TokenId;
use std::collections::HashMap;
use std::sync::Arc;

/// Knows, wherever an answer is, tokens that complete it.
///
/// Clones share the language as it was compiled.
#[derive(Clone, Debug)]
pub(super) struct Closing {
    language: Language,
    state: Expression,
    /// Tokens that complete the answer from here; never more than there is room for.
    plan: Vec<TokenId>,
    vocabulary: Arc<Vocabulary>,
    /// The tokens that complete what may follow; nothing where they are too many.
    completions: HashMap<Expression, Option<Vec<TokenId>>>,
    /// How many tokens the completions have, all together.
    completion_tokens: usize,
}

/// Where a token leads to.
#[derive(Clone, Debug)]
pub(super) struct Step {
    state: Expression,
    plan: Vec<TokenId>,
}

/// The longest completion, in bytes; a token is at least one.
const MAX_COMPLETION_BYTES: usize = 1 << 15;
/// How many bytes an answer may find out about its language before it forgets what it does not need.
pub(super) const MAX_OWN_BYTES: usize = 1 << 20;

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
            language: language.share(),
            state: start,
            plan,
            vocabulary,
            completions: HashMap::new(),
            completion_tokens: 0,
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
        if self.own_bytes() > MAX_OWN_BYTES {
            self.state = self.language.keep_only(self.state);
            self.completions = HashMap::new();
            self.completion_tokens = 0;
        }
    }

    /// Estimates the bytes that all answers share.
    pub(super) fn common_bytes(&self) -> usize {
        self.language.common_bytes()
    }

    /// Estimates the bytes of what this answer found out.
    fn own_bytes(&self) -> usize {
        let completion = 2 * size_of::<(Expression, Option<Vec<TokenId>>)>();
        self.language.own_bytes()
            + self.completions.len() * completion
            + self.completion_tokens * size_of::<TokenId>()
    }

    fn completion(&mut self, state: Expression) -> Option<Vec<TokenId>> {
        let Self {
            language,
            vocabulary,
            completions,
            completion_tokens,
            ..
        } = self;
        let found = completions.entry(state).or_insert_with(|| {
            let text = language.completion(state, MAX_COMPLETION_BYTES)?;
            let tokens = vocabulary.cut(&text).ok()?;
            *completion_tokens += tokens.len();
            Some(tokens)
        });
        found.clone()
    }
}
