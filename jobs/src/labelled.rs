//! Records as training takes them: what is asked, and what should be answered.

use std::fmt;

use multiway_data::{Corrupt, DataSource, Record};
use multiway_prompts::{InputValue, Inputs, OutputSpec, Prompt};
use multiway_tasks::metrics::exact_match;
use multiway_tasks::{PreparedTask, TaskInputs};
use serde_json::Value;

use crate::error::JobError;
use crate::job::{ChosenFrom, Job, Reader};
use crate::right_answers::{field_value, right_value, texts_of};

/// The most answers to choose from that a message lists.
const LISTED: usize = 8;

/// A record with its right answers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LabelledRecord {
    /// What names the record.
    pub id: String,
    /// The task with the record's inputs: its prompt and its pictures.
    pub task: PreparedTask,
    /// What the model may write, without the task's prefix; each of them is right, and there is one at least.
    pub targets: Vec<Prompt>,
}

/// A record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnusableRecord {
    /// What names the record.
    pub id: String,
    /// What is wrong with it.
    pub reason: String,
}

impl UnusableRecord {
    /// Says what is wrong with a record.
    #[must_use]
    pub fn new(id: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for UnusableRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.reason)
    }
}

/// Where the values are that targets are made of.
#[derive(Debug)]
enum Labels {
    /// In one field, each of whose values is right.
    Field(String),
    /// In the fields of the target, one each.
    Fields,
}

/// Reads the records of a data set with their right answers, in their order.
pub struct LabelledRecords<'j> {
    job: &'j Job<'j>,
    reader: Reader<'j>,
    labels: Labels,
    choices: Option<ChosenFrom>,
    left: usize,
    corrupt: Vec<Corrupt>,
}

impl fmt::Debug for LabelledRecords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LabelledRecords")
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

impl Job<'_> {
    /// Reads every record with what the model should write: the task's target, rendered from the inputs and
    /// the fields of the record. `reference` names the field of the right answers, if it is not that of the
    /// target.
    ///
    /// # Errors
    ///
    /// When the data cannot be read, or the task takes no list of answers to choose from and one is asked
    /// for. The records themselves tell of a field that is missing.
    pub fn labelled(
        &self,
        source: &DataSource,
        reference: Option<&str>,
    ) -> Result<LabelledRecords<'_>, JobError> {
        let labels = match (reference, self.task.file().target_fields()) {
            (Some(field), _) => Labels::Field(field.to_owned()),
            (None, [field]) => Labels::Field(field.clone()),
            (None, _) => Labels::Fields,
        };
        Ok(LabelledRecords {
            job: self,
            reader: Reader::new(self, source.records(None)?, true),
            labels,
            choices: self.choices(source)?,
            left: self.limit(),
            corrupt: Vec::new(),
        })
    }
}

impl LabelledRecords<'_> {
    /// Takes the rows of the data that could not be read so far.
    pub fn take_corrupt(&mut self) -> Vec<Corrupt> {
        self.corrupt.extend(self.reader.rest());
        std::mem::take(&mut self.corrupt)
    }

    /// Makes a record what training takes. The inner error says what is wrong with it.
    fn labelled(&self, record: &Record) -> Result<Result<LabelledRecord, String>, JobError> {
        let job = self.job;
        let group = job.group_of(record);
        let choices = self.choices.as_ref();
        let candidates =
            choices.and_then(|from| Some((from.input.as_str(), from.by_group.get(&group)?.as_slice())));
        // What the data lacks everywhere is one error, before anything is decoded.
        let values = self.values(record)?;
        let labelled = || -> Result<LabelledRecord, String> {
            let inputs = job.binding.inputs(record, &job.processor, candidates)?;
            let task = job.task.prepare(job.engine.tokenizer(), &inputs);
            let task = task.map_err(|error| error.to_string())?;
            let targets = self.targets(&inputs, values)?.into_iter();
            let targets: Vec<Prompt> = targets
                .map(|target| one_of(target, &task))
                .collect::<Result<_, String>>()?;
            Ok(LabelledRecord {
                id: record.id().to_owned(),
                task,
                targets,
            })
        };
        Ok(labelled())
    }

    /// Lists what the fields of the target are, for each right answer.
    fn values(&self, record: &Record) -> Result<Vec<Inputs>, JobError> {
        let file = self.job.task.file();
        match &self.labels {
            Labels::Field(field) => {
                let right = right_value(record, field)?;
                let name = match file.target_fields() {
                    [only] => only.clone(),
                    _ => String::new(),
                };
                let values = right_values(right, &file.output).into_iter();
                Ok(values
                    .map(|value| Inputs::from([(name.clone(), value)]))
                    .collect())
            }
            Labels::Fields => {
                let fields = file.target_fields().iter();
                let values =
                    fields.map(|field| Ok((field.clone(), field_value(right_value(record, field)?))));
                Ok(vec![values.collect::<Result<Inputs, JobError>>()?])
            }
        }
    }

    fn targets(&self, inputs: &TaskInputs, values: Vec<Inputs>) -> Result<Vec<Prompt>, String> {
        let task = self.job.task;
        if values.is_empty() {
            return Err("expected a text or a number or a list of them as the right answer".to_owned());
        }
        let target = |values: Inputs| {
            let target = match values.get("") {
                // The target is made of several fields, and the caller names the whole answer.
                Some(InputValue::Text(text)) => Prompt::from_text(text.clone()),
                Some(InputValue::Integer(number)) => Prompt::from_text(number.to_string()),
                Some(InputValue::Number(number)) => Prompt::from_text(number.to_string()),
                Some(InputValue::Boolean(is_true)) => Prompt::from_text(is_true.to_string()),
                Some(_) => return Err("expected a text as the right answer".to_owned()),
                None => task
                    .prepare_target(self.job.engine.tokenizer(), inputs, &values)
                    .map_err(|error| format!("the target cannot be rendered: {error}"))?,
            };
            if target.parts.is_empty() {
                return Err("the target is empty".to_owned());
            }
            Ok(target)
        };
        values.into_iter().map(target).collect()
    }
}

