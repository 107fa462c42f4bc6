//! The pictures of the repository's examples: what a newcomer tries first.

use std::collections::BTreeMap;
use std::path::Path;

use multiway_tasks::TaskInputs;
use serde::Deserialize;

use super::asker::Asker;
use super::{Count, EvaluateError, Scores};
use crate::data::read_lines;

/// The file of the right answers, in the folder of the pictures.
const ANSWERS: &str = "answers.jsonl";

/// A task on pictures, with the answers that are right.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    /// Files in the folder.
    images: Vec<String>,
    task: String,
    /// The task's other inputs.
    #[serde(default)]
    inputs: BTreeMap<String, String>,
    answers: Vec<String>,
}

pub(super) fn score(asker: &Asker<'_>, folder: &Path, scores: &mut Scores<'_>) -> Result<(), EvaluateError> {
    if !scores.wants(&["examples"]) {
        return Ok(());
    }
    let examples: Vec<Example> = read_lines(&folder.join(ANSWERS))?;
    let answers = asker.each("examples", &examples, |example| {
        let mut inputs = TaskInputs::new();
        for image in &example.images {
            inputs = inputs.with_image(asker.open(&folder.join(image))?);
        }
        for (name, value) in &example.inputs {
            inputs = inputs.with(name.as_str(), value.as_str());
        }
        let answer = asker.text(&example.task, inputs)?;
        Ok(example
            .answers
            .iter()
            .any(|right| right.eq_ignore_ascii_case(&answer)))
    })?;
    scores.push(
        "examples",
        "an answer that is written beside the picture",
        Count::of(answers),
    );
    Ok(())
}
