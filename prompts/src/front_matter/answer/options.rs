//! The options of the kinds of answer that have several.

use indexmap::IndexMap;
use serde_saphyr::Spanned;

use super::choices::check_choices;
use super::ranking::{one_of, ranking};
use super::raw::RawOutput;
use crate::front_matter::problem::Problem;
use crate::input::{InputSpec, check_answers};
use crate::output::{LabelsSpec, LevelSpec, NumberLanguage, NumberSpec, PredicateSpec};
use crate::suggest::quoted;

pub(super) fn predicate(raw: RawOutput) -> Result<PredicateSpec, Problem> {
    let word = |word: &Option<Spanned<String>>, default: &str| {
        word.as_ref()
            .map_or_else(|| default.to_owned(), |word| word.value.clone())
    };
    let words = [word(&raw.yes, "yes"), word(&raw.no, "no")];
    if let Err(error) = check_answers(&words) {
        let at = raw.no.as_ref().or(raw.yes.as_ref()).unwrap_or(&raw.kind);
        return Err(Problem::new(at, "output", error));
    }
    let [yes, no] = words;
    Ok(PredicateSpec {
        yes,
        no,
        ranking: ranking(raw.normalization, raw.calibration)?,
    })
}

pub(super) fn level(raw: RawOutput) -> Result<LevelSpec, Problem> {
    let Some(levels) = raw.levels else {
        let message =
            "an output of kind level needs the levels, the lowest first: write `levels: [bad, fair, good]`";
        return Err(Problem::new(&raw.kind, "output", message));
    };
    check_answers(&levels.value).map_err(|error| Problem::new(&levels, "output.levels", error))?;
    if let Some(values) = &raw.values {
        let key = "output.values";
        let (found, expected) = (values.value.len(), levels.value.len());
        if found != expected {
            let message = format!("expected a number for each of the {expected} levels, found {found}");
            return Err(Problem::new(values, key, message));
        }
        let rises = |pair: &[f64]| matches!(pair, [low, high] if low < high);
        if !values.value.iter().all(|value| value.is_finite()) || !values.value.windows(2).all(rises) {
            return Err(Problem::new(
                values,
                key,
                "expected finite numbers that rise from level to level",
            ));
        }
    }
    Ok(LevelSpec {
        levels: levels.value,
        values: raw.values.map(|values| values.value).unwrap_or_default(),
        ranking: ranking(raw.normalization, raw.calibration)?,
    })
}

pub(super) fn labels(raw: RawOutput, inputs: &IndexMap<String, InputSpec>) -> Result<LabelsSpec, Problem> {
    let separator = match raw.separator {
        Some(separator) if separator.value.is_empty() => {
            let message = "expected what stands between labels, such as \",\", found nothing";
            return Err(Problem::new(&separator, "output.separator", message));
        }
        Some(separator) => separator.value,
        None => ",".to_owned(),
    };
    if let Some(choices) = &raw.choices
        && let Some(label) = choices
            .value
            .listed()
            .iter()
            .find(|label| label.contains(&separator) || label.trim() != *label)
    {
        let message = format!(
            "expected labels without the separator {} and without white space at their ends, found {}",
            quoted(&separator),
            quoted(label)
        );
        return Err(Problem::new(choices, "output.choices", message));
    }
    let choices = check_choices(raw.choices, raw.choices_from, inputs)?;
    Ok(LabelsSpec { separator, choices })
}

pub(super) fn number(raw: RawOutput) -> Result<NumberSpec, Problem> {
    let languages = NumberLanguage::ALL.map(|language| (language.tag(), language));
    let language = one_of(raw.language, "output.language", &languages)?;
    for (key, bound) in [("output.min", &raw.min), ("output.max", &raw.max)] {
        if let Some(bound) = bound.as_ref().filter(|bound| !bound.value.is_finite()) {
            let message = format!("expected a finite number, found {}", bound.value);
            return Err(Problem::new(bound, key, message));
        }
    }
    if let (Some(min), Some(max)) = (&raw.min, &raw.max)
        && min.value > max.value
    {
        let message = format!(
            "expected at least output.min, which is {}, found {}",
            min.value, max.value
        );
        return Err(Problem::new(max, "output.max", message));
    }
    if let Some(unit) = raw.unit.as_ref().filter(|unit| unit.value.trim().is_empty()) {
        return Err(Problem::new(
            unit,
            "output.unit",
            "expected a unit such as kg, found nothing",
        ));
    }
    Ok(NumberSpec {
        language,
        integer: raw.integer.is_some_and(|integer| integer.value),
        min: raw.min.map(|min| min.value),
        max: raw.max.map(|max| max.value),
        unit: raw.unit.map(|unit| unit.value.trim().to_owned()),
    })
}
