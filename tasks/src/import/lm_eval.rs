//! Tasks of lm-evaluation-harness: one YAML file for a task, which may include others.
//!
//! Source: EleutherAI/lm-evaluation-harness, `lm_eval/api/task.py`, `ConfigurableTask`: what `doc_to_text`,
//! `doc_to_target` and `doc_to_choice` may be, and what becomes of each.

use std::path::Path;

use multiway_prompts::{Metric, Normalization};
use serde_json::{Map, Value, json};

use super::choices::Answers;
use super::draft::{Draft, Output, columns_of, inputs, task_name};
use super::error::{ImportError, ImportNote};
use super::files::read_text;
use super::imported::Import;
use super::jinja::{self, Node};
use super::uses::Columns;
use super::write::{Edges, operand, template, text_of};
use super::yaml::{self, function};

/// How many files may include each other in a chain.
const MAX_INCLUDES: usize = 8;

/// What stands between few-shot examples.
const FEWSHOT_DELIMITER: &str = "\n\n";

/// The keys that say nothing about the prompt or the answer.
const SILENT: [&str; 19] = [
    "dataset_kwargs",
    "dataset_name",
    "dataset_path",
    "description",
    "doc_to_choice",
    "doc_to_decontamination_query",
    "doc_to_target",
    "doc_to_text",
    "fewshot_split",
    "metadata",
    "metric_list",
    "output_type",
    "should_decontaminate",
    "tag",
    "task",
    "task_alias",
    "test_split",
    "training_split",
    "validation_split",
];

/// Imports the task of a file.
pub(super) fn import(origin: &str, file: &Map<String, Value>) -> Import {
    let mut notes = Vec::new();
    let stem = Path::new(origin)
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let merged = with_includes(Path::new(origin), file.clone(), 0);
    let named = merged
        .as_ref()
        .ok()
        .and_then(|config| config.get("task")?.as_str());
    let name = task_name(&[named.unwrap_or(&stem)]);
    let result = merged.and_then(|config| import_task(&name, &config, &mut notes));
    Import {
        source: origin.to_owned(),
        name,
        result,
        notes,
    }
}

/// Takes over the keys of the files that a file includes, under its own.
fn with_includes(
    path: &Path,
    mut config: Map<String, Value>,
    depth: usize,
) -> Result<Map<String, Value>, ImportError> {
    let included = match config.shift_remove("include") {
        None | Some(Value::Null) => return Ok(config),
        Some(Value::Array(names)) => names,
        Some(name) => vec![name],
    };
    let mut merged = Map::new();
    for name in included {
        let Some(name) = name.as_str().filter(|_| depth < MAX_INCLUDES) else {
            let message = format!("expected `include` with a path, at most {MAX_INCLUDES} files deep");
            return Err(ImportError::Yaml { message });
        };
        let other = path.parent().unwrap_or(Path::new("")).join(name);
        let Value::Object(file) = yaml::read(&read_text(&other)?)? else {
            let message = format!("expected keys and values in '{}'", other.display());
            return Err(ImportError::Yaml { message });
        };
        merged.extend(with_includes(&other, file, depth + 1)?);
    }
    merged.extend(config);
    Ok(merged)
}

/// The task as it is read, with its columns.
struct Reader<'c> {
    config: &'c Map<String, Value>,
    columns: Columns,
}

