//! Worked examples: compares the expected answers of a task file with those of the engine.

use std::path::Path;

use indexmap::IndexMap;
use multiway_model::ProcessedImage;
use multiway_prompts::{Example, ExampleInput, InputValue, Inputs};
use multiway_runtime::Engine;

use crate::error::TaskError;
use crate::inputs::{RequestTerms, TaskInputs, TaskShot};
use crate::metrics::exact_match;
use crate::task::Task;

/// Reports the result of one worked example.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ExampleReport {
    /// The number of the example in the task file, counted from 1.
    pub number: usize,
    /// The expected answer; `None` for an embedding, which only has to be computed.
    pub expected: Option<String>,
    /// The actual answer; `None` for an embedding.
    pub found: Option<String>,
}

impl ExampleReport {
    /// Returns whether the answer equals the expected one, ignoring case and white space, and the order of
    /// properties in JSON.
    pub fn passed(&self) -> bool {
        match (&self.expected, &self.found) {
            (Some(expected), Some(found)) => exact_match(found, &[expected]) || same_json(found, expected),
            (Some(_), None) => false,
            (None, _) => true,
        }
    }
}

fn same_json(found: &str, expected: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    read(found).is_some_and(|found| read(expected) == Some(found))
}

/// Why the picture of an example cannot be used.
pub type PictureError = Box<dyn std::error::Error + Send + Sync>;

impl Task {
    /// Runs the worked examples of the task file, one after the other.
    ///
    /// `terms` apply to each request. `open` reads a picture and preprocesses it for the engine's model;
    /// paths in a task file are relative to its folder.
    ///
    /// # Errors
    ///
    /// When a picture cannot be read, or the task fails. A wrong answer is reported, not an error.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_model::ImageProcessor;
    /// use multiway_runtime::{Engine, block_on};
    /// use multiway_tasks::{RequestTerms, TaskLibrary};
    /// # let checkpoint = multiway_model::Checkpoint::open("../checkpoints/default")?;
    ///
    /// let engine = Engine::builder(&checkpoint).build()?;
    /// let processor = ImageProcessor::new(checkpoint.config());
    /// let library = TaskLibrary::for_model(checkpoint.config())?;
    ///
    /// let open = |path: &std::path::Path| Ok(processor.open(path)?);
    /// let reports = library.get("infill")?.check_examples(&engine, RequestTerms::default(), open);
    /// assert!(block_on(reports)?.iter().all(|report| report.passed()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn check_examples(
        &self,
        engine: &Engine,
        terms: RequestTerms,
        open: impl Fn(&Path) -> Result<ProcessedImage, PictureError>,
    ) -> Result<Vec<ExampleReport>, TaskError> {
        let mut reports = Vec::with_capacity(self.file().examples.len());
        for (index, example) in self.file().examples.iter().enumerate() {
            let inputs = self.example_inputs(index + 1, example, &open)?.with_terms(terms);
            let outcome = self.run(engine, &inputs)?.wait().await?;
            reports.push(ExampleReport {
                number: index + 1,
                expected: example.output.clone(),
                found: outcome.answer.text().map(str::to_owned),
            });
        }
        Ok(reports)
    }

    /// Opens the first `most` few-shot examples of the task file. `open` reads a picture and preprocesses it
    /// for the engine's model; paths in a task file are relative to its folder.
    ///
    /// Those without pictures need no opening: [`Task::prepare`] shows them by itself.
    ///
    /// # Errors
    ///
    /// When a picture cannot be read.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_prompts::TaskFile;
    /// use multiway_tasks::{Task, TaskInputs};
    ///
    /// let file = "---\ndescription: Says the opposite.\ninputs: {word: {type: text}}\nfew_shot:\n  \
    ///     - {inputs: {word: hot}, target: cold}\n---\n{{ word }} -> ";
    /// let task = Task::new(TaskFile::parse("opposite.task", file.as_bytes())?);
    /// let shots = task.open_shots(1, |_| unreachable!("there are no pictures"))?;
    /// assert_eq!(TaskInputs::new().with_shots(shots).shots.map(|shots| shots.len()), Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_shots(
        &self,
        most: usize,
        open: impl Fn(&Path) -> Result<ProcessedImage, PictureError>,
    ) -> Result<Vec<TaskShot>, TaskError> {
        let shots = self.file().few_shot.iter().take(most).enumerate();
        shots
            .map(|(index, shot)| {
                let number = index + 1;
                let (values, images) = self.opened(&format!("shot {number}"), &shot.inputs, &open)?;
                Ok(TaskShot {
                    values,
                    images,
                    target: shot.target.clone(),
                })
            })
            .collect()
    }

    /// Builds the inputs of a worked example, and reads its pictures and those of the few-shot examples.
    ///
    /// # Errors
    ///
    /// When a picture cannot be read.
    pub fn example_inputs(
        &self,
        number: usize,
        example: &Example,
        open: impl Fn(&Path) -> Result<ProcessedImage, PictureError>,
    ) -> Result<TaskInputs, TaskError> {
        let shots = self.open_shots(usize::MAX, &open)?;
        let (values, images) = self.opened(&format!("example {number}"), &example.inputs, open)?;
        let mut inputs = TaskInputs::new().with_shots(shots);
        (inputs.values, inputs.images) = (values, images);
        Ok(inputs)
    }

    /// Reads the pictures of an example, and gives its values.
    fn opened(
        &self,
        example: &str,
        given: &IndexMap<String, ExampleInput>,
        open: impl Fn(&Path) -> Result<ProcessedImage, PictureError>,
    ) -> Result<(Inputs, Vec<ProcessedImage>), TaskError> {
        let mut images = Vec::new();
        let mut add = |path: &String| {
            let path = self.folder().unwrap_or(Path::new("")).join(path);
            let image = open(&path).map_err(|source| TaskError::ExamplePicture {
                origin: self.origin().to_owned(),
                example: example.to_owned(),
                path,
                source,
            })?;
            images.push(image);
            Ok::<usize, TaskError>(images.len() - 1)
        };
        let mut values = Inputs::new();
        for (name, input) in given {
            let value = match input {
                ExampleInput::Value(value) => value.clone(),
                ExampleInput::Picture(path) => InputValue::Image(add(path)?),
                ExampleInput::Pictures(paths) => {
                    InputValue::Images(paths.iter().map(&mut add).collect::<Result<_, _>>()?)
                }
                _ => continue,
            };
            values.insert(name.clone(), value);
        }
        Ok((values, images))
    }
}
