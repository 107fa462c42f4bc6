//! What holds for any bytes that are read as a task file.

use multiway_prompts::{InputKind, InputSpec, InputValue, Inputs, PromptPart, TaskFile};

use super::error::{ORIGIN, assert_error};

/// Reads a task file, completes its inputs, and renders its prompt, twice.
pub(crate) fn check(bytes: &[u8]) {
    let task = match TaskFile::parse(ORIGIN, bytes) {
        Ok(task) => task,
        Err(error) => return assert_error(&error, bytes),
    };
    assert_eq!(TaskFile::parse(ORIGIN, bytes).as_ref(), Ok(&task));
    assert!(serde_json::to_value(&task).is_ok_and(|json| json.is_object()));
    let given: Inputs = task
        .inputs
        .iter()
        .map(|(name, spec)| (name.clone(), value(spec)))
        .collect();
    let rendered = task
        .complete(&given)
        .and_then(|inputs| Ok((inputs.render(&["<sep>"])?, inputs.render(&["<sep>"])?)));
    match rendered {
        Ok((prompt, again)) => {
            assert_eq!(prompt, again);
            let is_given = |part: &PromptPart| !matches!(part, PromptPart::Image(index) if *index > 2);
            assert!(prompt.parts.iter().all(is_given));
        }
        Err(error) => assert_error(&error, bytes),
    }
}

/// Makes a value for an input, which its bounds may still refuse.
fn value(spec: &InputSpec) -> InputValue {
    if let Some(value) = spec.default.clone() {
        return value;
    }
    match spec.kind {
        InputKind::Integer => InputValue::Integer(3),
        InputKind::Number => InputValue::Number(spec.min.unwrap_or(0.5)),
        InputKind::Boolean => InputValue::Boolean(true),
        InputKind::List => InputValue::List(vec!["0:0".to_owned(), "1:1".to_owned()]),
        InputKind::Box => InputValue::Box([0.0, 0.0, 1.0, 1.0]),
        InputKind::Image => InputValue::Image(0),
        InputKind::Images => InputValue::Images(vec![1, 2]),
        _ => InputValue::Text(spec.choices.first().cloned().unwrap_or("a ___ </s>".to_owned())),
    }
}
