//! Templates of promptsource: `templates.yaml`, with many templates for one data set.
//!
//! Source: bigscience-workshop/promptsource, `promptsource/templates.py`, `Template.apply`: the template is
//! rendered as a whole, cut at `|||`, and each half is stripped.

use multiway_prompts::{Metric, Normalization};
use serde_json::{Map, Value};

use super::append::without_append;
use super::choices::{Answers, answers};
use super::draft::{Draft, Output, columns_of, inputs, task_name};
use super::error::{ImportError, ImportNote};
use super::imported::Import;
use super::jinja::{self, Node, quoted};
use super::split::{Met, split};
use super::uses::Columns;
use super::write::{Edges, template};

/// The name of the answers to choose from, in templates of promptsource and in task files.
const ANSWERS: &str = "answer_choices";

/// Imports the templates of a file, each by itself.
pub(super) fn import(origin: &str, file: &Map<String, Value>) -> Vec<Import> {
    let text = |key: &str| file.get(key).and_then(Value::as_str).unwrap_or_default();
    let set = [text("dataset"), text("subset")];
    let templates = file.get("templates").and_then(Value::as_object);
    let imports = templates.into_iter().flat_map(Map::values).map(|template| {
        let name = template.get("name").and_then(Value::as_str).unwrap_or_default();
        let mut parts: Vec<&str> = set.into_iter().filter(|part| !part.is_empty()).collect();
        parts.push(name);
        let task = task_name(&parts);
        let mut notes = Vec::new();
        let result = import_template(&task, set, template, &mut notes);
        Import {
            source: format!("{origin}: {name}"),
            name: task,
            result,
            notes,
        }
    });
    imports.collect()
}

fn import_template(
    task: &str,
    [dataset, subset]: [&str; 2],
    given: &Value,
    notes: &mut Vec<ImportNote>,
) -> Result<String, ImportError> {
    let text = |key: &str| given.get(key).and_then(Value::as_str);
    let Some(source) = text("jinja").map(without_append) else {
        let message = "the template has no `jinja`".to_owned();
        return Err(ImportError::NoTemplate { message });
    };
    let mut columns = Columns::default();
    columns.read(&source, &[ANSWERS])?;
    let answers = text(ANSWERS)
        .map(|source| read_answers(source, &mut columns, notes))
        .transpose()?;
    let halves = split(&jinja::parse(&source, notes)?)?;
    note_halves(halves.met, notes);
    let (output, listed) = output(answers, notes);
    let write = |mut nodes: Vec<Node>| {
        if let Some(listed) = listed.as_ref().filter(|_| mentions_answers(&nodes)) {
            nodes.insert(0, Node::Statement(format!("set {ANSWERS} = [{listed}]")));
        }
        template(nodes, &columns, Edges::Stripped)
    };
    let prompt = write(halves.prompt);
    let target = (halves.met != Met::Never).then(|| write(halves.target));
    let given_columns = columns_of(&prompt, &output)?;
    let data = if subset.is_empty() {
        dataset.to_owned()
    } else {
        format!("{dataset}, {subset}")
    };
    let name = text("name").unwrap_or_default();
    let draft = Draft {
        name: task.to_owned(),
        description: format!("{name} ({data}, promptsource)"),
        inputs: inputs(&columns, &given_columns),
        metrics: metrics(given, &output, notes),
        output,
        decode: Vec::new(),
        target: target.filter(|target| !target.is_empty()),
        separator: None,
        metadata: metadata(dataset, subset, given),
        prompt,
    };
    draft.finish()
}

/// Reads the answers to choose from.
fn read_answers(
    source: &str,
    columns: &mut Columns,
    notes: &mut Vec<ImportNote>,
) -> Result<Answers, ImportError> {
    columns.read(source, &[])?;
    answers(&jinja::parse(source, notes)?, columns)
}

/// Says what becomes of rows for which promptsource gives no target.
fn note_halves(met: Met, notes: &mut Vec<ImportNote>) {
    let message = match met {
        Met::Once => return,
        Met::Sometimes => {
            "the template has a target for some rows alone: promptsource leaves out the others, and here they have \
             the prompt that is written, without a target"
        }
        Met::Never => "the template has no target",
    };
    notes.push(ImportNote::new("|||", message));
}

/// Returns the kind of answer. Answers of which two are equal, or one is empty, cannot be chosen among: they
/// are a list that templates set by themselves, given as the second value.
fn output(answers: Option<Answers>, notes: &mut Vec<ImportNote>) -> (Output, Option<String>) {
    let Some(answers) = answers else {
        return (Output::Text, None);
    };
    let Answers::Listed(listed) = &answers else {
        return (Output::Choice(answers, Normalization::None), None);
    };
    let distinct: std::collections::HashSet<&String> = listed.iter().collect();
    if distinct.len() == listed.len() && listed.iter().all(|answer| !answer.is_empty()) {
        return (Output::Choice(answers, Normalization::None), None);
    }
    notes.push(ImportNote::new(
        ANSWERS,
        "one of the answers is empty or comes twice: the task writes text, and does not choose",
    ));
    let listed: Vec<String> = listed.iter().map(|answer| quoted(answer)).collect();
    (Output::Text, Some(listed.join(", ")))
}

fn mentions_answers(nodes: &[Node]) -> bool {
    nodes.iter().any(|node| match node {
        Node::Data(_) => false,
        Node::Output(source) | Node::Statement(source) => jinja::words(source).contains(&ANSWERS),
        Node::Block { branches, .. } => branches
            .iter()
            .any(|(tag, inside)| jinja::words(tag).contains(&ANSWERS) || mentions_answers(inside)),
    })
}

/// Returns the metrics that there are here too.
fn metrics(given: &Value, output: &Output, notes: &mut Vec<ImportNote>) -> Vec<Metric> {
    let names = given.pointer("/metadata/metrics").and_then(Value::as_array);
    let mut metrics = Vec::new();
    for name in names.into_iter().flatten().filter_map(Value::as_str) {
        let found: &[Metric] = match (name, output) {
            ("Accuracy", Output::Choice(..)) => &[Metric::Accuracy],
            ("Accuracy", _) => &[Metric::ExactMatch],
            ("BLEU", _) => &[Metric::Bleu],
            ("ROUGE", _) => &[Metric::RougeL],
            ("Squad", _) => &[Metric::ExactMatch, Metric::F1],
            _ => {
                notes.push(ImportNote::new("metrics", format!("'{name}' has no counterpart")));
                &[]
            }
        };
        metrics.extend(
            found
                .iter()
                .copied()
                .filter(|metric| !metrics.contains(metric))
                .collect::<Vec<_>>(),
        );
    }
    metrics
}

fn metadata(dataset: &str, subset: &str, given: &Value) -> Vec<(&'static str, String)> {
    let text = |key: &str| {
        given
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let flag = |key: &str| {
        let flag = given
            .pointer(&format!("/metadata/{key}"))
            .and_then(Value::as_bool);
        flag.map(|flag| flag.to_string()).unwrap_or_default()
    };
    let all = [
        ("source", "promptsource".to_owned()),
        ("dataset", dataset.to_owned()),
        ("subset", subset.to_owned()),
        ("template", text("name")),
        ("id", text("id")),
        ("reference", text("reference")),
        ("original_task", flag("original_task")),
        ("choices_in_prompt", flag("choices_in_prompt")),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}
