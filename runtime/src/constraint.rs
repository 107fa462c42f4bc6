//! Constrained decoding: choices, regular expressions, JSON schemas, grammars.
//!
//! A constraint is compiled before its request is submitted, never on the engine's thread. There it is the
//! [`ConstraintState`] of one answer: at each step it masks the tokens that may not follow, and EOS is
//! allowed exactly where the text so far is an answer. The constraint applies to the text as it is shown: if
//! the tokenizer drops a leading space, the first word may be spelled with or without it.

mod cache;
mod choices;
mod closing;
mod compiled;
mod compiling;
mod definitions;
mod grammar;
mod language;
mod nesting;
mod numbers;
mod pattern;
mod references;
mod regex;
mod schema;
pub(crate) mod spec;
mod state;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::Value;

use crate::eos::EosTokens;
use crate::error::RequestError;
use crate::sampling_params::SamplingParams;
use crate::tokenizer::Tokenizer;
use cache::CompiledCache;
use choices::ChoiceTrie;
use closing::Closing;
use compiled::CompiledGrammar;
pub(crate) use compiled::{ANSWER_BYTES, Compiled};
use compiling::{Compiling, with_stack};
use language::{Expression, Language};
use nesting::Nesting;
pub use spec::Constraint;
pub(crate) use state::{ConstraintState, DrawContext};
use vocabulary::Vocabulary;

/// The deepest nesting of brackets in a grammar.
const MAX_GRAMMAR_NESTING: usize = 64;

/// Compiles constraints for one engine.
#[derive(Debug)]
pub(crate) struct Constraints {
    tokenizer: Tokenizer,
    ends: EosTokens,
    /// Built for the first request that needs it.
    vocabulary: OnceLock<Result<Arc<Vocabulary>, String>>,
    cache: Mutex<CompiledCache>,
    compiling: Compiling,
}

impl Constraints {
    /// Creates a compiler with a cache of up to `cached_bytes`.
    pub(crate) fn new(tokenizer: Tokenizer, ends: EosTokens, cached_bytes: usize) -> Self {
        Self {
            tokenizer,
            ends,
            vocabulary: OnceLock::new(),
            cache: Mutex::new(CompiledCache::new(cached_bytes)),
            compiling: Compiling::new(),
        }
    }

