//! What a caller gives to a task: values by name, and pictures.

use std::time::Duration;

use multiway_model::ProcessedImage;
use multiway_prompts::{InputKind, InputSpec, InputValue, Inputs, SamplingOptions, TaskFile};
use multiway_runtime::Constraint;

use crate::error::TaskError;

/// Holds what a caller gives to a task.
///
/// Pictures that no value names go to the picture inputs in the order of the task file: each `image` input takes one,
/// an `images` input takes all that are left.
///
/// ```
/// use multiway_tasks::TaskInputs;
///
/// let inputs = TaskInputs::new().with("question", "what color is the shape?");
/// assert_eq!(inputs.values.len(), 1);
/// ```
#[derive(Debug, Clone, Default)]
pub struct TaskInputs {
    /// The values, by the names of the task's inputs.
    pub values: Inputs,
    /// The pictures; values name them by their index.
    pub images: Vec<ProcessedImage>,
    /// The caller's layer of sampling parameters, on top of the task file's.
    pub sampling: SamplingOptions,
    /// The form that the text of the answer must have, instead of what the task file says.
    pub constraint: Option<Constraint>,
    /// On which terms the request waits.
    pub terms: RequestTerms,
}

/// Says on which terms a request waits for its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestTerms {
    /// Requests of a higher priority are admitted first; 0 is usual.
    pub priority: i32,
    /// How long the answer may take; `None` for ever.
    pub timeout: Option<Duration>,
}

impl TaskInputs {
    /// Starts without values and pictures.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<InputValue>) -> Self {
        self.values.insert(name.into(), value.into());
        self
    }

    /// Adds a picture.
    #[must_use]
    pub fn with_image(mut self, image: ProcessedImage) -> Self {
        self.images.push(image);
        self
    }

    /// Sets the caller's layer of sampling parameters.
    #[must_use]
    pub fn with_sampling(mut self, sampling: SamplingOptions) -> Self {
        self.sampling = sampling;
        self
    }

    /// Sets the terms on which the request waits.
    #[must_use]
    pub fn with_terms(mut self, terms: RequestTerms) -> Self {
        self.terms = terms;
        self
    }

    /// Sets the form that the text of the answer must have.
    #[must_use]
    pub fn with_constraint(mut self, constraint: Constraint) -> Self {
        self.constraint = Some(constraint);
        self
    }
}

/// Gives the pictures to the picture inputs, and returns all values.
pub(crate) fn bind_pictures(file: &TaskFile, inputs: &TaskInputs) -> Result<Inputs, TaskError> {
    let mut values = inputs.values.clone();
    let named = values.values().any(|value| value.kind().is_picture());
    if named {
        check_indices(file, &values, inputs.images.len())?;
    }
    let mut left = if named { 0..0 } else { 0..inputs.images.len() };
    for (name, spec) in file
        .inputs
        .iter()
        .filter(|(name, _)| !inputs.values.contains_key(*name))
    {
        let value = match spec.kind {
            InputKind::Image => left.next().map(InputValue::Image),
            InputKind::Images => Some(InputValue::Images(left.by_ref().collect())),
            _ => None,
        };
        if let Some(value) = value {
            values.insert(name.clone(), value);
        }
    }
    if left.is_empty() {
        return Ok(values);
    }
    Err(TaskError::SparePictures {
        task: file.name.clone(),
        takes: pictures_taken(file),
        found: inputs.images.len(),
    })
}

fn check_indices(file: &TaskFile, values: &Inputs, count: usize) -> Result<(), TaskError> {
    for (input, value) in values {
        let indices = match value {
            InputValue::Image(index) => std::slice::from_ref(index),
            InputValue::Images(indices) => indices,
            _ => continue,
        };
        if let Some(index) = indices.iter().find(|index| **index >= count) {
            return Err(TaskError::NoSuchPicture {
                task: file.name.clone(),
                input: input.clone(),
                index: *index,
                count,
            });
        }
    }
    Ok(())
}

/// Says how many pictures a task takes, for messages. A task with an `images` input takes any number.
fn pictures_taken(file: &TaskFile) -> String {
    match file.inputs.values().filter(|spec| is_image(spec)).count() {
        0 => "no picture".to_owned(),
        1 => "1 picture".to_owned(),
        count => format!("{count} pictures"),
    }
}

fn is_image(spec: &InputSpec) -> bool {
    spec.kind == InputKind::Image
}
