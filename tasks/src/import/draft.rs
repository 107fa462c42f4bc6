//! The task file that an import writes.

use multiway_prompts::{InputKind, Metric, Normalization, TaskFile};
use serde_json::{Value, json};

use super::choices::Answers;
use super::error::ImportError;
use super::uses::Columns;

/// The most bytes of a text of metadata.
const MAX_METADATA_BYTES: usize = 1_000;
/// The most bytes of a name.
const MAX_NAME_BYTES: usize = 100;

/// A task file in parts.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) inputs: Vec<(String, InputKind)>,
    pub(super) output: Output,
    /// Sampling parameters.
    pub(super) decode: Vec<(&'static str, Value)>,
    pub(super) target: Option<String>,
    /// What stands between few-shot examples.
    pub(super) separator: Option<&'static str>,
    pub(super) metrics: Vec<Metric>,
    pub(super) metadata: Vec<(&'static str, String)>,
    pub(super) prompt: String,
}

/// The kind of answer.
#[derive(Debug)]
pub(super) enum Output {
    Text,
    Choice(Answers, Normalization),
    Score(String),
}

impl Draft {
    /// Writes the task file, and reads it again.
    pub(super) fn finish(&self) -> Result<String, ImportError> {
        let text = self.text();
        let task = TaskFile::parse(&format!("{}.task", self.name), text.as_bytes())?;
        self.check_fields(&task)?;
        Ok(text)
    }

    /// Checks that a column which the target reads, and then sets to something else, is a field of it.
    fn check_fields(&self, task: &TaskFile) -> Result<(), ImportError> {
        let mut read = Columns::default();
        read.read(self.target.as_deref().unwrap_or_default(), &["answer_choices"])?;
        let is_known = |name: &str| {
            task.inputs.contains_key(name) || task.target_fields().iter().any(|field| field == name)
        };
        match read.names().find(|name| !is_known(name)) {
            Some(name) => Err(ImportError::Construct {
                what: format!("the column `{name}`, which the target sets to something else,"),
            }),
            None => Ok(()),
        }
    }

    /// Texts are written as JSON, which is YAML whatever they hold.
    fn text(&self) -> String {
        let mut text = format!("---\ndescription: {}\n", json!(self.description));
        if !self.inputs.is_empty() {
            text.push_str("inputs:\n");
        }
        for (name, kind) in &self.inputs {
            text.push_str(&format!("  {name}: {{type: {kind}}}\n"));
        }
        text.push_str(&format!("output: {}\n", self.output.text()));
        if !self.decode.is_empty() {
            let decode: serde_json::Map<String, Value> = self
                .decode
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect();
            text.push_str(&format!("decode: {}\n", Value::Object(decode)));
        }
        if let Some(target) = &self.target {
            text.push_str(&format!("target: {}\n", json!(target)));
        }
        if let Some(separator) = self.separator {
            text.push_str(&format!("separator: {}\n", json!(separator)));
        }
        if !self.metrics.is_empty() {
            let metrics: Vec<&str> = self.metrics.iter().map(|metric| metric.name()).collect();
            text.push_str(&format!("metrics: [{}]\n", metrics.join(", ")));
        }
        text.push_str("metadata:\n");
        for (key, value) in &self.metadata {
            text.push_str(&format!("  {key}: {}\n", json!(cut(value, MAX_METADATA_BYTES))));
        }
        text.push_str("---\n");
        text.push_str(&self.prompt);
        text.push('\n');
        text
    }
}

impl Output {
    fn text(&self) -> String {
        match self {
            Self::Text => "{kind: text}".to_owned(),
            Self::Score(input) => format!("{{kind: score, target_from: {input}}}"),
            Self::Choice(answers, normalization) => {
                let answers = match answers {
                    Answers::Listed(answers) => json!(answers),
                    Answers::Computed(template) => json!(template),
                };
                let normalization = match normalization {
                    Normalization::Characters => ", normalization: characters",
                    _ => "",
                };
                format!("{{kind: choice, choices: {answers}{normalization}}}")
            }
        }
    }
}

/// Reads the columns that the prompt and the answer of a task are made of.
pub(super) fn columns_of(prompt: &str, output: &Output) -> Result<Columns, ImportError> {
    let mut columns = Columns::default();
    columns.read(prompt, &["answer_choices"])?;
    match output {
        Output::Choice(Answers::Computed(template), _) => columns.read(template, &[])?,
        Output::Score(column) => columns.read(&format!("{{{{ {column} }}}}"), &[])?,
        Output::Text | Output::Choice(Answers::Listed(_), _) => {}
    }
    Ok(columns)
}

/// Lists the inputs of a task: the columns that its prompt and its answers are made of. Those of the target
/// alone are reference fields.
pub(super) fn inputs(columns: &Columns, given: &Columns) -> Vec<(String, InputKind)> {
    let names = given.names().filter(|name| *name != "answer_choices");
    names.map(|name| (name.to_owned(), columns.kind(name))).collect()
}

/// Makes the name of a task from some parts: lower-case letters and digits, with `-` between words.
pub(super) fn task_name(parts: &[&str]) -> String {
    let mut name = String::new();
    for c in parts.join("-").chars() {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_alphanumeric() || c == '_' {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = cut(&name, MAX_NAME_BYTES).trim_end_matches('-').to_owned();
    if name.is_empty() { "task".to_owned() } else { name }
}

/// Cuts a text between characters.
fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_words() {
        assert_eq!(
            task_name(&["super_glue", "boolq", "GPT-3 Style?"]),
            "super_glue-boolq-gpt-3-style"
        );
        assert_eq!(task_name(&["é"]), "task");
        assert_eq!(task_name(&["a".repeat(200).as_str()]).len(), MAX_NAME_BYTES);
    }
}
