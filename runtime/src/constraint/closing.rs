//! Completing an answer before its tokens run out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::language::{Expression, Language};
use super::nesting::{MAX_NESTING, Nesting};
use super::vocabulary::Vocabulary;
use crate::tokenizer::TokenId;

/// Knows, wherever an answer is, tokens that complete it.
///
/// Clones share the language as it was compiled.
#[derive(Clone, Debug)]
pub(super) struct Closing {
    language: Language,
    state: Expression,
    /// Tokens that complete the answer from here; never more than there is room for.
    plan: Vec<TokenId>,
    /// Where an answer of JSON is: neither there nor by its plan it is nested too deeply.
    nesting: Option<Nesting>,
    vocabulary: Arc<Vocabulary>,
    /// The tokens that are not looked at any more in this step, and how large the language may become in it.
    costly: HashSet<TokenId>,
    most_expressions: usize,
    /// The tokens that complete what may follow; nothing where they are too many.
    completions: HashMap<Expression, Option<Vec<TokenId>>>,
    /// How many tokens the completions have, all together.
    completion_tokens: usize,
}

/// Where a token leads to.
#[derive(Clone, Debug)]
pub(super) struct Continuation {
    state: Expression,
    plan: Vec<TokenId>,
    nesting: Option<Nesting>,
}

/// The longest completion, in bytes; a token is at least one.
const MAX_COMPLETION_BYTES: usize = 1 << 15;
/// How many bytes an answer may find out about its language before it forgets what it does not need.
pub(super) const MAX_OWN_BYTES: usize = 1 << 20;

/// How many expressions the language of a schema may have at the end of a step that it did not have before, besides those
/// that copy what it had from the start: a schema that refers to itself may leave ever more ways open.
const STEP_EXPRESSIONS: usize = 1 << 12;
/// The most of those that copy what it had from the start.
const MAX_COPIED_EXPRESSIONS: usize = 1 << 16;

fn step_expressions(language: &Language) -> usize {
    let copied = language.common_len().min(MAX_COPIED_EXPRESSIONS);
    language.own_len() + copied + STEP_EXPRESSIONS
}

impl Closing {
    /// Finds the shortest answer of a language.
    ///
    /// # Errors
    /// Why there is none: the language is empty, the vocabulary lacks a character, or the answer is nested too deeply.
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

    /// Reads a token that need not be written, unless too much of the language has to be found for it.
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
