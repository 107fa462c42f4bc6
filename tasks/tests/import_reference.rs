//! Imported templates render to the same text as in the libraries that they come from.
//!
//! `scripts/import_reference.py` rendered them, with rows that it made up. Templates that are not imported
//! are counted by their reasons.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use multiway_prompts::{InputKind, InputSpec, InputValue, Inputs, Prompt, PromptPart, TaskFile};
use multiway_tasks::import_text;
use serde_json::{Map, Value};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    library: String,
    yaml: String,
    rows: Vec<Row>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    row: Map<String, Value>,
    prompt: String,
    target: Option<String>,
    choices: Option<Vec<String>>,
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import/reference.jsonl");
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Reads a field of a row as data sets are read.
fn input(spec: &InputSpec, value: &Value) -> Result<InputValue, String> {
    let read = match (spec.kind, value) {
        (InputKind::Text, Value::Number(number)) => spec.parse(&number.to_string()),
        (_, value) => spec.parse_json(value),
    };
    read.map_err(|error| error.to_string())
}

fn field(value: &Value) -> InputValue {
    match value {
        Value::String(text) => InputValue::Text(text.clone()),
        Value::Number(number) if number.is_i64() => InputValue::Integer(number.as_i64().unwrap()),
        other => InputValue::Json(other.clone()),
    }
}

/// Returns the text of a prompt, which has no special tokens: what the source spells is text.
fn text(prompt: &Prompt) -> String {
    assert!(
        prompt
            .parts
            .iter()
            .all(|part| matches!(part, PromptPart::Text(_))),
        "{prompt:?}"
    );
    prompt.text()
}

/// Says in what a task differs from the library, if it does.
fn difference(task: &TaskFile, expected: &Row) -> Result<(), String> {
    let special = ["<sep>", "[CLS]", "[MASK]", "<mask>"];
    let mut inputs = Inputs::new();
    for (name, spec) in &task.inputs {
        let value = expected
            .row
            .get(name)
            .ok_or_else(|| format!("no column '{name}'"))?;
        inputs.insert(
            name.clone(),
            input(spec, value).map_err(|error| format!("{name}: {error}"))?,
        );
    }
    let checked = task.complete(&inputs).map_err(|error| error.to_string())?;
    let prompt = text(&checked.render(&special).map_err(|error| error.to_string())?);
    if prompt != expected.prompt {
        return Err(format!("prompt {prompt:?}, expected {:?}", expected.prompt));
    }
    if let Some(choices) = expected
        .choices
        .as_ref()
        .filter(|_| task.output.kind() == "choice")
        && checked.choices() != Some(choices)
    {
        return Err(format!("choices {:?}, expected {choices:?}", checked.choices()));
    }
    let (Some(expected_target), true) = (&expected.target, task.output.kind() != "score") else {
        return Ok(());
    };
    let fields = task.target_fields().iter();
    let reference = fields.map(|name| {
        (
            name.clone(),
            field(expected.row.get(name).unwrap_or(&Value::Null)),
        )
    });
    let target = checked.render_target(&reference.collect(), &special);
    let target = text(&target.map_err(|error| format!("target: {error}"))?);
    if &target != expected_target {
        return Err(format!("target {target:?}, expected {expected_target:?}"));
    }
    Ok(())
}

#[test]
fn imported_templates_render_as_in_their_libraries_byte_for_byte() {
    let cases = cases();
    assert!(cases.len() >= 200, "the templates are missing");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in &cases {
        let imports = import_text("reference.yaml", &case.yaml);
        let [import] = imports.as_slice() else {
            unreachable!("one template in {}", case.yaml)
        };
        let outcome = match &import.result {
            Ok(_) => "imported".to_owned(),
            Err(error) => format!("not imported: {}", error.reason()),
        };
        *counts.entry(format!("{}: {outcome}", case.library)).or_default() += 1;
        let Ok(file) = &import.result else { continue };
        let task = TaskFile::parse(&format!("{}.task", import.name), file.as_bytes()).unwrap();
        for row in &case.rows {
            if let Err(error) = difference(&task, row) {
                wrong.push(format!("{}: {error}\n{file}\n{:?}", import.name, row.row));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ, the first: {}",
        wrong.len(),
        wrong[0]
    );
    insta::assert_debug_snapshot!(counts);
}
