//! Where the right answers of records are: in a field, or in what the task's target renders to.

use multiway_data::Record;
use multiway_prompts::{InputValue, Inputs, OutputSpec};
use serde_json::Value;

use crate::error::JobError;
use crate::job::Job;

/// Says where right answers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RightAnswers {
    /// In a field, as text, as a number, or as a list of them.
    Field(String),
    /// In the task's target, which is made of several fields, or of one that is no answer itself.
    Target,
}

impl RightAnswers {
    /// Names the place, as part of what a job is.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Field(field) => field,
            Self::Target => "{{ target }}",
        }
    }
}

impl Job<'_> {
    /// Says where the right answers are: in the field `named` or, without it, where the task's target says.
    pub(crate) fn right_answers(&self, named: Option<&str>) -> Result<RightAnswers, JobError> {
        if let Some(field) = named {
            return Ok(RightAnswers::Field(field.to_owned()));
        }
        let file = self.task.file();
        let fields = file.target_fields();
        let is_one_field = matches!(fields, [field] if writes_field(file.target(), field));
        let has_pictures = file.inputs.values().any(|spec| spec.kind.is_picture());
        if !is_one_field && !has_pictures {
            return Ok(RightAnswers::Target);
        }
        match fields {
            [field] => Ok(RightAnswers::Field(field.clone())),
            fields => Err(JobError::WhichReference {
                task: self.task.name().to_owned(),
                fields: fields.to_vec(),
            }),
        }
    }

    /// Lists the right answers of a record. The inner error says why it has none.
    pub(crate) fn texts_of_right(
        &self,
        record: &Record,
        answers: &RightAnswers,
    ) -> Result<Result<Vec<String>, String>, JobError> {
        match answers {
            RightAnswers::Field(field) => {
                let value = right_value(record, field)?;
                Ok(Ok(texts_of(value, &self.task.file().output)))
            }
            RightAnswers::Target => self.rendered_target(record),
        }
    }

    /// Renders the target of a record.
    fn rendered_target(&self, record: &Record) -> Result<Result<Vec<String>, String>, JobError> {
        let file = self.task.file();
        let mut fields = Inputs::new();
        for field in file.target_fields() {
            fields.insert(field.clone(), field_value(right_value(record, field)?));
        }
        let target = self.binding.values(record).and_then(|values| {
            let target = file.render_target(&values, &fields, &[]);
            target.map_err(|error| format!("the target cannot be rendered: {error}"))
        });
        Ok(match target.map(|target| target.text()) {
            Ok(text) if text.is_empty() => Err("the target is empty".to_owned()),
            Ok(text) => Ok(vec![text]),
            Err(error) => Err(error),
        })
    }
}

/// Returns the value of the field with the right answers.
pub(crate) fn right_value<'r>(record: &'r Record, field: &str) -> Result<&'r Value, JobError> {
    record.value(field).ok_or_else(|| JobError::NoReference {
        field: field.to_owned(),
        fields: record.fields().map(|(name, _)| name.to_owned()).collect(),
    })
}

/// Lists the texts and numbers of a value, each of which is right. Booleans are the words of a task that
/// says yes or no.
pub(crate) fn texts_of(value: &Value, output: &OutputSpec) -> Vec<String> {
    match (value, output) {
        (Value::String(text), _) => vec![text.clone()],
        (Value::Bool(is_yes), OutputSpec::Predicate(spec)) => {
            vec![if *is_yes {
                spec.yes.clone()
            } else {
                spec.no.clone()
            }]
        }
        (Value::Number(_) | Value::Bool(_), _) => vec![value.to_string()],
        (Value::Array(items), _) => items.iter().flat_map(|item| texts_of(item, output)).collect(),
        (Value::Null | Value::Object(_), _) => Vec::new(),
    }
}

/// Tells whether a target writes one field as it is, between special tokens or other text.
fn writes_field(target: &str, field: &str) -> bool {
    let mut tags = target.split("{{").skip(1);
    let inner = tags.next().and_then(|tag| Some(tag.split_once("}}")?.0.trim()));
    let inner = inner.map(|inner| inner.strip_suffix("| trim").unwrap_or(inner).trim());
    inner == Some(field) && tags.next().is_none() && !target.contains("{%")
}

/// Reads a field that the target is made of.
pub(crate) fn field_value(value: &Value) -> InputValue {
    match (value, value.as_i64(), value.as_f64()) {
        (Value::String(text), ..) => InputValue::Text(text.clone()),
        (Value::Bool(value), ..) => InputValue::Boolean(*value),
        (_, Some(whole), _) => InputValue::Integer(whole),
        (_, None, Some(number)) => InputValue::Number(number),
        _ => InputValue::Json(value.clone()),
    }
}
