//! `multiway tasks show`: one task.

use std::fmt::Write as _;

use multiway::Task;
use multiway::prompt::{InputSpec, MetadataValue};

use super::super::failure::Outcome;
use super::super::output::{print_json, print_line};

/// Runs the verb.
pub(super) fn run(task: &Task, json: bool) -> Outcome {
    if json {
        return print_json(task.file());
    }
    print_line(&describe(task))
}

fn describe(task: &Task) -> String {
    let file = task.file();
    let mut text = format!(
        "{}: {}\n\nfile     {}\noutput   {}",
        task.name(),
        task.description(),
        task.origin(),
        file.output.kind()
    );
    if let Some(version) = &file.version {
        let _ = write!(text, "\nversion  {version}");
    }
    if let Some(extends) = &file.extends {
        let _ = write!(text, "\nextends  {extends}");
    }
    if !file.few_shot.is_empty() {
        let _ = write!(text, "\nshots    {}", file.few_shot.len());
    }
    if !file.languages.is_empty() {
        let _ = write!(text, "\nlanguage {}", file.languages.join(", "));
    }
    if !file.metrics.is_empty() {
        let metrics: Vec<&str> = file.metrics.iter().map(|metric| metric.name()).collect();
        let _ = write!(text, "\nmetrics  {}", metrics.join(", "));
    }
    for (name, value) in &file.metadata {
        let _ = match value {
            MetadataValue::Texts(texts) => write!(text, "\n{name:8} {}", texts.join(", ")),
            MetadataValue::Text(value) => write!(text, "\n{name:8} {value}"),
            _ => Ok(()),
        };
    }
    text.push_str("\n\ninputs\n");
    let width = file.inputs.keys().map(String::len).max().unwrap_or_default();
    for (name, spec) in &file.inputs {
        let _ = writeln!(text, "  {name:width$}  {}", describe_input(spec));
    }
    let _ = write!(
        text,
        "\nprompt\n  {}",
        file.template().trim_end().replace('\n', "\n  ")
    );
    if file.target_fields() != ["target"] {
        let _ = write!(
            text,
            "\n\ntarget\n  {}",
            file.target().trim_end().replace('\n', "\n  ")
        );
    }
    text
}

fn describe_input(spec: &InputSpec) -> String {
    let mut text = spec.kind.to_string();
    if let Some(description) = &spec.description {
        let _ = write!(text, ", {description}");
    }
    match (&spec.min, &spec.max) {
        (Some(min), Some(max)) => drop(write!(text, ", {min} to {max}")),
        (Some(min), None) => drop(write!(text, ", at least {min}")),
        (None, Some(max)) => drop(write!(text, ", at most {max}")),
        (None, None) => {}
    }
    if !spec.choices.is_empty() {
        let _ = write!(text, ", one of {}", spec.choices.join(", "));
    }
    if let Some(default) = spec
        .default
        .as_ref()
        .and_then(|default| serde_json::to_string(default).ok())
    {
        let _ = write!(text, ", default {default}");
    }
    text
}
