//! The `inputs` of a task: names, types, and which values are allowed.

use indexmap::IndexMap;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::owners::Owners;
use super::problem::{Place, Problem, line};
use crate::input::{BoxUnit, InputKind, InputSpec, check_answers};
use crate::suggest::{did_you_mean, listing, nearest, quoted};

/// The most inputs that a task may have.
const MAX_INPUTS: usize = 64;

/// Names that Jinja, or this crate, gives a meaning of its own.
const RESERVED: [&str; 24] = [
    "False",
    "None",
    "True",
    "and",
    "answer_choices",
    "caller",
    "else",
    "false",
    "for",
    "if",
    "in",
    "is",
    "loop",
    "mask",
    "namespace",
    "none",
    "not",
    "or",
    "range",
    "self",
    "special",
    "super",
    "true",
    "zip",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawInput {
    #[serde(rename = "type")]
    kind: InputKind,
    description: Option<String>,
    default: Option<Spanned<serde_json::Value>>,
    choices: Option<Spanned<Vec<String>>>,
    min: Option<Spanned<f64>>,
    max: Option<Spanned<f64>>,
    max_length: Option<Spanned<usize>>,
    unit: Option<Spanned<BoxUnit>>,
}

pub(super) fn check_inputs(
    raw: IndexMap<Spanned<String>, Option<RawInput>>,
    owners: &Owners,
) -> Result<(IndexMap<String, InputSpec>, Vec<Place>), Problem> {
    let mut inputs = IndexMap::new();
    let mut places = Vec::new();
    for (name, input) in raw {
        let key = format!("inputs.{}", name.value);
        check_input_name(&name, &key)?;
        let Some(input) = input else {
            if owners.removes(&name.value) {
                continue;
            }
            let message =
                "expected a type: write `{type: text}`; `null` removes an input that another task file has";
            return Err(Problem::new(&name, key, message));
        };
        if inputs.len() == MAX_INPUTS {
            return Err(Problem::new(
                &name,
                "inputs",
                format!("expected at most {MAX_INPUTS} inputs"),
            ));
        }
        let spec = check_input(&key, &name, input)?;
        places.push(Place {
            origin: owners.of(&key).map(str::to_owned),
            line: line(&name).map(|line| line + 1),
        });
        inputs.insert(name.value, spec);
    }
    Ok((inputs, places))
}

fn check_input_name(name: &Spanned<String>, key: &str) -> Result<(), Problem> {
    let text = name.value.as_str();
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic());
    if !starts_well
        || !text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        let message = format!(
            "expected a name of letters, digits and '_' that starts with a letter, found {}",
            quoted(text)
        );
        return Err(Problem::new(name, "inputs", message));
    }
    if RESERVED.contains(&text) {
        return Err(Problem::new(
            name,
            key,
            "this name has a meaning of its own in templates: choose another",
        ));
    }
    Ok(())
}

fn check_input(key: &str, name: &Spanned<String>, raw: RawInput) -> Result<InputSpec, Problem> {
    let kind = raw.kind;
    check_range(key, &raw)?;
    let measured = matches!(kind, InputKind::Text | InputKind::List);
    if let Some(length) = raw.max_length.as_ref().filter(|_| !measured) {
        return Err(misplaced(length, key, "max_length", kind));
    }
    if let Some(unit) = raw.unit.as_ref().filter(|_| kind != InputKind::Box) {
        return Err(misplaced(unit, key, "unit", kind));
    }
    check_choices(key, name, &raw)?;
    let mut spec = InputSpec::new(kind);
    spec.description = raw.description;
    spec.choices = raw.choices.map(|choices| choices.value).unwrap_or_default();
    spec.min = raw.min.map(|min| min.value);
    spec.max = raw.max.map(|max| max.value);
    spec.max_length = raw.max_length.map(|length| length.value);
    spec.unit = raw.unit.map(|unit| unit.value).or(spec.unit);
    if let Some(default) = raw.default {
        if kind.is_picture() {
            return Err(misplaced(&default, key, "default", kind));
        }
        let value = spec.parse_json(&default.value);
        spec.default = Some(value.map_err(|error| Problem::new(&default, format!("{key}.default"), error))?);
    }
    Ok(spec)
}

