//! The `output` of a task: which kind of answer it gives, and the options of that kind.

mod options;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::inputs::input_of_kind;
use super::problem::{Problem, line};
use crate::input::{InputKind, InputSpec, check_answers};
use crate::output::{
    ChoiceMethod, ChoiceSpec, Choices, GroundingDialect, LocationDialect, LocationSpec, OutputSpec,
};
use crate::suggest::{did_you_mean, listing, nearest, quoted};
use options::{labels, level, number, one_of, predicate, ranking};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOutput {
    kind: Spanned<String>,
    choices: Option<Spanned<Vec<String>>>,
    choices_from: Option<Spanned<String>>,
    of_model: Option<Spanned<bool>>,
    method: Option<Spanned<String>>,
    normalization: Option<Spanned<String>>,
    calibration: Option<Spanned<RawCalibration>>,
    yes: Option<Spanned<String>>,
    no: Option<Spanned<String>>,
    levels: Option<Spanned<Vec<String>>>,
    values: Option<Spanned<Vec<f64>>>,
    separator: Option<Spanned<String>>,
    language: Option<Spanned<String>>,
    integer: Option<Spanned<bool>>,
    min: Option<Spanned<f64>>,
    max: Option<Spanned<f64>>,
    unit: Option<Spanned<String>>,
    dialect: Option<Spanned<String>>,
    target_from: Option<Spanned<String>>,
    fill: Option<Spanned<String>>,
    hidden: Option<Spanned<String>>,
    schema: Option<Spanned<serde_json::Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCalibration {
    temperature: Spanned<f64>,
}

/// What has ranked answers.
const RANKED: &[&str] = &["choice", "predicate", "level"];
/// What has locations in a picture.
const LOCATED: &[&str] = &["boxes", "points", "polygons", "grounded"];

impl RawOutput {
    /// Lists the options, where they stand, and the kinds that have them.
    fn options(&self) -> [(&'static str, Option<Option<usize>>, &'static [&'static str]); 21] {
        [
            ("choices", self.choices.as_ref().map(line), &["choice", "labels"]),
            (
                "choices_from",
                self.choices_from.as_ref().map(line),
                &["choice", "labels"],
            ),
            ("of_model", self.of_model.as_ref().map(line), &["choice"]),
            ("method", self.method.as_ref().map(line), &["choice"]),
            ("normalization", self.normalization.as_ref().map(line), RANKED),
            ("calibration", self.calibration.as_ref().map(line), RANKED),
            ("yes", self.yes.as_ref().map(line), &["predicate"]),
            ("no", self.no.as_ref().map(line), &["predicate"]),
            ("levels", self.levels.as_ref().map(line), &["level"]),
            ("values", self.values.as_ref().map(line), &["level"]),
            ("separator", self.separator.as_ref().map(line), &["labels"]),
            ("language", self.language.as_ref().map(line), &["number"]),
            ("integer", self.integer.as_ref().map(line), &["number"]),
            ("min", self.min.as_ref().map(line), &["number"]),
            ("max", self.max.as_ref().map(line), &["number"]),
            ("unit", self.unit.as_ref().map(line), &["number"]),
            ("dialect", self.dialect.as_ref().map(line), LOCATED),
            ("target_from", self.target_from.as_ref().map(line), &["score"]),
            ("fill", self.fill.as_ref().map(line), &["text"]),
            ("hidden", self.hidden.as_ref().map(line), &["patches"]),
            ("schema", self.schema.as_ref().map(line), &["json"]),
        ]
    }
}

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
    for (field, found, owners) in raw.options() {
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

fn check_choice(raw: RawOutput, inputs: &IndexMap<String, InputSpec>) -> Result<ChoiceSpec, Problem> {
    const METHODS: [(&str, ChoiceMethod); 2] = [
        ("likelihood", ChoiceMethod::Likelihood),
        ("trie", ChoiceMethod::Trie),
    ];
    let choices = match raw.of_model.as_ref().filter(|of_model| of_model.value) {
        Some(of_model) if raw.choices.is_some() || raw.choices_from.is_some() => {
            return Err(Problem::new(
                of_model,
                "output.of_model",
                "the answers come from the model's head: remove `choices` and `choices_from`",
            ));
        }
        Some(_) => Choices::OfModel,
        None => check_choices(raw.choices, raw.choices_from, inputs)?.ok_or_else(|| {
            Problem::new(
                &raw.kind,
                "output",
                "an output of kind choice needs the answers: write `choices: [yes, no]`, or `choices_from:` and the \
                 name of an input of type list, or `of_model: true` for the classes of the model's head",
            )
        })?,
    };
    let of_model = choices == Choices::OfModel;
    let placed = raw.method.as_ref().map(line);
    let method = one_of(raw.method, "output.method", &METHODS)?;
    let compared = raw.normalization.as_ref().map(line);
    let calibrated = raw.calibration.as_ref().map(line);
    let is_trie = method == ChoiceMethod::Trie;
    let misplaced = [
        (
            "output.method",
            placed.filter(|_| of_model && is_trie),
            "the classes of the model's head are no texts to decode: remove `method`",
        ),
        (
            "output.normalization",
            compared.filter(|_| is_trie || of_model),
            "it compares the likelihoods of whole answers: it goes with `method: likelihood` and texts to choose from",
        ),
        (
            "output.calibration",
            calibrated.filter(|_| is_trie),
            "it goes with `method: likelihood`",
        ),
    ];
    if let Some((key, Some(line), message)) = misplaced.into_iter().find(|(_, found, _)| found.is_some()) {
        return Err(Problem {
            line,
            key: key.to_owned(),
            message: message.to_owned(),
        });
    }
    let ranking = ranking(raw.normalization, raw.calibration)?;
    Ok(ChoiceSpec {
        choices,
        method,
        ranking,
    })
}

/// Checks where the answers to choose from are; `None` if they are nowhere.
fn check_choices(
    choices: Option<Spanned<Vec<String>>>,
    from: Option<Spanned<String>>,
    inputs: &IndexMap<String, InputSpec>,
) -> Result<Option<Choices>, Problem> {
    match (choices, from) {
        (Some(choices), None) => {
            check_answers(&choices.value).map_err(|error| Problem::new(&choices, "output.choices", error))?;
            Ok(Some(Choices::Listed(choices.value)))
        }
        (None, Some(from)) => {
            let name = input_of_kind(from, "output.choices_from", InputKind::List, inputs)?;
            Ok(Some(Choices::FromInput(name)))
        }
        (Some(_), Some(from)) => Err(Problem::new(
            &from,
            "output.choices_from",
            "the answers come either from `choices` or from `choices_from`: remove one of the two",
        )),
        (None, None) => Ok(None),
    }
}
