//! Where the answers to choose from are, and how one is found.

use indexmap::IndexMap;
use serde_saphyr::Spanned;

use super::ranking::{one_of, ranking};
use super::raw::{RawChoices, RawOutput};
use crate::front_matter::inputs::input_of_kind;
use crate::front_matter::problem::{Problem, line};
use crate::input::{InputKind, InputSpec, check_answers};
use crate::output::{ChoiceMethod, ChoiceSpec, Choices};

pub(super) fn check_choice(
    raw: RawOutput,
    inputs: &IndexMap<String, InputSpec>,
) -> Result<ChoiceSpec, Problem> {
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
pub(super) fn check_choices(
    choices: Option<Spanned<RawChoices>>,
    from: Option<Spanned<String>>,
    inputs: &IndexMap<String, InputSpec>,
) -> Result<Option<Choices>, Problem> {
    match (choices, from) {
        (Some(choices), None) => match choices.value {
            RawChoices::Listed(ref answers) => {
                check_answers(answers).map_err(|error| Problem::new(&choices, "output.choices", error))?;
                Ok(Some(Choices::Listed(answers.clone())))
            }
            RawChoices::Computed(template) => Ok(Some(Choices::Computed(template))),
        },
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