impl Iterator for LabelledRecords<'_> {
    type Item = Result<Result<LabelledRecord, UnusableRecord>, JobError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let chosen = self.choices.as_ref().map(|from| from.input.clone());
        let read = match self.reader.next(chosen.as_deref())? {
            Ok(read) => read,
            Err(error) => return Some(Err(error)),
        };
        self.corrupt.extend(read.corrupt);
        let id = read.record.id().to_owned();
        let labelled = self.labelled(&read.record);
        Some(labelled.map(|labelled| labelled.map_err(|reason| UnusableRecord { id, reason })))
    }
}

/// Lists the values of a field, each of which is right.
fn right_values(value: &Value, output: &OutputSpec) -> Vec<InputValue> {
    match (value, output) {
        (Value::Null, _) => Vec::new(),
        (Value::String(text), _) => vec![InputValue::Text(text.clone())],
        (value, OutputSpec::Json { .. }) => vec![InputValue::Text(value.to_string())],
        // A list of labels is one answer.
        (Value::Array(_), OutputSpec::Labels(spec)) => {
            let space = if spec.separator.ends_with(' ') { "" } else { " " };
            let separator = format!("{}{space}", spec.separator);
            vec![InputValue::Text(texts_of(value, output).join(&separator))]
        }
        (Value::Array(items), _) => items.iter().flat_map(|item| right_values(item, output)).collect(),
        (Value::Bool(_), OutputSpec::Predicate(_)) => texts_of(value, output)
            .into_iter()
            .map(InputValue::Text)
            .collect(),
        (Value::Object(_), _) => Vec::new(),
        (Value::Bool(_) | Value::Number(_), _) => vec![field_value(value)],
    }
}

/// Checks that a target is one of the answers that there are to choose from, and writes it as that is
/// written.
fn one_of(target: Prompt, task: &PreparedTask) -> Result<Prompt, String> {
    let Some(candidates) = task.candidates() else {
        return Ok(target);
    };
    let text = target.text();
    if candidates.contains(&text) {
        return Ok(target);
    }
    if let Some(same) = candidates.iter().find(|other| exact_match(&text, &[other])) {
        return Ok(Prompt::from_text(same.clone()));
    }
    let listed: Vec<&str> = candidates.iter().take(LISTED).map(String::as_str).collect();
    let more = match candidates.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(format!(
        "expected one of the answers to choose from ({}{more}), found '{text}'",
        listed.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use multiway_prompts::TaskFile;
    use serde_json::json;

    use super::*;

    fn values(kind: &str, value: &Value) -> Vec<InputValue> {
        let file = format!(
            "---\ndescription: Asks.\ninputs: {{text: {{type: text}}}}\noutput: {kind}\n---\n{{{{ text }}}}"
        );
        right_values(
            value,
            &TaskFile::parse("ask.task", file.as_bytes()).unwrap().output,
        )
    }

    #[test]
    fn each_item_of_a_list_is_right_and_a_list_of_labels_is_one_answer() {
        let text = |text: &str| InputValue::Text(text.to_owned());
        assert_eq!(values("{kind: text}", &json!(["a", "b"])), [text("a"), text("b")]);
        assert_eq!(values("{kind: labels}", &json!(["a", "b"])), [text("a, b")]);
        assert_eq!(values("{kind: number}", &json!(3)), [InputValue::Integer(3)]);
        assert_eq!(values("{kind: text}", &json!(null)), []);
        assert_eq!(values("{kind: text}", &json!({"a": 1})), []);
    }

    #[test]
    fn booleans_are_the_words_of_a_task_that_says_yes_or_no() {
        let kind = "{kind: predicate, yes: \"true\", no: \"false\"}";
        assert_eq!(
            values(kind, &json!(false)),
            [InputValue::Text("false".to_owned())]
        );
    }

    #[test]
    fn json_is_learnt_as_its_text() {
        let kind = "{kind: json, schema: {type: object}}";
        assert_eq!(
            values(kind, &json!({"a": [1]})),
            [InputValue::Text(r#"{"a":[1]}"#.to_owned())]
        );
    }
}
