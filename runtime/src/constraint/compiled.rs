//! A constraint that answers can start from.

use super::choices::ChoiceTrie;
use super::closing::Closing;
use super::first_lines;
use super::state::ConstraintState;
use super::vocabulary::{MAX_LEXER_STATES, Vocabulary};
use crate::tokenizer::TokenId;
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, TokenParser};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How many tokens of an answer are followed anew before the library's allowance is renewed, which a mask does.
const REPLAYED_AT_ONCE: usize = 32;
/// The most bytes of a lexer that further answers start from.
const WORN_BYTES: usize = 16 << 20;

/// A constraint that answers can start from.
pub(crate) struct Compiled(Form);

enum Form {
    Choices(Arc<ChoiceTrie>),
    Grammar(Arc<CompiledGrammar>),
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled").finish_non_exhaustive()
    }
}

impl Compiled {
    pub(super) fn choices(trie: ChoiceTrie) -> Self {
        Self(Form::Choices(Arc::new(trie)))
    }

    pub(super) fn grammar(grammar: CompiledGrammar) -> Self {
        Self(Form::Grammar(Arc::new(grammar)))
    }

    /// Starts an answer.
    pub(crate) fn start(&self) -> ConstraintState {
        match &self.0 {
            Form::Choices(trie) => ConstraintState::choices(Arc::clone(trie)),
            Form::Grammar(grammar) => ConstraintState::grammar(Arc::clone(grammar)),
        }
    }

    /// Counts the tokens without which no answer is certain to be complete, the end included.
    pub(super) fn needed(&self) -> usize {
        match &self.0 {
            Form::Choices(trie) => trie.longest(),
            Form::Grammar(grammar) => grammar.closing.as_ref().map_or(1, Closing::needed),
        }
    }

    /// Makes what further answers start from, where answers have used this one up.
    pub(super) fn renewed(&self) -> Option<Self> {
        match &self.0 {
            Form::Grammar(grammar) if grammar.is_worn() => {
                Some(Self(Form::Grammar(Arc::new(grammar.renewed()))))
            }
            _ => None,
        }
    }
}

/// A grammar that answers can start from.
///
/// The library's lexer finds its states while answers are written. All answers share one, so that the next finds them;
/// but one answer can use up what a lexer may have, and then it fails for all. So one that was never used is kept.
pub(super) struct CompiledGrammar {
    pristine: Arc<Mutex<TokenParser>>,
    shared: Mutex<Shared>,
    /// Whether the shared lexer has failed.
    is_spoiled: AtomicBool,
    closing: Option<Closing>,
}

struct Shared {
    /// What answers are clones of.
    matcher: Matcher,
    /// A view of the lexer that they share.
    lexer: TokenParser,
}

impl CompiledGrammar {
    /// Compiles a grammar.
    ///
    /// # Errors
    /// What the grammar library says.
    pub(super) fn new(
        vocabulary: &Vocabulary,
        grammar: TopLevelGrammar,
        closing: Option<Closing>,
    ) -> Result<Self, String> {
        let pristine = vocabulary
            .factory()
            .create_parser(grammar)
            .map_err(|error| first_lines(&error.to_string()))?;
        let mut shared = Shared::of(&pristine);
        // What is wrong may show only once the grammar is used.
        shared
            .matcher
            .compute_mask_or_eos()
            .map_err(|error| first_lines(&error.to_string()))?;
        Ok(Self {
            pristine: Arc::new(Mutex::new(pristine)),
            shared: Mutex::new(shared),
            is_spoiled: AtomicBool::new(false),
            closing,
        })
    }

    fn renewed(&self) -> Self {
        let mut shared = Shared::of(&self.pristine.lock().unwrap_or_else(PoisonError::into_inner));
        // Answers start with this mask; where it fails, so do they, as the first one would have.
        let _ = shared.matcher.compute_mask_or_eos();
        Self {
            pristine: Arc::clone(&self.pristine),
            shared: Mutex::new(shared),
            is_spoiled: AtomicBool::new(false),
            closing: self.closing.clone(),
        }
    }

    /// Starts an answer.
    pub(super) fn start(&self) -> (Matcher, Option<Closing>) {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        (shared.matcher.clone(), self.closing.clone())
    }

    /// Takes an answer up again after the tokens that were written, with a lexer of its own.
    ///
    /// # Errors
    /// What the grammar library says.
    pub(super) fn resume(&self, written: &[TokenId]) -> Result<Matcher, String> {
        self.is_spoiled.store(true, Ordering::Relaxed);
        let pristine = self.pristine.lock().unwrap_or_else(PoisonError::into_inner);
        let mut matcher = Matcher::new(Ok(pristine.deep_clone()));
        drop(pristine);
        for tokens in written.chunks(REPLAYED_AT_ONCE) {
            let followed = matcher.compute_mask_or_eos().map(drop);
            followed
                .and_then(|()| matcher.consume_tokens(tokens))
                .map_err(|error| error.to_string())?;
        }
        Ok(matcher)
    }

    /// Tells whether the shared lexer has failed, or has so much that it soon will.
    fn is_worn(&self) -> bool {
        if self.is_spoiled.load(Ordering::Relaxed) {
            return true;
        }
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        // The library panics on the lexer of an answer in which it panicked.
        let stats = catch_unwind(AssertUnwindSafe(|| shared.lexer.parser.lexer_stats()));
        stats.map_or(true, |stats| {
            stats.error || stats.num_states > MAX_LEXER_STATES / 2 || stats.num_bytes > WORN_BYTES
        })
    }
}

impl Shared {
    fn of(pristine: &TokenParser) -> Self {
        let lexer = pristine.deep_clone();
        Self {
            matcher: Matcher::new(Ok(lexer.clone())),
            lexer,
        }
    }
}
