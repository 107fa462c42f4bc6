//! Which fields of the data are which inputs of the task.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use multiway_data::{Field, Picture, Record};
use multiway_model::ImageProcessor;
use multiway_prompts::{InputKind, InputSpec, InputValue, Inputs};
use multiway_tasks::{Task, TaskInputs};
use serde_json::Value;

use crate::error::JobError;

/// Binds the fields of records to the inputs of a task.
///
/// An input that is neither mapped nor fixed is the field of the same name, if there is one. Where a record
/// has one picture, an input of type image needs no mapping.
#[derive(Debug, Clone)]
pub(crate) struct Binding<'t> {
    task: &'t Task,
    /// The paths of fields, by the names of inputs.
    map: BTreeMap<String, String>,
    /// The inputs that are the same for every record.
    fixed: TaskInputs,
}

impl<'t> Binding<'t> {
    pub(crate) fn new(task: &'t Task, map: BTreeMap<String, String>, fixed: TaskInputs) -> Self {
        Self { task, map, fixed }
    }

    /// Checks on the first record that every required input has its field, so that a wrong mapping is one
    /// error and not one for each record.
    pub(crate) fn check(&self, record: &Record, chosen: Option<&str>) -> Result<(), JobError> {
        for (name, spec) in &self.task.file().inputs {
            let optional = !spec.is_required() || spec.kind == InputKind::Images || chosen == Some(name);
            let found = if spec.kind.is_picture() {
                self.pictures(record, name).is_some()
            } else {
                record.value(self.path(name)).is_some()
            };
            if optional || self.is_fixed(name, spec.kind) || found {
                continue;
            }
            return Err(JobError::NoField {
                task: self.task.name().to_owned(),
                input: name.clone(),
                fields: record.fields().map(|(name, _)| name.to_owned()).collect(),
            });
        }
        Ok(())
    }

    fn is_fixed(&self, name: &str, kind: InputKind) -> bool {
        self.is_set(name) || (kind.is_picture() && !self.fixed.images.is_empty())
    }

    /// Returns the inputs that every record has.
    pub(crate) fn fixed(&self) -> &TaskInputs {
        &self.fixed
    }

