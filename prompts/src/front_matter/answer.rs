//! The `output` of a task: which kind of answer it gives.

use indexmap::IndexMap;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::inputs::input_of_kind;
use super::problem::{Problem, line};
use crate::input::{InputKind, InputSpec, check_answers};
use crate::spec::{Choices, OutputSpec};
use crate::suggest::{did_you_mean, listing, nearest, quoted};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOutput {
    kind: Spanned<String>,
    choices: Option<Spanned<Vec<String>>>,
    choices_from: Option<Spanned<String>>,
    of_model: Option<Spanned<bool>>,
    fill: Option<Spanned<String>>,
    hidden: Option<Spanned<String>>,
    schema: Option<Spanned<serde_json::Value>>,
}

pub(super) fn check_output(
    raw: RawOutput,
    inputs: &IndexMap<String, InputSpec>,
) -> Result<OutputSpec, Problem> {
    let kind = raw.kind.value.as_str();
    let fields = [
        ("choices", raw.choices.as_ref().map(line), "choice"),
        ("choices_from", raw.choices_from.as_ref().map(line), "choice"),
        ("of_model", raw.of_model.as_ref().map(line), "choice"),
        ("fill", raw.fill.as_ref().map(line), "text"),
        ("hidden", raw.hidden.as_ref().map(line), "patches"),
        ("schema", raw.schema.as_ref().map(line), "json"),
    ];
    if !OutputSpec::KINDS.contains(&kind) {
        let suggestion = nearest(kind, OutputSpec::KINDS);
        let message = format!(
            "there is no kind {}{} (kinds: {})",
            quoted(kind),
            did_you_mean(suggestion.as_ref()),
            listing(&OutputSpec::KINDS)
        );
        return Err(Problem::new(&raw.kind, "output.kind", message));
    }
    for (field, found, owner) in fields {
        if let Some(line) = found.filter(|_| kind != owner) {
            let message = format!("an output of kind {kind} has no {field}; it goes with kind {owner}");
            return Err(Problem {
                line,
                key: format!("output.{field}"),
                message,
            });
        }
    }
    match kind {
        "choice" => check_choices(raw, inputs).map(OutputSpec::Choice),
        "embedding" => Ok(OutputSpec::Embedding),
        "patches" => check_patches(raw, inputs),
        "json" => check_schema(raw),
        _ => {
            let fill = raw
                .fill
                .map(|fill| input_of_kind(fill, "output.fill", InputKind::Text, inputs))
                .transpose()?;
            Ok(OutputSpec::Text { fill })
        }
    }
}

fn check_patches(raw: RawOutput, inputs: &IndexMap<String, InputSpec>) -> Result<OutputSpec, Problem> {
    let Some(hidden) = raw.hidden else {
        return Err(Problem::new(
            &raw.kind,
            "output",
            "an output of kind patches needs the patches to hide: write `hidden:` and the name of an input of type list",
        ));
    };
    let hidden = input_of_kind(hidden, "output.hidden", InputKind::List, inputs)?;
    Ok(OutputSpec::Patches { hidden })
}

fn check_schema(raw: RawOutput) -> Result<OutputSpec, Problem> {
    match raw.schema {
        Some(schema) if schema.value.is_object() => Ok(OutputSpec::Json { schema: schema.value }),
        Some(schema) => Err(Problem::new(
            &schema,
            "output.schema",
            format!(
                "expected a JSON schema, written as YAML, found {}",
                kind_of(&schema.value)
            ),
        )),
        None => Err(Problem::new(
            &raw.kind,
            "output",
            "an output of kind json needs a JSON schema: write `schema: {type: object, properties: ...}`",
        )),
    }
}

/// Names the kind of a value that is no object.
fn kind_of(value: &serde_json::Value) -> &'static str {
    use serde_json::Value::{Array, Bool, Null, Number, Object, String};
    match value {
        Null => "nothing",
        Bool(_) => "a boolean",
        Number(_) => "a number",
        String(_) => "a text",
        Array(_) => "a list",
        Object(_) => "an object",
    }
}

fn check_choices(raw: RawOutput, inputs: &IndexMap<String, InputSpec>) -> Result<Choices, Problem> {
    if let Some(of_model) = raw.of_model.filter(|of_model| of_model.value) {
        if raw.choices.is_some() || raw.choices_from.is_some() {
            return Err(Problem::new(
                &of_model,
                "output.of_model",
                "the answers come from the model's head: remove `choices` and `choices_from`",
            ));
        }
        return Ok(Choices::OfModel);
    }
    match (raw.choices, raw.choices_from) {
        (Some(choices), None) => {
            check_answers(&choices.value).map_err(|error| Problem::new(&choices, "output.choices", error))?;
            Ok(Choices::Listed(choices.value))
        }
        (None, Some(from)) => {
            input_of_kind(from, "output.choices_from", InputKind::List, inputs).map(Choices::FromInput)
        }
        (Some(_), Some(from)) => Err(Problem::new(
            &from,
            "output.choices_from",
            "the answers come either from `choices` or from `choices_from`: remove one of the two",
        )),
        (None, None) => Err(Problem::new(
            &raw.kind,
            "output",
            "an output of kind choice needs the answers: write `choices: [yes, no]`, or `choices_from:` and the name of \
             an input of type list, or `of_model: true` for the classes of the model's head",
        )),
    }
}
