//! Worked examples: what a task file says its task answers, and what it does answer.

use std::path::Path;

use multiway_model::ProcessedImage;
use multiway_prompts::{Example, ExampleInput, InputValue};
use multiway_runtime::Engine;

use crate::error::TaskError;
use crate::inputs::{RequestTerms, TaskInputs};
use crate::metrics::exact_match;
use crate::task::Task;

/// Says how one worked example went.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ExampleReport {
    /// The place of the example in the task file, counted from 1.
    pub number: usize,
    /// The answer that the file promises; none for a vector, which only has to come.
    pub expected: Option<String>,
    /// The answer that came; none for a vector.
    pub found: Option<String>,
}

impl ExampleReport {
    /// Tells whether the answer is the promised one, but for case and white space, and for the order of properties where it
    /// is JSON.
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

/// What a worked example gets instead of a picture.
type PictureError = Box<dyn std::error::Error + Send + Sync>;

impl Task {
    /// Runs the worked examples of the task file, one after the other.
    ///
    /// Each request waits on the same `terms`. `open` reads a picture and prepares it for the engine's model; the pictures of
    /// a task file lie beside it.
    ///
    /// # Errors
    ///
    /// When a picture cannot be read, or the task fails. A wrong answer is no error: it is in the report.
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

    /// Reads the pictures of an example and makes inputs of it.
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
