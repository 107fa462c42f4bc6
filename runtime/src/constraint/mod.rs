//! Answers that must have a form: one of a closed set, a regular expression, a JSON schema, a grammar.
//!
//! A constraint is compiled beside the request's caller, never on the engine's thread. There it is a [`ConstraintState`]
//! of one answer: at each step it says which tokens may follow, all others are banned, and the end is allowed exactly
//! where the text so far is an answer. What is constrained is the text as it is shown: of a vocabulary whose first words
//! begin with a space that is not shown, both spellings of the first word may be written.

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

pub(crate) use compiled::{ANSWER_BYTES, Compiled};
pub use spec::Constraint;
pub(crate) use state::{ConstraintState, DrawContext};

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
use compiling::{Compiling, with_stack};
use language::{Expression, Language};
use nesting::Nesting;
use vocabulary::Vocabulary;

/// The deepest nesting of brackets in a grammar.
const MAX_GRAMMAR_NESTING: usize = 64;

/// Compiles constraints for one engine.
#[derive(Debug)]
pub(crate) struct Constraints {
    tokenizer: Tokenizer,
    ends: EosTokens,
    /// Made for the first request that needs it.
    vocabulary: OnceLock<Result<Arc<Vocabulary>, String>>,
    cache: Mutex<CompiledCache>,
    compiling: Compiling,
}

impl Constraints {
    /// Makes a compiler that keeps up to `cached_bytes` of what it compiled.
    pub(crate) fn new(tokenizer: Tokenizer, ends: EosTokens, cached_bytes: usize) -> Self {
        Self {
            tokenizer,
            ends,
            vocabulary: OnceLock::new(),
            cache: Mutex::new(CompiledCache::new(cached_bytes)),
            compiling: Compiling::new(),
        }
    }

    /// Checks what else a request asks for that has a constraint, and how long that is.
    pub(crate) fn check(&self, sampling: &SamplingParams) -> Result<(), RequestError> {
        let Some(constraint) = &sampling.constraint else {
            return Ok(());
        };
        let wrong = |name, found: String, expected| {
            Err(RequestError::Parameter {
                name,
                found,
                expected,
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

    /// Compiles the constraint of a request that was [checked](Self::check), if it has one, while the caller's thread waits.
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

    /// Compiles the constraint of a request that was [checked](Self::check), if it has one, on a thread beside the caller's.
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
        // Somebody else may have compiled the same since.
        let compile = move || match constraints.known(&key) {
            Some(known) => Ok(known),
            None => constraints.compile_new(key, &constraint),
        };
        self.compiling.run(compile).await
    }

    /// Waits until nothing is compiled any more.
    pub(crate) async fn idle(&self) {
        self.compiling.idle().await;
    }

    /// Takes all turns to compile beside callers, so that these wait.
    #[cfg(test)]
    pub(crate) fn take_turns(&self) -> tokio::sync::OwnedSemaphorePermit {
        self.compiling.take_turns()
    }

    /// Finds what was compiled before and can still be used.
    fn known(&self, key: &str) -> Option<Arc<Compiled>> {
        self.cache().get(key)
    }

    /// Compiles what is not known, or not fit for use, and keeps it.
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

    /// Estimates the bytes of the compiled constraints that are kept.
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
        // Anchors at the ends are understood, but not within a group.
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

    /// Compiles a grammar, and for a language finds how its answers are completed; those of JSON nest within bounds.
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

/// Checks that answers can be complete in time.
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