    /// Tells whether an input has the same value for every record.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.fixed.values.contains_key(name)
    }

    /// Returns the path of the field that is an input.
    pub(crate) fn path<'p>(&'p self, input: &'p str) -> &'p str {
        self.map.get(input).map_or(input, String::as_str)
    }

    /// Returns the pictures that an input is.
    pub(crate) fn pictures(&self, record: &Record, input: &str) -> Option<Vec<Picture>> {
        if let Some(pictures) = record.pictures(self.path(input)) {
            return Some(pictures);
        }
        if self.map.contains_key(input) {
            return None;
        }
        // Where the task takes pictures in one place, those of the usual name are meant.
        if self.has_one_picture_input()
            && let Some(pictures) = record.pictures("image")
        {
            return Some(pictures);
        }
        let mut fields = record
            .fields()
            .filter(|(_, field)| matches!(field, Field::Picture(_) | Field::Pictures(_)));
        let (name, _) = fields.next()?;
        record.pictures(name).filter(|_| fields.next().is_none())
    }

    fn has_one_picture_input(&self) -> bool {
        let inputs = self.task.file().inputs.values();
        inputs.filter(|spec| spec.kind.is_picture()).count() == 1
    }

    /// Returns the inputs of a record that are no pictures.
    ///
    /// The error says what is wrong with the record.
    pub(crate) fn values(&self, record: &Record) -> Result<Inputs, String> {
        let mut values = self.fixed.values.clone();
        for (name, spec) in &self.task.file().inputs {
            if spec.kind.is_picture() || self.is_fixed(name, spec.kind) {
                continue;
            }
            if let Some(value) = self.value(record, name, spec)? {
                values.insert(name.clone(), value);
            }
        }
        Ok(values)
    }

    /// Reads an input that is no picture from its field.
    fn value(&self, record: &Record, name: &str, spec: &InputSpec) -> Result<Option<InputValue>, String> {
        value(record.value(self.path(name)), spec).map_err(|error| format!("input '{name}': {error}"))
    }

    /// Makes the inputs of a record, with its pictures read and preprocessed. `choices` are the answers to
    /// choose from, for the input of a name.
    ///
    /// The error says what is wrong with the record.
    pub(crate) fn inputs(
        &self,
        record: &Record,
        processor: &ImageProcessor,
        choices: Option<(&str, &[String])>,
    ) -> Result<TaskInputs, String> {
        let mut inputs = self.fixed.clone();
        for (name, spec) in &self.task.file().inputs {
            if self.is_fixed(name, spec.kind) {
                continue;
            }
            let value = match choices.filter(|(input, _)| input == name) {
                Some((_, choices)) => Some(InputValue::List(choices.to_vec())),
                None if spec.kind.is_picture() => {
                    let pictures = self.pictures(record, name);
                    opened(pictures, spec.kind, processor, &mut inputs)
                        .map_err(|error| format!("input '{name}': {error}"))?
                }
                None => self.value(record, name, spec)?,
            };
            if let Some(value) = value {
                inputs.values.insert(name.clone(), value);
            }
        }
        Ok(inputs)
    }

    /// Returns the inputs of a record that are no pictures and not the same for all, as a report shows them.
    pub(crate) fn shown(&self, record: &Record) -> IndexMap<String, String> {
        let inputs = self.task.file().inputs.iter();
        let shown = inputs.filter(|(name, spec)| !spec.kind.is_picture() && !self.is_fixed(name, spec.kind));
        shown
            .filter_map(|(name, _)| {
                let value = record.value(self.path(name))?;
                Some((name.clone(), text_of(value)))
            })
            .collect()
    }

    /// Returns the pictures of a record that the task looks at.
    pub(crate) fn all_pictures(&self, record: &Record) -> Vec<Picture> {
        let inputs = self.task.file().inputs.iter();
        let pictures = inputs
            .filter(|(name, spec)| spec.kind.is_picture() && !self.is_fixed(name, spec.kind))
            .filter_map(|(name, _)| self.pictures(record, name));
        pictures.flatten().collect()
    }
}

/// Reads and preprocesses pictures, and adds them to the inputs.
fn opened(
    pictures: Option<Vec<Picture>>,
    kind: InputKind,
    processor: &ImageProcessor,
    inputs: &mut TaskInputs,
) -> Result<Option<InputValue>, String> {
    let Some(pictures) = pictures else {
        return Ok(None);
    };
    if kind == InputKind::Image && pictures.len() != 1 {
        return Err(format!("expected a picture, found {}", pictures.len()));
    }
    let mut indices = Vec::with_capacity(pictures.len());
    for picture in pictures {
        let bytes = picture.read().map_err(|error| error.to_string())?;
        let image = processor.process(&bytes);
        let image = image.map_err(|error| format!("picture '{}': {error}", picture.name()))?;
        indices.push(inputs.images.len());
        inputs.images.push(image);
    }
    Ok(Some(match (kind, indices.as_slice()) {
        (InputKind::Image, [index]) => InputValue::Image(*index),
        _ => InputValue::Images(indices),
    }))
}

/// Reads a field as the value of an input; null leaves the input to its default. Tables hold everything as
/// text, and other data sets write numbers where a task takes text.
fn value(value: Option<&Value>, spec: &InputSpec) -> Result<Option<InputValue>, String> {
    let is_text = matches!(spec.kind, InputKind::Text | InputKind::Choice);
    let read = match value {
        Some(value) if spec.kind == InputKind::Json && (spec.is_required() || !value.is_null()) => {
            spec.parse_json(value)
        }
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => spec.parse(text),
        Some(Value::Number(number)) if is_text => spec.parse(&number.to_string()),
        Some(other) => spec.parse_json(other),
    };
    read.map(Some).map_err(|error| error.to_string())
}

/// Writes a value as people read it: a text as it is, anything else as JSON.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The distinct values of a field, by group: the answers that there are to choose from.
pub(crate) type ChoicesByGroup = IndexMap<Option<String>, Vec<String>>;
