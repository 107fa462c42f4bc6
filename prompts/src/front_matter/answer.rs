//! The `output` of a task: which kind of answer it gives, and the options of that kind.

mod choices;
mod options;
mod ranking;
mod raw;

use indexmap::IndexMap;

use super::inputs::input_of_kind;
use super::problem::Problem;
use crate::input::{InputKind, InputSpec};
use crate::output::{GroundingDialect, LocationDialect, LocationSpec, OutputSpec};
use crate::suggest::{did_you_mean, listing, nearest, quoted};
use choices::check_choice;
use options::{labels, level, number, predicate};
use ranking::one_of;
pub(super) use raw::RawOutput;
use raw::{LOCATED, RawOption};

pub(super) fn check_output(
    raw: RawOutput,
    inputs: &IndexMap<String, InputSpec>,
) -> Result<OutputSpec, Problem> {
    let kind = raw.kind.value.as_str();
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
    for RawOption {
        name: field,
        found,
        owners,
    } in raw.options()
    {
        if let Some(line) = found.filter(|_| !owners.contains(&kind)) {
            let owners = owners.join(", ");
            let message = format!("an output of kind {kind} has no {field}; it goes with kind {owners}");
            return Err(Problem {
                line,
                key: format!("output.{field}"),
                message,
            });
        }
    }
    if LOCATED.contains(&kind) && !inputs.values().any(|input| input.kind.is_picture()) {
        let message = format!("an output of kind {kind} has places in a picture: add an input of type image");
        return Err(Problem::new(&raw.kind, "output.kind", message));
    }
    check_kind(raw, inputs)
}

fn check_kind(raw: RawOutput, inputs: &IndexMap<String, InputSpec>) -> Result<OutputSpec, Problem> {
    let located = |raw: RawOutput| {
        one_of(raw.dialect, "output.dialect", &LocationDialect::ALL).map(|dialect| LocationSpec { dialect })
    };
    match raw.kind.value.as_str() {
        "choice" => check_choice(raw, inputs).map(OutputSpec::Choice),
        "predicate" => predicate(raw).map(OutputSpec::Predicate),
        "level" => level(raw).map(OutputSpec::Level),
        "labels" => labels(raw, inputs).map(OutputSpec::Labels),
        "number" => number(raw).map(OutputSpec::Number),
        "boxes" => located(raw).map(OutputSpec::Boxes),
        "points" => located(raw).map(OutputSpec::Points),
        "polygons" => located(raw).map(OutputSpec::Polygons),
        "grounded" => {
            let dialect = one_of(raw.dialect, "output.dialect", &GroundingDialect::ALL)?;
            Ok(OutputSpec::Grounded { dialect })
        }
        "table" => Ok(OutputSpec::Table),
        "score" => check_score(raw, inputs),
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

fn check_score(raw: RawOutput, inputs: &IndexMap<String, InputSpec>) -> Result<OutputSpec, Problem> {
    let Some(target) = raw.target_from else {
        return Err(Problem::new(
            &raw.kind,
            "output",
            "an output of kind score needs the text to score: write `target_from:` and the name of an input of type text",
        ));
    };
    let target_from = input_of_kind(target, "output.target_from", InputKind::Text, inputs)?;
    Ok(OutputSpec::Score { target_from })
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
