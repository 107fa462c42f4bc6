//! Asks the engine through the built-in tasks, several questions at a time.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use multiway_model::{ImageProcessor, ProcessedImage};
use multiway_prompts::InputValue;
use multiway_runtime::Engine;
use multiway_tasks::{Answer, TaskInputs, TaskLibrary};

use super::EvaluateError;
use crate::data::{PICTURE_SIDE, PreparedData};

pub(super) struct Asker<'a> {
    pub(super) engine: Engine,
    pub(super) tasks: TaskLibrary,
    pub(super) processor: ImageProcessor,
    pub(super) concurrency: usize,
    pub(super) progress: &'a (dyn Fn(&'static str, usize, usize) + Sync),
}

impl Asker<'_> {
    pub(super) fn ask(&self, task: &str, inputs: TaskInputs) -> Result<Answer, EvaluateError> {
        let outcome = self.tasks.get(task)?.run(&self.engine, &inputs)?;
        Ok(outcome.wait_blocking()?.answer)
    }

    /// Returns the text of an answer.
    pub(super) fn text(&self, task: &str, inputs: TaskInputs) -> Result<String, EvaluateError> {
        let answer = self.ask(task, inputs)?;
        Ok(answer.text().unwrap_or_default().trim().to_owned())
    }

    /// Ranks names by how probable they are as the picture's caption, the most probable first.
    pub(super) fn rank(
        &self,
        picture: ProcessedImage,
        names: &[String],
        language: &str,
    ) -> Result<Vec<String>, EvaluateError> {
        let inputs = TaskInputs::new()
            .with_image(picture)
            .with("choices", InputValue::List(names.to_vec()))
            .with("language", language);
        let answer = self.ask("classify", inputs)?;
        Ok(answer
            .choices()
            .iter()
            .map(|choice| choice.text.clone())
            .collect())
    }

    pub(super) fn embed(&self, inputs: TaskInputs) -> Result<Vec<f32>, EvaluateError> {
        let answer = self.ask("retrieve", inputs)?;
        Ok(answer.embedding().unwrap_or_default().to_vec())
    }

    /// Processes a file as a user's picture is.
    pub(super) fn open(&self, path: &Path) -> Result<ProcessedImage, EvaluateError> {
        self.processor
            .open(path)
            .map_err(|source| EvaluateError::Picture {
                path: path.to_owned(),
                source,
            })
    }

    /// Processes a prepared picture, on white.
    pub(super) fn prepared(
        &self,
        data: &PreparedData,
        picture: usize,
    ) -> Result<ProcessedImage, EvaluateError> {
        let rgba = data.rgba(picture).unwrap_or_default();
        let (pixels, _) = rgba.as_chunks::<4>();
        let rgb: Vec<u8> = pixels.iter().flat_map(|pixel| on_white(*pixel)).collect();
        self.rgb(PICTURE_SIDE, &rgb)
    }

    /// Processes a square of RGB bytes.
    pub(super) fn rgb(&self, side: usize, rgb: &[u8]) -> Result<ProcessedImage, EvaluateError> {
        let side = u32::try_from(side).unwrap_or(0);
        let processed = self.processor.process_rgb8(side, side, rgb);
        processed.map_err(|source| EvaluateError::Picture {
            path: "a picture in memory".into(),
            source,
        })
    }

    /// Answers each item, several at a time; the answers come in the order of the items.
    pub(super) fn each<T: Sync, R: Send>(
        &self,
        what: &'static str,
        items: &[T],
        answer: impl Fn(&T) -> Result<R, EvaluateError> + Sync,
    ) -> Result<Vec<R>, EvaluateError> {
        let done = AtomicUsize::new(0);
        let share = items.len().div_ceil(self.concurrency).max(1);
        let work = |chunk: &[T]| {
            let one = |item: &T| {
                let result = answer(item);
                (self.progress)(what, done.fetch_add(1, Ordering::Relaxed) + 1, items.len());
                result
            };
            chunk.iter().map(one).collect::<Result<Vec<R>, _>>()
        };
        let parts: Vec<Result<Vec<R>, EvaluateError>> = std::thread::scope(|scope| {
            let work = &work;
            let handles: Vec<_> = items
                .chunks(share)
                .map(|chunk| scope.spawn(move || work(chunk)))
                .collect();
            handles
                .into_iter()
                .map(|handle| {
                    handle
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        });
        let mut all = Vec::with_capacity(items.len());
        for part in parts {
            all.extend(part?);
        }
        Ok(all)
    }
}

/// Composes a pixel of straight alpha on white.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 255"
)]
fn on_white([red, green, blue, alpha]: [u8; 4]) -> [u8; 3] {
    let opacity = f32::from(alpha) / 255.0;
    [red, green, blue].map(|value| (255.0 + (f32::from(value) - 255.0) * opacity).round() as u8)
}

/// The cosine of two vectors of unit length.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
