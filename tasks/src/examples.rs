//! Worked examples: compares the expected answers of a task file with those of the engine.

use std::path::Path;

use multiway_model::ProcessedImage;
use multiway_prompts::{Example, ExampleInput, InputValue};
use multiway_runtime::Engine;

use crate::error::TaskError;
use crate::inputs::{RequestTerms, TaskInputs};
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

/// Why the picture of a worked example cannot be used.
type PictureError = Box<dyn std::error::Error + Send + Sync>;

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

    /// Builds the inputs of an example, and reads its pictures.
    fn example_inputs(
        &self,
        number: usize,
        example: &Example,
        open: impl Fn(&Path) -> Result<ProcessedImage, PictureError>,
    ) -> Result<TaskInputs, TaskError> {
        let mut images = Vec::new();
        let mut add = |path: &String| {
            let path = self.folder().unwrap_or(Path::new("")).join(path);
            let origin = || self.origin().to_owned();
            let image = open(&path).map_err(|source| TaskError::ExamplePicture {
                origin: origin(),
                number,
                path,
                source,
            })?;
            images.push(image);
            Ok::<usize, TaskError>(images.len() - 1)
        };
        let mut inputs = TaskInputs::new();
        for (name, input) in &example.inputs {
            let value = match input {
                ExampleInput::Value(value) => value.clone(),
                ExampleInput::Picture(path) => InputValue::Image(add(path)?),
                ExampleInput::Pictures(paths) => {
                    InputValue::Images(paths.iter().map(&mut add).collect::<Result<_, _>>()?)
                }
                _ => continue,
            };
            inputs.values.insert(name.clone(), value);
        }
        inputs.images = images;
        Ok(inputs)
    }
}
