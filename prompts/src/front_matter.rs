//! Front matter: YAML between two `---` lines, read into raw structs and then checked.

mod answer;
mod decode;
mod examples;
mod inputs;
mod problem;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_saphyr::{MessageFormatter as _, Spanned, UserMessageFormatter};

use crate::error::{PromptError, PromptErrorKind};
use crate::input::InputSpec;
use crate::output::OutputSpec;
use crate::spec::{DecodeSpec, Example, Metric};
use crate::suggest::{did_you_mean, listing, nearest, quoted};
use answer::{RawOutput, check_output};
use decode::{RawDecode, check_decode};
use examples::{RawExample, check_example};
use inputs::{RawInput, check_inputs};
use problem::Problem;

/// The most bytes that front matter may have.
pub(crate) const MAX_FRONT_MATTER_BYTES: usize = 64 * 1024;

/// Checked front matter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FrontMatter {
    pub(crate) name: Option<String>,
    pub(crate) description: String,
    pub(crate) inputs: IndexMap<String, InputSpec>,
    /// The line of each input's name, from the top of the front matter.
    pub(crate) input_lines: Vec<usize>,
    pub(crate) output: OutputSpec,
    pub(crate) decode: DecodeSpec,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) languages: Vec<String>,
    pub(crate) examples: Vec<Example>,
}

impl FrontMatter {
    /// Reads front matter that starts on the second line of a file.
    pub(crate) fn parse(origin: &str, yaml: &str) -> Result<Self, PromptError> {
        // Without a key there would be no mapping to miss keys in.
        let yaml = if yaml.trim().is_empty() { "{}" } else { yaml };
        let raw: RawFrontMatter = serde_saphyr::from_str_with_options(yaml, yaml_options())
            .map_err(|error| yaml_error(origin, &error))?;
        Self::try_from(raw).map_err(|Problem { line, key, message }| {
            PromptErrorKind::Invalid { key, message }.at(origin, line.map(|line| line + 1))
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFrontMatter {
    name: Option<Spanned<String>>,
    description: Spanned<String>,
    #[serde(default)]
    inputs: IndexMap<Spanned<String>, RawInput>,
    output: Option<RawOutput>,
    decode: Option<Spanned<RawDecode>>,
    #[serde(default)]
    metrics: Vec<Spanned<String>>,
    #[serde(default)]
    languages: Vec<Spanned<String>>,
    #[serde(default)]
    examples: Vec<Spanned<RawExample>>,
}

impl TryFrom<RawFrontMatter> for FrontMatter {
    type Error = Problem;

    fn try_from(raw: RawFrontMatter) -> Result<Self, Problem> {
        if raw.description.value.trim().is_empty() {
            return Err(Problem::new(
                &raw.description,
                "description",
                "expected a sentence that says what the task does",
            ));
        }
        let name = raw.name.map(task_name).transpose()?;
        let (inputs, input_lines) = check_inputs(raw.inputs)?;
        let output = raw.output.map_or(Ok(OutputSpec::Text { fill: None }), |output| {
            check_output(output, &inputs)
        })?;
        let decode = raw
            .decode
            .map_or(Ok(DecodeSpec::default()), |decode| check_decode(decode, &output))?;
        let metrics = raw.metrics.iter().map(metric).collect::<Result<_, _>>()?;
        let languages = raw
            .languages
            .into_iter()
            .map(language)
            .collect::<Result<_, _>>()?;
        let examples = raw
            .examples
            .into_iter()
            .enumerate()
            .map(|(index, example)| check_example(index, example, &inputs, &output))
            .collect::<Result<_, _>>()?;
        let description = raw.description.value.trim().to_owned();
        Ok(Self {
            name,
            description,
            inputs,
            input_lines,
            output,
            decode,
            metrics,
            languages,
            examples,
        })
    }
}

/// Tells whether a name may be a task's: lower-case letters, digits, `-` and `_`.
pub(crate) fn is_task_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

fn task_name(name: Spanned<String>) -> Result<String, Problem> {
    if is_task_name(&name.value) {
        return Ok(name.value);
    }
    let message = format!(
        "expected lower-case letters, digits, '-' and '_', found {}",
        quoted(&name.value)
    );
    Err(Problem::new(&name, "name", message))
}

fn metric(name: &Spanned<String>) -> Result<Metric, Problem> {
    Metric::from_name(&name.value).ok_or_else(|| {
        let known = Metric::ALL.map(Metric::name);
        let suggestion = nearest(&name.value, known);
        let message = format!(
            "there is no metric {}{} (metrics: {})",
            quoted(&name.value),
            did_you_mean(suggestion.as_ref()),
            listing(&known)
        );
        Problem::new(name, "metrics", message)
    })
}

/// Checks the shape of a language tag: `en`, `pt-BR`, `zh-Hant`.
///
/// Source: BCP 47 (RFC 5646), section 2.1, without the rare forms.
fn language(tag: Spanned<String>) -> Result<String, Problem> {
    let mut subtags = tag.value.split('-');
    let primary = subtags.next().unwrap_or_default();
    let well_formed = (2..=3).contains(&primary.len())
        && primary.bytes().all(|byte| byte.is_ascii_lowercase())
        && subtags.all(|part| {
            (2..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
    if well_formed {
        return Ok(tag.value);
    }
    Err(Problem::new(
        &tag,
        "languages",
        format!(
            "expected a language tag such as en or pt-BR, found {}",
            quoted(&tag.value)
        ),
    ))
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
