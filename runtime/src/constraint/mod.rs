//! Answers that must have a form: one of a closed set, a regular expression, a JSON schema, a grammar.
//!
//! A constraint is compiled beside the request's caller, never on the engine's thread. There it is a [`ConstraintState`]
//! of one answer: at each step it says which tokens may follow, all others are banned, and the end is allowed exactly
//! where the text so far is an answer. What is constrained is the text as it is shown: of a vocabulary whose first words
//! begin with a space that is not shown, both spellings of the first word may be written.

mod choices;
mod closing;
mod compiled;
mod compiling;
mod grammar;
mod kept;
mod language;
mod nesting;
mod numbers;
mod pattern;
mod references;
mod regex;
mod schema;
mod state;
#[cfg(test)]
mod tests;
mod vocabulary;

pub(crate) use compiled::{ANSWER_BYTES, Compiled};
pub(crate) use state::{ConstraintState, Draw};

use crate::error::RequestError;
use crate::generation::Ends;
use crate::request::SamplingParams;
use crate::tokenizer::Tokenizer;
use choices::ChoiceTrie;
use closing::Closing;
use compiled::CompiledGrammar;
use compiling::{Compiling, with_stack};
use kept::Kept;
use language::{Expression, Language};
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use nesting::Nesting;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use vocabulary::Vocabulary;

/// The most bytes of a schema.
const MAX_SCHEMA_BYTES: usize = 1 << 16;
/// The most bytes of a regular expression or grammar.
const MAX_SOURCE_BYTES: usize = 1 << 14;
/// The deepest nesting of brackets in a grammar.
const MAX_GRAMMAR_NESTING: usize = 64;

/// What form an answer must have.
///
/// # What is guaranteed
///
/// - A finished answer ([`FinishReason::Stop`](crate::FinishReason::Stop)) fits the constraint.
/// - Under a JSON schema every answer is finished, however few tokens it may have: a token is only written if the answer
///   can be completed with the tokens that are left. Where even the shortest answer needs more, the request is refused.
///   The same holds of choices, and of regular expressions.
/// - Under a Lark grammar an answer may be cut off; its finish reason is then
///   [`FinishReason::Length`](crate::FinishReason::Length), and the text is the beginning of an answer.
/// - Log-probabilities are those of the model, renormalised over the tokens that the constraint allows. That tokens are
///   left out near the end because there is no room for them changes what is drawn, not what is reported.
/// - Penalties and bans of the request apply first. Where they ban everything that the constraint allows, the constraint
///   holds and they do not.
///
/// # Examples
///
/// ```
/// use multiway_runtime::{Constraint, SamplingParams};
///
/// let sampling = SamplingParams {
///     constraint: Some(Constraint::Regex("(red|green) (cat|dog)".to_owned())),
///     ..SamplingParams::default()
/// };
/// assert_eq!(
///     serde_json::to_string(&sampling.constraint)?,
///     r#"{"regex":"(red|green) (cat|dog)"}"#
/// );
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Constraint {
    /// One of these texts, cut into tokens as the tokenizer cuts them. The product of the log-probabilities of a choice's
    /// tokens is not its share among the choices: each step is renormalised on its own.
    /// [`Engine::score`](crate::Engine::score) gives the shares.
    Choices(Vec<String>),
    /// What a regular expression matches as a whole, in the syntax of the crate `regex`: no look-around, no
    /// back-references, no word boundaries. Where the tokenizer does not show a space that a text begins with, an expression
    /// that such a text fits is refused.
    Regex(String),
    /// JSON that a schema describes, without white space.
    ///
    /// Known are `type`, `enum`, `const`, `anyOf`, `oneOf` of unlike types, `properties`, `required`, `items`, `minItems`,
    /// `maxItems`, `minLength`, `maxLength`, `pattern` (alone), `minimum`, `maximum`, `exclusiveMinimum`,
    /// `exclusiveMaximum`, `multipleOf` (a power of ten from 1 to 100000), and `$ref` to a place in the schema. Another
    /// keyword that would matter is an error. Properties come in the order of the schema, and no others are written,
    /// whatever `additionalProperties` says. A value of which the schema says nothing is a text, a number, a boolean or
    /// null.
    ///
    /// Bounds may be any numbers, such as those of 64-bit integers. They are clamped inwards to what is written, so that
    /// an answer always fits the schema as it stands: numbers have at most 15 digits, which survive in 64-bit floating
    /// point, and up to 5 zeros behind them only where all smaller numbers are out of bounds. Numbers with a point have
    /// at most 6 digits behind it, unless bounds are narrower than that. A `maxLength` or `maxItems` above 65535 is
    /// read as 65535.
    ///
    /// A schema may refer to itself, as those of lists and trees do. An answer has at most 100 arrays and objects around
    /// a value. What no finite answer has is never written: an optional property, say, whose value would need another of
    /// its kind without end. A schema none of whose answers ends is refused. Where very many ways to read what was
    /// written are open at once, tokens that would add to them may be left out, as where there is no room.
    JsonSchema(Value),
    /// What a grammar in the dialect of Lark that the crate `llguidance` reads derives from its rule `start`. Where the
    /// tokenizer shows no space at the start, one that the grammar begins with is not shown.
    Lark(String),
}

impl Constraint {
    /// Names the kind, as messages do.
    fn kind(&self) -> &'static str {
        match self {
            Self::Choices(_) => "choices",
            Self::Regex(_) => "regex",
            Self::JsonSchema(_) => "JSON schema",
            Self::Lark(_) => "Lark grammar",
        }
    }

    fn refused(&self, problem: String) -> RequestError {
        RequestError::Constraint {
            kind: self.kind(),
            problem,
        }
    }

    /// Names the constraint: as text, where the order of a schema's properties counts.
    fn key(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| error.to_string())
    }

    /// Refuses what is too long to be looked at.
    fn check_size(&self) -> Result<(), String> {
        let (found, limit) = match self {
            // Bounded where they are cut into tokens.
            Self::Choices(_) => return Ok(()),
            Self::Regex(text) | Self::Lark(text) => (text.len(), MAX_SOURCE_BYTES),
            Self::JsonSchema(schema) => (schema.to_string().len(), MAX_SCHEMA_BYTES),
        };
        if found > limit {
            return Err(format!("it has {found} bytes, expected at most {limit}"));
        }
        Ok(())
    }
}

/// Compiles constraints for one engine.
#[derive(Debug)]
pub(crate) struct Constraints {
    tokenizer: Tokenizer,
    ends: Ends,
    /// Made for the first request that needs it.
    vocabulary: OnceLock<Result<Arc<Vocabulary>, String>>,
    kept: Mutex<Kept>,
    compiling: Compiling,
}

impl Constraints {
    /// Makes a compiler that keeps up to `kept_bytes` of what it compiled.
    pub(crate) fn new(tokenizer: Tokenizer, ends: Ends, kept_bytes: usize) -> Self {
        Self {
            tokenizer,
            ends,
            vocabulary: OnceLock::new(),
            kept: Mutex::new(Kept::new(kept_bytes)),
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
        self.kept().find(key)
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
        Ok(self.kept().put(key, Arc::new(compiled)))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Estimates the bytes of the compiled constraints that are kept.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept().bytes()
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

/// Keeps of the grammar library's message what is for people, without states and traces.
fn first_lines(message: &str) -> String {
    let end = ["<state>", "<non-verbose/>", "<backtrace>"]
        .iter()
        .filter_map(|mark| message.find(mark))
        .min();
    let message = end.and_then(|end| message.get(..end)).unwrap_or(message);
    message.trim().to_owned()
}
