//! A task: a parsed task file that can be run.

use std::path::{Path, PathBuf};

use multiway_model::{ImageProcessor, ModelConfig, ProcessedImage};
use multiway_prompts::{
    CheckedInputs, ChoiceMethod, ChoiceSpec, Choices, ImageFit, InputKind, InputSpec, InputValue, Inputs,
    OutputSpec, Prompt, PromptError, Shot, TaskFile,
};
use multiway_runtime::{Constraint, Engine, RequestError, Tokenizer};

use crate::error::TaskError;
use crate::inputs::{TaskInputs, bind_pictures, numbered_from};
use crate::parse::{Form, PictureView};
use crate::prepared::PreparedTask;
use crate::ranking::{Ranked, Scale};
use crate::reading::Reader;
use crate::run::{Shape, TaskRun};
use crate::sources::BUILTIN;

/// A plain prompt as a task: pictures, then the text.
const PLAIN_PROMPT: &str = "\
---
name: prompt
description: Continues a plain prompt.
inputs:
  images: {type: images, min: 0}
  text: {type: text, default: \"\"}
output: {kind: text}
---
{% for image in images %}{{ image }}{% endfor %}{{ text }}";

/// Holds a task file that can be run on an engine.
#[derive(Debug, Clone)]
pub struct Task {
    file: TaskFile,
    folder: Option<PathBuf>,
}

impl Task {
    /// Creates a task from a parsed task file.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_prompts::TaskFile;
    /// use multiway_tasks::Task;
    ///
    /// let file = "---\nname: echo\ndescription: Repeats.\ninputs: {text: {type: text}}\noutput: {kind: text}\n---\n{{ text }}";
    /// let task = Task::new(TaskFile::parse("echo.task", file.as_bytes())?);
    /// assert_eq!(task.name(), "echo");
    /// # Ok::<(), multiway_prompts::PromptError>(())
    /// ```
    pub fn new(file: TaskFile) -> Self {
        Self { file, folder: None }
    }

    /// Creates the task `prompt`, which continues a plain prompt: pictures, if any, and the text `text`.
    ///
    /// # Errors
    ///
    /// When its file is wrong, which a test excludes.
    ///
    /// # Examples
    ///
    /// ```
    /// let task = multiway_tasks::Task::plain_prompt()?;
    /// assert_eq!(task.plain_input(&[]).map(|(name, _)| name), Some("text"));
    /// # Ok::<(), multiway_prompts::PromptError>(())
    /// ```
    pub fn plain_prompt() -> Result<Self, PromptError> {
        TaskFile::parse("builtin:prompt.task", PLAIN_PROMPT.as_bytes()).map(Self::new)
    }

    /// Creates a task from the task file at `path`, whose examples name pictures relative to its folder.
    pub(crate) fn from_file(file: TaskFile, path: &Path) -> Self {
        Self {
            file,
            folder: Some(path.parent().unwrap_or(Path::new("")).to_owned()),
        }
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// Returns the description, one sentence.
    ///
    /// # Examples
    ///
    /// ```
    /// let library = multiway_tasks::TaskLibrary::builtin()?;
    /// assert!(!library.get("caption")?.description().is_empty());
    /// # Ok::<(), multiway_tasks::TaskError>(())
    /// ```
    pub fn description(&self) -> &str {
        &self.file.description
    }

    /// Returns where the task file comes from: a path, or `builtin:` and a name.
    ///
    /// # Examples
    ///
    /// ```
    /// let library = multiway_tasks::TaskLibrary::builtin()?;
    /// assert_eq!(library.get("caption")?.origin(), "builtin:caption.task");
    /// # Ok::<(), multiway_tasks::TaskError>(())
    /// ```
    pub fn origin(&self) -> &str {
        self.file.origin()
    }

    /// Returns the task file.
    pub fn file(&self) -> &TaskFile {
        &self.file
    }

    /// Returns the folder of the task file, to which the pictures of its examples are relative. Built-in
    /// tasks and tasks made from bytes have none.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Returns whether a model was trained on the task. Where its checkpoint does not say, and for task files
    /// of the caller's own, it is taken to be.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::TaskLibrary;
    ///
    /// let checkpoint = multiway_model::Checkpoint::open("../checkpoints/default")?;
    /// let library = TaskLibrary::for_model(checkpoint.config())?;
    /// assert!(library.get("caption")?.is_trained_in(checkpoint.config()));
    /// assert!(!library.get("detect")?.is_trained_in(checkpoint.config()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_trained_in(&self, config: &ModelConfig) -> bool {
        let trained = config.trained_tasks();
        !self.is_builtin() || trained.is_none_or(|names| names.iter().any(|name| name == self.name()))
    }

    pub(crate) fn is_builtin(&self) -> bool {
        self.origin().starts_with(BUILTIN)
    }

    /// Returns the input that a plain text is for, with its name: of those that are no pictures and not
    /// `given` by other means, the one that is required, or the only one where that is a text.
    ///
    /// # Examples
    ///
    /// ```
    /// let library = multiway_tasks::TaskLibrary::builtin()?;
    /// let input = library.get("vqa")?.plain_input(&[]);
    /// assert_eq!(input.map(|(name, _)| name), Some("question"));
    /// # Ok::<(), multiway_tasks::TaskError>(())
    /// ```
    pub fn plain_input(&self, given: &[&str]) -> Option<(&str, &InputSpec)> {
        let open = || {
            let inputs = self.file.inputs.iter();
            inputs
                .filter(|(name, spec)| !spec.kind.is_picture() && !given.contains(&name.as_str()))
                .map(|(name, spec)| (name.as_str(), spec))
        };
        let mut required = open().filter(|(_, spec)| spec.is_required());
        match (required.next(), required.next()) {
            (Some(input), None) => Some(input),
            (None, _) => {
                let mut all = open();
                match (all.next(), all.next()) {
                    (Some((name, spec)), None) if spec.kind == InputKind::Text => Some((name, spec)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Checks the inputs and renders the prompt for a tokenizer, whose special tokens the template may use.
    ///
    /// It needs no engine, so that wrong inputs are found before weights are loaded.
    ///
    /// # Errors
    ///
    /// When the inputs do not match the task file, the template fails, or the tokenizer lacks a token of the
    /// task's prefix.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::{TaskInputs, TaskLibrary};
    /// # let checkpoint = multiway_model::Checkpoint::open("../checkpoints/default")?;
    /// # let tokenizer = multiway_runtime::Tokenizer::from_checkpoint(&checkpoint)?;
    ///
    /// let library = TaskLibrary::for_model(checkpoint.config())?;
    /// let inputs = TaskInputs::new().with("text", "The ___ sat.");
    /// let prepared = library.get("infill")?.prepare(&tokenizer, &inputs)?;
    /// assert_eq!(prepared.prompt().text(), "The  sat.");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prepare(&self, tokenizer: &Tokenizer, inputs: &TaskInputs) -> Result<PreparedTask, TaskError> {
        for token in &self.file.decode.prefix {
            tokenizer.require_special(token).map_err(RequestError::from)?;
        }
        let (shots, mut images) = self.bound_shots(inputs)?;
        let shot_images = shots.iter().map(pictures_of).collect();
        let values = bind_pictures(&self.file, &inputs.values, inputs.images.len())?;
        let checked = self.file.complete(&numbered_from(images.len(), values))?;
        images.extend(inputs.images.iter().cloned());
        self.check_one_thing(checked.values())?;
        let constraint = self.constraint(inputs, &checked)?;
        let shape = match constraint {
            Some(Constraint::JsonSchema(_)) => Shape::Json,
            _ => self.shape(&checked, &inputs.images)?,
        };
        Ok(PreparedTask {
            name: self.name().to_owned(),
            kind: self.file.output.kind(),
            prompt: self
                .file
                .render_with_shots(&checked, &shots, &tokenizer.special_names())?,
            images,
            shot_images,
            shape,
            prefix: self.file.decode.prefix.clone(),
            task_sampling: self.file.decode.sampling.clone(),
            caller_sampling: inputs.sampling.clone(),
            constraint,
            terms: inputs.terms,
        })
    }

    /// Renders what the model should write, for training and for scoring: from the inputs, and from the
    /// values of the target's fields, for a tokenizer, whose special tokens the target may use.
    ///
    /// # Errors
    ///
    /// When the inputs do not match the task file, a field is missing or unknown, or the template fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_prompts::Inputs;
    /// use multiway_tasks::{TaskInputs, TaskLibrary};
    /// # let checkpoint = multiway_model::Checkpoint::open("../checkpoints/default")?;
    /// # let tokenizer = multiway_runtime::Tokenizer::from_checkpoint(&checkpoint)?;
    ///
    /// let library = TaskLibrary::for_model(checkpoint.config())?;
    /// let inputs = TaskInputs::new().with("text", "The ___ sat.");
    /// let reference = Inputs::from([("target".to_owned(), "cat".into())]);
    /// let target = library.get("infill")?.prepare_target(&tokenizer, &inputs, &reference)?;
    /// assert_eq!(target.text(), "cat");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prepare_target(
        &self,
        tokenizer: &Tokenizer,
        inputs: &TaskInputs,
        reference: &Inputs,
    ) -> Result<Prompt, TaskError> {
        let values = bind_pictures(&self.file, &inputs.values, inputs.images.len())?;
        let special_tokens = tokenizer.special_names();
        Ok(self.file.render_target(&values, reference, &special_tokens)?)
    }

    /// Binds the pictures of the few-shot examples, the caller's or the task file's, and lists them.
    fn bound_shots(&self, inputs: &TaskInputs) -> Result<(Vec<Shot>, Vec<ProcessedImage>), TaskError> {
        let own;
        let given = match &inputs.shots {
            Some(given) => given,
            None => {
                own = self
                    .open_shots(usize::MAX, |_| Err(Box::new(NotOpen)))
                    .map_err(|error| self.not_open(error))?;
                &own
            }
        };
        let is_filled = matches!(self.file.output, OutputSpec::Text { fill: Some(_) });
        if !given.is_empty() && (self.file.output.is_encoded() || is_filled) {
            let (task, kind) = (self.name().to_owned(), self.file.output.kind());
            return Err(TaskError::NoShots { task, kind });
        }
        let mut images = Vec::new();
        let mut shots = Vec::with_capacity(given.len());
        for (index, shot) in given.iter().enumerate() {
            let bound = bind_pictures(&self.file, &shot.values, shot.images.len());
            let bound = bound.map_err(|error| TaskError::Shot {
                number: index + 1,
                source: Box::new(error),
            })?;
            shots.push(Shot {
                inputs: numbered_from(images.len(), bound),
                target: shot.target.clone(),
            });
            images.extend(shot.images.iter().cloned());
        }
        Ok((shots, images))
    }

    /// Says that the pictures of the few-shot examples are not open.
    fn not_open(&self, error: TaskError) -> TaskError {
        match error {
            TaskError::ExamplePicture { .. } => TaskError::ShotsNotOpen {
                task: self.name().to_owned(),
            },
            other => other,
        }
    }

    /// Returns what prepares pictures for a model: as the checkpoint says, unless the task file has settings
    /// for the model's family.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::TaskLibrary;
    ///
    /// let checkpoint = multiway_model::Checkpoint::open("../checkpoints/default")?;
    /// let library = TaskLibrary::for_model(checkpoint.config())?;
    /// let processor = library.get("caption")?.image_processor(checkpoint.config());
    /// assert!(processor.open("../examples/pictures/cat.png").is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn image_processor(&self, config: &ModelConfig) -> ImageProcessor {
        let processor = ImageProcessor::new(config);
        match self.file.preprocessing.get(config.model_type()) {
            Some(settings) => processor.with_crop(settings.fit == ImageFit::Crop),
            None => processor,
        }
    }

    /// Starts the task on an engine. The inputs are checked at once; the request is sent at the first poll of
    /// the run.
    ///
    /// # Errors
    ///
    /// As [`prepare`](Self::prepare), and when several answers are requested from a task that does not
    /// generate text. Errors of the engine are returned by the run.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_runtime::Engine;
    /// use multiway_tasks::{TaskInputs, TaskLibrary};
    /// # let checkpoint = multiway_model::Checkpoint::open("../checkpoints/default")?;
    ///
    /// let engine = Engine::builder(&checkpoint).build()?;
    /// let library = TaskLibrary::for_model(checkpoint.config())?;
    /// let inputs = TaskInputs::new().with("text", "The ___ sat.");
    /// let outcome = library.get("infill")?.run(&engine, &inputs)?.wait_blocking()?;
    /// assert!(outcome.answer.text().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run(&self, engine: &Engine, inputs: &TaskInputs) -> Result<TaskRun, TaskError> {
        self.prepare(engine.tokenizer(), inputs)?.run(engine)
    }

    /// Returns the constraint on the answer: the caller's, else the task file's.
    fn constraint(
        &self,
        inputs: &TaskInputs,
        checked: &CheckedInputs<'_>,
    ) -> Result<Option<Constraint>, TaskError> {
        if inputs.constraint.is_some() && self.file.output != (OutputSpec::Text { fill: None }) {
            return Err(TaskError::FormNotTaken {
                task: self.name().to_owned(),
                kind: self.file.output.kind(),
            });
        }
        let decode = &self.file.decode;
        let own = match &self.file.output {
            OutputSpec::Json { schema } => Some(Constraint::JsonSchema(schema.clone())),
            OutputSpec::Labels(labels) => checked
                .choices()
                .and_then(|closed| labels_pattern(&labels.separator, closed))
                .map(Constraint::Regex),
            OutputSpec::Choice(ChoiceSpec {
                method: ChoiceMethod::Trie,
                ..
            }) => checked
                .choices()
                .map(|choices| Constraint::Choices(choices.to_vec())),
            _ => {
                let regex = decode.regex.clone().map(Constraint::Regex);
                regex.or_else(|| decode.lark.clone().map(Constraint::Lark))
            }
        };
        Ok(inputs.constraint.clone().or(own))
    }

    fn shape(&self, inputs: &CheckedInputs<'_>, images: &[ProcessedImage]) -> Result<Shape, TaskError> {
        let text_of = |name: &String| match inputs.values().get(name) {
            Some(InputValue::Text(text)) => text.clone(),
            _ => String::new(),
        };
        let ranked = |candidates: &[String], ranking, scale| {
            Shape::Ranked(Ranked {
                candidates: candidates.to_vec(),
                ranking,
                scale,
            })
        };
        let located = |form, dialect| {
            let view = self.view(inputs.values(), images)?;
            Ok::<Shape, TaskError>(Shape::Read(Reader::Located { form, dialect, view }))
        };
        if let Some(hidden) = inputs.hidden_patches() {
            return Ok(Shape::Patches(hidden.to_vec()));
        }
        let shape = match &self.file.output {
            OutputSpec::Choice(ChoiceSpec {
                choices: Choices::OfModel,
                ranking,
                ..
            }) => Shape::Class(ranking.calibration),
            OutputSpec::Choice(ChoiceSpec {
                method: ChoiceMethod::Trie,
                ..
            }) => Shape::Trie,
            OutputSpec::Choice(choice) => ranked(
                inputs.choices().unwrap_or_default(),
                choice.ranking,
                Scale::Choice,
            ),
            OutputSpec::Predicate(words) => ranked(
                &[words.yes.clone(), words.no.clone()],
                words.ranking,
                Scale::Predicate,
            ),
            OutputSpec::Level(level) => {
                ranked(&level.levels, level.ranking, Scale::Level(level.values.clone()))
            }
            OutputSpec::Labels(labels) => Shape::Read(Reader::Labels {
                separator: labels.separator.clone(),
                closed: inputs.choices().map(<[String]>::to_vec),
            }),
            OutputSpec::Number(number) => Shape::Read(Reader::Number(number.clone())),
            OutputSpec::Boxes(spec) => located(Form::Box, spec.dialect)?,
            OutputSpec::Points(spec) => located(Form::Point, spec.dialect)?,
            OutputSpec::Polygons(spec) => located(Form::Polygon, spec.dialect)?,
            OutputSpec::Grounded { dialect } => {
                let view = self.view(inputs.values(), images)?;
                Shape::Read(Reader::Grounded {
                    dialect: *dialect,
                    view,
                })
            }
            OutputSpec::Table => Shape::Read(Reader::Table),
            OutputSpec::Score { target_from } => Shape::Score(text_of(target_from)),
            OutputSpec::Embedding => Shape::Embedding,
            OutputSpec::Text { fill: Some(name) } => Shape::Filled(text_of(name)),
            _ => Shape::Text,
        };
        Ok(shape)
    }

    /// Returns what the model sees of the first picture of the inputs.
    fn view(&self, values: &Inputs, images: &[ProcessedImage]) -> Result<PictureView, TaskError> {
        let first = values.values().find_map(|value| match value {
            InputValue::Image(index) => Some(*index),
            InputValue::Images(indices) => indices.first().copied(),
            _ => None,
        });
        let image = first.and_then(|index| images.get(index));
        let image = image.ok_or_else(|| TaskError::NothingGiven {
            task: self.name().to_owned(),
            wanted: "a picture".to_owned(),
        })?;
        Ok(PictureView::of_visible(image.original_size(), image.visible()))
    }

    /// Checks that an embedding task whose inputs are all optional is given exactly one of them.
    fn check_one_thing(&self, values: &Inputs) -> Result<(), TaskError> {
        let inputs = &self.file.inputs;
        if self.file.output != OutputSpec::Embedding
            || inputs.is_empty()
            || !inputs.values().all(may_be_left_out)
        {
            return Ok(());
        }
        let (task, wanted) = (self.name().to_owned(), one_of(inputs.keys()));
        match values.values().filter(|value| !is_empty(value)).count() {
            0 => Err(TaskError::NothingGiven { task, wanted }),
            1 => Ok(()),
            _ => Err(TaskError::TooMuchGiven { task, wanted }),
        }
    }
}

/// Says that a picture is not opened here.
#[derive(Debug, thiserror::Error)]
#[error("it is not open")]
struct NotOpen;

/// Counts the pictures of a shot.
fn pictures_of(shot: &Shot) -> usize {
    let pictures = |value: &InputValue| match value {
        InputValue::Image(_) => 1,
        InputValue::Images(indices) => indices.len(),
        _ => 0,
    };
    shot.inputs.values().map(pictures).sum()
}

fn may_be_left_out(spec: &InputSpec) -> bool {
    spec.kind == InputKind::Images || !spec.is_required()
}

fn is_empty(value: &InputValue) -> bool {
    match value {
        InputValue::Text(text) => text.trim().is_empty(),
        InputValue::List(items) => items.is_empty(),
        InputValue::Images(indices) => indices.is_empty(),
        _ => false,
    }
}

/// Joins names with "or": `image or text`.
fn one_of<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(" or ")
}

/// The most bytes of a pattern of labels; with more, labels are generated freely and checked afterwards.
const MAX_LABELS_PATTERN: usize = 8 * 1024;

/// Writes the regular expression of some of the labels, at most as many as there are.
fn labels_pattern(separator: &str, labels: &[String]) -> Option<String> {
    let escape = |text: &str| {
        let escaped = |c: char| {
            if c.is_ascii_punctuation() {
                format!("\\{c}")
            } else {
                c.to_string()
            }
        };
        text.chars().map(escaped).collect::<String>()
    };
    let any = labels
        .iter()
        .map(|label| escape(label.trim()))
        .collect::<Vec<_>>()
        .join("|");
    let more = labels.len().saturating_sub(1).min(32);
    let pattern = format!(
        "({any})({} ?({any})){{0,{more}}}",
        escape(separator.trim_end_matches(' '))
    );
    (pattern.len() <= MAX_LABELS_PATTERN).then_some(pattern)
}
