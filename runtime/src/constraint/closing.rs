//! Completing an answer before its tokens run out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::language::{Expression, Language};
use super::nesting::{MAX_NESTING, Nesting};
use super::vocabulary::Vocabulary;
use crate::tokenizer::TokenId;

/// Keeps a plan at each step of an answer: tokens that complete it.
///
/// Clones share the language as it was compiled.
#[derive(Clone, Debug)]
pub(super) struct Closing {
    language: Language,
    state: Expression,
    /// Tokens that complete the answer from here; never more than there is room for.
    plan: Vec<TokenId>,
    /// The nesting of a JSON answer so far; neither it nor the plan exceeds the limit.
    nesting: Option<Nesting>,
    vocabulary: Arc<Vocabulary>,
    /// Tokens that are skipped in this step because their derivatives are too large, and the bound on the
    /// language's size in it.
    costly: HashSet<TokenId>,
    most_expressions: usize,
    /// Cached completions by state; `None` where they are too long.
    completions: HashMap<Expression, Option<Vec<TokenId>>>,
    /// The tokens of all cached completions.
    completion_tokens: usize,
}

/// The state after a token, if the answer can still be completed.
#[derive(Clone, Debug)]
pub(super) struct Continuation {
    state: Expression,
    plan: Vec<TokenId>,
    nesting: Option<Nesting>,
}

/// The longest completion, in bytes; a token is at least one.
const MAX_COMPLETION_BYTES: usize = 1 << 15;
/// The bytes of derivatives and completions that an answer may add before it drops what it does not need.
pub(super) const MAX_OWN_BYTES: usize = 1 << 20;

/// How many expressions a schema's language may gain in a step, besides copies of those that it had from the
/// start: a recursive schema may leave ever more ways open.
const STEP_EXPRESSIONS: usize = 1 << 12;
/// The most copies of expressions that it had from the start.
const MAX_COPIED_EXPRESSIONS: usize = 1 << 16;

fn step_expressions(language: &Language) -> usize {
    let copied = language.common_len().min(MAX_COPIED_EXPRESSIONS);
    language.own_len() + copied + STEP_EXPRESSIONS
}

impl Closing {
    /// Starts with the shortest answer of a language as the plan.
    ///
    /// # Errors
    /// Why there is none: the language is empty, the vocabulary lacks a character, or the answer is nested
    /// too deeply.
    pub(super) fn new(
        language: Language,
        start: Expression,
        nesting: Option<Nesting>,
        vocabulary: Arc<Vocabulary>,
    ) -> Result<Self, String> {
        let text = language
            .completion(start, MAX_COMPLETION_BYTES)
            .ok_or_else(|| "no text fits it, or only one of more than 32768 bytes".to_owned())?;
        let plan = vocabulary
            .cut(&text)
            .map_err(|character| format!("this model's vocabulary cannot spell {character:?}"))?;
        if nesting.is_some_and(|nesting| nesting.after(&text).is_too_deep()) {
            return Err(format!(
                "the arrays and objects of its shortest answer are nested deeper than {MAX_NESTING}"
            ));
        }
        let language = language.share();
        Ok(Self {
            costly: HashSet::new(),
            most_expressions: step_expressions(&language),
            language,
            state: start,
            plan,
            nesting,
            vocabulary,
            completions: HashMap::new(),
            completion_tokens: 0,
        })
    }

    /// Counts the tokens of the plan, EOS included.
    pub(super) fn needed(&self) -> usize {
        self.plan.len() + 1
    }

    /// Returns whether the answer is complete.
    pub(super) fn is_complete(&self) -> bool {
        self.language.is_accepting(self.state)
    }

    /// The next token of the plan; `None` for EOS.
    pub(super) fn planned(&self) -> Option<TokenId> {
        self.plan.first().copied()
    }

    /// Returns the state after a token, if the answer can then be completed in `room` more tokens, EOS
    /// included.
    pub(super) fn after(&mut self, token: TokenId, room: usize) -> Option<Continuation> {
        let planned = match self.plan.split_first() {
            Some((first, rest)) if *first == token => Some(rest.to_vec()),
            _ => None,
        };
        let state = match &planned {
            None if self.nesting.is_some() => self.derive_cheaply(token)?,
            _ => self
                .language
                .derive_all(self.state, self.vocabulary.bytes(token))?,
        };
        let nesting = self
            .nesting
            .map(|nesting| nesting.after(self.vocabulary.bytes(token)));
        let shortest = self
            .completion(state)
            .filter(|plan| !nesting.is_some_and(|nesting| self.nests_too_deeply(nesting, plan)));
        let plan = [planned, shortest].into_iter().flatten().min_by_key(Vec::len)?;
        let step = Continuation { state, plan, nesting };
        (step.plan.len() < room).then_some(step)
    }

    /// Derives by a token that is not in the plan, unless the language grows too much for it.
    fn derive_cheaply(&mut self, token: TokenId) -> Option<Expression> {
        if self.costly.contains(&token) {
            return None;
        }
        let bytes = self.vocabulary.bytes(token);
        let most = self.most_expressions;
        let state = self.language.derive_within(self.state, bytes, most);
        if state.is_none() && self.language.own_len() > most {
            self.costly.insert(token);
        }
        state
    }

    fn nests_too_deeply(&self, nesting: Nesting, plan: &[TokenId]) -> bool {
        let tokens = plan.iter().map(|token| self.vocabulary.bytes(*token));
        let end = tokens.fold(nesting, Nesting::after);
        end.is_too_deep()
    }

    pub(super) fn follow(&mut self, step: Continuation) {
        self.state = step.state;
        self.plan = step.plan;
        self.nesting = step.nesting;
        if self.own_bytes() > MAX_OWN_BYTES {
            self.state = self.language.keep_only(self.state);
            self.completions = HashMap::new();
            self.completion_tokens = 0;
        }
        self.costly.clear();
        self.most_expressions = step_expressions(&self.language);
    }

    /// Estimates the bytes that all answers share.
    pub(super) fn common_bytes(&self) -> usize {
        self.language.common_bytes()
    }

    /// Estimates the bytes that this answer has added.
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
