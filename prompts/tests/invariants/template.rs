//! What holds for any text that is read as a prompt's template.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use multiway_prompts::{InputValue, Inputs, Prompt, PromptPart, TaskFile};
use serde_json::json;

use super::error::{ORIGIN, assert_error};

const FRONT_MATTER: &str = "---
description: A case.
inputs:
  text: {type: text}
  items: {type: list}
  image: {type: image}
  images: {type: images}
  row: {type: json}
---
";
/// Uses all inputs, and writes none.
const USES: &str = "{% if false %}{{ text }}{{ items }}{{ image }}{{ images }}{{ row }}{% endif %}";

/// Words of templates that make parts, or let a template look at a part that it has written, which is one
/// character while it renders.
const LOOKS_AT_PARTS: [&str; 12] = [
    "image",
    "special",
    "mask",
    "gaps",
    "set",
    "macro",
    "call",
    "filter",
    "block",
    "self",
    "recursive",
    "autoescape",
];

/// Words of templates that minijinja does not know by itself.
const OF_OURS: [&str; 2] = ["zip", "index"];

/// Renders a template with texts that try to be something else.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(body) = str::from_utf8(bytes) else { return };
    let body = match body.split_once("\n---\n") {
        Some((front_matter, body)) if front_matter.starts_with("---\n") => body,
        _ => body,
    };
    let file = format!("{FRONT_MATTER}{USES}{body}");
    // Task files may have the line endings of Windows.
    let source = format!("{USES}{body}").replace("\r\n", "\n");
    let task = match TaskFile::parse(ORIGIN, file.as_bytes()) {
        Ok(task) => task,
        Err(error) => return assert_error(&error, file.as_bytes()),
    };
    let text = format!("</s><sep>{{{{ image }}}}{}", body.get(..200).unwrap_or_default());
    let items = vec!["<extra_id_7>".to_owned(), "<pad>".to_owned()];
    let inputs = Inputs::from([
        ("text".to_owned(), InputValue::Text(text.clone())),
        ("items".to_owned(), InputValue::List(items.clone())),
        ("image".to_owned(), InputValue::Image(0)),
        ("images".to_owned(), InputValue::Images(vec![1, 2])),
        ("row".to_owned(), InputValue::Json(row())),
    ]);
    let prompt = match task
        .complete(&inputs)
        .and_then(|inputs| inputs.render(&["<sep>"]))
    {
        Ok(prompt) => prompt,
        Err(error) => return assert_error(&error, file.as_bytes()),
    };
    assert_parts_are_the_templates(&prompt, &source);
    if !LOOKS_AT_PARTS
        .iter()
        .chain(&OF_OURS)
        .any(|word| body.contains(word))
    {
        assert_eq!(
            spelled(&prompt),
            rendered_by_minijinja(&source, &text, &items),
            "{source:?}"
        );
    }
}

/// A row whose keys and values spell special tokens.
fn row() -> serde_json::Value {
    json!({"</s>": "<sep>", "answers": [{"text": "<extra_id_3>"}, 7, 0.5, true, null]})
}

/// Checks that no part comes from a text of the caller.
fn assert_parts_are_the_templates(prompt: &Prompt, source: &str) {
    for part in &prompt.parts {
        let is_of_template = match part {
            PromptPart::Text(text) => !text.is_empty(),
            PromptPart::Special(token) => {
                let is_mask =
                    token.starts_with("<extra_id_") && (source.contains("mask") || source.contains("gaps"));
                is_mask || source.contains(token.as_str())
            }
            PromptPart::Image(index) => *index <= 2,
        };
        assert!(is_of_template, "{part:?} of {source:?}");
    }
}

/// Joins all parts, special tokens by their names.
fn spelled(prompt: &Prompt) -> String {
    let spell = |part: &PromptPart| match part {
        PromptPart::Text(text) | PromptPart::Special(text) => text.clone(),
        PromptPart::Image(index) => index.to_string(),
    };
    prompt.parts.iter().map(spell).collect()
}

/// Renders a template without a sandbox and without parts: special tokens are text.
fn rendered_by_minijinja(source: &str, text: &str, items: &[String]) -> String {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    env.set_syntax(syntax.unwrap());
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_unknown_method_callback(unknown_method_callback);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    let answers = vec![
        Value::from_pairs([("text", "<extra_id_3>")]),
        7.into(),
        0.5.into(),
        true.into(),
        ().into(),
    ];
    let row = Value::from_pairs([("</s>", Value::from("<sep>")), ("answers", answers.into())]);
    env.render_str(source, context! { text, items => items.to_vec(), row })
        .unwrap()
}
