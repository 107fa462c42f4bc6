//! A compiled constraint.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, TokenParser};

use super::choices::ChoiceTrie;
use super::closing::{Closing, MAX_OWN_BYTES};
use super::vocabulary::{MAX_LEXER_STATES, Vocabulary};
use crate::tokenizer::TokenId;

/// How many tokens are replayed between two masks, each of which resets the library's fuel.
const REPLAYED_AT_ONCE: usize = 32;
/// The estimated bytes of a running answer: its additions to the language, and its state in the grammar.
pub(crate) const ANSWER_BYTES: usize = MAX_OWN_BYTES + (1 << 18);
/// The bytes of a grammar besides those of its lexer that the library counts, as measured.
const GRAMMAR_BYTES: usize = 1 << 18;
/// Bytes of a grammar for each byte of its source, as measured.
const SOURCE_FACTOR: usize = 16;
/// The ratio of a lexer's bytes to those that the library counts, as measured.
const LEXER_FACTOR: usize = 3;
/// The lexer's bytes from which it counts as worn.
const WORN_BYTES: usize = 16 << 20;

/// A compiled constraint.
pub(crate) struct Compiled(pub(super) CompiledForm);

pub(super) enum CompiledForm {
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
        Self(CompiledForm::Choices(Arc::new(trie)))
    }

    pub(super) fn grammar(grammar: CompiledGrammar) -> Self {
        Self(CompiledForm::Grammar(Arc::new(grammar)))
    }

    /// Counts the tokens that guarantee a complete answer, EOS included.
    pub(super) fn needed(&self) -> usize {
        match &self.0 {
            CompiledForm::Choices(trie) => trie.longest(),
            CompiledForm::Grammar(grammar) => grammar.closing.as_ref().map_or(1, Closing::needed),
        }
    }

    /// Estimates its bytes, with what answers have added so far.
    pub(super) fn bytes(&self) -> usize {
        match &self.0 {
            CompiledForm::Choices(trie) => trie.bytes(),
            CompiledForm::Grammar(grammar) => grammar.bytes(),
        }
    }

    /// Estimates the bytes of a running answer.
    pub(crate) fn answer_bytes(&self) -> usize {
        match &self.0 {
            CompiledForm::Choices(_) => 0,
            CompiledForm::Grammar(_) => ANSWER_BYTES,
        }
    }

    /// Returns whether it is worn: answers have used up its limits, so no others should start from it.
    pub(super) fn is_worn(&self) -> bool {
        match &self.0 {
            CompiledForm::Choices(_) => false,
            CompiledForm::Grammar(grammar) => grammar.is_worn.load(Ordering::Relaxed),
        }
    }
}

/// A compiled grammar.
///
/// The library's lexer builds its states lazily, while answers are decoded. All answers share one, so that
/// states are built once; but one answer can exhaust the lexer's limits, and then it fails for all. So a
/// pristine copy is kept as well.
pub(super) struct CompiledGrammar {
    pristine: Mutex<TokenParser>,
    shared: Mutex<SharedLexer>,
    /// Whether the shared lexer has failed, or is so large that it soon will.
    is_worn: AtomicBool,
    /// The bytes of all but the shared lexer and the language.
    fixed_bytes: usize,
    /// The shared lexer's bytes, as the library counts them.
    shared_bytes: AtomicUsize,
    closing: Option<Closing>,
}

struct SharedLexer {
    /// Answers start as clones of this.
    matcher: Matcher,
    /// A handle to their lexer.
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
        let source = serde_json::to_string(&grammar).map_err(|error| error.to_string())?;
        let pristine = vocabulary
            .factory()
            .create_parser(grammar)
            .map_err(|error| first_lines(&error.to_string()))?;
        let pristine_bytes = pristine.parser.lexer_stats().num_bytes;
        let lexer = pristine.deep_clone();
        let mut shared = SharedLexer {
            matcher: Matcher::new(Ok(lexer.clone())),
            lexer,
        };
        // Some errors show only in the first mask.
        shared
            .matcher
            .compute_mask_or_eos()
            .map_err(|error| first_lines(&error.to_string()))?;
        let shared_bytes = shared.lexer.parser.lexer_stats().num_bytes;
        Ok(Self {
            fixed_bytes: GRAMMAR_BYTES + SOURCE_FACTOR * source.len() + LEXER_FACTOR * pristine_bytes,
            shared_bytes: AtomicUsize::new(shared_bytes),
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

    /// Replays the tokens of an answer with a lexer of its own.
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

    fn bytes(&self) -> usize {
        let lexer = self.shared_bytes.load(Ordering::Relaxed);
        let closing = self.closing.as_ref().map_or(0, Closing::common_bytes);
        self.fixed_bytes + LEXER_FACTOR * lexer + closing
    }

    /// Updates the size of the shared lexer, and whether it is worn. Blocks while a mask is computed with it.
    pub(super) fn note_wear(&self) {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        // The library panics on the lexer of an answer in which it panicked.
        let stats = catch_unwind(AssertUnwindSafe(|| shared.lexer.parser.lexer_stats()));
        let is_worn = stats.map_or(true, |stats| {
            self.shared_bytes.store(stats.num_bytes, Ordering::Relaxed);
            stats.error || stats.num_states > MAX_LEXER_STATES / 2 || stats.num_bytes > WORN_BYTES
        });
        self.is_worn.fetch_or(is_worn, Ordering::Relaxed);
    }
}

/// Strips states and traces from a message of the grammar library.
pub(super) fn first_lines(message: &str) -> String {
    let end = ["<state>", "<non-verbose/>", "<backtrace>"]
        .iter()
        .filter_map(|mark| message.find(mark))
        .min();
    let message = end.and_then(|end| message.get(..end)).unwrap_or(message);
    message.trim().to_owned()
}
