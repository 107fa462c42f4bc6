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

    /// Tells whether answers have used it up, so that no others are to start from it.
    pub(super) fn is_worn(&self) -> bool {
        match &self.0 {
            Form::Choices(_) => false,
            Form::Grammar(grammar) => grammar.is_worn.load(Ordering::Relaxed),
        }
    }
}

/// A grammar that answers can start from.
///
/// The library's lexer finds its states while answers are written. All answers share one, so that the next finds them;
/// but one answer can use up what a lexer may have, and then it fails for all. So one that was never used is kept.
pub(super) struct CompiledGrammar {
    pristine: Mutex<TokenParser>,
    shared: Mutex<Shared>,
    /// Whether the shared lexer has failed, or has so much that it soon will.
    is_worn: AtomicBool,
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
        let lexer = pristine.deep_clone();
        let mut shared = Shared {
            matcher: Matcher::new(Ok(lexer.clone())),
            lexer,
        };
        // What is wrong may show only once the grammar is used.
        shared
            .matcher
            .compute_mask_or_eos()
            .map_err(|error| first_lines(&error.to_string()))?;
        Ok(Self {
            pristine: Mutex::new(pristine),
            shared: Mutex::new(shared),
            is_worn: AtomicBool::new(false),
            closing,
        })
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
        self.is_worn.store(true, Ordering::Relaxed);
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

    /// Notes how much answers have made of the shared lexer. Waits while a mask is computed with it.
    pub(super) fn note_wear(&self) {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        // The library panics on the lexer of an answer in which it panicked.
        let stats = catch_unwind(AssertUnwindSafe(|| shared.lexer.parser.lexer_stats()));
        let is_worn = stats.map_or(true, |stats| {
            stats.error || stats.num_states > MAX_LEXER_STATES / 2 || stats.num_bytes > WORN_BYTES
        });
        self.is_worn.fetch_or(is_worn, Ordering::Relaxed);
    }
}
