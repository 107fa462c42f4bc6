//! The `output` and `decode` of a task: which kind of answer, and how it is decoded.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::inputs::input_of_kind;
use super::{Problem, line};
use crate::input::{InputKind, InputSpec, check_answers};
use crate::spec::{Choices, DecodeSpec, EarlyStop, OutputSpec};
use crate::special::{SPECIAL_FORMS, split_specials};
use crate::suggest::{did_you_mean, listing, nearest, quoted};

/// The most tokens whose logits a task may change by a bias.
const MAX_BIASED: usize = 1024;

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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDecode {
    prefix: Option<Spanned<String>>,
    max_new_tokens: Option<Spanned<usize>>,
    temperature: Option<Spanned<f32>>,
    top_k: Option<Spanned<usize>>,
    top_p: Option<Spanned<f32>>,
    min_p: Option<Spanned<f32>>,
    typical_p: Option<Spanned<f32>>,
    seed: Option<u64>,
    beams: Option<Spanned<usize>>,
    length_penalty: Option<Spanned<f32>>,
    early_stopping: Option<Spanned<String>>,
    repetition_penalty: Option<Spanned<f32>>,
    presence_penalty: Option<Spanned<f32>>,
    frequency_penalty: Option<Spanned<f32>>,
    logit_bias: Option<Spanned<BTreeMap<u32, f32>>>,
    no_repeat_ngram_size: Option<Spanned<usize>>,
    min_new_tokens: Option<Spanned<usize>>,
    #[serde(default)]
    stop: Vec<Spanned<String>>,
    regex: Option<Spanned<String>>,
    lark: Option<Spanned<String>>,
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

pub(super) fn check_decode(raw: Spanned<RawDecode>, output: &OutputSpec) -> Result<DecodeSpec, Problem> {
    if output.is_encoded() {
        let message = format!(
            "an answer of kind {} is not decoded: remove `decode`",
            output.kind()
        );
        return Err(Problem::new(&raw, "decode", message));
    }
    let raw = raw.value;
    check_constraint(&raw, output)?;
    Ok(DecodeSpec {
        prefix: raw.prefix.map(prefix).transpose()?.unwrap_or_default(),
        max_new_tokens: at_least_one(raw.max_new_tokens, "decode.max_new_tokens")?,
        temperature: bounded(
            raw.temperature,
            "decode.temperature",
            "a number of at least 0",
            |t| t >= 0.0,
        )?,
        top_k: at_least_one(raw.top_k, "decode.top_k")?,
        top_p: bounded(raw.top_p, "decode.top_p", "a number above 0 and up to 1", |p| {
            p > 0.0 && p <= 1.0
        })?,
        min_p: bounded(raw.min_p, "decode.min_p", "a number from 0 to 1", |p| {
            (0.0..=1.0).contains(&p)
        })?,
        typical_p: bounded(
            raw.typical_p,
            "decode.typical_p",
            "a number above 0 and up to 1",
            |p| p > 0.0 && p <= 1.0,
        )?,
        seed: raw.seed,
        beams: at_least_one(raw.beams, "decode.beams")?,
        length_penalty: bounded(
            raw.length_penalty,
            "decode.length_penalty",
            "a finite number",
            |_| true,
        )?,
        early_stopping: raw.early_stopping.map(early_stopping).transpose()?,
        repetition_penalty: bounded(
            raw.repetition_penalty,
            "decode.repetition_penalty",
            "a number above 0",
            |penalty| penalty > 0.0,
        )?,
        presence_penalty: penalty(raw.presence_penalty, "decode.presence_penalty")?,
        frequency_penalty: penalty(raw.frequency_penalty, "decode.frequency_penalty")?,
        logit_bias: raw.logit_bias.map(logit_bias).transpose()?.unwrap_or_default(),
        no_repeat_ngram_size: at_least_one(raw.no_repeat_ngram_size, "decode.no_repeat_ngram_size")?,
        min_new_tokens: at_least_one(raw.min_new_tokens, "decode.min_new_tokens")?,
        stop: raw.stop.into_iter().map(stop).collect::<Result<_, _>>()?,
        regex: raw.regex.map(|regex| regex.value),
        lark: raw.lark.map(|lark| lark.value),
    })
}

/// Checks that an answer that must have a form is text of one form, written by one beam to its end.
fn check_constraint(raw: &RawDecode, output: &OutputSpec) -> Result<(), Problem> {
    let forms = [("decode.regex", &raw.regex), ("decode.lark", &raw.lark)];
    let mut forms = forms
        .iter()
        .filter_map(|(key, form)| Some((*key, form.as_ref()?)));
    let (first, second) = (forms.next(), forms.next());
    if let Some((key, form)) = second {
        let message = "an answer has one form: remove either `regex` or `lark`";
        return Err(Problem::new(form, key, message));
    }
    if let Some((key, form)) = first
        && *output != (OutputSpec::Text { fill: None })
    {
        let kind = output.kind();
        let message = format!("it goes with an output of kind text that fills no gaps, found {kind}");
        return Err(Problem::new(form, key, message));
    }
    if first.is_none() && !matches!(output, OutputSpec::Json { .. }) {
        return Ok(());
    }
    if let Some(beams) = raw.beams.as_ref().filter(|beams| beams.value > 1) {
        let message = format!(
            "an answer of a given form is written by one beam, found {}",
            beams.value
        );
        return Err(Problem::new(beams, "decode.beams", message));
    }
    match raw.stop.first() {
        Some(stop) => Err(Problem::new(
            stop,
            "decode.stop",
            "an answer of a given form ends by itself: remove `stop`",
        )),
        None => Ok(()),
    }
}

fn prefix(prefix: Spanned<String>) -> Result<Vec<String>, Problem> {
    split_specials(&prefix.value).ok_or_else(|| {
        let message = format!(
            "expected special tokens ({SPECIAL_FORMS}), found {}",
            quoted(&prefix.value)
        );
        Problem::new(&prefix, "decode.prefix", message)
    })
}

fn at_least_one(value: Option<Spanned<usize>>, key: &str) -> Result<Option<usize>, Problem> {
    match value {
        Some(value) if value.value == 0 => Err(Problem::new(
            &value,
            key,
            "expected a whole number of at least 1, found 0",
        )),
        value => Ok(value.map(|value| value.value)),
    }
}

fn penalty(value: Option<Spanned<f32>>, key: &str) -> Result<Option<f32>, Problem> {
    bounded(value, key, "a number from -2 to 2", |penalty| {
        penalty.abs() <= 2.0
    })
}

fn logit_bias(bias: Spanned<BTreeMap<u32, f32>>) -> Result<BTreeMap<u32, f32>, Problem> {
    let key = "decode.logit_bias";
    if bias.value.len() > MAX_BIASED {
        let message = format!("expected at most {MAX_BIASED} tokens, found {}", bias.value.len());
        return Err(Problem::new(&bias, key, message));
    }
    let is_wrong = |value: &f32| value.is_nan() || value.abs() > 100.0;
    if let Some((id, value)) = bias.value.iter().find(|(_, value)| is_wrong(value)) {
        let message = format!("expected numbers from -100 to 100, found {value} for token {id}");
        return Err(Problem::new(&bias, key, message));
    }
    Ok(bias.value)
}

fn bounded(
    value: Option<Spanned<f32>>,
    key: &str,
    expected: &str,
    allowed: impl Fn(f32) -> bool,
) -> Result<Option<f32>, Problem> {
    match value {
        Some(value) if !(value.value.is_finite() && allowed(value.value)) => Err(Problem::new(
            &value,
            key,
            format!("expected {expected}, found {}", value.value),
        )),
        Some(value) => Ok(Some(value.value)),
        None => Ok(None),
    }
}

fn early_stopping(value: Spanned<String>) -> Result<EarlyStop, Problem> {
    let known = EarlyStop::ALL.iter().find(|(name, _)| *name == value.value);
    known.map(|(_, stop)| *stop).ok_or_else(|| {
        let names = EarlyStop::ALL.map(|(name, _)| name);
        let message = format!(
            "expected one of {}, found {}",
            listing(&names),
            quoted(&value.value)
        );
        Problem::new(&value, "decode.early_stopping", message)
    })
}

fn stop(stop: Spanned<String>) -> Result<String, Problem> {
    match stop.value.is_empty() {
        true => Err(Problem::new(
            &stop,
            "decode.stop",
            "expected text that ends the answer, found an empty text",
        )),
        false => Ok(stop.value),
    }
}
