//! YAML, with limits, and its errors in words that need no knowledge of Rust or YAML parsers.

use serde::de::DeserializeOwned;
use serde_saphyr::{MessageFormatter as _, UserMessageFormatter};

use crate::error::{PromptError, PromptErrorKind};

/// The most bytes that front matter may have.
pub(crate) const MAX_FRONT_MATTER_BYTES: usize = 64 * 1024;

/// Reads YAML that starts on the second line of a file.
pub(super) fn read<T: DeserializeOwned>(origin: &str, text: &str) -> Result<T, PromptError> {
    serde_saphyr::from_str_with_options(text, yaml_options()).map_err(|error| yaml_error(origin, &error))
}

/// Limits what YAML may do: front matter is small, flat, and has no use for anchors.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 16,
            flow_nesting_limit: 16,
            max_nodes: 10_000,
            max_events: 40_000,
            max_documents: 1,
            max_anchors: 16,
            max_aliases: 16,
            max_merge_keys: 0,
            max_recorded_anchor_events: 1_000,
            max_recorded_anchor_bytes: MAX_FRONT_MATTER_BYTES,
            max_total_scalar_bytes: MAX_FRONT_MATTER_BYTES,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        // `choices: [yes, no]` are texts, as everybody expects who has not read YAML 1.1.
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

fn yaml_error(origin: &str, error: &serde_saphyr::Error) -> PromptError {
    let location = error.location();
    let count = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let message = yaml_message(error);
    let line = location.map_or(1, |location| count(location.line()).saturating_add(1));
    let kind = PromptErrorKind::FrontMatter {
        column: location.map_or(1, |location| count(location.column())),
        message: message
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect(),
    };
    kind.at(origin, Some(line))
}

/// Says what is wrong in words that need no knowledge of Rust or YAML parsers.
fn yaml_message(error: &serde_saphyr::Error) -> String {
    match error.without_snippet() {
        serde_saphyr::Error::AliasError { error, .. } => yaml_message(error),
        serde_saphyr::Error::InvalidScalar { ty, .. } => match *ty {
            "f32" | "f64" | "floating point" => "expected a number".to_owned(),
            ty if ty.starts_with('u') => "expected a whole number of at least 0".to_owned(),
            ty => format!("expected a value of type {ty}"),
        },
        serde_saphyr::Error::Unexpected { expected, .. } => match *expected {
            "mapping start" => "expected keys and values, written `key: value`".to_owned(),
            "sequence start" => "expected a list, written `[a, b]`".to_owned(),
            "string scalar" => "expected text".to_owned(),
            expected => format!("expected {expected}"),
        },
        serde_saphyr::Error::Budget { .. } => {
            "too many values, too deeply nested, or repeated too often with `&` and `*`".to_owned()
        }
        other => UserMessageFormatter.format_message(other).into_owned(),
    }
}
