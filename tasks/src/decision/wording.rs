//! How a question is worded: by a task of its own, or by the task that the caller names.

use multiway_model::{ModelConfig, TaskGroup};
use multiway_prompts::{Calibration, ChoiceMethod, Choices, InputKind, InputValue, OutputSpec};

use super::error::DecisionError;
use super::question::{AnswerScale, ClosedAnswer, ClosedQuestion};
use crate::inputs::TaskInputs;
use crate::task::Task;

/// The input of a task that takes what the questions are about, apart from the question.
const STATE: &str = "state";
/// The input of a task that takes what the answers mean, in their order: an empty text where that is not
/// said.
const DESCRIPTIONS: &str = "descriptions";

/// Writes the file of a task that words a question: how it decodes, what stands before the answers that there
/// are to choose from, and what behind them.
macro_rules! wording {
    ($decode:literal, $before:literal, $behind:literal) => {
        concat!(
            "---
name: decide
description: Answers a question with the probability of each of its answers.
inputs:
  images: {type: images, min: 0}
  state: {type: text, default: \"\"}
  question: {type: text}
  answers: {type: list}
  descriptions: {type: list}
output: {kind: choice, choices_from: answers}
",
            $decode,
            "---
{% for image in images %}{{ image }}{% endfor %}{% if state %}{{ state }} {% endif %}question: {{ question }}",
            $before,
            " options: {% for answer, description in zip(answers, descriptions) %}{{ answer }}",
            "{% if description %} ({{ description }}){% endif %}{% if not loop.last %}, {% endif %}{% endfor %}",
            $behind
        )
    };
}

/// Words a question for models that were trained to write text for text.
const PLAIN: &str = wording!("", "", " answer:");

/// Words a question as native models were trained to read questions: the answer stands at a mask, and what it
/// may be is not shown unless it has to be explained.
const AT_MASK: &str = wording!(
    "decode: {prefix: \"<extra_id_0>\"}\n",
    "{% if descriptions | join(\"\") %}",
    "{% endif %} answer: <extra_id_0>"
);

/// Returns the task file that words questions as a model was trained to read them.
pub(super) fn built_in(config: &ModelConfig) -> &'static str {
    match config.task_group {
        TaskGroup::Native => AT_MASK,
        _ => PLAIN,
    }
}

/// How a task finds the probabilities of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method<'t> {
    /// It ranks answers: those that it is given, or its own.
    Ranked,
    /// It scores the text of an input, which each of the answers becomes.
    Scored(&'t str),
}

/// Says how a task finds probabilities, if it does.
pub(super) fn method(task: &Task) -> Result<Method<'_>, DecisionError> {
    match &task.file().output {
        OutputSpec::Choice(choice) if choice.method == ChoiceMethod::Likelihood => Ok(Method::Ranked),
        OutputSpec::Predicate(_) | OutputSpec::Level(_) => Ok(Method::Ranked),
        OutputSpec::Score { target_from } => Ok(Method::Scored(target_from)),
        output => Err(DecisionError::NotRanked {
            task: task.name().to_owned(),
            kind: output.kind(),
        }),
    }
}

/// Returns how a task calibrates probabilities.
pub(super) fn calibration(task: &Task) -> Option<Calibration> {
    match &task.file().output {
        OutputSpec::Choice(choice) => choice.ranking.calibration,
        OutputSpec::Predicate(predicate) => predicate.ranking.calibration,
        OutputSpec::Level(level) => level.ranking.calibration,
        _ => None,
    }
}

/// Lists the texts that answer a question: its own, or of a predicate the words that the task has for it.
pub(super) fn answers(task: &Task, question: &ClosedQuestion) -> Vec<String> {
    match (&task.file().output, question.scale()) {
        (OutputSpec::Predicate(words), AnswerScale::Predicate) => vec![words.yes.clone(), words.no.clone()],
        _ => question
            .answers()
            .iter()
            .map(|answer| answer.text.clone())
            .collect(),
    }
}

/// Makes the inputs of a task of a question about a text, but for pictures and a text to score. Each part of
/// the question goes to the input that is for it. What has none of its own is joined to one text, and a task
/// without an input for that words the question by itself.
pub(super) fn inputs(
    task: &Task,
    state: &str,
    question: &ClosedQuestion,
) -> Result<TaskInputs, DecisionError> {
    let file = task.file();
    let is = |name: &str, kind| file.inputs.get(name).is_some_and(|spec| spec.kind == kind);
    let (mut inputs, mut given) = (TaskInputs::new(), Vec::new());
    if let Some(Choices::FromInput(name)) = file.output.choices() {
        inputs = inputs.with(name, InputValue::List(answers(task, question)));
        given.push(name.as_str());
    }
    if let OutputSpec::Score { target_from } = &file.output {
        given.push(target_from);
    }
    if is(DESCRIPTIONS, InputKind::List) {
        let answers = question.answers().iter();
        let descriptions = answers.map(|ClosedAnswer { description, .. }| description.clone());
        inputs = inputs.with(DESCRIPTIONS, InputValue::List(descriptions.collect()));
        given.push(DESCRIPTIONS);
    }
    let takes_state = is(STATE, InputKind::Text);
    let mut text = Vec::new();
    if takes_state {
        inputs = inputs.with(STATE, state);
        given.push(STATE);
    } else {
        text.push(state);
    }
    text.push(question.text());
    let Some((name, spec)) = task.plain_input(&given) else {
        if takes_state || state.trim().is_empty() {
            return Ok(inputs);
        }
        let task = task.name().to_owned();
        return Err(DecisionError::NoState { task });
    };
    text.retain(|part| !part.is_empty());
    let value = spec
        .parse(&text.join("\n"))
        .map_err(|source| DecisionError::Input {
            name: name.to_owned(),
            source,
        })?;
    Ok(inputs.with(name, value))
}

#[cfg(test)]
mod tests {
    use multiway_prompts::{Inputs, TaskFile};

    use super::*;

    fn rendered(file: &str, state: &str, descriptions: [&str; 2]) -> String {
        let task = TaskFile::parse("decide", file.as_bytes()).unwrap();
        let list = |texts: [&str; 2]| InputValue::List(texts.map(str::to_owned).to_vec());
        let inputs = [
            ("images", InputValue::Images(Vec::new())),
            ("state", state.into()),
            ("question", "why?".into()),
            ("answers", list(["a", "b"])),
            ("descriptions", list(descriptions)),
        ];
        let inputs: Inputs = inputs.map(|(name, value)| (name.to_owned(), value)).into();
        task.complete(&inputs).unwrap().render(&[]).unwrap().text()
    }

    #[test]
    fn answers_are_shown_with_what_they_mean() {
        let all = rendered(PLAIN, "It rains.", ["", "because"]);
        assert_eq!(all, "It rains. question: why? options: a, b (because) answer:");
        assert_eq!(
            rendered(PLAIN, "", [""; 2]),
            "question: why? options: a, b answer:"
        );
    }

    #[test]
    fn a_native_model_reads_questions_as_it_was_trained_to() {
        assert_eq!(rendered(AT_MASK, "", [""; 2]), "question: why? answer: ");
        let explained = rendered(AT_MASK, "It rains.", ["then", ""]);
        assert_eq!(
            explained,
            "It rains. question: why? options: a (then), b answer: "
        );
    }
}
