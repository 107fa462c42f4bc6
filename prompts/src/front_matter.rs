//! Front matter: YAML between two `---` lines, read into raw structs and then checked.

mod about;
mod answer;
mod decode;
mod examples;
mod inherit;
mod inputs;
mod owners;
mod problem;
mod raw;
mod shots;
mod yaml;

use indexmap::IndexMap;
use serde_saphyr::Spanned;

use crate::computed_choices::ComputedChoices;
use crate::error::{PromptError, PromptErrorKind};
use crate::field_names::field_names;
use crate::input::InputSpec;
use crate::metric::Metric;
use crate::output::{Choices, OutputSpec};
use crate::spec::{DecodeSpec, Example, FewShot, MetadataValue, Preprocessing};
use crate::suggest::{did_you_mean, listing, nearest, quoted};
use crate::target::Target;
use about::{RawPreprocessing, metadata, preprocessing, version};
use answer::{RawOutput, check_output};
use decode::{DECODE_KEYS, check_decode};
use examples::{RawExample, check_example};
use inherit::merged;
use inputs::{RawInput, check_inputs};
use owners::Owners;
pub(crate) use problem::Place;
use problem::{Fault, Problem};
pub(crate) use raw::RawFrontMatter;
use shots::{RawShot, check_separator, check_shots, check_target};
pub(crate) use yaml::MAX_FRONT_MATTER_BYTES;

/// Checked front matter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FrontMatter {
    pub(crate) name: Option<String>,
    pub(crate) description: String,
    pub(crate) version: Option<String>,
    pub(crate) extends: Option<String>,
    pub(crate) inputs: IndexMap<String, InputSpec>,
    /// The place of each input's name.
    pub(crate) input_places: Vec<Place>,
    pub(crate) output: OutputSpec,
    /// The template of the answers to choose from, if there is one.
    pub(crate) choices: Option<ComputedChoices>,
    pub(crate) decode: DecodeSpec,
    pub(crate) target: Target,
    pub(crate) few_shot: Vec<FewShot>,
    pub(crate) preprocessing: IndexMap<String, Preprocessing>,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) languages: Vec<String>,
    pub(crate) metadata: IndexMap<String, MetadataValue>,
    pub(crate) examples: Vec<Example>,
}

impl FrontMatter {
    /// Checks the front matter of a task file, given with that of the files that it extends, the nearest
    /// first.
    pub(crate) fn check(levels: Vec<(String, RawFrontMatter)>) -> Result<Self, PromptError> {
        let origin = levels
            .first()
            .map(|(origin, _)| origin.clone())
            .unwrap_or_default();
        let mut owners = Owners::default();
        let raw = merged(levels, &mut owners);
        Self::check_merged(&origin, raw, &owners).map_err(|fault| match fault {
            Fault::Problem(Problem { line, key, message }) => {
                let origin = owners.of(&key).unwrap_or(&origin).to_owned();
                PromptErrorKind::Invalid { key, message }.at(&origin, line.map(|line| line + 1))
            }
            Fault::Template(error) => error,
        })
    }

    fn check_merged(origin: &str, raw: RawFrontMatter, owners: &Owners) -> Result<Self, Fault> {
        let description = description(raw.description)?;
        let name = raw.name.map(task_name).transpose()?;
        let version = raw.version.as_ref().map(version).transpose()?;
        let (inputs, input_places) = check_inputs(raw.inputs, owners)?;
        let choices_line = raw.output.as_ref().and_then(RawOutput::choices_line);
        let output = raw.output.map_or(Ok(OutputSpec::Text { fill: None }), |output| {
            check_output(output, &inputs)
        })?;
        let decode = raw
            .decode
            .map_or(Ok(DecodeSpec::default()), |decode| check_decode(decode, &output))?;
        let metrics = raw
            .metrics
            .iter()
            .flatten()
            .map(metric)
            .collect::<Result<_, _>>()?;
        let languages = raw.languages.into_iter().flatten();
        let languages = languages.map(language).collect::<Result<_, _>>()?;
        let examples = raw
            .examples
            .into_iter()
            .enumerate()
            .map(|(index, example)| check_example(index, example, &inputs, &output))
            .collect::<Result<_, _>>()?;
        let origin_of = |key: &str| owners.of(key).unwrap_or(origin);
        let choices = match output.choices() {
            Some(Choices::Computed(source)) => {
                let line = choices_line.map(|line| line + 1);
                Some(ComputedChoices::parse(origin_of("output"), source, line)?)
            }
            _ => None,
        };
        let (template, fields) = check_target(origin_of("target"), raw.target, &inputs, &output)?;
        let separator = check_separator(origin_of("separator"), raw.separator)?;
        let few_shot = check_shots(raw.few_shot, &inputs, &output, &fields)?;
        Ok(Self {
            name,
            description,
            version,
            extends: raw.extends.map(|extends| extends.value),
            inputs,
            input_places,
            output,
            choices,
            decode,
            target: Target {
                template,
                fields,
                separator,
            },
            few_shot,
            preprocessing: preprocessing(raw.preprocessing)?,
            metrics,
            languages,
            metadata: metadata(raw.metadata)?,
            examples,
        })
    }
}

fn description(raw: Option<Spanned<String>>) -> Result<String, Problem> {
    const EXPECTED: &str = "expected a sentence that says what the task does";
    match raw {
        Some(description) if description.value.trim().is_empty() => {
            Err(Problem::new(&description, "description", EXPECTED))
        }
        Some(description) => Ok(description.value.trim().to_owned()),
        None => Err(Problem {
            line: Some(1),
            key: "description".to_owned(),
            message: format!("{EXPECTED}: write `description: Says what is in a picture.`"),
        }),
    }
}

/// Lists the keys that front matter may have, as its parser knows them.
pub(crate) struct Keys {
    pub(crate) front_matter: &'static [&'static str],
    pub(crate) input: &'static [&'static str],
    pub(crate) output: &'static [&'static str],
    pub(crate) decode: &'static [&'static str],
    pub(crate) example: &'static [&'static str],
    pub(crate) shot: &'static [&'static str],
    pub(crate) preprocessing: &'static [&'static str],
}

/// Returns the keys that front matter may have.
pub(crate) fn keys() -> Keys {
    Keys {
        front_matter: field_names::<RawFrontMatter>(),
        input: field_names::<RawInput>(),
        output: field_names::<RawOutput>(),
        decode: &DECODE_KEYS,
        example: field_names::<RawExample>(),
        shot: field_names::<RawShot>(),
        preprocessing: field_names::<RawPreprocessing>(),
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