fn import_task(
    name: &str,
    config: &Map<String, Value>,
    notes: &mut Vec<ImportNote>,
) -> Result<String, ImportError> {
    check_is_task(config)?;
    let mut reader = Reader {
        config,
        columns: Columns::default(),
    };
    let mut nodes = reader.nodes("description", notes)?.unwrap_or_default();
    let text = reader.nodes("doc_to_text", notes)?.unwrap_or_default();
    nodes.extend(text);
    let target = match reader.nodes("doc_to_target", notes) {
        Err(ImportError::Function { key, function }) => {
            let message = format!("it is the Python function `{function}`, and the task has no target");
            notes.push(ImportNote::new(key, message));
            None
        }
        other => other?,
    };
    let answers = reader.answers(notes)?;
    let metrics = reader.metrics(notes);
    let output = reader.output(answers, target.as_deref(), &metrics, notes)?;
    let prompt = template(nodes, &reader.columns, Edges::Kept);
    let target = reader.target(target, &output);
    let given = columns_of(&prompt, &output)?;
    let decode = reader.decode(&output, notes);
    reader.note_rest(notes);
    let draft = Draft {
        name: name.to_owned(),
        description: format!("{} (lm-evaluation-harness)", reader.text("task").unwrap_or(name)),
        inputs: inputs(&reader.columns, &given),
        output,
        decode,
        target,
        separator: Some(FEWSHOT_DELIMITER),
        metrics: metrics.found,
        metadata: reader.metadata(),
        prompt,
    };
    draft.finish()
}

/// Checks that a file describes a task with a prompt of its own.
fn check_is_task(config: &Map<String, Value>) -> Result<(), ImportError> {
    let message = if config.contains_key("group") || config.get("task").is_some_and(Value::is_array) {
        "it is a group of tasks"
    } else if !config.contains_key("task") {
        "it has no `task`: other files include it"
    } else if let Some(class) = config.get("class") {
        let function = function(class).unwrap_or_default().to_owned();
        let key = "class".to_owned();
        return Err(ImportError::Function { key, function });
    } else if !config.contains_key("doc_to_text") {
        "it has no `doc_to_text`"
    } else {
        return Ok(());
    };
    let message = message.to_owned();
    Err(ImportError::NoTemplate { message })
}

/// The metrics of a task.
struct Metrics {
    found: Vec<Metric>,
    /// How the log-likelihoods of answers are compared.
    normalization: Normalization,
}

