//! The `examples` of a task, checked against its inputs and its answer.

use indexmap::IndexMap;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::inputs::unknown_input;
use super::problem::{Problem, line};
use crate::error::InputError;
use crate::input::{InputKind, InputSpec, InputValue};
use crate::output::{ChoiceSpec, Choices, OutputSpec};
use crate::spec::{Example, ExampleInput};
use crate::suggest::{nearest, quoted};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExample {
    #[serde(default)]
    inputs: IndexMap<Spanned<String>, serde_json::Value>,
    output: Option<Spanned<String>>,
}

pub(super) fn check_example(
    index: usize,
    example: Spanned<RawExample>,
    specs: &IndexMap<String, InputSpec>,
    output: &OutputSpec,
) -> Result<Example, Problem> {
    let key = format!("examples[{index}]");
    let example_line = line(&example);
    let inputs = given_inputs(&key, example_line, &example.value.inputs, specs)?;
    let answer = example_output(&key, example_line, example.value.output, output)?;
    Ok(Example {
        inputs,
        output: answer,
    })
}

/// Reads the inputs of an example, which fit those of the task.
pub(super) fn given_inputs(
    key: &str,
    example_line: Option<usize>,
    given: &IndexMap<Spanned<String>, serde_json::Value>,
    specs: &IndexMap<String, InputSpec>,
) -> Result<IndexMap<String, ExampleInput>, Problem> {
    let mut inputs = IndexMap::new();
    for (name, value) in given {
        let key = format!("{key}.inputs");
        let spec = specs
            .get(&name.value)
            .ok_or_else(|| Problem::new(name, &key, unknown_input(&name.value, specs)))?;
        let input = example_input(spec, value)
            .map_err(|error| Problem::new(name, format!("{key}.{}", name.value), error))?;
        inputs.insert(name.value.clone(), input);
    }
    if let Some((name, spec)) = specs
        .iter()
        .find(|(name, spec)| spec.is_required() && !inputs.contains_key(*name))
    {
        let message = format!("the input '{name}' ({}) is missing", spec.expected());
        return Err(Problem {
            line: example_line,
            key: key.to_owned(),
            message,
        });
    }
    Ok(inputs)
}

fn example_input(spec: &InputSpec, value: &serde_json::Value) -> Result<ExampleInput, InputError> {
    if !spec.kind.is_picture() {
        return spec.parse_json(value).map(ExampleInput::Value);
    }
    let path = |value: &serde_json::Value| value.as_str().filter(|path| !path.is_empty()).map(str::to_owned);
    let paths = match (spec.kind, value) {
        (InputKind::Image, value) => path(value).map(ExampleInput::Picture),
        (_, serde_json::Value::Array(items)) => items
            .iter()
            .map(path)
            .collect::<Option<Vec<_>>>()
            .map(ExampleInput::Pictures),
        _ => None,
    };
    let input = paths.ok_or_else(|| InputError::Type {
        expected: if spec.kind == InputKind::Image {
            "the path of a picture"
        } else {
            "a list of paths of pictures"
        }
        .to_owned(),
        found: quoted(&value.to_string()),
    })?;
    if let ExampleInput::Pictures(paths) = &input {
        spec.check(&InputValue::Images((0..paths.len()).collect()))?;
    }
    Ok(input)
}

fn example_output(
    key: &str,
    example_line: Option<usize>,
    answer: Option<Spanned<String>>,
    output: &OutputSpec,
) -> Result<Option<String>, Problem> {
    let key = format!("{key}.output");
    match (answer, output) {
        (None, output) if output.is_encoded() => Ok(None),
        (Some(answer), output) if output.is_encoded() => {
            let message = format!(
                "an answer of kind {} cannot be written down: remove `output`",
                output.kind()
            );
            Err(Problem::new(&answer, key, message))
        }
        (None, _) => Err(Problem {
            line: example_line,
            key,
            message: "the answer is missing".to_owned(),
        }),
        (Some(answer), output) if !closed_set(output).is_none_or(|set| set.contains(&answer.value)) => {
            let choices = closed_set(output).unwrap_or_default();
            let suggestion = nearest(&answer.value, choices.iter().map(String::as_str));
            let error = InputError::Choice {
                choices,
                found: answer.value.clone(),
                suggestion,
            };
            Err(Problem::new(&answer, key, error))
        }
        (Some(answer), OutputSpec::Json { .. }) => {
            match serde_json::from_str::<serde_json::Value>(&answer.value) {
                Ok(_) => Ok(Some(answer.value)),
                Err(error) => Err(Problem::new(
                    &answer,
                    key,
                    format!("expected JSON in quotes: {error}"),
                )),
            }
        }
        (Some(answer), _) => Ok(Some(answer.value)),
    }
}

/// Lists the answers that there are, if the task file lists them.
fn closed_set(output: &OutputSpec) -> Option<Vec<String>> {
    match output {
        OutputSpec::Choice(ChoiceSpec {
            choices: Choices::Listed(choices),
            ..
        }) => Some(choices.clone()),
        OutputSpec::Predicate(predicate) => Some(vec![predicate.yes.clone(), predicate.no.clone()]),
        OutputSpec::Level(level) => Some(level.levels.clone()),
        _ => None,
    }
}