/// Checks that an input of type choice, and no other, lists its texts.
fn check_choices(key: &str, name: &Spanned<String>, raw: &RawInput) -> Result<(), Problem> {
    match (&raw.choices, raw.kind) {
        (Some(choices), InputKind::Choice) => check_answers(&choices.value)
            .map_err(|error| Problem::new(choices, format!("{key}.choices"), error)),
        (Some(choices), InputKind::Text) => Err(Problem::new(
            choices,
            format!("{key}.choices"),
            "an input of type text may be any text: write `type: choice`",
        )),
        (Some(choices), kind) => Err(misplaced(choices, key, "choices", kind)),
        (None, InputKind::Choice) => Err(Problem::new(
            name,
            key,
            "an input of type choice needs its texts: write `choices: [red, green]`",
        )),
        (None, _) => Ok(()),
    }
}

/// Says that inputs of this type do not have a field.
fn misplaced<T>(at: &Spanned<T>, key: &str, field: &str, kind: InputKind) -> Problem {
    Problem::new(
        at,
        format!("{key}.{field}"),
        format!("an input of type {kind} has no {field}"),
    )
}

fn check_range(key: &str, raw: &RawInput) -> Result<(), Problem> {
    let kinds = [
        InputKind::Integer,
        InputKind::Number,
        InputKind::List,
        InputKind::Images,
    ];
    for (field, bound) in [("min", &raw.min), ("max", &raw.max)] {
        let Some(bound) = bound else { continue };
        if !kinds.contains(&raw.kind) {
            return Err(misplaced(bound, key, field, raw.kind));
        }
        check_bound(raw.kind, bound, format!("{key}.{field}"))?;
    }
    match (&raw.min, &raw.max) {
        (Some(min), Some(max)) if min.value > max.value => {
            let message = format!(
                "expected at least {key}.min, which is {}, found {}",
                min.value, max.value
            );
            Err(Problem::new(max, format!("{key}.max"), message))
        }
        _ => Ok(()),
    }
}

fn check_bound(kind: InputKind, bound: &Spanned<f64>, key: String) -> Result<(), Problem> {
    if !bound.value.is_finite() {
        return Err(Problem::new(
            bound,
            key,
            format!("expected a finite number, found {}", bound.value),
        ));
    }
    let counts = matches!(kind, InputKind::List | InputKind::Images);
    if counts && (bound.value < 0.0 || bound.value.fract() > 0.0) {
        return Err(Problem::new(
            bound,
            key,
            format!("expected a whole number of items, found {}", bound.value),
        ));
    }
    Ok(())
}

pub(super) fn unknown_input(name: &str, inputs: &IndexMap<String, InputSpec>) -> String {
    let names: Vec<&String> = inputs.keys().collect();
    let suggestion = nearest(name, names.iter().map(|name| name.as_str()));
    format!(
        "there is no input '{name}'{} (inputs: {})",
        did_you_mean(suggestion.as_ref()),
        listing(&names)
    )
}

pub(super) fn input_of_kind(
    name: Spanned<String>,
    key: &str,
    kind: InputKind,
    inputs: &IndexMap<String, InputSpec>,
) -> Result<String, Problem> {
    match inputs.get(&name.value) {
        Some(spec) if spec.kind == kind => Ok(name.value),
        Some(spec) => {
            let message = format!(
                "expected an input of type {kind}, and '{}' is of type {}",
                name.value, spec.kind
            );
            Err(Problem::new(&name, key, message))
        }
        None => Err(Problem::new(&name, key, unknown_input(&name.value, inputs))),
    }
}