impl Reader<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.config.get(key).and_then(Value::as_str)
    }

    /// Reads a template, or the name of a column, which is written as it is.
    fn nodes(&mut self, key: &str, notes: &mut Vec<ImportNote>) -> Result<Option<Vec<Node>>, ImportError> {
        let source = match self.config.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => return Ok(Some(vec![Node::Output(number.to_string())])),
            Some(Value::String(source)) => source,
            Some(other) => {
                let what = format!("`{key}` with the value {other}");
                return Err(ImportError::Construct { what });
            }
        };
        if let Some(function) = function(&Value::String(source.clone())) {
            let (key, function) = (key.to_owned(), function.to_owned());
            return Err(ImportError::Function { key, function });
        }
        if is_column(source) && key != "description" {
            self.columns.read(&format!("{{{{ {source} }}}}"), &[])?;
            return Ok(Some(vec![Node::Output(source.clone())]));
        }
        self.columns.read(source, &[])?;
        // Jinja drops the last newline, and the harness keeps it.
        jinja::parse(&format!("{source}\n"), notes).map(Some)
    }

    /// Reads the answers to choose from: a list, a mapping, a column, or a template that writes a list of
    /// Python.
    fn answers(&mut self, notes: &mut Vec<ImportNote>) -> Result<Option<Answers>, ImportError> {
        let wrong = |message: &str| {
            let message = message.to_owned();
            Err(ImportError::Choices { message })
        };
        let listed = match self.config.get("doc_to_choice") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(items)) => items.iter().map(written).collect::<Option<Vec<_>>>(),
            Some(Value::Object(items)) => items.values().map(written).collect(),
            Some(Value::String(_)) => {
                let Some(nodes) = self.nodes("doc_to_choice", notes)? else {
                    return Ok(None);
                };
                let [Node::Output(source)] = nodes.as_slice() else {
                    return wrong("the template writes a list of Python piece by piece");
                };
                self.columns
                    .read(&format!("{{% for answer in {source} %}}{{% endfor %}}"), &[])?;
                return Ok(Some(Answers::Computed(format!("{{{{ {source} }}}}"))));
            }
            Some(_) => None,
        };
        match listed {
            Some(listed) => Ok(Some(Answers::Listed(listed))),
            None => wrong("expected texts"),
        }
    }

    fn output(
        &self,
        answers: Option<Answers>,
        target: Option<&[Node]>,
        metrics: &Metrics,
        notes: &mut Vec<ImportNote>,
    ) -> Result<Output, ImportError> {
        let unknown = |output: &str, hint| {
            let output = output.to_owned();
            Err(ImportError::Output { output, hint })
        };
        let kind = self.text("output_type").unwrap_or("generate_until");
        match (kind, answers, target) {
            ("multiple_choice", Some(answers), _) => Ok(Output::Choice(answers, metrics.normalization)),
            ("multiple_choice", None, _) => unknown(kind, " without `doc_to_choice`"),
            ("generate_until", answers, _) => {
                if answers.is_some() {
                    notes.push(ImportNote::new(
                        "doc_to_choice",
                        "the task writes text, and does not choose",
                    ));
                }
                Ok(Output::Text)
            }
            ("loglikelihood", _, Some([Node::Output(column)])) if is_column(column) => {
                Ok(Output::Score(column.clone()))
            }
            ("loglikelihood", ..) => unknown(kind, ": the text to score must be a column"),
            _ => unknown(kind, ""),
        }
    }

    /// Writes the target. For a choice it is an index or an answer, whichever the data has.
    fn target(&self, target: Option<Vec<Node>>, output: &Output) -> Option<String> {
        let nodes = target?;
        let Output::Choice(..) = output else {
            let text = match output {
                Output::Text => template(nodes, &self.columns, Edges::Kept),
                _ => return None,
            };
            let newline = if text.ends_with('\n') { "\n" } else { "" };
            return Some(format!("{text}{newline}")).filter(|text| !text.trim().is_empty());
        };
        Some(match nodes.as_slice() {
            [Node::Output(source)] if source.bytes().all(|byte| byte.is_ascii_digit()) => {
                format!("{{{{ answer_choices[{source}] }}}}")
            }
            [Node::Output(source)] if is_column(source) => either(source, &format!("({source} | string)")),
            [Node::Output(source)] => {
                let text = text_of(source, &self.columns);
                format!("{{% set gold = {text} %}}{}", either("gold", "(gold | string)"))
            }
            _ => {
                let text = template(nodes, &self.columns, Edges::Kept);
                format!("{{% set gold %}}{text}{{% endset %}}{}", either("gold", "gold"))
            }
        })
    }

    fn metrics(&self, notes: &mut Vec<ImportNote>) -> Metrics {
        let list = self.config.get("metric_list").and_then(Value::as_array);
        let names = list
            .into_iter()
            .flatten()
            .filter_map(|metric| metric.get("metric")?.as_str());
        let mut metrics = Metrics {
            found: Vec::new(),
            normalization: Normalization::None,
        };
        let names: Vec<&str> = names.collect();
        let is_choice = self.text("output_type") == Some("multiple_choice");
        for name in &names {
            let found = match *name {
                "acc" | "acc_norm" | "accuracy" if is_choice => Metric::Accuracy,
                "acc" | "exact_match" | "em" => Metric::ExactMatch,
                "f1" if !is_choice => Metric::F1,
                "bleu" => Metric::Bleu,
                "chrf" => Metric::Chrf,
                "rougeL" | "rouge_l" => Metric::RougeL,
                other => {
                    notes.push(ImportNote::new(
                        "metric_list",
                        format!("'{other}' has no counterpart"),
                    ));
                    continue;
                }
            };
            if !metrics.found.contains(&found) {
                metrics.found.push(found);
            }
        }
        match (names.contains(&"acc"), names.contains(&"acc_norm")) {
            (false, true) => metrics.normalization = Normalization::Characters,
            (true, true) => notes.push(ImportNote::new(
                "metric_list",
                "answers are ranked as for 'acc'; `normalization: characters` ranks them as for 'acc_norm'",
            )),
            _ => {}
        }
        metrics
    }

    /// Returns the sampling parameters that there are here too.
    fn decode(&self, output: &Output, notes: &mut Vec<ImportNote>) -> Vec<(&'static str, Value)> {
        let Some(given) = self.config.get("generation_kwargs").and_then(Value::as_object) else {
            return Vec::new();
        };
        if !matches!(output, Output::Text) {
            return Vec::new();
        }
        let samples = given.get("do_sample").and_then(Value::as_bool).unwrap_or(false);
        let mut decode = Vec::new();
        for (key, value) in given {
            match key.as_str() {
                "until" => decode.extend(stop(value, notes)),
                "max_gen_toks" | "max_new_tokens" => decode.push(("max_new_tokens", value.clone())),
                "do_sample" => {}
                "temperature" | "top_p" | "top_k" if !samples => {}
                "temperature" => decode.push(("temperature", value.clone())),
                "top_p" => decode.push(("top_p", value.clone())),
                "top_k" => decode.push(("top_k", value.clone())),
                "num_beams" => decode.push(("beams", value.clone())),
                other => notes.push(ImportNote::new(
                    "generation_kwargs",
                    format!("'{other}' is not carried over"),
                )),
            }
        }
        decode
    }

    /// Notes the keys that are not carried over.
    fn note_rest(&self, notes: &mut Vec<ImportNote>) {
        for (key, value) in self.config {
            let message = match key.as_str() {
                "generation_kwargs" => continue,
                key if SILENT.contains(&key) => continue,
                "process_docs" => {
                    "a Python function changes the rows first: the inputs are the columns that it makes"
                }
                "process_results" => "a Python function scores the answers",
                "filter_list" => "what is cut out of answers before they are scored is not carried over",
                "target_delimiter" => "what stands between the prompt and the target is not carried over",
                "fewshot_config" | "num_fewshot" => "few-shot examples are given by `few_shot`",
                "repeats" if value == &json!(1) => continue,
                _ => "it is not carried over",
            };
            notes.push(ImportNote::new(key.as_str(), message));
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        let version = self
            .config
            .get("metadata")
            .and_then(|metadata| metadata.get("version"));
        let all = [
            ("source", Some("lm-evaluation-harness".to_owned())),
            ("task", self.text("task").map(str::to_owned)),
            ("dataset", self.text("dataset_path").map(str::to_owned)),
            ("subset", self.text("dataset_name").map(str::to_owned)),
            ("task_version", version.and_then(written)),
        ];
        all.into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    }
}

