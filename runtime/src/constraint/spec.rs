//! The constraint of a request.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::RequestError;

/// The most bytes of a schema.
const MAX_SCHEMA_BYTES: usize = 1 << 16;
/// The most bytes of a regular expression or grammar.
const MAX_SOURCE_BYTES: usize = 1 << 14;

/// A constraint on the form of an answer.
///
/// # What is guaranteed
///
/// - A finished answer ([`FinishReason::Stop`](crate::FinishReason::Stop)) fits the constraint.
/// - Under a JSON schema, a regular expression or choices, every answer is finished within `max_new_tokens`:
///   a token is only chosen if the answer can be completed with the tokens that are left. If even the
///   shortest answer needs more, the request is refused.
/// - Under a Lark grammar an answer may be cut off; its finish reason is then
///   [`FinishReason::Length`](crate::FinishReason::Length), and the text is a prefix of an answer.
/// - Log-probabilities are those of the model, renormalised over the tokens that the constraint allows.
///   Tokens that are excluded near the end because too few are left change what is chosen, not what is
///   reported.
/// - Penalties and bans of the request apply first. If they ban everything that the constraint allows, the
///   constraint wins.
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
    /// One of these texts, tokenized as usual. The sum of the log-probabilities of a choice's tokens is not
    /// its log-probability among the choices, since each step is renormalised on its own;
    /// [`Engine::score`](crate::Engine::score) gives that.
    Choices(Vec<String>),
    /// A regular expression that matches the whole answer, in the syntax of the crate `regex`: no
    /// look-around, no back-references, no word boundaries. If the tokenizer drops leading spaces, an
    /// expression that matches a text with one is refused.
    Regex(String),
    /// JSON that fits a schema, without white space.
    ///
    /// Supported are `type`, `enum`, `const`, `anyOf`, `oneOf` of different types, `properties`, `required`,
    /// `items`, `minItems`, `maxItems`, `minLength`, `maxLength`, `pattern` (alone), `minimum`, `maximum`,
    /// `exclusiveMinimum`, `exclusiveMaximum`, `multipleOf` (a power of ten from 1 to 100000), and `$ref`
    /// within the schema. Any other keyword that constrains values is an error. Properties come in the order
    /// of the schema, and no others are generated, whatever `additionalProperties` says. A value without a
    /// schema is a string, a number, a boolean or null.
    ///
    /// Bounds may be any numbers, such as those of 64-bit integers. They are clamped inwards to the numbers
    /// that are generated, so that an answer always fits the schema: numbers have at most 15 digits, which
    /// are exact in 64-bit floating point, and up to 5 more zeros only if all smaller numbers are out of
    /// bounds. Fractions have at most 6 digits, unless the bounds are closer together than that. A
    /// `maxLength` or `maxItems` above 65535 counts as 65535.
    ///
    /// A schema may be recursive, as those of lists and trees are. An answer nests at most 100 arrays and
    /// objects. Parts without a finite value are never generated, such as an optional property that requires
    /// itself; a schema without any finite answer is refused. Where an answer is so ambiguous that the
    /// language grows too large, tokens that would add to it may be excluded.
    JsonSchema(Value),
    /// A grammar with the rule `start`, in the Lark dialect of the crate `llguidance`. If the tokenizer drops
    /// leading spaces, a space that the grammar begins with is not shown.
    Lark(String),
}

impl Constraint {
    /// Returns the kind, as in messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Choices(_) => "choices",
            Self::Regex(_) => "regex",
            Self::JsonSchema(_) => "JSON schema",
            Self::Lark(_) => "Lark grammar",
        }
    }

    pub(super) fn refused(&self, problem: String) -> RequestError {
        RequestError::Constraint {
            kind: self.kind(),
            problem,
        }
    }

    /// Returns the cache key: the JSON text, in which the order of a schema's properties counts.
    pub(super) fn key(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| error.to_string())
    }

    /// Refuses a source that is too long to compile.
    pub(super) fn check_size(&self) -> Result<(), String> {
        let (found, limit) = match self {
            // Bounded where they are tokenized.
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