    /// Checks the parameters that exclude a constraint, and the constraint's size.
    pub(crate) fn check(&self, sampling: &SamplingParams) -> Result<(), RequestError> {
        let Some(constraint) = &sampling.constraint else {
            return Ok(());
        };
        let wrong = |name, found: String, expected: &'static str| {
            Err(RequestError::Parameter {
                name,
                found,
                expected: expected.into(),
            })
        };
        if sampling.beams > 1 {
            return wrong(
                "beams",
                sampling.beams.to_string(),
                "1 where the answer is constrained",
            );
        }
        if !sampling.stop.is_empty() {
            let found = format!("{:?}", sampling.stop);
            return wrong("stop", found, "no stop strings where the answer is constrained");
        }
        constraint
            .check_size()
            .map_err(|problem| constraint.refused(problem))
    }

    /// Compiles the constraint of a [checked](Self::check) request, if any, and blocks the caller's thread
    /// meanwhile.
    pub(crate) fn compile(&self, sampling: &SamplingParams) -> Result<Option<Arc<Compiled>>, RequestError> {
        let Some(constraint) = &sampling.constraint else {
            return Ok(None);
        };
        let compiled = constraint.key().and_then(|key| match self.known(&key) {
            Some(known) => Ok(known),
            None => with_stack(|| self.compile_new(key, constraint)),
        });
        let compiled = compiled.map_err(|problem| constraint.refused(problem))?;
        check_room(constraint, &compiled, sampling)?;
        Ok(Some(compiled))
    }

    /// Compiles the constraint of a [checked](Self::check) request, if any, on another thread.
    pub(crate) async fn compile_beside(
        self: &Arc<Self>,
        sampling: &SamplingParams,
    ) -> Result<Option<Arc<Compiled>>, RequestError> {
        let Some(constraint) = &sampling.constraint else {
            return Ok(None);
        };
        let compiled = self.compiled_beside(constraint).await;
        let compiled = compiled.map_err(|problem| constraint.refused(problem))?;
        check_room(constraint, &compiled, sampling)?;
        Ok(Some(compiled))
    }

    async fn compiled_beside(self: &Arc<Self>, constraint: &Constraint) -> Result<Arc<Compiled>, String> {
        let key = constraint.key()?;
        if let Some(known) = self.known(&key) {
            return Ok(known);
        }
        let (constraints, constraint) = (Arc::clone(self), constraint.clone());
        // Another request may have compiled the same meanwhile.
        let compile = move || match constraints.known(&key) {
            Some(known) => Ok(known),
            None => constraints.compile_new(key, &constraint),
        };
        self.compiling.run(compile).await
    }

    /// Waits until no compilation is running.
    pub(crate) async fn idle(&self) {
        self.compiling.idle().await;
    }

    /// Takes all permits to compile, so that callers wait.
    #[cfg(test)]
    pub(crate) fn take_turns(&self) -> tokio::sync::OwnedSemaphorePermit {
        self.compiling.take_turns()
    }

    /// Looks a constraint up in the cache.
    fn known(&self, key: &str) -> Option<Arc<Compiled>> {
        self.cache().get(key)
    }

    /// Compiles a constraint that is not cached, or worn, and caches it.
    fn compile_new(&self, key: String, constraint: &Constraint) -> Result<Arc<Compiled>, String> {
        let compiled = match constraint {
            Constraint::Choices(choices) => {
                Compiled::choices(ChoiceTrie::new(choices, &self.tokenizer, &self.ends)?)
            }
            Constraint::Regex(pattern) => self.regex(pattern)?,
            Constraint::JsonSchema(schema) => self.json_schema(schema)?,
            Constraint::Lark(grammar) => self.lark(grammar)?,
        };
        Ok(self.cache().insert(key, Arc::new(compiled)))
    }

    fn cache(&self) -> MutexGuard<'_, CompiledCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Estimates the bytes of the constraint cache.
    pub(crate) fn cached_bytes(&self) -> usize {
        self.cache().bytes()
    }

    fn vocabulary(&self) -> Result<&Arc<Vocabulary>, String> {
        let made = self
            .vocabulary
            .get_or_init(|| Vocabulary::new(&self.tokenizer, &self.ends).map(Arc::new));
        made.as_ref().map_err(Clone::clone)
    }

    fn regex(&self, pattern: &str) -> Result<Compiled, String> {
        let vocabulary = self.vocabulary()?;
        let hir = regex::parse(pattern)?;
        let mut language = Language::new(self.vocabulary()?.single_bytes());
        let body = language.regex(&hir)?;
        if vocabulary.drops_leading_space() && language.derivative(body, b' ') != Expression::NEVER {
            return Err("a text that begins with a space fits it, and this model's vocabulary shows none there; begin it \
                 with what is no space, such as \\S"
                .to_owned());
        }
        let space = if vocabulary.drops_leading_space() {
            " ?"
        } else {
            ""
        };
        // The library supports anchors at the ends only outside of groups.
        let (body_hir, _) = regex::without_anchors(&hir);
        let body_hir = regex::without_captures(&body_hir);
        let grammar = TopLevelGrammar::from_regex(&format!("{space}(?:{body_hir})"));
        self.grammar(grammar, Some((language, body, None)))
    }

    fn json_schema(&self, schema: &Value) -> Result<Compiled, String> {
        let definitions = schema::parse(schema)?;
        let mut language = Language::new(self.vocabulary()?.single_bytes());
        let body = grammar::language(&mut language, &definitions)?;
        let space = self.vocabulary()?.drops_leading_space();
        let grammar = TopLevelGrammar::from_lark(grammar::lark(&definitions, space));
        self.grammar(grammar, Some((language, body, Some(Nesting::default()))))
    }

    fn lark(&self, source: &str) -> Result<Compiled, String> {
        if nesting(source) > MAX_GRAMMAR_NESTING {
            return Err(format!("brackets are nested deeper than {MAX_GRAMMAR_NESTING}"));
        }
        let mut grammar = TopLevelGrammar::from_lark(source.to_owned());
        if self.vocabulary()?.drops_leading_space() {
            let outer = GrammarWithLexer {
                lark_grammar: Some("start: @answer | \" \" @answer".to_owned()),
                ..GrammarWithLexer::default()
            };
            for inner in &mut grammar.grammars {
                inner.name = Some("answer".to_owned());
            }
            grammar.grammars.insert(0, outer);
        }
        self.grammar(grammar, None)
    }

    /// Compiles a grammar, with completions if its language is known; JSON answers nest within bounds.
    fn grammar(
        &self,
        grammar: TopLevelGrammar,
        language: Option<(Language, Expression, Option<Nesting>)>,
    ) -> Result<Compiled, String> {
        let vocabulary = self.vocabulary()?;
        let closing = language.map(|(mut language, body, nesting)| {
            let space = language.literal(if vocabulary.drops_leading_space() {
                b" "
            } else {
                b""
            });
            let space = language.or([Expression::EMPTY, space]);
            let start = language.concat(space, body);
            Closing::new(language, start, nesting, Arc::clone(vocabulary))
        });
        let closing = closing.transpose()?;
        let grammar = CompiledGrammar::new(vocabulary, grammar, closing)?;
        Ok(Compiled::grammar(grammar))
    }
}

/// Checks that `max_new_tokens` suffices for an answer.
fn check_room(
    constraint: &Constraint,
    compiled: &Compiled,
    sampling: &SamplingParams,
) -> Result<(), RequestError> {
    let (found, limit) = (compiled.needed(), sampling.max_new_tokens);
    if found <= limit {
        return Ok(());
    }
    Err(RequestError::ConstraintTooLong {
        kind: constraint.kind(),
        which: match constraint {
            Constraint::Choices(_) => "longest",
            _ => "shortest",
        },
        found,
        limit,
    })
}

/// Measures how deeply brackets are nested, wherever they stand.
fn nesting(source: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
