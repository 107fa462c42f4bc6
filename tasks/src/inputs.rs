//! The inputs of a task: values by name, pictures, and options of the request.

use std::time::Duration;

use multiway_model::ProcessedImage;
use multiway_prompts::{InputKind, InputSpec, InputValue, Inputs, SamplingOptions, TaskFile};
use multiway_runtime::Constraint;

use crate::error::TaskError;

/// Holds the inputs of a task.
///
/// Pictures that no value refers to go to the picture inputs in the order of the task file: each `image`
/// input takes one, an `images` input takes all remaining ones.
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
    /// The pictures; values refer to them by index.
    pub images: Vec<ProcessedImage>,
    /// The caller's sampling parameters, which override those of the task file.
    pub sampling: SamplingOptions,
    /// The constraint on the text of the answer, which overrides that of the task file.
    pub constraint: Option<Constraint>,
    /// The priority and the timeout of the request.
    pub terms: RequestTerms,
    /// Few-shot examples, which are shown before the prompt; `None` for those of the task file.
    pub shots: Option<Vec<TaskShot>>,
}

/// Holds a few-shot example: inputs, and the answer that they should get.
///
/// Its pictures go to the picture inputs as those of [`TaskInputs`] do.
///
/// # Examples
///
/// ```
/// use multiway_tasks::TaskShot;
///
/// let shot = TaskShot::new("cat").with("language", "English");
/// assert_eq!(shot.target["target"], "cat".into());
/// ```
#[derive(Debug, Clone, Default)]
pub struct TaskShot {
    /// The values, by the names of the task's inputs.
    pub values: Inputs,
    /// The pictures; values refer to them by index.
    pub images: Vec<ProcessedImage>,
    /// What the target is made of: a value for each of [`TaskFile::target_fields`].
    pub target: Inputs,
}

impl TaskShot {
    /// Creates a shot for a task that declares no target, whose answer is `target` as it is.
    pub fn new(target: impl Into<InputValue>) -> Self {
        Self {
            target: Inputs::from([("target".to_owned(), target.into())]),
            ..Self::default()
        }
    }

    /// Adds a value of an input.
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
}

/// Holds the priority and the timeout of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestTerms {
    /// The priority; requests of a higher priority are admitted first, 0 is the default.
    pub priority: i32,
    /// The timeout of the answer; `None` waits without limit.
    pub timeout: Option<Duration>,
}

impl TaskInputs {
    /// Creates inputs without values and pictures.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::TaskInputs;
    ///
    /// let inputs = TaskInputs::new().with("language", "French").with("question", "is it red?");
    /// assert!(inputs.values.contains_key("language"));
    /// ```
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<InputValue>) -> Self {
        self.values.insert(name.into(), value.into());
        self
    }

    /// Adds a picture.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_model::{Checkpoint, ImageProcessor};
    /// use multiway_tasks::TaskInputs;
    ///
    /// let checkpoint = Checkpoint::open("../checkpoints/default")?;
    /// let image = ImageProcessor::new(checkpoint.config()).open("../examples/pictures/cat.png")?;
    /// assert_eq!(TaskInputs::new().with_image(image).images.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_image(mut self, image: ProcessedImage) -> Self {
        self.images.push(image);
        self
    }

    /// Sets the caller's sampling parameters.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_runtime::SamplingOptions;
    /// use multiway_tasks::TaskInputs;
    ///
    /// let sampling = SamplingOptions { temperature: Some(0.8), seed: Some(7), ..SamplingOptions::default() };
    /// assert_eq!(TaskInputs::new().with_sampling(sampling).sampling.seed, Some(7));
    /// ```
    #[must_use]
    pub fn with_sampling(mut self, sampling: SamplingOptions) -> Self {
        self.sampling = sampling;
        self
    }

    /// Sets the priority and the timeout of the request.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use multiway_tasks::{RequestTerms, TaskInputs};
    ///
    /// let terms = RequestTerms { priority: 1, timeout: Some(Duration::from_secs(30)) };
    /// assert_eq!(TaskInputs::new().with_terms(terms).terms, terms);
    /// ```
    #[must_use]
    pub fn with_terms(mut self, terms: RequestTerms) -> Self {
        self.terms = terms;
        self
    }

    /// Sets the few-shot examples, in place of those of the task file; an empty list is none.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::{TaskInputs, TaskShot};
    /// # let checkpoint = multiway_model::Checkpoint::open("../checkpoints/default")?;
    /// # let tokenizer = multiway_runtime::Tokenizer::from_checkpoint(&checkpoint)?;
    ///
    /// let file = "---\ndescription: Says the opposite.\ninputs: {word: {type: text}}\n---\n{{ word }} -> ";
    /// let task = multiway_tasks::Task::new(multiway_prompts::TaskFile::parse("opposite.task", file.as_bytes())?);
    /// let shots = vec![TaskShot::new("cold").with("word", "hot"), TaskShot::new("low").with("word", "high")];
    /// let inputs = TaskInputs::new().with("word", "new").with_shots(shots);
    /// let prepared = task.prepare(&tokenizer, &inputs)?;
    /// assert_eq!(prepared.prompt().text(), "hot -> cold\nhigh -> low\nnew -> ");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_shots(mut self, shots: Vec<TaskShot>) -> Self {
        self.shots = Some(shots);
        self
    }

    /// Sets the constraint on the text of the answer.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_runtime::Constraint;
    /// use multiway_tasks::TaskInputs;
    ///
    /// let digits = Constraint::Regex("[0-9]{1,2}".to_owned());
    /// assert!(TaskInputs::new().with_constraint(digits).constraint.is_some());
    /// ```
    #[must_use]
    pub fn with_constraint(mut self, constraint: Constraint) -> Self {
        self.constraint = Some(constraint);
        self
    }
}

/// Assigns the pictures to the picture inputs, and returns all values.
pub(crate) fn bind_pictures(file: &TaskFile, given: &Inputs, pictures: usize) -> Result<Inputs, TaskError> {
    let mut values = given.clone();
    let named = values.values().any(|value| value.kind().is_picture());
    if named {
        check_indices(file, &values, pictures)?;
    }
    let mut left = if named { 0..0 } else { 0..pictures };
    for (name, spec) in file.inputs.iter().filter(|(name, _)| !given.contains_key(*name)) {
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
        found: pictures,
    })
}

/// Counts the pictures that values name from `first` on.
pub(crate) fn numbered_from(first: usize, mut values: Inputs) -> Inputs {
    for value in values.values_mut() {
        match value {
            InputValue::Image(index) => *index += first,
            InputValue::Images(indices) => indices.iter_mut().for_each(|index| *index += first),
            _ => {}
        }
    }
    values
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

/// Describes the number of pictures that a task takes, for messages. With an `images` input it takes any
/// number.
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
