//! The names of a classification head's classes.

use multiway_model::{Checkpoint, ModelConfig, Pooling};
use serde::Deserialize;

use crate::error::EngineError;

/// The file with one name a line.
const LABELS: &str = "labels.txt";

/// The file that BEiT-3's own tools write for VQA: a JSON object a line.
const ANSWERS: &str = "answer2label.txt";

/// The answers of NLVR2's head, which no file names.
const JUDGEMENTS: [&str; 2] = ["False", "True"];

#[derive(Deserialize)]
struct AnswerLine {
    answer: String,
    label: usize,
}

/// Reads the names of a head's classes, where the model has such a head and the checkpoint names them.
pub(super) fn read(checkpoint: &Checkpoint) -> Result<Option<Vec<String>>, EngineError> {
    let classes = checkpoint.config().classes();
    if classes == 0 {
        return Ok(None);
    }
    let wrong = |file, problem: String| EngineError::Labels { file, problem };
    let open = |file: &'static str| {
        let bytes = checkpoint.file(file)?;
        let text = bytes.map(|bytes| String::from_utf8(bytes.into_owned()));
        text.transpose()
            .map_err(|_| wrong(file, "expected text in UTF-8".to_owned()))
    };
    let (file, labels) = if let Some(text) = open(LABELS)? {
        (LABELS, text.lines().map(|line| line.trim().to_owned()).collect())
    } else if let Some(text) = open(ANSWERS)? {
        let labels = answers(&text).map_err(|problem| wrong(ANSWERS, problem))?;
        (ANSWERS, labels)
    } else {
        return Ok(known(checkpoint.config()));
    };
    if labels.len() != classes {
        let problem = format!(
            "expected {classes} names, one for each class of the head, found {}",
            labels.len()
        );
        return Err(wrong(file, problem));
    }
    if let Some(line) = labels.iter().position(String::is_empty) {
        return Err(wrong(
            file,
            format!("expected a name on line {}, found nothing", line + 1),
        ));
    }
    Ok(Some(labels))
}

fn answers(text: &str) -> Result<Vec<String>, String> {
    let mut labels: Vec<Option<String>> = Vec::new();
    let lines = text.lines().count();
    for (index, line) in text.lines().enumerate() {
        let AnswerLine { answer, label } = serde_json::from_str(line).map_err(|error| {
            format!(
                "line {}: expected {{\"answer\": .., \"label\": N}}: {error}",
                index + 1
            )
        })?;
        // No label is further on than there are lines.
        if label >= lines {
            return Err(format!(
                "line {}: label {label} is beyond the number of lines",
                index + 1
            ));
        }
        labels.resize(labels.len().max(label + 1), None);
        if let Some(place) = labels.get_mut(label)
            && place.replace(answer).is_some()
        {
            return Err(format!("line {}: label {label} is there twice", index + 1));
        }
    }
    Ok(labels.into_iter().map(Option::unwrap_or_default).collect())
}

fn known(config: &ModelConfig) -> Option<Vec<String>> {
    let judges = config
        .class_head
        .is_some_and(|head| head.pooling == Pooling::Pair);
    (judges && config.classes() == JUDGEMENTS.len()).then(|| JUDGEMENTS.map(str::to_owned).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_ordered_by_their_labels() {
        let text = "{\"answer\": \"no\", \"label\": 1}\n{\"answer\": \"yes\", \"label\": 0}\n";
        assert_eq!(answers(text).unwrap(), ["yes", "no"]);
    }

    #[test]
    fn a_wrong_line_is_named() {
        insta::assert_snapshot!(answers("yes").unwrap_err());
        insta::assert_snapshot!(answers("{\"answer\": \"yes\", \"label\": 7}").unwrap_err());
        let twice = "{\"answer\": \"a\", \"label\": 0}\n{\"answer\": \"b\", \"label\": 0}";
        insta::assert_snapshot!(answers(twice).unwrap_err());
    }
}