/// Writes the answer at an index, or the answer itself, which `text` gives as text.
fn either(source: &str, text: &str) -> String {
    format!(
        "{{{{ answer_choices[{} | int] if {text}.isdigit() else {} | string }}}}",
        operand(source),
        operand(source)
    )
}

/// Tells whether a text is the name of a column, and no template.
fn is_column(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Writes a text, a number or a boolean as Python does.
fn written(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(if *value { "True" } else { "False" }.to_owned()),
        _ => None,
    }
}

/// Returns the texts that end an answer, without those that are special tokens, which end it anyway.
fn stop(value: &Value, notes: &mut Vec<ImportNote>) -> Option<(&'static str, Value)> {
    let texts = match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().filter_map(written).collect(),
        _ => Vec::new(),
    };
    let is_special = |text: &String| {
        multiway_prompts::special_name_at_start(text).is_some_and(|name| name.len() == text.len())
    };
    let (special, texts): (Vec<String>, Vec<String>) = texts
        .into_iter()
        .filter(|text| !text.is_empty())
        .partition(is_special);
    for token in special {
        notes.push(ImportNote::new(
            "generation_kwargs",
            format!("'{token}' ends an answer as the checkpoint says"),
        ));
    }
    (!texts.is_empty()).then(|| ("stop", json!(texts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_a_single_name() {
        assert!(is_column("answerKey"));
        for text in ["", " ", "{{ a }}", "two words", "1st", "a-b"] {
            assert!(!is_column(text), "{text}");
        }
    }
}
