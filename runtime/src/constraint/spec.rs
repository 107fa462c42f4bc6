//! What form an answer must have, as a caller says it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::RequestError;

/// The most bytes of a schema.
const MAX_SCHEMA_BYTES: usize = 1 << 16;
/// The most bytes of a regular expression or grammar.
const MAX_SOURCE_BYTES: usize = 1 << 14;

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

    /// Names the constraint: as text, where the order of a schema's properties counts.
    pub(super) fn key(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| error.to_string())
    }

    /// Refuses what is too long to be looked at.
    pub(super) fn check_size(&self) -> Result<(), String> {
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
